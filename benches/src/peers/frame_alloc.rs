//! `frame-alloc` 0.1: a summary buddy without a lock, alone and behind its per-CPU cache.

use std::{num::NonZeroUsize, ops::Range, ptr::NonNull};

use frame_alloc::{
    CpuId, DepotAllocator, PageSize, PhysicalAllocator, Provenance, RegionInit, SummaryBuddyAllocator,
};

use crate::{contender::Contender, ours::cpu, roster::Books};

const BASE: PageSize = PageSize::from_log2(12);

/// An address of the arena is a pointer.
struct Identity;

// SAFETY: the arena is one mapping, whose provenance was exposed when it was made.
unsafe impl Provenance for Identity {
    unsafe fn create(phys: usize) -> NonNull<u8> {
        NonNull::new(std::ptr::with_exposed_provenance_mut(phys)).expect("the arena does not start at 0")
    }

    unsafe fn destroy<T>(ptr: NonNull<T>) -> usize {
        ptr.as_ptr().expose_provenance()
    }
}

/// The same index of the thread that our own cache uses.
struct ThreadIndex;

impl CpuId for ThreadIndex {
    fn current_cpu() -> usize {
        cpu()
    }
}

type Buddy = SummaryBuddyAllocator<19, Identity>;

/// `SummaryBuddyAllocator` alone.
#[allow(missing_debug_implementations, reason = "the peer has none")]
pub struct Summary(Box<Buddy>);

/// `DepotAllocator` over it, with the capacities that its documentation gives.
#[allow(missing_debug_implementations, reason = "the peer has none")]
pub struct Depot(Box<DepotAllocator<Buddy, ThreadIndex, 64>>);

impl Summary {
    /// Manages the arena.
    pub fn new(arena: Range<usize>) -> Self {
        let buddy = Box::new(Buddy::new(BASE));
        // SAFETY: the arena is mapped, writable and lent to this contender; nobody shares it yet.
        unsafe { buddy.init_region(arena.start, arena.len()) };
        Self(buddy)
    }

    /// A bit for each block of each order, and a summary bit for each word of the larger bitmaps (its
    /// `alloc_bitmap_words_for`, which is private).
    pub fn books() -> Books {
        let words = |bits: usize| bits.div_ceil(64);
        let order = |order: usize| {
            let bitmap = words((1usize << 18).div_ceil(1 << order));
            bitmap + if bitmap >= 128 { words(bitmap) } else { 0 }
        };
        Books::bytes((0..19).map(order).sum::<usize>() * 8 + size_of::<Buddy>(), "")
    }
}

impl Depot {
    /// Manages the arena.
    pub fn new(arena: Range<usize>) -> Self {
        let depot = Box::new(DepotAllocator::new(BASE, Buddy::new(BASE)));
        // SAFETY: as in `Summary::new`.
        unsafe { depot.init_region(arena.start, arena.len()) };
        Self(depot)
    }
}

#[inline]
fn alloc(from: &impl PhysicalAllocator, order: u32) -> Option<usize> {
    from.allocate_physical(BASE, NonZeroUsize::new(1 << order)?).ok()
}

#[inline]
fn free(to: &impl PhysicalAllocator, address: usize, order: u32) {
    let Some(count) = NonZeroUsize::new(1 << order) else { return };
    // SAFETY: the run came from `alloc` with the same count and is given back once.
    unsafe { to.deallocate_physical(BASE, count, address) };
}

impl Contender for Summary {
    #[inline]
    fn alloc(&self, order: u32) -> Option<usize> {
        alloc(&*self.0, order)
    }

    #[inline]
    fn free(&self, address: usize, order: u32) {
        free(&*self.0, address, order);
    }
}

impl Contender for Depot {
    #[inline]
    fn alloc(&self, order: u32) -> Option<usize> {
        alloc(&*self.0, order)
    }

    #[inline]
    fn free(&self, address: usize, order: u32) {
        free(&*self.0, address, order);
    }

    fn settle(&self) {
        self.0.flush();
    }
}
