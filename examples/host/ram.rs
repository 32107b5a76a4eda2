//! What the examples share: memory of the process in the role of RAM.

use std::{
    alloc::{Layout, alloc_zeroed},
    mem::MaybeUninit,
};

use frame_allocator::{FRAME_SIZE, FrameRange, PhysAddr};

/// Takes memory from the process for good and calls it RAM: address = pointer, aligned to 2 MiB.
///
/// # Panics
/// There is no memory, or `frames` is 0.
pub fn ram(frames: usize) -> FrameRange {
    let layout = Layout::from_size_align(frames * FRAME_SIZE, 2 << 20).expect("frames fit in memory");
    assert!(frames > 0, "RAM of 0 frames");
    // SAFETY: the layout is not empty.
    let start = unsafe { alloc_zeroed(layout) };
    assert!(!start.is_null(), "no memory for {frames} frames");
    FrameRange::new(PhysAddr::from(start.expose_provenance()), frames)
        .expect("aligned, and the process has it")
}

/// Memory for a backend's books, for good. In a kernel it comes from `EarlyAllocator`.
///
/// # Panics
/// There is no memory.
pub fn metadata(layout: Layout) -> &'static mut [MaybeUninit<u8>] {
    assert!(layout.size() > 0, "no metadata asked for");
    // SAFETY: the layout is not empty.
    let start = unsafe { alloc_zeroed(layout) };
    assert!(!start.is_null(), "no memory for {} bytes of metadata", layout.size());
    // SAFETY: the bytes are allocated, never freed, and nobody else has their address.
    unsafe { std::slice::from_raw_parts_mut(start.cast(), layout.size()) }
}
