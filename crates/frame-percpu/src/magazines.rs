//! Small runs that a CPU freed and may soon want again.
//!
//! A magazine for each order from 1 (2 frames) to [`ORDERS`] (32 frames): a stack of runs of `2^order` frames, each at a
//! multiple of its size. A run enters when it is freed and leaves for an allocation of the same order; there is no
//! refill, for the backend gives runs one by one. Any run may enter that its caller owns, however it was allocated,
//! because ownership is by the frame.
//!
//! Invariants, behind the slot's `busy` as all of a slot: `lens[o - 1] <= CAPACITY[o - 1]`, and the first `lens[o - 1]`
//! places of a magazine are starts of runs of `2^o` frames that the slot owns.

use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use frame_core::{FRAME_SIZE, FrameAllocator, FrameLayout, PhysAddr};

/// The highest order that has a magazine.
const ORDERS: usize = 5;
/// Runs of each order: fewer of the large ones, 608 frames in all.
const CAPACITY: [usize; ORDERS] = [16, 16, 16, 8, 8];
const WIDEST: usize = 16;

/// An order that has a magazine: 1 to 5.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SmallOrder(usize);

impl SmallOrder {
    /// The order of a layout that a magazine serves: a power of two of frames, aligned to no more than its size.
    #[inline]
    pub(crate) fn of(layout: FrameLayout) -> Option<Self> {
        let order = layout.count().trailing_zeros() as usize;
        let fits = layout.count().is_power_of_two() && layout.align() <= layout.size();
        (fits && (1..=ORDERS).contains(&order)).then_some(Self(order))
    }

    #[inline]
    fn index(self) -> usize {
        self.0 - 1
    }

    /// Whether a run of this order may start here.
    #[inline]
    pub(crate) fn aligns(self, start: PhysAddr) -> bool {
        start.as_usize() % (FRAME_SIZE << self.0) == 0
    }

    fn layout(self) -> FrameLayout {
        FrameLayout::new(1 << self.0, FRAME_SIZE << self.0).unwrap_or(FrameLayout::SINGLE)
    }
}

/// The magazines of a slot. Only the execution that owns the slot calls what takes or gives runs.
pub(crate) struct Magazines {
    lens: [AtomicUsize; ORDERS],
    runs: UnsafeCell<[[PhysAddr; WIDEST]; ORDERS]>,
}

impl Magazines {
    pub(crate) const fn new() -> Self {
        Self {
            lens: [const { AtomicUsize::new(0) }; ORDERS],
            runs: UnsafeCell::new([[PhysAddr::from_usize(0); WIDEST]; ORDERS]),
        }
    }

    /// Frames that lie here. For anyone.
    pub(crate) fn cached_frames(&self) -> usize {
        (0..ORDERS).map(|index| self.lens[index].load(Relaxed) << (index + 1)).sum()
    }

    /// Takes the newest run.
    ///
    /// # Safety
    /// The caller owns the slot.
    #[inline]
    pub(crate) unsafe fn pop(&self, order: SmallOrder) -> Option<PhysAddr> {
        let len = self.lens[order.index()].load(Relaxed);
        // SAFETY: the owner of the slot alone reaches the runs.
        let run = unsafe { (&*self.runs.get())[order.index()].get(len.wrapping_sub(1)).copied()? };
        self.lens[order.index()].store(len - 1, Relaxed);
        Some(run)
    }

    /// Takes a run in; false if the magazine is full.
    ///
    /// # Safety
    /// The caller owns the slot, and gives it the run.
    #[inline]
    pub(crate) unsafe fn push(&self, order: SmallOrder, start: PhysAddr) -> bool {
        let len = self.lens[order.index()].load(Relaxed);
        if len >= CAPACITY[order.index()] {
            return false;
        }
        // SAFETY: the owner of the slot alone reaches the runs.
        unsafe { (&mut *self.runs.get())[order.index()][len] = start };
        self.lens[order.index()].store(len + 1, Relaxed);
        true
    }

    /// Hands the older half of a magazine back, or all of it. Returns the runs, and how many of them were refused.
    ///
    /// # Safety
    /// The caller owns the slot.
    pub(crate) unsafe fn spill<A: FrameAllocator>(
        &self,
        backend: &A,
        order: SmallOrder,
        all: bool,
    ) -> (usize, usize) {
        let len = self.lens[order.index()].load(Relaxed);
        let count = if all { len } else { len.div_ceil(2) };
        // SAFETY: the owner of the slot alone reaches the runs; a backend that calls back finds the slot busy.
        let runs = unsafe { &mut (&mut *self.runs.get())[order.index()] };
        let refused = runs[..count].iter().filter(|&&start| {
            // SAFETY: the slot owns the run, and forgets it below.
            unsafe { backend.dealloc(start, order.layout()) }.is_err()
        });
        let refused = refused.count();
        runs.copy_within(count..len, 0);
        self.lens[order.index()].store(len - count, Relaxed);
        (count, refused)
    }

    /// Every order.
    pub(crate) fn orders() -> impl Iterator<Item = SmallOrder> {
        (1..=ORDERS).map(SmallOrder)
    }
}

/// Frames in a run of an order.
pub(crate) fn frames(order: SmallOrder) -> usize {
    1 << order.0
}
