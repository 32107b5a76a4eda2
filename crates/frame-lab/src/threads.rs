//! A replay with a thread for each CPU of the recording.
//!
//! Each thread does its CPU's operations in their order, as fast as it can. The order between CPUs is not kept, but
//! for one thing: what one CPU allocated and another frees must have been allocated. The freeing thread waits for
//! that. It cannot wait for ever: of all operations that are not done, the first of the recording waits for nobody.
//!
//! Slots are numbered anew here, one for each allocation of the program, so that a slot is written once.

use std::{
    sync::{
        Barrier,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread,
    time::{Duration, Instant},
};

use frame_core::{FrameAllocator, PhysAddr};

use crate::{
    backends::{Job, on_cpu},
    replay::{call_alloc, call_dealloc},
    trace::{Action, Op, Program},
};

/// A program, taken apart by CPU.
#[derive(Debug)]
pub(crate) struct Streams {
    /// The operations of each CPU; slots are numbers of allocations.
    streams: Vec<Vec<Op>>,
    /// The order of each allocation, and whether the program frees it.
    allocations: Vec<(u8, bool)>,
    /// Frames that are live behind the last operation, if no allocation fails.
    live_frames: usize,
}

impl Streams {
    pub(crate) fn of(program: &Program) -> Self {
        let mut streams = vec![Vec::new(); program.cpus.len()];
        let mut current = vec![0u32; program.slots];
        let mut allocations: Vec<(u8, bool)> = Vec::new();
        for &op in &program.ops {
            let slot = &mut current[op.slot as usize];
            match op.action {
                Action::Alloc => {
                    *slot = allocations.len() as u32;
                    allocations.push((op.order, false));
                }
                Action::Free => allocations[*slot as usize].1 = true,
            }
            streams[usize::from(op.cpu)].push(Op { slot: *slot, ..op });
        }
        let live = allocations.iter().filter(|(_, freed)| !freed);
        let live_frames = live.map(|&(order, _)| 1usize << order).sum();
        Self { streams, allocations, live_frames }
    }
}

/// The job.
pub(crate) struct Threaded<'r> {
    pub(crate) streams: &'r Streams,
}

/// What a threaded replay came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// On the wall, until the last thread is done.
    pub(crate) time: Duration,
    pub(crate) failures: u64,
    /// Frees that were refused.
    pub(crate) refused: u64,
    /// Frames that are not free at the end though nothing holds them, or the other way round; also after everything was freed.
    pub(crate) miscounted: u64,
}

/// A slot whose allocation has not been done.
const EMPTY: usize = 0;
/// A slot whose allocation failed: no address of a frame.
const FAILED: usize = 1;

impl Job for Threaded<'_> {
    type Out = Outcome;

    fn run<A: FrameAllocator>(self, allocator: &A, drain: &dyn Fn()) -> Outcome {
        let Streams { streams, allocations, live_frames } = self.streams;
        let total = allocator.stats().total_frames;
        let slots: Vec<AtomicUsize> = allocations.iter().map(|_| AtomicUsize::new(EMPTY)).collect();
        let (failures, refused, failed_live) = (AtomicU64::new(0), AtomicU64::new(0), AtomicUsize::new(0));
        let barrier = Barrier::new(streams.len() + 1);
        let start = thread::scope(|scope| {
            for (cpu, ops) in streams.iter().enumerate() {
                let (slots, barrier, failures, refused, failed_live) =
                    (&slots, &barrier, &failures, &refused, &failed_live);
                scope.spawn(move || {
                    on_cpu(cpu);
                    barrier.wait();
                    for op in ops {
                        let slot = &slots[op.slot as usize];
                        match op.action {
                            Action::Alloc => {
                                let start = call_alloc(allocator, op.order);
                                if start.is_none() {
                                    failures.fetch_add(1, Relaxed);
                                    let (order, freed) = allocations[op.slot as usize];
                                    failed_live.fetch_add(if freed { 0 } else { 1 << order }, Relaxed);
                                }
                                slot.store(start.map_or(FAILED, PhysAddr::as_usize), Release);
                            }
                            Action::Free => {
                                let start = wait(slot);
                                if start != FAILED
                                    && !call_dealloc(allocator, PhysAddr::from(start), op.order)
                                {
                                    refused.fetch_add(1, Relaxed);
                                }
                            }
                        }
                    }
                });
            }
            barrier.wait();
            Instant::now()
        });
        let time = start.elapsed();
        let live = live_frames - failed_live.into_inner();
        drain();
        let mut miscounted = (total - live).abs_diff(count_free(allocator));
        on_cpu(0);
        for (slot, &(order, freed)) in slots.iter().zip(allocations) {
            let start = slot.load(Relaxed);
            if !freed && start != FAILED && !call_dealloc(allocator, PhysAddr::from(start), order) {
                refused.fetch_add(1, Relaxed);
            }
        }
        drain();
        miscounted = miscounted.max(total.abs_diff(count_free(allocator)));
        let (failures, refused) = (failures.into_inner(), refused.into_inner());
        Outcome { time, failures, refused, miscounted: miscounted as u64 }
    }
}

/// Free frames, counted one run after the other; the allocator's own count must be the same.
fn count_free<A: FrameAllocator>(allocator: &A) -> usize {
    let mut frames = 0;
    allocator.visit_free(&mut |run| frames += run.count());
    let counted = allocator.stats().free_frames;
    // A difference must not cancel out.
    if counted == frames { frames } else { usize::MAX / 2 }
}

/// The address in a slot, once it is there.
#[inline]
fn wait(slot: &AtomicUsize) -> usize {
    for spins in 0u32.. {
        let start = slot.load(Acquire);
        if start != EMPTY {
            return start;
        }
        if spins < 200 { std::hint::spin_loop() } else { thread::yield_now() }
    }
    FAILED
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backends::{ALL, Setting},
        memory::Memory,
        trace::{self, Source},
    };

    #[test]
    fn every_backend_keeps_its_accounts_between_threads() {
        let trace = trace::read(Source::Embedded, |_| ()).unwrap();
        let streams = Streams::of(&trace.program);
        assert_eq!(streams.streams.len(), 2);
        assert_eq!(streams.streams.iter().map(Vec::len).sum::<usize>(), trace.program.ops.len());
        assert_eq!(streams.live_frames as u64, trace.program.samples.last().unwrap().live_frames);
        let memory = Memory::load("vmware-bios").unwrap();
        for limit in [None, Some(20_000)] {
            let setting = Setting { regions: memory.regions(limit), cpus: 2, threads: true };
            for backend in ALL {
                let outcome = backend.run(&setting, Threaded { streams: &streams }).unwrap();
                assert_eq!((outcome.refused, outcome.miscounted), (0, 0), "{}: {outcome:?}", backend.name);
                assert_eq!(outcome.failures > 0, limit.is_some(), "{}: {outcome:?}", backend.name);
            }
        }
    }
}
