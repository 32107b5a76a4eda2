//! What users of the package ran into, and of other frame allocators: none of it may reach ours.
//!
//! Where it is the package's own fault, the test shows the fault on the package first.

use buddy_system_allocator::FrameAllocator as Package;
use frame_buddy::Buddy;
use frame_core::{
    AllocError, DeallocError, DeallocErrorKind, FRAME_SIZE, FrameAllocator, FrameLayout, FrameRange,
    FreeRuns, PhysAddr, RegionError,
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

fn buddy(regions: &[(usize, usize)]) -> Buddy {
    let buddy = Buddy::new();
    for &(start, count) in regions {
        add(&buddy, start, count).unwrap();
    }
    buddy
}

fn add(buddy: &Buddy, start: usize, count: usize) -> Result<(), RegionError> {
    // SAFETY: the frames are numbers; nothing touches memory there.
    unsafe { buddy.add_region(range(start, count)) }
}

fn free(buddy: &Buddy, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
    // SAFETY: owned, or to be refused; nothing is behind the frames.
    unsafe { buddy.dealloc(start, layout) }
}

#[test]
fn a_double_free_is_refused_and_no_frame_is_handed_out_twice() {
    let mut package = Package::<33>::new();
    package.add_frame(1, 3);
    let (frame, _other) = (package.alloc(1).unwrap(), package.alloc(1).unwrap());
    package.dealloc(frame, 1);
    package.alloc(1).unwrap();
    package.dealloc(frame, 1);
    package.add_frame(8, 9); // keeps the package's count from going below zero
    assert_eq!(package.alloc(1), Some(frame), "the package hands the frame out again: its fault");

    let buddy = buddy(&[(1, 2)]);
    let frame = buddy.alloc_frame().unwrap();
    buddy.alloc_frame().unwrap();
    free(&buddy, frame, FrameLayout::SINGLE).unwrap();
    let refused = DeallocError::new(frame, DeallocErrorKind::NotAllocated);
    assert_eq!(free(&buddy, frame, FrameLayout::SINGLE), Err(refused));
    assert_eq!(buddy.alloc_frame(), Ok(frame));
    assert_eq!(buddy.alloc_frame(), Err(AllocError::NoMemory));
}

#[test]
fn overlapping_regions_are_refused() {
    let mut package = Package::<33>::new();
    package.add_frame(4, 6);
    package.add_frame(5, 6);
    let got: Vec<_> = std::iter::from_fn(|| package.alloc(1)).collect();
    assert_eq!(got, [5, 4, 5], "the package hands frame 5 out twice: its fault");

    let buddy = buddy(&[(100, 50)]);
    for (start, count) in [(100, 50), (99, 2), (149, 1), (110, 3), (1, 500), (149, 100)] {
        let overlap = RegionError::Overlap { region: range(start, count), managed: range(100, 50) };
        assert_eq!(add(&buddy, start, count), Err(overlap));
    }
    assert_eq!(buddy.stats().total_frames, 50);
    assert_eq!(FreeRuns::of(&buddy).longest(), 50);
}

#[test]
fn more_freed_than_allocated_is_an_error_and_no_panic() {
    let buddy = buddy(&[(16, 16)]);
    // The package would subtract these from the 0 frames that are allocated.
    let foreign = DeallocError::new(at(64), DeallocErrorKind::NotManaged);
    assert_eq!(free(&buddy, at(64), layout(8, 1)), Err(foreign));
    let run = buddy.alloc(layout(4, 4)).unwrap();
    let too_long = DeallocError::new(run + 4 * FRAME_SIZE, DeallocErrorKind::NotAllocated);
    assert_eq!(free(&buddy, run, layout(8, 1)), Err(too_long));
    let end = DeallocError::new(at(32), DeallocErrorKind::NotManaged);
    buddy.alloc_at(range(31, 1)).unwrap();
    assert_eq!(free(&buddy, at(31), layout(2, 1)), Err(end));
    let odd = DeallocError::new(at(31), DeallocErrorKind::Misaligned);
    assert_eq!(free(&buddy, at(31), layout(1, 2)), Err(odd));
    let inside = PhysAddr::from(31 * FRAME_SIZE + 8);
    assert_eq!(free(&buddy, inside, FrameLayout::SINGLE).unwrap_err().kind, DeallocErrorKind::Misaligned);
    assert_eq!(buddy.stats().used_frames(), 5);
}

#[test]
fn counts_that_are_no_power_of_two_give_their_tail_back() {
    let mut package = Package::<33>::new();
    package.add_frame(8, 16);
    package.alloc(5).unwrap();
    assert_eq!(package.alloc(1), None, "the package keeps three frames that nobody asked for: its fault");

    let buddy = buddy(&[(8, 8)]);
    let run = buddy.alloc(layout(5, 1)).unwrap();
    assert_eq!(buddy.stats().free_frames, 3);
    assert_eq!(buddy.alloc(layout(3, 1)), Ok(run + 5 * FRAME_SIZE));
    free(&buddy, run, layout(8, 1)).unwrap();
    assert_eq!(buddy.alloc(layout(8, 8)), Ok(run));
}

#[test]
fn a_run_over_the_edges_of_blocks_is_found() {
    let mut package = Package::<33>::new();
    package.add_frame(1, 7);
    assert_eq!(package.alloc(6), None, "the package sees 1, 2-3, 4-5 and 6 only: its fault");

    let buddy = buddy(&[(1, 6)]);
    assert_eq!(buddy.alloc(layout(6, 1)), Ok(at(1)));
    free(&buddy, at(1), layout(6, 1)).unwrap();
    assert_eq!(buddy.alloc(layout(3, 2)), Ok(at(2)));
    assert_eq!(buddy.alloc(layout(3, 2)), Err(AllocError::NoMemory));
    assert_eq!(buddy.alloc(layout(2, 1)), Ok(at(5)));
}

#[test]
fn adjoining_regions_are_one() {
    let mut package = Package::<33>::new();
    package.add_frame(2, 3);
    package.add_frame(3, 4);
    assert_eq!(package.alloc(2), None, "the package does not join what it is given: its fault");

    let buddy = Buddy::<spin::Mutex<()>, 2>::new();
    for (start, count) in [(2, 1), (5, 3), (3, 2), (8, 120), (1, 1)] {
        // SAFETY: as in `add`. Never more than two regions that do not adjoin.
        unsafe { buddy.add_region(range(start, count)) }.unwrap();
    }
    assert_eq!(buddy.alloc(layout(64, 64)), Ok(at(64)));
    assert_eq!(buddy.alloc(layout(63, 1)), Ok(at(1)));
    // SAFETY: both runs are owned and nothing is behind them.
    unsafe { buddy.dealloc(at(1), layout(127, 1)) }.unwrap();
    assert_eq!(buddy.alloc(layout(127, 1)), Ok(at(1)));
    // SAFETY: as in `add`.
    unsafe { buddy.add_region(range(200, 1)) }.unwrap();
    // SAFETY: as in `add`.
    let third = unsafe { buddy.add_region(range(300, 1)) };
    assert_eq!(third, Err(RegionError::TooManyRegions { limit: 2 }));
}

#[test]
fn exhaustion_to_the_last_frame_and_the_largest_run_again() {
    let buddy = buddy(&[(1, 158), (256, 30_000), (1 << 20, 2_345)]);
    let total = 158 + 30_000 + 2_345;
    for count in [1, 3, 7] {
        let mut got = Vec::new();
        while let Ok(start) = buddy.alloc(layout(count, 1)) {
            got.push((start, count));
        }
        while let Ok(start) = buddy.alloc_frame() {
            got.push((start, 1));
        }
        let mut frames: Vec<_> =
            got.iter().flat_map(|&(start, count)| (0..count).map(move |i| start + i * FRAME_SIZE)).collect();
        frames.sort();
        frames.dedup();
        assert_eq!(frames.len(), total);
        assert_eq!(buddy.stats().free_frames, 0);
        assert_eq!(buddy.alloc(layout(2, 1)), Err(AllocError::NoMemory));
        for (start, count) in got.into_iter().rev() {
            free(&buddy, start, layout(count, 1)).unwrap();
        }
        assert_eq!(buddy.alloc(layout(30_000, 1)), Ok(at(256)));
        free(&buddy, at(256), layout(30_000, 1)).unwrap();
    }
}

#[test]
fn alignments_beyond_a_gibibyte_and_counts_beyond_memory() {
    let gib = 1 << 18;
    let buddy = buddy(&[(8 * gib - 5, 10), (100 * gib, 3 * gib)]);
    assert_eq!(buddy.alloc(layout(1, 8 * gib)), Ok(at(8 * gib)));
    assert_eq!(buddy.alloc(layout(1, 8 * gib)), Err(AllocError::NoMemory));
    assert_eq!(buddy.alloc(layout(3 * gib, gib)), Ok(at(100 * gib)));
    assert_eq!(buddy.alloc(layout(usize::MAX >> 13, 1)), Err(AllocError::NoMemory));
    assert_eq!(buddy.alloc(layout(1, 1 << 51)), Err(AllocError::NoMemory));
    assert_eq!(buddy.alloc(layout(9, 1 << 51)), Err(AllocError::NoMemory));
    let top = PhysAddr::from(usize::MAX - FRAME_SIZE + 1);
    assert_eq!(free(&buddy, top, layout(usize::MAX >> 13, 1)).unwrap_err().frame, top);
    assert_eq!(buddy.alloc_at(range(usize::MAX / FRAME_SIZE - 1, 1)), Err(AllocError::NotManaged));
}

#[test]
fn windows_hold_the_whole_run() {
    let buddy = buddy(&[(1, 158), (256, 8000)]);
    let dma = range(0, 4096); // below 16 MiB
    assert_eq!(buddy.alloc_in(layout(100, 16), dma), Ok(at(16)));
    assert_eq!(buddy.alloc_in(layout(3840, 1), dma), Ok(at(256)));
    assert_eq!(buddy.alloc_in(layout(44, 1), dma), Err(AllocError::NoMemory));
    assert_eq!(buddy.alloc_in(layout(1, 64), dma), Ok(at(128)));
    assert_eq!(buddy.alloc_in(layout(1, 64), dma), Err(AllocError::NoMemory));
    assert_eq!(buddy.alloc_in(layout(1, 1), range(0, usize::MAX / FRAME_SIZE)).map(|_| ()), Ok(()));
}

#[test]
fn frame_zero_is_refused() {
    assert_eq!(add(&Buddy::new(), 0, 10), Err(RegionError::FrameZero));
}

#[test]
fn a_bulk_call_takes_the_frames_that_single_calls_would() {
    let (bulk, single) = (buddy(&[(3, 2000), (4096, 777)]), buddy(&[(3, 2000), (4096, 777)]));
    let mut taken = Vec::new();
    for (step, count) in (1..70).cycle().take(300).enumerate() {
        let mut frames = vec![at(0); count];
        let got = bulk.alloc_bulk(&mut frames);
        let expected: Vec<_> = (0..count).map_while(|_| single.alloc_frame().ok()).collect();
        assert_eq!(frames[..got], expected);
        taken.extend(expected);
        for i in 0..taken.len().min(step % 97) {
            let frame = taken.swap_remove((i * 131 + step * 17) % taken.len());
            free(&bulk, frame, FrameLayout::SINGLE).unwrap();
            free(&single, frame, FrameLayout::SINGLE).unwrap();
        }
    }
}
