//! What contenders are put to. Each function does one timed run and leaves the allocator as it found it.
//!
//! Occupancy is held between the runs, as in a machine that has been up for a while; the choice of victims is
//! random with fixed seeds, so that every contender sees the same requests. Times include the loop around the
//! allocator, which is the same for all; [`Null`](crate::yardstick::Null) tells how much that is. What is no work of
//! the allocator's (the memory of the lists, shuffling, starting threads, emptying caches at the end) happens outside
//! of the timed part. Times are processor time of the thread.

mod churn;
mod clock;
mod single;
mod threads;
mod trace;

use std::time::Duration;

pub use churn::{Held, churn, churn_in_bursts, free_huge, give_back, mixed, occupy, occupy_runs};
pub use single::{bulk, burst, pair};
pub use threads::{producer_consumer, threads, threads_bulk, threads_churn};
pub use trace::{Step, Trace, replay};

use crate::contender::Contender;

/// The outcome of one timed run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// How long it took.
    pub time: Duration,
    /// Operations in that time: pairs, frames, or steps, as the work says.
    pub operations: usize,
    /// Requests that got no memory.
    pub failures: usize,
}

impl Sample {
    /// Nanoseconds for each operation.
    pub fn nanoseconds(self) -> f64 {
        self.time.as_nanos() as f64 / self.operations.max(1) as f64
    }
}

impl std::ops::AddAssign for Sample {
    fn add_assign(&mut self, more: Self) {
        self.time += more.time;
        self.operations += more.operations;
        self.failures += more.failures;
    }
}

/// A small, fast generator (xorshift64*, Vigna 2016): its cost is part of the harness.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator with this seed; 0 is as good as any.
    pub const fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// The next 64 bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which must be at most 2^32.
    #[inline]
    pub fn below(&mut self, bound: usize) -> usize {
        (((self.bits() >> 32) * bound as u64) >> 32) as usize
    }

    /// The numbers below `count`, in random order.
    pub fn permutation(&mut self, count: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..count as u32).collect();
        for i in (1..count).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

/// What a thread's first use costs (an index, a cache, a stack) is start-up, not work.
fn warm<C: Contender>(contender: &C) {
    if let Some(address) = contender.alloc_one() {
        contender.free_one(address);
    }
}
