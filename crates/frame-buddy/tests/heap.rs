//! The heap that `stats` tells of is a bound of the heap in use.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use frame_buddy::Buddy;
use frame_core::{FRAME_SIZE, FrameAllocator, FrameRange, PhysAddr};

struct Counted;

thread_local! {
    /// Bytes that this thread holds: the test harness has threads of its own.
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: passed on to the system's allocator; only counted.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
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
