//! Faults of callers: freed twice, freed though never managed, freed though no frame.
#![allow(clippy::undocumented_unsafe_blocks)] // each free is of what was just allocated, or deliberately wrong

mod common;

use std::mem::MaybeUninit;

use common::*;
use frame_core::*;
use frame_percpu::*;

fn refused(frame: PhysAddr, kind: DeallocErrorKind) -> Result<(), DeallocError> {
    Err(DeallocError::new(frame, kind))
}

/// Runs `test` with a checking cache over frames 1 to 600, two CPUs, and states for all of them.
fn with_checked(test: impl FnOnce(&PerCpu<'_, SetBackend, &SimCpus, Checked<'_>>, &SimCpus)) {
    let (mut slots, cpus) = (slots(2), SimCpus::default());
    let mut states = vec![MaybeUninit::uninit(); 600];
    let cache = PerCpu::checked(SetBackend::new(range(1, 600)), &cpus);
    cache.attach_states(range(1, 600), &mut states).unwrap();
    cache.attach(&mut slots).unwrap();
    test(&cache, &cpus);
    for cpu in 0..2 {
        assert_eq!(
            cache.cpu_stats(CpuIndex(cpu)).unwrap().refusals,
            0,
            "nothing wrong may reach the backend"
        );
    }
}

#[test]
fn checked_finds_a_second_free_at_once_wherever_the_frame_lies() {
    with_checked(|cache, cpus| unsafe {
        let frame = cache.alloc_frame().unwrap();
        cache.dealloc_frame(frame).unwrap();
        let twice = refused(frame, DeallocErrorKind::NotAllocated);
        assert_eq!(cache.dealloc_frame(frame), twice, "in the own slot");
        cpus.switch(1);
        assert_eq!(cache.dealloc_frame(frame), twice, "in another CPU's slot");
        assert_eq!(cache.dealloc_bulk(&[frame]), twice, "in a small batch");
        cpus.switch(0);
        cache.drain_local();
        assert_eq!(cache.dealloc_frame(frame), twice, "in the backend");

        // A frame that a refill brought and nobody has had yet.
        let frame = cache.alloc_frame().unwrap();
        let other = (1..=600).map(addr).find(|&f| f != frame && !cache.backend().is_free(number(f))).unwrap();
        assert_eq!(cache.dealloc_frame(other), refused(other, DeallocErrorKind::NotAllocated));
        cache.dealloc_frame(frame).unwrap();
    });
}

#[test]
fn checked_refuses_a_run_that_holds_a_cached_frame() {
    with_checked(|cache, _| unsafe {
        // Four neighbours that were handed out one by one; one of them is free again, and lies in the slot.
        let mut frames = vec![PhysAddr::from(0); 200];
        frames.fill_with(|| cache.alloc_frame().unwrap());
        frames.sort();
        let start = frames[100];
        assert_eq!(frames[103], start + 3 * FRAME_SIZE);
        cache.dealloc_frame(frames[102]).unwrap();
        let run = FrameLayout::contiguous(4).unwrap();
        let free = cache.stats().free_frames;
        assert_eq!(cache.dealloc(start, run), refused(frames[102], DeallocErrorKind::NotAllocated));
        assert_eq!(cache.stats().free_frames, free, "nothing was freed");
        // The three that are owned can still be freed, joined or alone.
        cache.dealloc(start, FrameLayout::contiguous(2).unwrap()).unwrap();
        cache.dealloc_frame(frames[103]).unwrap();
        assert_eq!(cache.stats().free_frames, free + 3);
    });
}

/// Frames of a run that was allocated past the slot may be freed one by one, and then circulate.
#[test]
fn checked_takes_the_frames_of_a_run_one_by_one() {
    with_checked(|cache, _| unsafe {
        let run = FrameLayout::contiguous(200).unwrap();
        for _ in 0..3 {
            let start = cache.alloc(run).unwrap();
            for i in 0..200 {
                cache.dealloc_frame(start + i * FRAME_SIZE).unwrap();
            }
            let last = start + 199 * FRAME_SIZE;
            assert_eq!(cache.dealloc_frame(last), refused(last, DeallocErrorKind::NotAllocated));
        }
        assert_eq!(cache.stats().free_frames, 600);
    });
}

#[test]
fn checked_bulk_frees_what_is_right_and_names_what_is_not() {
    with_checked(|cache, _| unsafe {
        let mut frames = vec![PhysAddr::from(0); 100];
        assert_eq!(cache.alloc_bulk(&mut frames), 100);
        let single = cache.alloc_frame().unwrap();
        cache.dealloc_frame(single).unwrap();
        frames.insert(40, single); // lies in the slot
        frames.insert(70, addr(9000)); // never managed
        let free = cache.stats().free_frames;
        assert_eq!(cache.dealloc_bulk(&frames), refused(single, DeallocErrorKind::NotAllocated));
        assert_eq!(cache.stats().free_frames, free + 100);
    });
}

/// Two CPUs free the same frame at the same time, again and again. One of the two is refused at once, or in a window of
/// a few instructions the frame lies in both slots: then one of them drops it, and counts that.
#[test]
fn checked_never_lets_both_of_two_racing_frees_pass() {
    use std::sync::{Barrier, atomic::*};
    const ROUNDS: usize = 3000;
    // More frames than the slot of a thread that waits at the barrier can keep.
    let mut slots = slots(8);
    let mut states = vec![MaybeUninit::uninit(); 512];
    let cache = PerCpu::checked(AtomicBackend::new(64, 8), ThreadCpus);
    cache.attach_states(range(64, 512), &mut states).unwrap();
    cache.attach(&mut slots).unwrap();
    let (barrier, shared, passed) = (Barrier::new(2), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (cache, barrier, shared, passed) = (&cache, &barrier, &shared, &passed);
            scope.spawn(move || {
                // Owned by this thread: no frame comes to anybody twice.
                let mut held = Vec::new();
                for _ in 0..ROUNDS {
                    if thread == 0 {
                        shared.store(cache.alloc_frame().unwrap().as_usize(), Ordering::SeqCst);
                    }
                    barrier.wait();
                    let frame = PhysAddr::from(shared.load(Ordering::SeqCst));
                    match unsafe { cache.dealloc_frame(frame) } {
                        Ok(()) => drop(passed.fetch_add(1, Ordering::SeqCst)),
                        Err(error) => assert_eq!(error.kind, DeallocErrorKind::NotAllocated),
                    }
                    barrier.wait();
                    held.extend((0..80).map(|_| cache.alloc_frame().unwrap()));
                    barrier.wait();
                    for frame in held.drain(..) {
                        assert_eq!(unsafe { cache.dealloc_frame(frame) }, Ok(()), "the frame had two owners");
                    }
                    barrier.wait();
                }
                cache.drain_local();
            });
        }
    });
    let refusals: usize = (0..8).map(|cpu| cache.cpu_stats(CpuIndex(cpu)).unwrap().refusals).sum();
    let twice = passed.load(Ordering::SeqCst) - ROUNDS;
    assert!(twice <= refusals, "{twice} frees passed twice, {refusals} were found later");
    // Draining finds what is left of them; every frame is there once.
    assert_eq!(cache.stats().free_frames, 512);
    let mut all: Vec<_> = (0..512).map(|_| cache.alloc_frame().unwrap()).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 512);
}

#[test]
fn trusting_finds_a_second_free_when_the_frame_comes_back() {
    let (mut slots, cpus) = (slots(1), SimCpus::default());
    let cache = PerCpu::new(SetBackend::new(range(1, 300)), &cpus);
    cache.attach(&mut slots).unwrap();
    let frame = cache.alloc_frame().unwrap();
    unsafe {
        cache.dealloc_frame(frame).unwrap();
        assert_eq!(cache.dealloc_frame(frame), Ok(()), "not found yet: this is what the policy says");
    }
    assert_eq!(cache.cpu_stats(CpuIndex(0)).unwrap().refusals, 0);
    cache.drain_local();
    assert_eq!(cache.cpu_stats(CpuIndex(0)).unwrap().refusals, 1);
    // The damage ends there: every frame is free once.
    assert_eq!(cache.backend().free_count(), 300);
    // Once it has come back, a further free is found at once, when nothing of it enters a slot.
    let refusal = unsafe { cache.dealloc(frame, FrameLayout::contiguous(2).unwrap()) };
    assert_eq!(refusal, refused(frame, DeallocErrorKind::NotAllocated));
}

#[test]
fn trusting_finds_a_foreign_frame_when_it_comes_back() {
    let (mut slots, cpus) = (slots(1), SimCpus::default());
    let cache = PerCpu::new(SetBackend::new(range(1, 300)), &cpus);
    cache.attach(&mut slots).unwrap();
    unsafe { cache.dealloc_frame(addr(5000)) }.unwrap();
    cache.drain_local();
    assert_eq!(cache.cpu_stats(CpuIndex(0)).unwrap().refusals, 1);
    assert_eq!(cache.backend().free_count(), 300);
}

#[test]
fn what_is_no_frame_is_refused_at_once_whatever_the_policy() {
    let bad = [
        (PhysAddr::from(0x1008), DeallocErrorKind::Misaligned),
        (PhysAddr::from(0x1001), DeallocErrorKind::Misaligned),
        (PhysAddr::from(usize::MAX), DeallocErrorKind::Misaligned),
        (PhysAddr::from(0), DeallocErrorKind::NotManaged),
    ];
    with_checked(|cache, _| {
        cache.alloc_frame().unwrap();
        for (frame, kind) in bad {
            assert_eq!(unsafe { cache.dealloc_frame(frame) }, refused(frame, kind));
        }
    });
    let (mut slots, cpus) = (slots(1), SimCpus::default());
    let cache = PerCpu::new(SetBackend::new(range(1, 300)), &cpus);
    cache.attach(&mut slots).unwrap();
    for warm in [false, true] {
        if warm {
            cache.alloc_frame().unwrap();
        }
        let cached = cache.cached_frames();
        for (frame, kind) in bad {
            assert_eq!(unsafe { cache.dealloc_frame(frame) }, refused(frame, kind));
        }
        assert_eq!(cache.cached_frames(), cached);
    }
}
