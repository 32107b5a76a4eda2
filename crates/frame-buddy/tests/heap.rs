//! The heap: what `stats` tells of is a bound of what is in use, and a heap that is too small is an error.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use frame_buddy::Buddy;
use frame_core::{FRAME_SIZE, FrameAllocator, FrameLayout, FrameRange, PhysAddr, RegionError};

/// Counts what it gives, and has no blocks larger than `LARGEST` bytes.
struct Counted;

const LARGEST: usize = 1 << 30;

thread_local! {
    /// Bytes that this thread holds: the test harness has threads of its own.
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: passed on to the system's allocator, or refused by null.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST {
            return core::ptr::null_mut();
        }
        BYTES.set(BYTES.get().wrapping_add(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get().wrapping_sub(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static HEAP: Counted = Counted;

#[test]
fn stats_bound_the_heap() {
    const FRAMES: usize = 1 << 15;
    let mut owned = Vec::with_capacity(FRAMES);
    let before = BYTES.get();
    static BUDDY: Buddy = Buddy::new();
    let in_static = BUDDY.stats().metadata_bytes;
    assert!(in_static <= size_of::<Buddy>());
    let check = |what: &str| {
        let heap = BYTES.get().wrapping_sub(before);
        let told = BUDDY.stats().metadata_bytes - in_static;
        assert!(heap <= told && told <= 2 * heap + 8 * 1024, "{what}: {heap} bytes in use, {told} told");
        heap
    };
    assert_eq!(check("no frames"), 0);
    // SAFETY: the frames are numbers; nothing touches memory there.
    unsafe { BUDDY.add_region(FrameRange::new(PhysAddr::from(0x5000), FRAMES).unwrap()) }.unwrap();
    check("all free");
    while let Ok(frame) = BUDDY.alloc_frame() {
        owned.push(frame);
    }
    let full = check("all taken");
    assert!(full <= FRAMES / 8 + 16 * 104 + 8, "the bits, and the root of each emptied list: {full}");
    // Every second frame free: the most blocks that there can be.
    owned.sort_by_key(|frame| frame.as_usize() / FRAME_SIZE % 2);
    for &frame in &owned[FRAMES / 2..] {
        // SAFETY: the frame is owned and nothing is behind it.
        unsafe { BUDDY.dealloc_frame(frame) }.unwrap();
    }
    let worst = check("every second frame free");
    assert!(worst > FRAMES * 6, "the test reaches the worst case: {worst}");
    // Nodes of the fewest numbers: some are taken out everywhere.
    let free = &owned[FRAMES / 2..];
    for &frame in free.iter().step_by(7) {
        BUDDY.alloc_at(FrameRange::new(frame, 1).unwrap()).unwrap();
    }
    let lists = check("sparse nodes") - FRAMES / 8;
    assert!(lists > BUDDY.stats().free_frames * 20, "the test reaches the dearest nodes: {lists}");
    for &frame in free.iter().step_by(7) {
        // SAFETY: the frame is owned and nothing is behind it.
        unsafe { BUDDY.dealloc_frame(frame) }.unwrap();
    }
    for &frame in &owned[..FRAMES / 2] {
        // SAFETY: the frame is owned and nothing is behind it.
        unsafe { BUDDY.dealloc_frame(frame) }.unwrap();
    }
    check("all free again");
}

#[test]
fn a_heap_that_cannot_hold_the_bits_is_an_error() {
    let buddy = <Buddy>::new();
    // SAFETY: the frames are numbers; nothing touches memory there.
    let add = |start, count| unsafe {
        buddy.add_region(FrameRange::new(PhysAddr::from(start * FRAME_SIZE), count).unwrap())
    };
    add(1, 10).unwrap();
    // One that adjoins, and is joined with the ten, and one that does not: to the last bit of 2 GiB.
    let bits = 2 << 33;
    for (start, words) in [(11, bits / 64), (65, bits / 64 - 1)] {
        assert_eq!(add(start, bits - start), Err(RegionError::HeapExhausted { needed: words * 8 }));
    }
    assert_eq!((buddy.stats().total_frames, buddy.stats().free_frames), (10, 10));
    assert_eq!(buddy.alloc(FrameLayout::contiguous(10).unwrap()), Ok(PhysAddr::from(FRAME_SIZE)));
}
