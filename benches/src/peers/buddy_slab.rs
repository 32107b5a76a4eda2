//! `buddy-slab-allocator` 0.6: its buddy, which keeps 12 bytes for each page inside the memory, behind a spin lock.
//!
//! Its blocks are aligned relative to where its heap begins, behind those books: over a whole arena that is an odd page,
//! and no run larger than a page is aligned to its size. So it gets the arena from a page on that puts the beginning
//! of its heap at a multiple of 2 MiB, which costs it at most that much memory.

use std::ops::Range;

use buddy_slab_allocator::BuddyAllocator;
use spin::Mutex;

use crate::{contender::Contender, roster::Books};

/// `BuddyAllocator`.
#[allow(missing_debug_implementations, reason = "the peer has none")]
pub struct BuddySlab(Mutex<BuddyAllocator>);

impl BuddySlab {
    /// Manages the arena.
    ///
    /// # Panics
    /// The peer does not take the arena.
    pub fn new(arena: Range<usize>) -> Self {
        let mut start = arena.start;
        loop {
            let buddy = over(start..arena.end);
            let heap = buddy.section(0).expect("one was added").start;
            // A later start has fewer pages and so smaller books: this never steps too far.
            match heap.next_multiple_of(2 << 20) - heap {
                0 => return Self(Mutex::new(buddy)),
                short => start += short,
            }
        }
    }

    /// What it asks for a heap of this size.
    pub fn books() -> Books {
        Books::bytes(<BuddyAllocator>::required_meta_size(1 << 30), "")
    }
}

fn over(memory: Range<usize>) -> BuddyAllocator {
    let mut buddy = BuddyAllocator::new();
    let start = std::ptr::with_exposed_provenance_mut(memory.start);
    // SAFETY: the arena is mapped, writable and lent to this contender for the life of the process; an allocator that
    // was tried before is gone.
    let bytes = unsafe { std::slice::from_raw_parts_mut(start, memory.len()) };
    // SAFETY: as above.
    unsafe { buddy.init(bytes) }.expect("the arena is aligned and large");
    buddy
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
