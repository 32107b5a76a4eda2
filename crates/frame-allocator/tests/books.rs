//! The boot of a machine with 8 GiB whose boot page tables map the first one: books that lie below the limit split the
//! range that they are for.
#![cfg(all(feature = "tree", feature = "bitmap"))]

use std::{alloc::Layout, mem::MaybeUninit};

use frame_allocator::{
    Bitmap, EarlyAllocator, EarlyMemory, FrameAllocator, FrameRange, MemoryMap, PhysAddr, RegionError, Tree,
};

const MAPPED: PhysAddr = PhysAddr::from_usize(1 << 30);

fn map() -> MemoryMap<8> {
    let mut map = MemoryMap::new();
    map.add_usable(0, 0x9_fc00).unwrap();
    map.add_usable(0x10_0000, (8 << 30) - 0x10_0000).unwrap();
    map.add_reserved(0x10_0000, 0x40_0000).unwrap(); // the kernel
    map
}

/// Memory of this process in the role of the piece.
fn host(piece: FrameRange) -> &'static mut [MaybeUninit<u8>] {
    let memory = Vec::leak(vec![MaybeUninit::uninit(); piece.size() + 4096]);
    let skip = memory.as_ptr().align_offset(4096);
    &mut memory[skip..skip + piece.size()]
}

/// Starts an allocator; it must have every frame that is left.
fn start(
    books_of: fn(FrameRange) -> Layout,
    mut add_region: impl FnMut(FrameRange, &'static mut [MaybeUninit<u8>]) -> Result<(), RegionError>,
) -> usize {
    let mut map = map();
    assert_eq!(map.frames().count(), 2);
    let piece = EarlyAllocator::new(&mut map).alloc_books(books_of, MAPPED).unwrap();
    assert_eq!(piece.end(), MAPPED);
    assert_eq!(map.frames().count(), 3, "the large range is two now");
    let mut books = EarlyMemory::new(host(piece));
    for region in map.frames() {
        add_region(region, books.take(books_of(region)).expect("books for each")).unwrap();
    }
    map.frame_count()
}

#[test]
fn the_tree_gets_all_of_it() {
    static FRAMES: Tree = Tree::new();
    // SAFETY: nothing touches the frames.
    let frames = start(<Tree>::metadata_layout, |region, books| unsafe { FRAMES.add_region(region, books) });
    assert_eq!((FRAMES.stats().total_frames, FRAMES.stats().free_frames), (frames, frames));
}

#[test]
fn the_bitmap_gets_all_of_it() {
    static FRAMES: Bitmap = Bitmap::new();
    // SAFETY: as above.
    let frames =
        start(<Bitmap>::metadata_layout, |region, books| unsafe { FRAMES.add_region(region, books) });
    assert_eq!(FRAMES.stats().free_frames, frames);
}

/// Why there is `alloc_books`: one piece for each range that there was leaves a range without.
#[test]
fn books_planned_over_the_ranges_before_are_one_too_few() {
    let mut map = map();
    let before: Vec<FrameRange> = map.frames().collect();
    for &range in &before {
        EarlyAllocator::new(&mut map).alloc(<Tree>::metadata_layout(range), MAPPED).unwrap();
    }
    assert_eq!(map.frames().count(), before.len() + 1);
}
