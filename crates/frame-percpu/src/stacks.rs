//! What a slot keeps to hand out again: a stack of free runs for each order.
//!
//! ```text
//!  places  [ order 0: 128 frames | 1: 32 runs | 2: 32 | 3: 16 | 4: 16 | 5: 8 | 9: 2 ]
//!
//!  a stack  BASE      top                    END
//!          [ unused  | newest ....... oldest ]        pop: places[top], top + 1     push: top - 1, places[top]
//! ```
//!
//! A run of order `k` is `2^k` frames at a multiple of its size. Frames (order 0) are refilled in batches; a longer run
//! enters when it is freed and leaves for an allocation of the same order, for backends give runs one by one. Any run
//! may enter that its caller owns, however it was allocated, because ownership is by the frame. Other orders have
//! no places: they pass by.
//!
//! A stack's word holds its top and, above it, how often it was popped, so that an allocation changes one word. After
//! [`PERIOD`] pops a bit is set with which the stack looks both empty and full: the next operation leaves its hot path,
//! and looks around (see [`end_period`](Stacks::end_period)). The hot path tests nothing for that.
//!
//! ```text
//!  word    [ 0 ... | period is over | pops: 8 bits | top: 8 bits ]
//! ```
//!
//! Invariants, behind the slot's `busy` as all of a slot: `BASE[k] <= top <= END[k]`, and `places[top..END[k]]` are
//! starts of runs of order `k`, at multiples of their size and not 0, which the slot owns.

use core::{cell::UnsafeCell, sync::atomic::Ordering::Relaxed};

use frame_core::{FRAME_SIZE, FrameLayout, PhysAddr};

use crate::{request::STACK, sync::AtomicUsize};

/// Orders that tables have: a power of two, so that a masked index needs no check.
const ORDERS: usize = 16;
/// The order of a huge frame of 2 MiB.
const HUGE: usize = 9;
/// Runs of each order. Few of the larger ones: 832 frames in all, and two whole huge frames.
const CAPACITY: [usize; ORDERS] = [STACK, 32, 32, 16, 16, 8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0];
/// Where the stacks end; each begins where the one before ends.
const END: [usize; ORDERS] = {
    let (mut end, mut order, mut sum) = ([0; ORDERS], 0, 0);
    while order < ORDERS {
        sum += CAPACITY[order];
        end[order] = sum;
        order += 1;
    }
    end
};
const PLACES: usize = END[ORDERS - 1];
/// A bit for each order that has places.
const KEPT: u64 = {
    let (mut kept, mut order) = (0, 0);
    while order < ORDERS {
        kept |= ((CAPACITY[order] > 0) as u64) << order;
        order += 1;
    }
    kept
};
/// Bits of a word that hold the top.
const TOP_BITS: u32 = 8;
const TOP: usize = (1 << TOP_BITS) - 1;
/// Pops after which the owner looks around.
pub(crate) const PERIOD: usize = 1 << 8;
/// The bit of a word which says that a period is over.
const OVER: usize = PERIOD << TOP_BITS;
const _: () = assert!(PLACES <= TOP);

/// An order of runs that has places: 0 to 5, or 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order(usize);

impl Order {
    /// Single frames.
    pub(crate) const FRAME: Self = Self(0);

    /// The order of a layout, if slots keep such runs: a power of two of frames, aligned to no more than its size.
    #[inline]
    pub(crate) fn of(layout: FrameLayout) -> Option<Self> {
        let order = layout.count().trailing_zeros() as usize;
        // No short cuts: a branch that goes either way costs more than all of it.
        let kept = KEPT >> (order % 64) & 1 != 0;
        let fits = layout.count().is_power_of_two() & (layout.align() <= layout.size()) & kept;
        fits.then_some(Self(order))
    }

    /// Every order that has places, single frames apart.
    pub(crate) fn runs() -> impl Iterator<Item = Self> {
        (1..ORDERS).filter(|&order| KEPT >> order & 1 != 0).map(Self)
    }

    #[inline]
    fn index(self) -> usize {
        self.0 % ORDERS
    }

    /// Where the order's places end.
    #[inline]
    fn end(self) -> usize {
        END[self.index()]
    }

    #[inline]
    fn capacity(self) -> usize {
        CAPACITY[self.index()]
    }

    /// Frames in a run.
    #[inline]
    pub(crate) fn frames(self) -> usize {
        1 << self.0
    }

    pub(crate) fn layout(self) -> FrameLayout {
        FrameLayout::new(self.frames(), FRAME_SIZE << self.0).unwrap_or(FrameLayout::SINGLE)
    }

    /// Whether these are whole huge frames.
    #[inline]
    pub(crate) fn is_huge(self) -> bool {
        self.0 == HUGE
    }

    /// How far a frame's number is shifted to be a run's.
    #[inline]
    pub(crate) fn shift(self) -> usize {
        self.0
    }

    /// The number of the run that starts here; larger than any if none can.
    #[inline]
    pub(crate) fn number(self, start: PhysAddr) -> usize {
        start.as_usize().rotate_right(FRAME_SIZE.trailing_zeros() + self.0 as u32)
    }
}

/// The stacks of a slot. Only the execution that owns the slot calls what takes or gives.
pub(crate) struct Stacks {
    words: [AtomicUsize; ORDERS],
    /// Pops of all orders in periods that ended.
    hits: AtomicUsize,
    places: UnsafeCell<[PhysAddr; PLACES]>,
}

impl Stacks {
    pub(crate) const fn new() -> Self {
        let mut order = 0;
        let mut words = [const { AtomicUsize::new(0) }; ORDERS];
        while order < ORDERS {
            words[order] = AtomicUsize::new(END[order]);
            order += 1;
        }
        Self { words, hits: AtomicUsize::new(0), places: UnsafeCell::new([PhysAddr::from_usize(0); PLACES]) }
    }

    #[inline]
    fn word(&self, order: Order) -> &AtomicUsize {
        &self.words[order.index()]
    }

    /// Runs of an order. For anyone: a slot at work is read in halves.
    pub(crate) fn len(&self, order: Order) -> usize {
        order.end().saturating_sub(self.word(order).load(Relaxed) & TOP)
    }

    /// Frames in all stacks. For anyone.
    pub(crate) fn cached_frames(&self) -> usize {
        (0..=HUGE).map(|order| self.len(Order(order)) << order).sum()
    }

    /// Allocations served, of all orders. For anyone.
    pub(crate) fn hits(&self) -> usize {
        let earlier = self.hits.load(Relaxed);
        self.words.iter().fold(earlier, |hits, word| hits.wrapping_add(word.load(Relaxed) >> TOP_BITS))
    }

    /// Begins a new period of an order if one is over. Whether it was.
    ///
    /// # Safety
    /// The caller owns the slot.
    #[inline]
    pub(crate) unsafe fn end_period(&self, order: Order) -> bool {
        let word = self.word(order);
        let now = word.load(Relaxed);
        if now & OVER == 0 {
            return false;
        }
        self.hits.store(self.hits.load(Relaxed).wrapping_add(now >> TOP_BITS), Relaxed);
        word.store(now & TOP, Relaxed);
        true
    }

    /// Takes the newest run of an order; `None` too if a period is over.
    ///
    /// # Safety
    /// The caller owns the slot.
    #[inline]
    pub(crate) unsafe fn pop(&self, order: Order) -> Option<PhysAddr> {
        // SAFETY: the caller's promise; the end is the order's.
        unsafe { self.pop_below(order, order.end()) }
    }

    /// Puts a run on its stack; false if it is full, or a period is over.
    ///
    /// # Safety
    /// The caller owns the slot, and gives it the run.
    #[inline]
    pub(crate) unsafe fn push(&self, order: Order, start: PhysAddr) -> bool {
        // SAFETY: the caller's promise; these are the order's places.
        unsafe { self.push_within(order, start, order.end() - order.capacity(), order.capacity()) }
    }

    /// [`pop`](Self::pop) of a frame, from a stack that looks empty if `open` is 0, and is as it is if it is [`STACK`].
    ///
    /// # Safety
    /// The caller owns the slot, and `open` is one of these two.
    #[inline]
    pub(crate) unsafe fn pop_frame(&self, open: usize) -> Option<PhysAddr> {
        // SAFETY: the caller's promise; `open` is the end of the first stack, or below it.
        unsafe { self.pop_below(Order::FRAME, open) }
    }

    /// [`push`](Self::push) of a frame, onto a stack that looks full if `open` is 0, and is as it is if it is [`STACK`].
    ///
    /// # Safety
    /// The caller owns the slot, gives it the frame, and `open` is one of these two.
    #[inline]
    pub(crate) unsafe fn push_frame(&self, frame: PhysAddr, open: usize) -> bool {
        // SAFETY: the caller's promise; these are the places of the first stack, or none.
        unsafe { self.push_within(Order::FRAME, frame, 0, open) }
    }

    /// # Safety
    /// The caller owns the slot; `end` is at most the order's.
    #[inline(always)]
    unsafe fn pop_below(&self, order: Order, end: usize) -> Option<PhysAddr> {
        let word = self.word(order).load(Relaxed);
        let top = word & (OVER | TOP);
        if top >= end {
            return None;
        }
        // SAFETY: `top` is below an end, so in bounds; the owner alone reaches the array, and no reference into it
        // lives.
        let run = unsafe { self.places.get().cast::<PhysAddr>().add(top).read() };
        self.word(order).store(word.wrapping_add((1 << TOP_BITS) + 1), Relaxed);
        Some(run)
    }

    /// # Safety
    /// The caller owns the slot and gives it the run; `room` places from `base` on are the order's, or `room` is 0.
    #[inline(always)]
    unsafe fn push_within(&self, order: Order, start: PhysAddr, base: usize, room: usize) -> bool {
        let word = self.word(order).load(Relaxed);
        let below = (word & (OVER | TOP)).wrapping_sub(1);
        if below.wrapping_sub(base) >= room {
            return false;
        }
        // SAFETY: `below` is one of this stack's places; the owner alone reaches the array, and no reference into it
        // lives.
        unsafe { self.places.get().cast::<PhysAddr>().add(below).write(start) };
        self.word(order).store(word - 1, Relaxed);
        true
    }

    /// The places of an order: the newest run is at `places.len() - len`, the oldest last.
    ///
    /// # Safety
    /// The caller owns the slot, and lets the result go before it calls anything else here but [`resize`](Self::resize).
    #[expect(clippy::mut_from_ref, reason = "an UnsafeCell, owned by the caller")]
    pub(crate) unsafe fn places(&self, order: Order) -> &mut [PhysAddr] {
        let end = order.end();
        // SAFETY: the owner alone reaches the array, and has no other reference into it.
        unsafe { &mut (&mut *self.places.get())[end - order.capacity()..end] }
    }

    /// Says how many runs of an order lie in its last places now.
    ///
    /// # Safety
    /// The caller owns the slot, and has arranged the places so; `len` is at most their number.
    pub(crate) unsafe fn resize(&self, order: Order, len: usize) {
        let word = self.word(order);
        word.store(word.load(Relaxed) & !TOP | (order.end() - len), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_those_of_aligned_powers_of_two() {
        for count in 1..=2048usize {
            for align in (0..12).map(|shift| FRAME_SIZE << shift) {
                let order = Order::of(FrameLayout::new(count, align).unwrap()).map(|order| order.0);
                let kept = [1, 2, 4, 8, 16, 32, 512].contains(&count);
                let fits = kept && align <= count * FRAME_SIZE;
                assert_eq!(order, fits.then(|| count.ilog2() as usize), "{count} at {align:#x}");
            }
        }
    }

    #[test]
    fn a_period_ends_and_hits_are_counted_on() {
        let stacks = Stacks::new();
        let (order, run) = (Order(2), PhysAddr::from(4 * FRAME_SIZE));
        // SAFETY: nobody else has these stacks.
        unsafe {
            for _ in 0..3 {
                for _ in 0..PERIOD {
                    assert!(!stacks.end_period(order));
                    assert!(stacks.push(order, run));
                    assert_eq!(stacks.pop(order), Some(run));
                }
                assert!(!stacks.push(order, run));
                assert_eq!(stacks.pop(order), None);
                assert_eq!(stacks.len(order), 0);
                assert!(stacks.end_period(order));
            }
        }
        assert_eq!(stacks.hits(), 3 * PERIOD);
    }

    #[test]
    fn stacks_lie_side_by_side() {
        let stacks = Stacks::new();
        let runs =
            |order: Order| (1..=order.capacity()).map(move |i| PhysAddr::from(i << 21 | order.0 << 40));
        // SAFETY: nobody else has these stacks.
        unsafe {
            for order in (0..ORDERS).map(Order) {
                assert_eq!(stacks.pop(order), None);
                assert!(runs(order).all(|run| stacks.push(order, run)));
                assert!(!stacks.push(order, PhysAddr::from(FRAME_SIZE)));
            }
            assert!(!stacks.push_frame(PhysAddr::from(FRAME_SIZE), 0));
            assert_eq!(stacks.pop_frame(0), None);
            for order in (0..ORDERS).map(Order) {
                assert_eq!(stacks.len(order), order.capacity());
                assert!(runs(order).rev().all(|run| stacks.pop(order) == Some(run)));
            }
        }
        assert_eq!((stacks.cached_frames(), stacks.hits()), (0, PLACES));
    }
}
