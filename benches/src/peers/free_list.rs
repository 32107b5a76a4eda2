//! `free-list` 0.3 (Hermit): a sorted list of ranges, behind a spin lock.

use std::ops::Range;

use free_list::{FreeList, PageLayout, PageRange};
use spin::Mutex;

use crate::contender::Contender;

/// `FreeList<16>`, which grows on the heap.
#[allow(missing_debug_implementations, reason = "the peer has none")]
pub struct HermitFreeList(Mutex<FreeList<16>>);

impl HermitFreeList {
    /// Manages the arena.
    ///
    /// # Panics
    /// The arena is empty.
    pub fn new(arena: Range<usize>) -> Self {
        let mut list = FreeList::new();
        let range = PageRange::new(arena.start, arena.end).expect("aligned");
        // SAFETY: the arena is lent to this contender.
        unsafe { list.deallocate(range) }.expect("the list is empty");
        Self(Mutex::new(list))
    }
}

impl Contender for HermitFreeList {
    #[inline]
    fn alloc(&self, order: u32) -> Option<usize> {
        let layout = PageLayout::from_size_align(4096 << order, 4096 << order).ok()?;
        self.0.lock().allocate(layout).ok().map(PageRange::start)
    }

    #[inline]
    fn free(&self, address: usize, order: u32) {
        let Ok(range) = PageRange::new(address, address + (4096 << order)) else { return };
        // SAFETY: the run came from `alloc` and is given back once.
        let freed = unsafe { self.0.lock().deallocate(range) };
        debug_assert!(freed.is_ok());
    }
}
