//! The suite that every allocator passes, on the cache under both policies. Each thread is a CPU.

mod common;

use std::{
    mem::MaybeUninit,
    time::{Duration, Instant},
};

use common::slots;
use frame_core::{FRAME_SIZE, FrameRange};
use frame_percpu::{Checked, PerCpu, Policy, ThreadCpus, Trusting};
use frame_testkit::{Backend, Oracle};

/// Fewer than the suite's threads may be: some work without a slot.
const SLOTS: usize = 6;

fn oracle(regions: &[FrameRange]) -> Oracle {
    let oracle = Oracle::new();
    regions.iter().for_each(|&region| oracle.add_region(region).unwrap());
    oracle
}

/// Threads that ended have left frames in their slots. A thread that was joined may yet hold its index for a moment.
fn settle<P: Policy>(cache: &PerCpu<'_, Oracle, ThreadCpus, P>) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while cache.cached_frames() > 0 {
        cache.request_drain();
        cache.drain_local();
        assert!(Instant::now() < deadline, "frames stay in slots");
        std::thread::sleep(std::time::Duration::from_micros(100));
    }
}

struct TrustingCache;

impl Backend for TrustingCache {
    const NAME: &'static str = "trusting cache over the oracle";
    const REFUSES_BAD_FREES: bool = false;
    type Allocator<'m> = PerCpu<'m, Oracle, ThreadCpus, Trusting>;

    fn with<R>(regions: &[FrameRange], test: impl FnOnce(&Self::Allocator<'_>) -> R) -> R {
        let mut slots = slots(SLOTS);
        let cache = PerCpu::new(oracle(regions), ThreadCpus);
        cache.attach(&mut slots).unwrap();
        test(&cache)
    }

    fn settle(cache: &Self::Allocator<'_>) {
        settle(cache);
    }

    fn offer(cache: &Self::Allocator<'_>, region: FrameRange) -> Option<Result<(), frame_core::RegionError>> {
        Some(cache.backend().add_region(region))
    }
}

struct CheckedCache;

impl Backend for CheckedCache {
    const NAME: &'static str = "checked cache over the oracle";
    type Allocator<'m> = PerCpu<'m, Oracle, ThreadCpus, Checked<'m>>;

    fn with<R>(regions: &[FrameRange], test: impl FnOnce(&Self::Allocator<'_>) -> R) -> R {
        // The first GiB at most: frames outside of the window are right as well.
        let first = regions[0].start();
        let count = (regions[regions.len() - 1].end() - first) / FRAME_SIZE;
        let window = FrameRange::new(first, count.min(1 << 18)).unwrap();
        let (mut slots, mut states) = (slots(SLOTS), vec![MaybeUninit::uninit(); window.count()]);
        let cache = PerCpu::checked(oracle(regions), ThreadCpus);
        cache.attach_states(window, &mut states).unwrap();
        cache.attach(&mut slots).unwrap();
        test(&cache)
    }

    fn settle(cache: &Self::Allocator<'_>) {
        settle(cache);
    }

    fn offer(cache: &Self::Allocator<'_>, region: FrameRange) -> Option<Result<(), frame_core::RegionError>> {
        Some(cache.backend().add_region(region))
    }
}

frame_testkit::conformance_suite!(trusting: TrustingCache);
frame_testkit::conformance_suite!(checked: CheckedCache);
