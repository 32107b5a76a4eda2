//! What users of the package ran into, and of other frame allocators: none of it may reach ours.
//!
//! Where it is the package's own fault, the test shows the fault on the package first.

use std::{mem::MaybeUninit, panic, thread};

use bitmap_allocator::{BitAlloc, BitAlloc4K, BitAlloc256M};
use frame_bitmap::Bitmap;
use frame_core::{
    AllocError, DeallocError, DeallocErrorKind, FRAME_SIZE, FrameAllocator, FrameLayout, FrameRange,
    FreeRuns, HeapFree, PhysAddr, RegionError,
};

fn at(frame: usize) -> PhysAddr {
    PhysAddr::from(frame * FRAME_SIZE)
}

fn range(start: usize, count: usize) -> FrameRange {
    FrameRange::new(at(start), count).unwrap()
}

fn layout(count: usize, align: usize) -> FrameLayout {
    FrameLayout::new(count, align * FRAME_SIZE).unwrap()
}

fn metadata(start: usize, count: usize) -> &'static mut [MaybeUninit<u8>] {
    vec![MaybeUninit::new(0xff); <Bitmap>::metadata_layout(range(start, count)).size()].leak()
}

fn bitmap(regions: &[(usize, usize)]) -> Bitmap<'static> {
    let bitmap = Bitmap::new();
    for &(start, count) in regions {
        add(&bitmap, start, count).unwrap();
    }
    bitmap
}

fn add(bitmap: &Bitmap<'static>, start: usize, count: usize) -> Result<(), RegionError> {
    // SAFETY: the frames are numbers; nothing touches memory there.
    unsafe { bitmap.add_region(range(start, count), metadata(start, count)) }
}

fn free(bitmap: &Bitmap<'_>, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
    // SAFETY: owned, or to be refused; nothing is behind the frames.
    unsafe { bitmap.dealloc(start, layout) }
}

#[test]
fn a_bad_free_of_a_run_frees_nothing() {
    let mut package = BitAlloc4K::default();
    package.insert(0..1024);
    package.remove(0..600);
    assert!(!package.dealloc_contiguous(500, 300));
    assert!(package.test(500), "the package says no and has freed a part: its fault");

    let bitmap = bitmap(&[(512, 8192)]);
    let run = bitmap.alloc(layout(600, 512)).unwrap();
    let refused = DeallocError::new(run + 600 * FRAME_SIZE, DeallocErrorKind::NotAllocated);
    for start in [0, 100, 511, 512, 599] {
        assert_eq!(free(&bitmap, run + start * FRAME_SIZE, layout(5000, 1)), Err(refused));
    }
    assert_eq!(bitmap.stats().used_frames(), 600);
    assert_eq!(bitmap.alloc(layout(1, 1)), Ok(run + 600 * FRAME_SIZE));
    bitmap.alloc(layout(8192 - 601, 1)).unwrap();
    let end = DeallocError::new(at(512 + 8192), DeallocErrorKind::NotManaged);
    assert_eq!(free(&bitmap, run, layout(8193, 1)), Err(end));
    assert_eq!(bitmap.stats().free_frames, 0);
    let odd = DeallocError::new(at(513), DeallocErrorKind::Misaligned);
    assert_eq!(free(&bitmap, at(513), layout(2, 2)), Err(odd));
    assert_eq!(
        free(&bitmap, at(511), layout(1, 1)),
        Err(DeallocError::new(at(511), DeallocErrorKind::NotManaged))
    );
    free(&bitmap, at(512), layout(8192, 1)).unwrap();
}

#[test]
fn a_run_of_two_mib_does_not_walk_bits() {
    // The package walks 2 MiB bit by bit, and everything below it. Here the walk would be over 64 GiB of
    // single used frames: if it was one, this test would take minutes.
    let chunks = 1 << 12;
    let bitmap = bitmap(&[(4096, chunks * 4096)]);
    for block in 0..chunks * 8 {
        bitmap.alloc_at(range(4096 + block * 512 + block % 512, 1)).unwrap();
    }
    assert_eq!(bitmap.alloc(FrameLayout::HUGE_2M), Err(AllocError::NoMemory));
    assert_eq!(bitmap.alloc(layout(1 << 18, 1)), Err(AllocError::NoMemory));
    let last = chunks * 8 - 1;
    free(&bitmap, at(4096 + last * 512 + last % 512), layout(1, 1)).unwrap();
    for _ in 0..10_000 {
        let huge = bitmap.alloc(FrameLayout::HUGE_2M).unwrap();
        assert_eq!(huge, at(4096 + last * 512));
        free(&bitmap, huge, FrameLayout::HUGE_2M).unwrap();
    }
    assert_eq!(FreeRuns::of(&bitmap).huge_2m(), 1);
}

#[test]
fn nothing_large_is_on_the_stack() {
    // A package bitmap for 1 TiB is 34 MiB: by value it overflows any stack. Ours lies in the metadata.
    assert!(size_of::<BitAlloc256M>() > 30 << 20);
    let small_stack = thread::Builder::new().stack_size(32 << 10);
    let work = || {
        let tib = 1 << 28;
        let bitmap = Box::new(bitmap(&[(1, tib + 12_345)]));
        assert_eq!(bitmap.alloc_frame(), Ok(at(1)));
        assert_eq!(bitmap.alloc(layout(1 << 27, 1 << 18)), Ok(at(1 << 18)));
        bitmap.alloc_at(range(tib + 5, 12_000)).unwrap();
        free(&bitmap, at(tib + 6), layout(3, 1)).unwrap();
    };
    small_stack.spawn(work).unwrap().join().unwrap();
}

#[test]
fn empty_ranges_never_reach_the_package() {
    if cfg!(debug_assertions) {
        let fault = panic::catch_unwind(|| BitAlloc4K::default().insert(0..0));
        assert!(fault.is_err(), "the package subtracts 1 from 0: its fault");
    }
    // Regions that end and begin at the edges of chunks, and runs that do.
    let bitmap = bitmap(&[(4096, 4096), (12_288, 1), (16_383, 1), (20_480, 8192)]);
    for count in [4096, 1, 4095, 8192] {
        let run = bitmap.alloc(layout(count, 1)).unwrap();
        free(&bitmap, run, layout(count, 1)).unwrap();
    }
    assert_eq!(bitmap.stats().used_frames(), 0);
    assert_eq!(FreeRuns::of(&bitmap).longest(), 8192);
}

#[test]
fn capacity_is_what_there_is() {
    // Not a power of 16, and not one number for all.
    for count in [1, 15, 257, 4095, 4097, 70_001] {
        let bitmap = bitmap(&[(7, count)]);
        assert_eq!(bitmap.alloc(layout(count, 1)), Ok(at(7)));
        assert_eq!(bitmap.alloc_frame(), Err(AllocError::NoMemory));
    }
}

#[test]
fn a_double_free_is_refused() {
    let bitmap = bitmap(&[(5, 10)]);
    let frame = bitmap.alloc_frame().unwrap();
    free(&bitmap, frame, FrameLayout::SINGLE).unwrap();
    let refused = DeallocError::new(frame, DeallocErrorKind::NotAllocated);
    assert_eq!(free(&bitmap, frame, FrameLayout::SINGLE), Err(refused));
    assert_eq!(bitmap.stats().free_frames, 10);
    // Frames of the same chunk that lie outside the region.
    for outside in [4, 15, 4095] {
        let foreign = DeallocError::new(at(outside), DeallocErrorKind::NotManaged);
        assert_eq!(free(&bitmap, at(outside), FrameLayout::SINGLE), Err(foreign));
    }
}

#[test]
fn bad_regions_change_nothing() {
    let bitmap = Bitmap::<spin::Mutex<()>, 2>::new();
    // SAFETY: the frames are numbers; nothing touches memory there.
    let add = |start, count, bytes| unsafe { bitmap.add_region(range(start, count), bytes) };
    assert_eq!(add(0, 10, metadata(0, 10)), Err(RegionError::FrameZero));
    add(100, 50, metadata(100, 50)).unwrap();
    for (start, count) in [(100, 50), (99, 2), (149, 1), (110, 3), (1, 500), (149, 100)] {
        let overlap = RegionError::Overlap { region: range(start, count), managed: range(100, 50) };
        assert_eq!(add(start, count, metadata(start, count)), Err(overlap));
    }
    let needed = metadata(200, 9000).len();
    let short = &mut metadata(200, 9000)[1..];
    let too_small = RegionError::MetadataTooSmall { needed, given: needed - 1 };
    assert_eq!(add(200, 9000, short), Err(too_small));
    let odd = &mut vec![MaybeUninit::new(0_u8); needed + 4].leak()[4..];
    assert_eq!(add(200, 9000, odd), Err(RegionError::MetadataMisaligned { align: 8 }));
    assert_eq!(bitmap.stats().total_frames, 50);
    add(99, 1, metadata(99, 1)).unwrap();
    let full = RegionError::TooManyRegions { limit: 2 };
    assert_eq!(add(200, 9000, metadata(200, 9000)), Err(full));
    assert_eq!(bitmap.alloc(layout(51, 1)), Ok(at(99)));
}

#[test]
fn exhaustion_to_the_last_frame_and_the_largest_run_again() {
    let bitmap = bitmap(&[(1, 158), (256, 30_000), (1 << 20, 2_345)]);
    let total = 158 + 30_000 + 2_345;
    for count in [1, 3, 7, 1000] {
        let mut got = Vec::new();
        while let Ok(start) = bitmap.alloc(layout(count, 1)) {
            got.push((start, count));
        }
        while let Ok(start) = bitmap.alloc_frame() {
            got.push((start, 1));
        }
        let mut frames: Vec<_> =
            got.iter().flat_map(|&(start, count)| (0..count).map(move |i| start + i * FRAME_SIZE)).collect();
        frames.sort();
        frames.dedup();
        assert_eq!(frames.len(), total);
        assert_eq!(bitmap.stats().free_frames, 0);
        assert_eq!(bitmap.alloc(layout(2, 1)), Err(AllocError::NoMemory));
        for (start, count) in got.into_iter().rev() {
            free(&bitmap, start, layout(count, 1)).unwrap();
        }
        assert_eq!(bitmap.alloc(layout(30_000, 1)), Ok(at(256)));
        free(&bitmap, at(256), layout(30_000, 1)).unwrap();
    }
}

#[test]
fn alignments_beyond_a_gibibyte_and_counts_beyond_memory() {
    let gib = 1 << 18;
    let bitmap = bitmap(&[(8 * gib - 5, 10), (100 * gib, 3 * gib)]);
    assert_eq!(bitmap.alloc(layout(1, 8 * gib)), Ok(at(8 * gib)));
    assert_eq!(bitmap.alloc(layout(1, 8 * gib)), Err(AllocError::NoMemory));
    assert_eq!(bitmap.alloc(layout(3 * gib, gib)), Ok(at(100 * gib)));
    assert_eq!(bitmap.alloc(layout(usize::MAX >> 13, 1)), Err(AllocError::NoMemory));
    assert_eq!(bitmap.alloc(layout(1, 1 << 51)), Err(AllocError::NoMemory));
    let top = PhysAddr::from(usize::MAX - FRAME_SIZE + 1);
    assert_eq!(free(&bitmap, top, layout(usize::MAX >> 13, 1)).unwrap_err().frame, top);
    assert_eq!(bitmap.alloc_at(range(usize::MAX / FRAME_SIZE - 1, 1)), Err(AllocError::NotManaged));
}

#[test]
fn the_highest_frames_of_the_address_space_can_be_managed() {
    let last = usize::MAX / FRAME_SIZE - 1;
    let bitmap = bitmap(&[(last - 5000, 5001)]);
    assert_eq!(bitmap.alloc(layout(5001, 1)), Ok(at(last - 5000)));
    free(&bitmap, at(last), layout(1, 1)).unwrap();
    let beyond = DeallocError::new(at(last + 1), DeallocErrorKind::NotManaged);
    assert_eq!(free(&bitmap, at(last + 1), layout(1 << 40, 1)), Err(beyond));
    assert_eq!(bitmap.alloc_frame(), Ok(at(last)));
}

#[test]
fn windows_hold_the_whole_run() {
    let bitmap = bitmap(&[(1, 158), (256, 8000)]);
    let dma = range(0, 4096); // below 16 MiB
    assert_eq!(bitmap.alloc_in(layout(100, 16), dma), Ok(at(16)));
    assert_eq!(bitmap.alloc_in(layout(3840, 1), dma), Ok(at(256)));
    assert_eq!(bitmap.alloc_in(layout(44, 1), dma), Err(AllocError::NoMemory));
    assert_eq!(bitmap.alloc_in(layout(1, 64), dma), Ok(at(128)));
    assert_eq!(bitmap.alloc_in(layout(1, 64), dma), Err(AllocError::NoMemory));
    assert_eq!(bitmap.alloc_in(layout(1, 1), range(5000, 1)), Ok(at(5000)));
    assert_eq!(bitmap.alloc_in(layout(1, 1), range(5000, 1)), Err(AllocError::NoMemory));
}

#[test]
fn a_run_over_seams_that_divide_rows_blocks_and_chunks() {
    let seams = [(3000, 100), (3100, 996), (4096, 1), (4097, 5000), (9097, 3191), (12_288, 2000)];
    let bitmap = bitmap(&seams);
    let total = 12_288 + 2000 - 3000;
    assert_eq!(bitmap.alloc(layout(total, 1)), Ok(at(3000)));
    free(&bitmap, at(3000), layout(total, 1)).unwrap();
    // 8704 and 9216 are the edges of the block that a seam divides.
    bitmap.alloc_at(range(3000, 8704 - 3000)).unwrap();
    bitmap.alloc_at(range(9216, total + 3000 - 9216)).unwrap();
    // Something used on either side of a seam.
    for used in [8999, 9150] {
        bitmap.alloc_at(range(used, 1)).unwrap();
        assert_eq!(bitmap.alloc_at(range(8990, 200)), Err(AllocError::InUse));
        assert_eq!(bitmap.alloc(FrameLayout::HUGE_2M), Err(AllocError::NoMemory));
        free(&bitmap, at(used), layout(1, 1)).unwrap();
    }
    assert_eq!(bitmap.alloc(FrameLayout::HUGE_2M), Ok(at(8704)));
    assert_eq!(bitmap.alloc_frame(), Err(AllocError::NoMemory));
}

#[test]
fn start_does_not_grow_with_memory() {
    const MARK: u8 = 0xa5;
    let tib = range(1, 1 << 28);
    let mut bytes = vec![MaybeUninit::new(MARK); <Bitmap>::metadata_layout(tib).size()];
    {
        let bitmap = <Bitmap<'_>>::new();
        // SAFETY: the frames are numbers; nothing touches memory there.
        unsafe { bitmap.add_region(tib, &mut bytes) }.unwrap();
        assert_eq!(bitmap.stats().free_frames, 1 << 28);
    }
    // SAFETY: every byte was initialised above, and what was written over it since has no padding.
    let written = bytes.iter().filter(|byte| unsafe { byte.assume_init() } != MARK).count();
    assert!(bytes.len() > 39 << 20 && written < 160 << 10, "{written} of {} bytes written", bytes.len());
}

#[test]
fn metadata_is_counted_exactly() {
    fn heap_free(_: &impl HeapFree) {}
    let bitmap = Bitmap::new();
    heap_free(&bitmap);
    let in_place = bitmap.stats().metadata_bytes;
    assert!(in_place <= size_of::<Bitmap>());
    let mut given = 0;
    for (start, count) in [(1, 1), (4000, 200), (1 << 24, 1 << 18)] {
        add(&bitmap, start, count).unwrap();
        given += <Bitmap>::metadata_layout(range(start, count)).size();
        assert_eq!(bitmap.stats().metadata_bytes, in_place + given);
    }
    // As the documentation says.
    let gib = <Bitmap>::metadata_layout(range(1 << 18, 1 << 18));
    assert_eq!((gib.size(), gib.align()), (64 * 637 + 80, 8));
}

#[test]
fn churn_leaves_huge_frames_whole() {
    // 128 MiB, half of it in use; 16 times as many frames freed at random and taken again.
    let bitmap = bitmap(&[(1 << 15, 1 << 15)]);
    let mut owned: Vec<_> = (0..1 << 14).map(|_| bitmap.alloc_frame().unwrap()).collect();
    let mut seed = 3_usize;
    for _ in 0..16 << 15 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = (seed >> 40) % owned.len();
        // SAFETY: the frame is owned and nothing is behind it.
        unsafe { bitmap.dealloc_frame(owned[at]) }.unwrap();
        owned[at] = bitmap.alloc_frame().unwrap();
    }
    assert_eq!(FreeRuns::of(&bitmap).huge_2m(), 32, "all that there can be");
}
