//! Frames above the backend's watermark go back, even if the owner never needs the backend; but not over and over, when
//! the backend has none below.

mod common;

use std::sync::atomic::Ordering::Relaxed;

use common::*;
use frame_core::*;
use frame_percpu::*;

fn pairs(cache: &PerCpu<'_, SetBackend, &SimCpus>, count: usize) {
    for _ in 0..count {
        let frame = cache.alloc_frame().unwrap();
        // SAFETY: just allocated.
        unsafe { cache.dealloc_frame(frame) }.unwrap();
    }
}

#[test]
fn an_owner_that_never_misses_still_comes_down() {
    let (mut slots, cpus) = (slots(1), SimCpus::default());
    let cache = PerCpu::new(SetBackend::new(range(1, 2000)), &cpus);
    cache.attach(&mut slots).unwrap();
    // High frames are in the slot, low ones come free in the backend.
    cache.backend().alloc_at(range(1, 1000)).unwrap();
    pairs(&cache, 1);
    cache.backend().alloc_at(range(1100, 800)).unwrap();
    // SAFETY: allocated above.
    unsafe { cache.backend().dealloc(addr(1), FrameLayout::contiguous(1000).unwrap()) }.unwrap();
    cache.backend().watermark.store(1000 * FRAME_SIZE, Relaxed);
    pairs(&cache, 2000);
    let frame = cache.alloc_frame().unwrap();
    assert!(number(frame) <= 1000, "{frame:#x} is above the watermark");
    // SAFETY: just allocated.
    unsafe { cache.dealloc_frame(frame) }.unwrap();
}

#[test]
fn frames_that_are_all_high_are_not_moved_to_and_fro() {
    let (mut slots, cpus) = (slots(1), SimCpus::default());
    let cache = PerCpu::new(SetBackend::new(range(1000, 1000)), &cpus);
    cache.attach(&mut slots).unwrap();
    cache.backend().watermark.store(10 * FRAME_SIZE, Relaxed);
    pairs(&cache, 100_000);
    let calls = cache.backend().bulk_calls.load(Relaxed);
    pairs(&cache, 100_000);
    let calls = cache.backend().bulk_calls.load(Relaxed) - calls;
    // A change of all 64 frames is three calls or so.
    assert!(calls <= 12, "{calls} calls of the backend for 100,000 pairs");
    assert!(cache.cpu_stats(CpuIndex(0)).unwrap().hits > 195_000);
}
