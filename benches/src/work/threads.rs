//! Several threads on one allocator.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    Churn, Random, Sample,
    churn::{give_back, occupy, steps},
    pair,
    single::{fill, touched},
    warm,
};
use crate::contender::Contender;

/// The longest time of `threads` threads, each of which does `work` on what `prepare` gave it, once all are ready;
/// `finish` comes behind the timed part.
fn together<C: Contender, S>(
    contender: &C,
    threads: usize,
    prepare: impl Fn(usize) -> S + Sync,
    work: impl Fn(usize, &mut S) -> (usize, usize) + Sync,
    finish: impl Fn(S) + Sync,
) -> Sample {
    let ready = Barrier::new(threads);
    let run = |index: usize| {
        warm(contender);
        let mut state = prepare(index);
        ready.wait();
        let start = Instant::now();
        let (operations, failures) = work(index, &mut state);
        let time = start.elapsed();
        // Nobody tidies up while another is still timed.
        ready.wait();
        finish(state);
        contender.settle();
        Sample { time, operations, failures }
    };
    let mut sample = Sample { time: Duration::ZERO, operations: 0, failures: 0 };
    std::thread::scope(|scope| {
        let run = &run;
        let workers: Vec<_> = (0..threads).map(|index| scope.spawn(move || run(index))).collect();
        for worker in workers {
            let one = worker.join().expect("a worker does not panic");
            sample.time = sample.time.max(one.time);
            sample.operations = sample.operations.max(one.operations);
            sample.failures += one.failures;
        }
    });
    sample
}

/// [`pair`] on several threads at once. An operation is a pair of one thread.
pub fn threads<C: Contender>(contender: &C, threads: usize, rounds: usize) -> Sample {
    together(
        contender,
        threads,
        |_| (),
        |_, ()| {
            let pairs = pair(contender, 0, rounds);
            (pairs.operations, pairs.failures)
        },
        |()| (),
    )
}

/// [`churn`](super::churn()) on several threads at once, each of which holds its own frames: `churn` is what one thread does.
/// An operation is a step of one thread.
pub fn threads_churn<C: Contender>(contender: &C, threads: usize, churn: &Churn) -> Sample {
    together(
        contender,
        threads,
        |_| occupy(contender, churn),
        |index, held| {
            let stepped = steps(contender, &Churn { seed: churn.seed + index as u64, ..*churn }, held);
            (stepped.operations, stepped.failures)
        },
        |held| give_back(contender, held),
    )
}

/// On several threads at once: allocate `frames` frames, free them in random order, until about `operations` are done.
/// An operation is a frame, allocated and freed, of one thread.
pub fn threads_bulk<C: Contender>(contender: &C, threads: usize, frames: usize, operations: usize) -> Sample {
    let times = (operations / frames).max(1);
    together(
        contender,
        threads,
        |index| (touched(frames), Random::new(index as u64).permutation(frames)),
        |_, (held, order)| {
            let mut failures = 0;
            for _ in 0..times {
                failures += fill(contender, held);
                for &i in &*order {
                    let address = held[i as usize];
                    if address != 0 {
                        contender.free(address, 0);
                    }
                }
            }
            (times * frames, failures)
        },
        |_| (),
    )
}

/// A word on a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Counter(AtomicUsize);

/// One thread allocates, another frees. An operation is a frame.
///
/// Frames go through a ring of 1,024 places, published 32 at a time, so that what the threads say to each other costs
/// little beside what the allocator does.
pub fn producer_consumer<C: Contender>(contender: &C, frames: usize) -> Sample {
    const PLACES: usize = 1024;
    const BATCH: usize = 32;
    let ring: Vec<AtomicUsize> = (0..PLACES).map(|_| AtomicUsize::new(0)).collect();
    let (written, read) = (Counter::default(), Counter::default());
    let produce = || {
        for i in 0..frames {
            let address = loop {
                match contender.alloc(0) {
                    Some(address) => break address,
                    None => {
                        written.0.store(i, Ordering::Release);
                        std::thread::yield_now();
                    }
                }
            };
            ring[i % PLACES].store(address, Ordering::Relaxed);
            if (i + 1) % BATCH == 0 || i + 1 == frames {
                written.0.store(i + 1, Ordering::Release);
                wait(|| i + 1 + BATCH <= read.0.load(Ordering::Acquire) + PLACES);
            }
        }
    };
    let consume = || {
        let mut done = 0;
        while done < frames {
            wait(|| written.0.load(Ordering::Acquire) > done);
            let there = written.0.load(Ordering::Acquire);
            for i in done..there {
                contender.free(ring[i % PLACES].load(Ordering::Relaxed), 0);
            }
            done = there;
            read.0.store(done, Ordering::Release);
        }
    };
    together(
        contender,
        2,
        |_| (),
        |index, ()| {
            if index == 0 {
                produce()
            } else {
                consume()
            }
            (frames, 0)
        },
        |()| (),
    )
}

/// Waits for the other thread: a while on the processor, then without it.
fn wait(until: impl Fn() -> bool) {
    let mut turns = 0u32;
    while !until() {
        turns += 1;
        if turns.is_multiple_of(1 << 12) {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}
