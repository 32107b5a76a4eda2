//! `buddy_system_allocator` 0.13: its frame allocator (sets on the heap) and its heap (lists in free memory).

use std::{alloc::Layout, ops::Range, ptr::NonNull};

use buddy_system_allocator::{FrameAllocator, Heap};
use spin::Mutex;

use crate::contender::Contender;

/// `FrameAllocator`, behind a spin lock.
#[allow(missing_debug_implementations, reason = "the peer has none")]
pub struct RawBuddy(Mutex<FrameAllocator<33>>);

impl RawBuddy {
    /// Manages the arena.
    pub fn new(arena: Range<usize>) -> Self {
        let mut frames = FrameAllocator::new();
        frames.add_frame(arena.start / 4096, arena.end / 4096);
        Self(Mutex::new(frames))
    }
}

impl Contender for RawBuddy {
    #[inline]
    fn alloc(&self, order: u32) -> Option<usize> {
        self.0.lock().alloc(1 << order).map(|frame| frame * 4096)
    }

    #[inline]
    fn free(&self, address: usize, order: u32) {
        self.0.lock().dealloc(address / 4096, 1 << order);
    }
}

/// `Heap`, behind a spin lock.
#[allow(missing_debug_implementations, reason = "the peer has none")]
pub struct RawHeap(Mutex<Heap<33>>);

impl RawHeap {
    /// Manages the arena.
    pub fn new(arena: Range<usize>) -> Self {
        let mut heap = Heap::new();
        // SAFETY: the arena is mapped, writable and lent to this contender alone.
        unsafe { heap.init(arena.start, arena.len()) };
        Self(Mutex::new(heap))
    }
}

fn layout(order: u32) -> Layout {
    Layout::from_size_align(4096 << order, 4096 << order).expect("small orders")
}

impl Contender for RawHeap {
    #[inline]
    fn alloc(&self, order: u32) -> Option<usize> {
        self.0.lock().alloc(layout(order)).ok().map(|start| start.as_ptr().expose_provenance())
    }

    #[inline]
    fn free(&self, address: usize, order: u32) {
        let start = NonNull::new(std::ptr::with_exposed_provenance_mut(address)).expect("not null");
        // SAFETY: the run came from `alloc` with the same layout and is given back once.
        unsafe { self.0.lock().dealloc(start, layout(order)) };
    }
}
