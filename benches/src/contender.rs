//! What is measured, and how a measurement reaches it without a virtual call.
//!
//! A [`Contender`] is driven by generic code, compiled for it alone: no dynamic dispatch between the loop and the
//! allocator. [`Race`] is the same work behind a table, one virtual call for a whole run.

use std::ops::Range;

use crate::{
    verify::{self, Fault},
    work::{self, Held, Sample, Trace},
};

/// An allocator of `2^order` contiguous 4 KiB frames, aligned to their size.
///
/// Implementations call the measured allocator's own interface in the way its documentation calls best.
pub trait Contender: Sync {
    /// Allocates a run; its address.
    fn alloc(&self, order: u32) -> Option<usize>;

    /// Gives a run back that [`alloc`](Self::alloc) returned for this order.
    fn free(&self, address: usize, order: u32);

    /// Allocates one frame, where there is a call for that.
    #[inline]
    fn alloc_one(&self) -> Option<usize> {
        self.alloc(0)
    }

    /// Gives one frame back, where there is a call for that.
    #[inline]
    fn free_one(&self, address: usize) {
        self.free(address, 0);
    }

    /// Allocates one frame and frees it. False if there was none.
    #[inline]
    fn pair(&self) -> bool {
        match self.alloc_one() {
            Some(address) => {
                self.free_one(std::hint::black_box(address));
                true
            }
            None => false,
        }
    }

    /// Hands back whatever the caches of this thread hold: called before memory is inspected.
    fn settle(&self) {}

    /// Whether it can allocate runs of this order at all.
    fn can(&self, order: u32) -> bool {
        let _ = order;
        true
    }

    /// Whether it hands out distinct frames of the arena (yardsticks do not).
    fn is_real(&self) -> bool {
        true
    }

    /// The memory it hands out, where that is not the arena it was given.
    fn arena(&self) -> Option<Range<usize>> {
        None
    }
}

/// The work of [`work`], compiled for one contender.
pub trait Race: Sync {
    /// See [`work::pair`].
    fn pair(&self, order: u32, rounds: usize) -> Sample;
    /// See [`work::burst`].
    fn burst(&self, burst: usize, rounds: usize) -> Sample;
    /// See [`work::bulk`].
    fn bulk(&self, frames: usize, operations: usize, seed: u64) -> (Sample, Sample);
    /// See [`work::occupy`].
    fn occupy(&self, frames: usize, percent: usize, lists: usize) -> Held;
    /// See [`work::occupy_runs`].
    fn occupy_runs(&self, frames: usize, percent: usize) -> Held;
    /// See [`work::give_back`].
    fn give_back(&self, held: Held);
    /// See [`work::churn`].
    fn churn(&self, steps: usize, held: &mut Held) -> Sample;
    /// See [`work::churn_in_bursts`].
    fn churn_in_bursts(&self, steps: usize, burst: usize, held: &mut Held);
    /// See [`work::mixed`].
    fn mixed(&self, steps: usize, held: &mut Held) -> Sample;
    /// See [`work::threads`].
    fn threads(&self, threads: usize, rounds: usize) -> Sample;
    /// See [`work::threads_churn`].
    fn threads_churn(&self, threads: usize, steps: usize, held: &mut Held) -> Sample;
    /// See [`work::threads_bulk`].
    fn threads_bulk(&self, threads: usize, frames: usize, operations: usize) -> Sample;
    /// See [`work::producer_consumer`].
    fn producer_consumer(&self, frames: usize) -> Sample;
    /// See [`work::replay`].
    fn replay(&self, trace: &Trace) -> Sample;
    /// See [`work::free_huge`].
    fn free_huge(&self) -> usize;
    /// See [`verify::verify`].
    ///
    /// # Errors
    /// The first fault.
    fn verify(&self, arena: Range<usize>, frames: usize) -> Result<(), Fault>;
    /// See [`Contender::can`].
    fn can(&self, order: u32) -> bool;
    /// See [`Contender::is_real`].
    fn is_real(&self) -> bool;
}

impl<C: Contender> Race for C {
    fn pair(&self, order: u32, rounds: usize) -> Sample {
        work::pair(self, order, rounds)
    }
    fn burst(&self, burst: usize, rounds: usize) -> Sample {
        work::burst(self, burst, rounds)
    }
    fn bulk(&self, frames: usize, operations: usize, seed: u64) -> (Sample, Sample) {
        work::bulk(self, frames, operations, seed)
    }
    fn occupy(&self, frames: usize, percent: usize, lists: usize) -> Held {
        work::occupy(self, frames, percent, lists)
    }
    fn occupy_runs(&self, frames: usize, percent: usize) -> Held {
        work::occupy_runs(self, frames, percent)
    }
    fn give_back(&self, held: Held) {
        work::give_back(self, held);
    }
    fn churn(&self, steps: usize, held: &mut Held) -> Sample {
        work::churn(self, steps, held)
    }
    fn churn_in_bursts(&self, steps: usize, burst: usize, held: &mut Held) {
        work::churn_in_bursts(self, steps, burst, held);
    }
    fn mixed(&self, steps: usize, held: &mut Held) -> Sample {
        work::mixed(self, steps, held)
    }
    fn threads(&self, threads: usize, rounds: usize) -> Sample {
        work::threads(self, threads, rounds)
    }
    fn threads_churn(&self, threads: usize, steps: usize, held: &mut Held) -> Sample {
        work::threads_churn(self, threads, steps, held)
    }
    fn threads_bulk(&self, threads: usize, frames: usize, operations: usize) -> Sample {
        work::threads_bulk(self, threads, frames, operations)
    }
    fn producer_consumer(&self, frames: usize) -> Sample {
        work::producer_consumer(self, frames)
    }
    fn replay(&self, trace: &Trace) -> Sample {
        work::replay(self, trace)
    }
    fn free_huge(&self) -> usize {
        work::free_huge(self)
    }
    fn verify(&self, arena: Range<usize>, frames: usize) -> Result<(), Fault> {
        verify::verify(self, self.arena().unwrap_or(arena), frames)
    }
    fn can(&self, order: u32) -> bool {
        Contender::can(self, order)
    }
    fn is_real(&self) -> bool {
        Contender::is_real(self)
    }
}
