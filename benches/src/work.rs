//! What contenders are put to. Each function does one timed run and leaves the allocator as it found it.
//!
//! Occupancy is held while the work runs, as in a machine that has been up for a while; the choice of victims is
//! random with a fixed seed, so that every contender sees the same requests. Times include the loop around the
//! allocator; [`Null`](crate::yardstick::Null) tells how much that is.

use std::{
    hint::black_box,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

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
}

/// Allocate and free one run, again and again. An operation is the pair.
#[inline(never)]
pub fn pair<C: Contender>(contender: &C, order: u32, rounds: usize) -> Sample {
    let mut failures = 0;
    let start = Instant::now();
    for _ in 0..rounds {
        match contender.alloc(order) {
            Some(address) => contender.free(black_box(address), order),
            None => failures += 1,
        }
    }
    Sample { time: start.elapsed(), operations: rounds, failures }
}

/// Allocate `burst` frames, free them in the order of their allocation. An operation is a pair.
#[inline(never)]
pub fn burst<C: Contender>(contender: &C, burst: usize, rounds: usize) -> Sample {
    let mut held = vec![0; burst];
    let mut failures = 0;
    let start = Instant::now();
    for _ in 0..rounds / burst {
        for slot in &mut held {
            *slot = contender.alloc(0).unwrap_or(0);
        }
        for &address in &held {
            if address == 0 {
                failures += 1;
            } else {
                contender.free(address, 0);
            }
        }
    }
    Sample { time: start.elapsed(), operations: rounds / burst * burst, failures }
}

/// Allocate many frames, then free them in random order: two samples, an operation is a frame.
#[inline(never)]
pub fn bulk<C: Contender>(contender: &C, frames: usize, seed: u64) -> (Sample, Sample) {
    let mut held = Vec::with_capacity(frames);
    let start = Instant::now();
    for _ in 0..frames {
        match contender.alloc(0) {
            Some(address) => held.push(address),
            None => break,
        }
    }
    let alloc = Sample { time: start.elapsed(), operations: held.len(), failures: frames - held.len() };
    let mut random = Random::new(seed);
    for i in (1..held.len()).rev() {
        held.swap(i, random.below(i + 1));
    }
    let start = Instant::now();
    for &address in &held {
        contender.free(address, 0);
    }
    (alloc, Sample { time: start.elapsed(), operations: held.len(), failures: 0 })
}

/// How long and how full a churn is.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    /// Frames of memory in all.
    pub frames: usize,
    /// Share of them that is held, in percent.
    pub percent: usize,
    /// Steps: free a random run, allocate another.
    pub steps: usize,
    /// Of the random choices.
    pub seed: u64,
}

/// Single frames at a fixed occupancy: each step frees a random frame and allocates one. An operation is the step.
pub fn churn<C: Contender>(contender: &C, churn: &Churn) -> Sample {
    let (sample, held) = churn_held(contender, churn);
    held.into_iter().for_each(|address| contender.free(address, 0));
    sample
}

/// [`churn`], then [`free_huge`] while the frames are still held.
pub fn free_huge_after<C: Contender>(contender: &C, churn: &Churn) -> usize {
    let (_, held) = churn_held(contender, churn);
    let huge = free_huge(contender);
    held.into_iter().for_each(|address| contender.free(address, 0));
    huge
}

/// [`churn`], and the frames that are held at its end.
#[inline(never)]
fn churn_held<C: Contender>(contender: &C, churn: &Churn) -> (Sample, Vec<usize>) {
    let mut held: Vec<usize> = Vec::new();
    held.extend((0..churn.frames / 100 * churn.percent).map_while(|_| contender.alloc(0)));
    let mut random = Random::new(churn.seed);
    let mut failures = 0;
    let start = Instant::now();
    for _ in 0..churn.steps {
        let victim = random.below(held.len());
        contender.free(held[victim], 0);
        match contender.alloc(0) {
            Some(address) => held[victim] = address,
            None => {
                failures += 1;
                held.swap_remove(victim);
            }
        }
    }
    (Sample { time: start.elapsed(), operations: churn.steps, failures }, held)
}

/// Runs of orders 0 to 9 at a fixed occupancy: each step frees one and allocates one of a random order, small ones
/// twice as likely as the next. An operation is the step.
#[inline(never)]
pub fn mixed<C: Contender>(contender: &C, churn: &Churn) -> Sample {
    let order = |random: &mut Random| (random.bits() >> 54 | 1 << 9).trailing_zeros();
    let mut random = Random::new(churn.seed);
    let mut held: Vec<(usize, u32)> = Vec::new();
    let mut room = churn.frames / 100 * churn.percent;
    while room >= 512 {
        let order = order(&mut random);
        let Some(address) = contender.alloc(order) else { break };
        held.push((address, order));
        room -= 1 << order;
    }
    let mut failures = 0;
    let start = Instant::now();
    for _ in 0..churn.steps {
        let victim = random.below(held.len());
        let (address, old) = held[victim];
        contender.free(address, old);
        let new = order(&mut random);
        match contender.alloc(new) {
            Some(address) => held[victim] = (address, new),
            None => {
                failures += 1;
                held.swap_remove(victim);
            }
        }
    }
    let time = start.elapsed();
    held.into_iter().for_each(|(address, order)| contender.free(address, order));
    Sample { time, operations: churn.steps, failures }
}

/// The longest time of `threads` threads, each of which does `work` after all are ready.
fn together(threads: usize, work: impl Fn(usize) -> usize + Sync) -> Sample {
    let ready = Barrier::new(threads);
    let mut sample = Sample::default();
    std::thread::scope(|scope| {
        let run = |index| {
            let (ready, work) = (&ready, &work);
            scope.spawn(move || {
                ready.wait();
                let start = Instant::now();
                let operations = work(index);
                (start.elapsed(), operations)
            })
        };
        let workers: Vec<_> = (0..threads).map(run).collect();
        for worker in workers {
            let (time, operations) = worker.join().expect("a worker does not panic");
            sample.time = sample.time.max(time);
            sample.operations = sample.operations.max(operations);
        }
    });
    sample
}

/// [`pair`] on several threads at once. An operation is a pair of one thread.
pub fn threads<C: Contender>(contender: &C, threads: usize, rounds: usize) -> Sample {
    together(threads, |_| {
        let pairs = pair(contender, 0, rounds);
        contender.settle();
        pairs.operations
    })
}

/// [`bulk`] on several threads at once. An operation is a frame, allocated and freed, of one thread.
pub fn threads_bulk<C: Contender>(contender: &C, threads: usize, frames: usize) -> Sample {
    together(threads, |index| {
        let (alloc, _) = bulk(contender, frames, index as u64);
        contender.settle();
        alloc.operations
    })
}

/// One thread allocates, another frees, over a ring of 1,024 slots. An operation is a frame.
pub fn producer_consumer<C: Contender>(contender: &C, frames: usize) -> Sample {
    const SLOTS: usize = 1024;
    let ring: Vec<AtomicUsize> = (0..SLOTS).map(|_| AtomicUsize::new(0)).collect();
    together(2, |index| {
        for i in 0..frames {
            let slot = &ring[i % SLOTS];
            if index == 0 {
                let address = loop {
                    match contender.alloc(0) {
                        Some(address) => break address,
                        None => std::thread::yield_now(),
                    }
                };
                while slot.load(Ordering::Acquire) != 0 {
                    std::hint::spin_loop();
                }
                slot.store(address, Ordering::Release);
            } else {
                let address = loop {
                    match slot.load(Ordering::Acquire) {
                        0 => std::hint::spin_loop(),
                        address => break address,
                    }
                };
                slot.store(0, Ordering::Release);
                contender.free(address, 0);
            }
        }
        contender.settle();
        frames
    })
}

/// How many 2 MiB runs there are: takes all, gives them back.
fn free_huge<C: Contender>(contender: &C) -> usize {
    contender.settle();
    let held: Vec<usize> = std::iter::from_fn(|| contender.alloc(9)).collect();
    held.iter().for_each(|&address| contender.free(address, 9));
    held.len()
}
