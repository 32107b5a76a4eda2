//! Every 256 pops a stack looks both empty and full, so that its owner looks at the watermark: no operation takes that
//! for the truth, and none forgets to end it.

mod common;

use std::{mem::MaybeUninit, sync::atomic::Ordering::Relaxed};

use common::*;
use frame_core::*;
use frame_percpu::*;

const PERIOD: usize = 256;
const FRAMES: usize = 4000;

/// What a test does with a cache of one CPU, whatever its policy.
trait Test {
    fn run<P: Policy>(&self, cache: &PerCpu<'_, SetBackend, &SimCpus, P>);
}

/// Runs a test under both policies, each time with fresh caches over frames 1 to 4000.
fn under_both_policies(test: &impl Test) {
    let cpus = SimCpus::default();
    let (mut trusted, mut guarded, mut states) = (slots(1), slots(1), vec![MaybeUninit::uninit(); FRAMES]);
    let cache = PerCpu::new(SetBackend::new(range(1, FRAMES)), &cpus);
    cache.attach(&mut trusted).unwrap();
    test.run(&cache);
    let cache = PerCpu::checked(SetBackend::new(range(1, FRAMES)), &cpus);
    cache.attach_states(range(1, FRAMES), &mut states).unwrap();
    cache.attach(&mut guarded).unwrap();
    test.run(&cache);
}

fn stats<P: Policy>(cache: &PerCpu<'_, SetBackend, &SimCpus, P>) -> CacheStats {
    cache.cpu_stats(CpuIndex(0)).unwrap()
}

/// Allocates and frees one frame again and again, until the slot has served `hits` allocations.
fn use_frames<P: Policy>(cache: &PerCpu<'_, SetBackend, &SimCpus, P>, hits: usize) {
    while stats(cache).hits < hits {
        let frame = cache.alloc_frame().unwrap();
        // SAFETY: just allocated.
        unsafe { cache.dealloc_frame(frame) }.unwrap();
    }
}

#[test]
fn frames_circulate_over_many_periods_without_the_backend() {
    struct Circulate;
    impl Test for Circulate {
        fn run<P: Policy>(&self, cache: &PerCpu<'_, SetBackend, &SimCpus, P>) {
            for round in 1..=5 * PERIOD + 10 {
                let frame = cache.alloc_frame().unwrap();
                assert_eq!(stats(cache).hits, round, "every allocation is a hit, and counted");
                // SAFETY: just allocated.
                unsafe { cache.dealloc_frame(frame) }.unwrap();
                assert_eq!((cache.cached_frames(), cache.backend().free_count()), (64, FRAMES - 64));
            }
            assert_eq!(cache.backend().bulk_calls.load(Relaxed), 1, "one refill");
        }
    }
    under_both_policies(&Circulate);
}

/// The period ends before, at or after each frame of the call, with frames left in the stack.
#[test]
fn a_period_ends_inside_a_bulk_call() {
    struct Within(usize);
    impl Test for Within {
        fn run<P: Policy>(&self, cache: &PerCpu<'_, SetBackend, &SimCpus, P>) {
            use_frames(cache, PERIOD - self.0);
            let mut frames = [addr(0); 32];
            assert_eq!(cache.alloc_bulk(&mut frames), 32);
            assert_eq!(cache.backend().free_count(), FRAMES - 64, "the rest came from the backend");
            assert_eq!((cache.cached_frames(), stats(cache).hits), (32, PERIOD - self.0 + 32));
            frames.sort();
            assert!(frames.windows(2).all(|pair| pair[0] < pair[1]), "each frame once");
            // SAFETY: just allocated.
            unsafe { cache.dealloc_bulk(&frames) }.unwrap();
            assert_eq!(cache.cached_frames(), 64);
        }
    }
    (0..=33).for_each(|left| under_both_policies(&Within(left)));
}

/// The period ends with the last frame of the stack: one refill, and no frame is missing.
#[test]
fn a_period_ends_with_the_last_frame() {
    struct Last(usize);
    impl Test for Last {
        fn run<P: Policy>(&self, cache: &PerCpu<'_, SetBackend, &SimCpus, P>) {
            let left = self.0;
            use_frames(cache, PERIOD - 64);
            let mut held: Vec<_> = (left..64).map(|_| cache.alloc_frame().unwrap()).collect();
            assert_eq!((cache.cached_frames(), stats(cache).hits), (left, PERIOD - left));
            let mut frames = [addr(0); 32];
            assert_eq!(cache.alloc_bulk(&mut frames), 32);
            assert_eq!((stats(cache).refills, stats(cache).hits), (2, PERIOD - left + 32));
            assert_eq!(cache.cached_frames() + cache.backend().free_count(), FRAMES - held.len() - 32);
            held.extend(frames);
            held.sort();
            assert!(held.windows(2).all(|pair| pair[0] < pair[1]), "each frame once");
        }
    }
    for left in [0, 1, 7, 31] {
        under_both_policies(&Last(left));
    }
}

#[test]
fn a_slot_is_drained_while_a_period_is_over() {
    for order in [0, 1, 3, 5, 9] {
        let (mut slots, cpus) = (slots(1), SimCpus::default());
        let cache = PerCpu::new(SetBackend::new(range(1, FRAMES)), &cpus);
        cache.attach(&mut slots).unwrap();
        let layout = FrameLayout::new(1 << order, FRAME_SIZE << order).unwrap();
        // SAFETY: each run is freed once after it was allocated.
        let free = |run| unsafe { cache.dealloc(run, layout) }.unwrap();
        let pair = [cache.alloc(layout).unwrap(), cache.alloc(layout).unwrap()];
        pair.into_iter().for_each(free);
        let last = loop {
            let run = cache.alloc(layout).unwrap();
            if stats(&cache).hits == PERIOD {
                break run;
            }
            free(run);
        };
        let cached = cache.cached_frames();
        assert!(cached > 0, "order {order}: nothing to drain");
        assert_eq!(cache.drain_local(), cached);
        assert_eq!((cache.cached_frames(), cache.backend().free_count()), (0, FRAMES - (1 << order)));
        // The stack is open again, for the very next run.
        free(last);
        assert_eq!(cache.cached_frames(), 1 << order, "order {order}: the stack stayed shut");
        assert_eq!((cache.alloc(layout), stats(&cache).hits), (Ok(last), PERIOD + 1));
    }
}

/// An owner that finds all it wants in its slot hears of a lower watermark within a period.
#[test]
fn frames_above_a_lower_watermark_go_back_within_a_period() {
    struct Sink;
    impl Test for Sink {
        fn run<P: Policy>(&self, cache: &PerCpu<'_, SetBackend, &SimCpus, P>) {
            use_frames(cache, 10);
            cache.backend().watermark.store(FRAME_SIZE, Relaxed);
            use_frames(cache, PERIOD);
            assert_eq!((stats(cache).refills, stats(cache).spills), (1, 0), "the slot is all it needs");
            use_frames(cache, PERIOD + 32);
            assert_eq!((stats(cache).spills, stats(cache).spilled_frames), (1, 32));
        }
    }
    under_both_policies(&Sink);
}

#[test]
fn runs_above_a_lower_watermark_go_back_within_a_period() {
    let (mut slots, cpus) = (slots(1), SimCpus::default());
    let cache = PerCpu::new(SetBackend::new(range(1, FRAMES)), &cpus);
    cache.attach(&mut slots).unwrap();
    let layout = FrameLayout::new(8, 8 * FRAME_SIZE).unwrap();
    for round in 0..=PERIOD {
        let run = cache.alloc(layout).unwrap();
        cache.backend().watermark.store(FRAME_SIZE, Relaxed);
        // SAFETY: just allocated.
        unsafe { cache.dealloc(run, layout) }.unwrap();
        // The first came from the backend, so the last is the period's.
        assert_eq!(cache.backend().is_free(number(run)), round == PERIOD, "round {round}");
    }
    assert_eq!((stats(&cache).hits, cache.cached_frames()), (PERIOD, 0));
}
