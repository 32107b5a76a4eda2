//! Which freed frames a slot keeps, and which go back: the backend's advice, in the form that a free tests.
//!
//! A free must also look whether what it got is a frame at all. Rotating an address to the right by the bits of an aligned
//! one puts those that break the alignment on top: what is left is the run's number, or something larger than any. So one
//! comparison on each side of 4 GiB says all.
//!
//! Invariant: `low` is a frame's number below 4 GiB and `high` a count of frames from 4 GiB on, so a number with bits on
//! top is below neither.

use core::sync::atomic::Ordering::Relaxed;

use frame_core::{CacheWatermark, FRAME_SIZE, PhysAddr};

use crate::{stacks::Order, sync::AtomicUsize};

/// Frames that an address can name.
const FRAMES: usize = usize::MAX / FRAME_SIZE;

/// What a slot keeps. At first nothing.
pub(crate) struct Keep {
    /// The highest number below 4 GiB that is kept; 0 for none, for frame 0 never is.
    low: AtomicUsize,
    /// So many from 4 GiB on are kept.
    high: AtomicUsize,
}

impl Keep {
    pub(crate) const fn new() -> Self {
        Self { low: AtomicUsize::new(0), high: AtomicUsize::new(0) }
    }

    /// Takes advice.
    #[inline]
    pub(crate) fn set(&self, advice: CacheWatermark) {
        self.low.store(advice.low().saturating_sub(1), Relaxed);
        self.high.store(advice.high().min(FRAMES + 1).saturating_sub(CacheWatermark::SPLIT), Relaxed);
    }

    /// The advice that was taken last.
    pub(crate) fn advice(&self) -> CacheWatermark {
        CacheWatermark::split(self.low.load(Relaxed) + 1, self.high.load(Relaxed) + CacheWatermark::SPLIT)
    }

    /// Whether this is the start of a run of `order`, at a multiple of its size and not 0, and one that is kept. Whole huge
    /// frames are, wherever they lie.
    #[inline]
    pub(crate) fn admits(&self, order: Order, start: PhysAddr) -> bool {
        if order.is_huge() {
            return is_run(order, start);
        }
        let (number, shift) = (order.number(start), order.shift());
        number.wrapping_sub(CacheWatermark::SPLIT >> shift) < self.high.load(Relaxed) >> shift
            || number.wrapping_sub(1) < self.low.load(Relaxed) >> shift
    }
}

/// Whether this is the start of a run of `order`, at a multiple of its size and not 0.
#[inline]
pub(crate) fn is_run(order: Order, start: PhysAddr) -> bool {
    order.number(start).wrapping_sub(1) < FRAMES >> order.shift()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_admitted_by_alignment_and_place() {
        let keep = Keep::new();
        let split = CacheWatermark::SPLIT;
        let numbers = || (0..2000).chain(split - 600..split + 2000).chain([FRAMES, FRAMES - 511]);
        let advices = [
            CacheWatermark::below(0),
            CacheWatermark::below(1000),
            CacheWatermark::below(split),
            CacheWatermark::below(split + 1000),
            CacheWatermark::split(0, split + 1000),
            CacheWatermark::split(500, usize::MAX),
            CacheWatermark::KEEP_ALL,
        ];
        for advice in advices {
            keep.set(advice);
            for order in Order::runs().chain([Order::FRAME]) {
                for number in numbers() {
                    let start = PhysAddr::from(number * FRAME_SIZE);
                    let aligned = number % order.frames() == 0 && number > 0;
                    assert_eq!(is_run(order, start), aligned, "{number} of {order:?}");
                    // A limit counts in whole runs: one that begins below it may be kept, one that ends there is.
                    let last = PhysAddr::from((number | (order.frames() - 1)) * FRAME_SIZE);
                    let admitted = keep.admits(order, start);
                    if aligned && (order.is_huge() || advice.keeps(last)) {
                        assert!(admitted, "{number} of {order:?} by {advice:?}");
                    } else if !aligned || !advice.keeps(start) {
                        assert!(!admitted, "{number} of {order:?} by {advice:?}");
                    }
                    for below in [1, 8, FRAME_SIZE / 2, FRAME_SIZE - 1] {
                        assert!(!keep.admits(order, PhysAddr::from(number * FRAME_SIZE + below)));
                    }
                }
            }
        }
    }

    #[test]
    fn advice_comes_back() {
        let keep = Keep::new();
        for advice in [CacheWatermark::below(77), CacheWatermark::split(5, CacheWatermark::SPLIT + 9)] {
            keep.set(advice);
            assert_eq!(keep.advice(), advice);
        }
    }
}
