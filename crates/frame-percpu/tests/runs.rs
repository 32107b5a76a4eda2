//! Small runs circulate through stacks under a trusting policy; nothing is lost there.

mod common;

use std::sync::atomic::Ordering::Relaxed;

use common::*;
use frame_core::*;
use frame_percpu::*;

fn aligned(order: usize) -> FrameLayout {
    FrameLayout::new(1 << order, FRAME_SIZE << order).unwrap()
}

#[test]
fn a_freed_run_is_handed_out_again_without_the_backend() {
    let (mut slots, cpus) = (slots(2), SimCpus::default());
    let cache = PerCpu::new(SetBackend::new(range(1, 1000)), &cpus);
    cache.attach(&mut slots).unwrap();
    for order in 1..=5 {
        let first = cache.alloc(aligned(order)).unwrap();
        let calls = cache.backend().run_calls.load(Relaxed);
        for _ in 0..10 {
            // SAFETY: allocated above or in the last turn.
            unsafe { cache.dealloc(first, aligned(order)) }.unwrap();
            assert_eq!(cache.alloc(aligned(order)), Ok(first));
        }
        assert_eq!(cache.backend().run_calls.load(Relaxed), calls, "order {order} went to the backend");
        // SAFETY: allocated above.
        unsafe { cache.dealloc(first, aligned(order)) }.unwrap();
    }
    assert_eq!(cache.cached_frames(), 2 + 4 + 8 + 16 + 32);
    assert_eq!(cache.stats().free_frames, 1000);
    // Before a larger request fails, and for single frames, what lies in the stacks is given back.
    let whole = FrameLayout::contiguous(1000).unwrap();
    assert_eq!(cache.alloc(whole), Ok(addr(1)));
    assert_eq!(cache.cached_frames(), 0);
}

#[test]
fn stacks_hold_no_more_than_their_share_and_no_run_that_does_not_fit() {
    let (mut slots, cpus) = (slots(1), SimCpus::default());
    let cache = PerCpu::new(SetBackend::new(range(1, 4000)), &cpus);
    cache.attach(&mut slots).unwrap();
    for order in 1..=5 {
        let runs: Vec<_> = (0..40).map(|_| cache.alloc(aligned(order)).unwrap()).collect();
        for run in runs {
            // SAFETY: just allocated.
            unsafe { cache.dealloc(run, aligned(order)) }.unwrap();
        }
    }
    assert!((400..=832).contains(&cache.cached_frames()), "{} frames in stacks", cache.cached_frames());
    assert_eq!(cache.stats().free_frames, 4000);
    cache.drain_local();
    assert_eq!((cache.cached_frames(), cache.backend().free_count()), (0, 4000));

    // Two neighbours across a boundary of their size, and what is aligned to more than its size, pass by.
    cache.alloc_at(range(7, 2)).unwrap();
    // SAFETY: just allocated.
    unsafe { cache.dealloc(addr(7), FrameLayout::contiguous(2).unwrap()) }.unwrap();
    let wide = FrameLayout::new(2, 64 * FRAME_SIZE).unwrap();
    let run = cache.alloc(wide).unwrap();
    assert_eq!(number(run) % 64, 0);
    // SAFETY: just allocated.
    unsafe { cache.dealloc(run, wide) }.unwrap();
    assert_eq!(cache.cached_frames(), 0);
}

#[test]
fn whole_huge_frames_are_kept_wherever_they_lie() {
    let (mut slots, cpus) = (slots(1), SimCpus::default());
    let cache = PerCpu::new(SetBackend::new(range(512, 8 * 512)), &cpus);
    cache.backend().watermark.store(600 * FRAME_SIZE, Relaxed);
    cache.attach(&mut slots).unwrap();
    let runs: Vec<_> = (0..4).map(|_| cache.alloc(FrameLayout::HUGE_2M).unwrap()).collect();
    for (freed, &run) in (1..).zip(&runs) {
        // SAFETY: allocated above.
        unsafe { cache.dealloc(run, FrameLayout::HUGE_2M) }.unwrap();
        let stats = cache.stats();
        assert_eq!(stats.free_frames, (4 + freed) * 512);
        assert_eq!(stats.free_frames, cache.backend().free_count() + stats.cached_frames);
    }
    assert_eq!(cache.cached_frames(), 2 * 512, "two, whatever comes");
    let calls = cache.backend().run_calls.load(Relaxed);
    assert_eq!(cache.alloc(FrameLayout::HUGE_2M), Ok(runs[3]));
    assert_eq!(cache.alloc(FrameLayout::HUGE_2M), Ok(runs[2]));
    assert_eq!((cache.cached_frames(), cache.backend().run_calls.load(Relaxed)), (0, calls));

    // 512 frames across a boundary are no huge frame.
    cache.alloc_at(range(7 * 512 + 8, 512)).unwrap();
    // SAFETY: just allocated.
    unsafe { cache.dealloc(addr(7 * 512 + 8), FrameLayout::contiguous(512).unwrap()) }.unwrap();
    assert_eq!(cache.cached_frames(), 0);
}

#[test]
fn runs_above_the_watermark_go_back() {
    let (mut slots, cpus) = (slots(1), SimCpus::default());
    let cache = PerCpu::new(SetBackend::new(range(1, 1000)), &cpus);
    cache.backend().watermark.store(500 * FRAME_SIZE, Relaxed);
    cache.attach(&mut slots).unwrap();
    let low = cache.alloc(aligned(2)).unwrap();
    cache.alloc_at(range(600, 4)).unwrap();
    // SAFETY: both just allocated.
    unsafe {
        cache.dealloc(low, aligned(2)).unwrap();
        cache.dealloc(addr(600), aligned(2)).unwrap();
    }
    assert_eq!(cache.cached_frames(), 4);
    assert!(cache.backend().is_free(600) && !cache.backend().is_free(number(low)));
}

#[test]
fn a_run_freed_twice_is_refused_when_it_comes_back() {
    let (mut slots, cpus) = (slots(1), SimCpus::default());
    let cache = PerCpu::new(SetBackend::new(range(1, 1000)), &cpus);
    cache.attach(&mut slots).unwrap();
    let run = cache.alloc(aligned(3)).unwrap();
    // SAFETY: the second is deliberately wrong.
    unsafe {
        cache.dealloc(run, aligned(3)).unwrap();
        cache.dealloc(run, aligned(3)).unwrap();
    }
    cache.drain_local();
    assert_eq!(cache.cpu_stats(CpuIndex(0)).unwrap().refusals, 1);
    assert_eq!(cache.backend().free_count(), 1000);
}

/// The backend refuses one of the runs that a full stack hands back: the others are free or stay where they are.
#[test]
fn a_refusal_does_not_disturb_the_halving() {
    let (mut slots, cpus) = (slots(1), SimCpus::default());
    let cache = PerCpu::new(SetBackend::new(range(1, 1000)), &cpus);
    cache.attach(&mut slots).unwrap();
    let runs: Vec<_> = (0..32).map(|_| cache.alloc(aligned(1)).unwrap()).collect();
    // SAFETY: the first is deliberately freed twice.
    let free = |run| unsafe { cache.dealloc(run, aligned(1)) }.unwrap();
    free(runs[0]);
    runs.iter().copied().for_each(free);
    let stats = cache.cpu_stats(CpuIndex(0)).unwrap();
    assert_eq!((stats.spills, stats.refusals, stats.cached_frames), (1, 1, 2 * 17));
    // The older half went: the first run twice, and the 14 after it.
    assert!(runs.iter().enumerate().all(|(i, run)| cache.backend().is_free(number(*run)) == (i < 15)));
    for &run in runs[15..].iter().rev() {
        assert_eq!(cache.alloc(aligned(1)), Ok(run));
    }
    assert_eq!((cache.cached_frames(), cache.backend().free_count()), (0, 1000 - 2 * 17));
}
