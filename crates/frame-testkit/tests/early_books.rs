//! Books for the regions of a map, taken out of the map: whatever the taking does to the regions, each gets its books.

use std::{alloc::Layout, mem::MaybeUninit};

use frame_core::{
    EarlyAllocator, EarlyError, EarlyMemory, FRAME_SIZE, FrameRange, MapError, MemoryMap, PhysAddr,
};
use frame_testkit::{FrameSet, Rng, random_map};

/// Asks much, oddly, and more of a part than of the whole.
fn odd_books(region: FrameRange) -> Layout {
    let mut rng = Rng::new(region.start().as_usize() as u64 ^ region.count() as u64);
    Layout::from_size_align(1 + region.count() / 3 + rng.below(10_000), 1 << rng.below(14)).unwrap()
}

/// Memory on the host, aligned as a piece that starts at this address.
fn host(size: usize, align: usize) -> &'static mut [MaybeUninit<u8>] {
    let memory = Vec::leak(vec![MaybeUninit::uninit(); size + align]);
    let skip = memory.as_ptr().align_offset(align);
    &mut memory[skip..skip + size]
}

#[test]
fn every_region_that_is_left_gets_its_books() {
    let mut split = 0;
    for seed in 0..300 {
        let mut map = random_map(seed, 4000);
        let before: FrameSet = map.frames().collect();
        let ranges = map.frames().count();
        let highest = map.frames().last().unwrap().end().as_usize();
        let below = PhysAddr::from(Rng::new(seed).below(highest + FRAME_SIZE));
        match EarlyAllocator::new(&mut map).alloc_books(odd_books, below) {
            Ok(piece) => {
                assert!(piece.end() <= below && before.contains_range(piece), "seed {seed}: {piece}");
                let mut left = before;
                left.remove(piece).unwrap();
                assert_eq!(map.frames().collect::<FrameSet>(), left, "seed {seed}");
                split += usize::from(map.frames().count() > ranges);
                let align = map.frames().map(|region| odd_books(region).align()).max().unwrap_or(1);
                assert!(align <= FRAME_SIZE || piece.start().as_usize() % align == 0, "seed {seed}");
                let mut memory = EarlyMemory::new(host(piece.size(), align.max(FRAME_SIZE)));
                for region in map.frames() {
                    let layout = odd_books(region);
                    let books =
                        memory.take(layout).unwrap_or_else(|| panic!("seed {seed}: none for {region}"));
                    assert_eq!((books.len(), books.as_ptr().addr() % layout.align()), (layout.size(), 0));
                }
            }
            Err(error) => {
                assert!(matches!(error, EarlyError::NoMemory { .. }), "seed {seed}: {error}");
                assert_eq!(map.frames().collect::<FrameSet>(), before, "seed {seed}");
            }
        }
    }
    assert!(split > 20, "only {split} maps had a range split: nothing was tested");
}

#[test]
fn what_cannot_be_is_an_error_and_changes_nothing() {
    let mut map = MemoryMap::<1>::new();
    let byte = |_: FrameRange| Layout::new::<u8>();
    let mapped = PhysAddr::from(0x8000);
    assert!(EarlyAllocator::new(&mut map).alloc_books(byte, mapped).is_err(), "no memory at all");
    map.add_usable(0x1000, 0x1_0000).unwrap();
    let too_much = |_: FrameRange| Layout::from_size_align(isize::MAX as usize, 1).unwrap();
    let too_many = |region: FrameRange| Layout::from_size_align(2 * region.size(), 1).unwrap();
    assert!(EarlyAllocator::new(&mut map).alloc_books(too_much, mapped).is_err());
    assert!(EarlyAllocator::new(&mut map).alloc_books(too_many, mapped).is_err());
    assert_eq!(map.frame_count(), 0x10);
    map.add_reserved(0x3000, 1).unwrap();
    let full = EarlyAllocator::new(&mut map).alloc_books(byte, mapped);
    assert_eq!(full, Err(EarlyError::Map(MapError::TooManyEntries { limit: 1 })));
    assert_eq!(map.frame_count(), 0xf);
    // Where what is taken is all there is, no region needs books.
    let mut map = MemoryMap::<1>::new();
    map.add_usable(0x1000, 0x1000).unwrap();
    EarlyAllocator::new(&mut map).alloc_books(byte, mapped).unwrap();
    assert_eq!(map.frame_count(), 0);
}

#[test]
fn early_memory_gives_what_fits_and_loses_nothing_otherwise() {
    let layout = |size, align| Layout::from_size_align(size, align).unwrap();
    let mut memory = EarlyMemory::new(host(100, 4096));
    assert_eq!(memory.take(layout(3, 1)).unwrap().len(), 3);
    for bad in [layout(98, 1), layout(93, 8), layout(1, 128), layout(1, 1 << 62), layout(1 << 62, 1)] {
        assert!(memory.take(bad).is_none(), "{bad:?}");
    }
    assert_eq!(memory.take(layout(92, 8)).unwrap().len(), 92);
    assert_eq!(memory.take(layout(0, 1)).unwrap().len(), 0);
    assert!(memory.take(layout(1, 1)).is_none());
}
