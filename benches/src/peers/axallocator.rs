//! `axallocator` 0.2: its page allocator (a bitmap), behind a spin lock.

use std::ops::Range;

use axallocator::{BaseAllocator, BitmapPageAllocator, PageAllocator};
use spin::Mutex;

use crate::{contender::Contender, roster::Books};

/// `BitmapPageAllocator`, room for 4 GiB.
#[allow(missing_debug_implementations, reason = "the peer has none")]
pub struct AxBitmap(Mutex<Box<BitmapPageAllocator<4096>>>);

impl AxBitmap {
    /// Manages the arena.
    pub fn new(arena: Range<usize>) -> Self {
        let mut pages = Box::new(BitmapPageAllocator::new());
        pages.init(arena.start, arena.len());
        Self(Mutex::new(pages))
    }

    /// The same for any memory.
    pub fn books() -> Books {
        Books::bytes(size_of::<BitmapPageAllocator<4096>>(), "the same for any memory up to 4 GiB")
    }
}

impl Contender for AxBitmap {
    #[inline]
    fn alloc(&self, order: u32) -> Option<usize> {
        self.0.lock().alloc_pages(1 << order, 4096 << order).ok()
    }

    #[inline]
    fn free(&self, address: usize, order: u32) {
        self.0.lock().dealloc_pages(address, 1 << order);
    }
}
