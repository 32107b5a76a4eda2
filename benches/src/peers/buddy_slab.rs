//! `buddy-slab-allocator` 0.6: its buddy, which keeps 24 bytes for each page inside the memory, behind a spin lock.

use std::ops::Range;

use buddy_slab_allocator::BuddyAllocator;
use spin::Mutex;

use crate::contender::Contender;

/// `BuddyAllocator`.
#[allow(missing_debug_implementations, reason = "the peer has none")]
pub struct BuddySlab(Mutex<BuddyAllocator>);

impl BuddySlab {
    /// Manages the arena.
    ///
    /// # Panics
    /// The peer does not take the arena.
    pub fn new(arena: Range<usize>) -> Self {
        let mut buddy = BuddyAllocator::new();
        let start = std::ptr::with_exposed_provenance_mut(arena.start);
        // SAFETY: the arena is mapped, writable and lent to this contender for the life of the process.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start, arena.len()) };
        // SAFETY: as above.
        unsafe { buddy.init(bytes) }.expect("the arena is aligned and large");
        Self(Mutex::new(buddy))
    }
}

impl Contender for BuddySlab {
    #[inline]
    fn alloc(&self, order: u32) -> Option<usize> {
        self.0.lock().alloc_pages(1 << order, 4096 << order).ok()
    }

    #[inline]
    fn free(&self, address: usize, order: u32) {
        self.0.lock().dealloc_pages(address, 1 << order);
    }
}
