//! The heap that `stats` tells of is a bound of the heap in use.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use frame_buddy::Buddy;
use frame_core::{FRAME_SIZE, FrameAllocator, FrameRange, PhysAddr};

struct Counted;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passed on to the system's allocator; only counted.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static HEAP: Counted = Counted;

/// One test, so that nothing else calls the heap.
#[test]
fn stats_bound_the_heap() {
    const FRAMES: usize = 1 << 15;
    let mut owned = Vec::with_capacity(FRAMES);
    let before = BYTES.load(Ordering::Relaxed);
    static BUDDY: Buddy = Buddy::new();
    let in_static = BUDDY.stats().metadata_bytes;
    assert!(in_static <= size_of::<Buddy>());
    let check = |what: &str| {
        let heap = BYTES.load(Ordering::Relaxed) - before;
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
    for &frame in &owned[..FRAMES / 2] {
        // SAFETY: the frame is owned and nothing is behind it.
        unsafe { BUDDY.dealloc_frame(frame) }.unwrap();
    }
    check("all free again");
}
