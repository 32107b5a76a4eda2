//! Several threads on one allocator.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    Held, Random, Sample,
    churn::churn_list,
    clock::Moment,
    pair,
    single::{fill, touched},
    warm,
};
use crate::contender::Contender;

/// Has each of these states worked on by a thread of its own, once all are ready. What counts is the slowest thread.
fn together<C: Contender, S: Send>(
    contender: &C,
    states: impl IntoIterator<Item = S>,
    work: impl Fn(S) -> Sample + Sync,
) -> Sample {
    let states: Vec<S> = states.into_iter().collect();
    let ready = Barrier::new(states.len());
    let run = |state| {
        warm(contender);
        ready.wait();
        let sample = work(state);
        // Nobody tidies up while another is still timed.
        ready.wait();
        contender.settle();
        sample
    };
    let mut slowest = Sample::default();
    std::thread::scope(|scope| {
        let run = &run;
        let spawn = |state| {
            // The floor's stack of frames is thread-local, and counts as part of the thread's own stack.
            let thread = std::thread::Builder::new().stack_size(16 << 20);
            thread.spawn_scoped(scope, move || run(state)).expect("a thread can be started")
        };
        let workers: Vec<_> = states.into_iter().map(spawn).collect();
        for worker in workers {
            let one = worker.join().expect("a worker does not panic");
            slowest.time = slowest.time.max(one.time);
            slowest.operations = slowest.operations.max(one.operations);
            slowest.failures += one.failures;
        }
    });
    slowest
}

/// [`pair`] on several threads at once. An operation is a pair of one thread.
pub fn threads<C: Contender>(contender: &C, threads: usize, rounds: usize) -> Sample {
    together(contender, 0..threads, |_| pair(contender, 0, rounds))
}

/// [`churn`](super::churn()) on several threads at once, each with a list of its own. An operation is a step of one
/// thread.
pub fn threads_churn<C: Contender>(contender: &C, threads: usize, steps: usize, held: &mut Held) -> Sample {
    held.rounds += 1;
    let seed = held.rounds;
    let lists = held.frames.iter_mut().take(threads).enumerate();
    together(contender, lists, |(index, frames)| {
        churn_list(contender, steps, frames, Random::new(seed << 8 | index as u64))
    })
}

/// On several threads at once: allocate `frames` frames, free them in random order, until about `operations` are done.
/// An operation is a frame, allocated and freed, of one thread.
pub fn threads_bulk<C: Contender>(contender: &C, threads: usize, frames: usize, operations: usize) -> Sample {
    let times = (operations / frames).max(1);
    let prepared = (0..threads).map(|index| (touched(frames), Random::new(index as u64).permutation(frames)));
    together(contender, prepared, |(mut held, order)| {
        let mut failures = 0;
        let start = Moment::now();
        for _ in 0..times {
            failures += fill(contender, &mut held);
            for &i in &order {
                let address = held[i as usize];
                if address != 0 {
                    contender.free_one(address);
                }
            }
        }
        Sample { time: start.elapsed(), operations: times * frames, failures }
    })
}

/// A word on a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Counter(AtomicUsize);

/// Frames go through a ring of places, 64 at a time. Only what the allocator does is timed, on the wall: a thread that
/// waits for the other waits for the machine.
struct Ring {
    places: Vec<AtomicUsize>,
    written: Counter,
    read: Counter,
}

const PLACES: usize = 4096;
const BATCH: usize = 64;

impl Ring {
    fn produce<C: Contender>(&self, contender: &C, frames: usize) -> Duration {
        let mut time = Duration::ZERO;
        let mut done = 0;
        while done < frames {
            wait(|| done + BATCH <= self.read.0.load(Ordering::Acquire) + PLACES);
            let start = Instant::now();
            let mut got = 0;
            while got < BATCH {
                let Some(address) = contender.alloc_one() else { break };
                self.places[(done + got) % PLACES].store(address, Ordering::Relaxed);
                got += 1;
            }
            time += start.elapsed();
            done += got;
            self.written.0.store(done, Ordering::Release);
        }
        time
    }

    fn consume<C: Contender>(&self, contender: &C, frames: usize) -> Duration {
        let mut time = Duration::ZERO;
        let mut done = 0;
        while done < frames {
            wait(|| self.written.0.load(Ordering::Acquire) > done);
            let there = self.written.0.load(Ordering::Acquire);
            let start = Instant::now();
            for i in done..there {
                contender.free_one(self.places[i % PLACES].load(Ordering::Relaxed));
            }
            time += start.elapsed();
            done = there;
            self.read.0.store(done, Ordering::Release);
        }
        time
    }
}

/// One thread allocates, another frees. An operation is a frame, and its time that of the slower side.
pub fn producer_consumer<C: Contender>(contender: &C, frames: usize) -> Sample {
    let frames = frames.next_multiple_of(BATCH);
    let places = (0..PLACES).map(|_| AtomicUsize::new(0)).collect();
    let ring = Ring { places, written: Counter::default(), read: Counter::default() };
    together(contender, [true, false], |produces| {
        let time = if produces { ring.produce(contender, frames) } else { ring.consume(contender, frames) };
        Sample { time, operations: frames, failures: 0 }
    })
}

/// Waits for the other thread: a while on the processor, then without it.
fn wait(until: impl Fn() -> bool) {
    let mut turns = 0u32;
    while !until() {
        turns += 1;
        if turns.is_multiple_of(1 << 10) {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}
