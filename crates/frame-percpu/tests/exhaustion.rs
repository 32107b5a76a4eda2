//! The last frame is handed out, then `NoMemory`: frames in caches count as free, as far as they can be had.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::*;
use frame_core::*;
use frame_percpu::*;

fn take_all<A: FrameAllocator>(allocator: &A) -> Vec<PhysAddr> {
    let mut all = Vec::new();
    loop {
        match allocator.alloc_frame() {
            Ok(frame) => all.push(frame),
            Err(error) => {
                assert_eq!(error, AllocError::NoMemory);
                return all;
            }
        }
    }
}

fn give<A: FrameAllocator>(allocator: &A, frames: impl IntoIterator<Item = PhysAddr>) {
    for frame in frames {
        // SAFETY: the tests free what they allocated.
        unsafe { allocator.dealloc_frame(frame) }.unwrap();
    }
}

#[test]
fn one_cpu_hands_out_exactly_what_there_is() {
    for total in [1, 2, 63, 64, 65, 127, 128, 129, 500] {
        let (mut slots, cpus) = (slots(1), SimCpus::default());
        let cache = PerCpu::new(SetBackend::new(range(1, total)), &cpus);
        cache.attach(&mut slots).unwrap();
        for _ in 0..3 {
            let all = take_all(&cache);
            assert_eq!(all.len(), total);
            assert_eq!(cache.stats().free_frames, 0);
            give(&cache, all);
            // After everything is freed, the largest run is there again although frames lie in the slot.
            let whole = FrameLayout::contiguous(total).unwrap();
            let start = cache.alloc(whole).unwrap();
            assert_eq!(start, addr(1));
            assert_eq!(cache.alloc(whole), Err(AllocError::NoMemory));
            // SAFETY: just allocated.
            unsafe { cache.dealloc(start, whole) }.unwrap();
        }
    }
}

/// Refill never asks for contiguous frames: every other frame is taken, and all the others can be had.
#[test]
fn a_refill_takes_scattered_frames() {
    let (mut slots, cpus) = (slots(1), SimCpus::default());
    let cache = PerCpu::new(SetBackend::new(range(1, 400)), &cpus);
    for frame in (2..400).step_by(2) {
        cache.backend().alloc_at(range(frame, 1)).unwrap();
    }
    cache.attach(&mut slots).unwrap();
    assert_eq!(take_all(&cache).len(), 400 - 199);
    assert_eq!(cache.backend().run_calls.load(Relaxed), 0);
}

/// CPU 1 freed into its slot and went idle. CPU 0 runs out, and asks.
#[test]
fn frames_stuck_on_an_idle_cpu_come_back_at_its_next_operation() {
    let (mut slots, cpus) = (slots(2), SimCpus::default());
    let cache = PerCpu::new(SetBackend::new(range(1, 300)), &cpus);
    cache.attach(&mut slots).unwrap();
    let all = take_all(&cache);
    cpus.switch(1);
    give(&cache, all[..100].iter().copied());
    let last = cache.alloc_frame().unwrap();
    assert_eq!(cache.cpu_stats(CpuIndex(1)).unwrap().cached_frames + cache.backend().free_count(), 99);
    let stuck = cache.cpu_stats(CpuIndex(1)).unwrap().cached_frames;
    assert!(stuck > 0);

    cpus.switch(0);
    assert_eq!(take_all(&cache).len(), 99 - stuck, "what lies with CPU 1 cannot be had yet");
    let kicks = cpus.kicks.load(Relaxed);
    assert_eq!(kicks, 1, "CPU 1 was kicked once, not at every failure");

    // CPU 1 does anything at all, here the free of a run: its frames come back.
    cpus.switch(1);
    // SAFETY: allocated above.
    unsafe { cache.dealloc(last, FrameLayout::new(1, FRAME_SIZE).unwrap()) }.unwrap();
    assert_eq!(cache.cached_frames(), 0);
    cpus.switch(0);
    assert_eq!(take_all(&cache).len(), stuck + 1);
}

type Operation<'o> = &'o dyn Fn(&PerCpu<'_, SetBackend, &SimCpus>);

/// Every kind of request answers the call of another CPU.
#[test]
fn every_operation_serves_the_request() {
    let run = FrameLayout::contiguous(2).unwrap();
    let operations: [(&str, Operation<'_>); 8] = [
        ("alloc_frame", &|cache| {
            cache.alloc_frame().unwrap();
        }),
        ("alloc", &|cache| {
            cache.alloc(run).unwrap();
        }),
        ("dealloc_frame", &|cache| give(cache, [addr(500)])),
        // SAFETY: allocated below.
        ("dealloc", &|cache| unsafe { cache.dealloc(addr(500), run) }.unwrap()),
        ("alloc_bulk small", &|cache| assert_eq!(cache.alloc_bulk(&mut [PhysAddr::from(0); 2]), 2)),
        ("alloc_bulk", &|cache| assert_eq!(cache.alloc_bulk(&mut [PhysAddr::from(0); 100]), 100)),
        ("dealloc_bulk", &|cache| {
            // SAFETY: allocated below.
            unsafe { cache.dealloc_bulk(&(500..550).map(addr).collect::<Vec<_>>()) }.unwrap();
        }),
        ("alloc_at", &|cache| cache.alloc_at(range(600, 1)).unwrap()),
    ];
    for (name, operation) in operations {
        let (mut slots, cpus) = (slots(2), SimCpus::default());
        let cache = PerCpu::new(SetBackend::new(range(1, 1000)), &cpus);
        cache.attach(&mut slots).unwrap();
        cache.backend().alloc_at(range(500, 50)).unwrap();
        let frame = cache.alloc_frame().unwrap();
        give(&cache, [frame]);
        assert_eq!(cache.cached_frames(), 64);
        cache.request_drain();
        assert_eq!(cache.cached_frames(), 64, "a request touches no slot");
        operation(&cache);
        assert_eq!(cache.cached_frames(), 0, "{name} did not serve the request");
        // Served once: the cache works again.
        give(&cache, cache.alloc_frame());
        assert!(cache.cached_frames() > 0, "{name} left the request standing");
    }
}

/// The place of an absent CPU is taken, and its frames with it.
#[test]
fn frames_of_an_absent_cpu_are_had_at_once() {
    let (mut slots, cpus) = (slots(8), SimCpus::default());
    cpus.absent.store(true, Relaxed);
    let cache = PerCpu::new(SetBackend::new(range(1, 700)), &cpus);
    cache.attach(&mut slots).unwrap();
    for round in 0..3 {
        let all = take_all(&cache);
        assert_eq!(all.len(), 700);
        for (i, chunk) in all.chunks(100).enumerate() {
            cpus.switch((i + round) % 8);
            give(&cache, chunk.iter().copied());
        }
        assert!(cache.cached_frames() > 300);
    }
    // Also for a run, for a place and for bulk.
    assert_eq!(cache.alloc(FrameLayout::contiguous(700).unwrap()), Ok(addr(1)));
    assert_eq!(cache.cached_frames(), 0);
}

#[test]
fn alloc_at_finds_a_frame_that_lies_in_a_slot() {
    let (mut slots, cpus) = (slots(2), SimCpus::default());
    let cache = PerCpu::new(SetBackend::new(range(1, 300)), &cpus);
    cache.attach(&mut slots).unwrap();
    let frame = cache.alloc_frame().unwrap();
    give(&cache, [frame]);
    assert!(!cache.backend().is_free(number(frame)), "the test needs it in the slot");
    cache.alloc_at(FrameRange::new(frame, 1).unwrap()).unwrap();
    assert_eq!(cache.alloc_at(FrameRange::new(frame, 1).unwrap()), Err(AllocError::InUse));
    assert_eq!(cache.alloc_at(range(5000, 1)), Err(AllocError::NotManaged));
}

/// A CPU that operates in another thread answers while the first one waits for it.
#[test]
fn a_busy_cpu_answers_in_time() {
    use std::sync::atomic::AtomicBool;
    let mut slots = slots(8);
    let cache = PerCpu::new(AtomicBackend::new(1, 4), ThreadCpus);
    cache.attach(&mut slots).unwrap();
    let stop = AtomicBool::new(false);
    let ready = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                if let Ok(frame) = cache.alloc_frame() {
                    give(&cache, [frame]);
                }
                ready.store(true, Relaxed);
            }
        });
        while !ready.load(Relaxed) {
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
        // All but the one frame that the other may hold can be had, within a few tries: each makes it give back.
        let mut mine = Vec::new();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while mine.len() < 255 && std::time::Instant::now() < deadline {
            mine.extend(take_all(&cache));
        }
        stop.store(true, Relaxed);
        assert!(mine.len() >= 255, "only {} of 256 frames came", mine.len());
        give(&cache, mine);
    });
}

/// A cache that was forgotten leaves its frames in its slots. They are not the next one's.
#[test]
fn attached_slots_begin_empty() {
    let (mut slots, cpus) = (slots(1), SimCpus::default());
    let first = PerCpu::new(SetBackend::new(range(1, 100)), &cpus);
    first.attach(&mut slots).unwrap();
    give(&first, first.alloc_frame());
    assert!(first.cached_frames() > 0);
    std::mem::forget(first);

    let second = PerCpu::new(SetBackend::new(range(5000, 100)), &cpus);
    second.attach(&mut slots).unwrap();
    assert_eq!(second.cached_frames(), 0);
    assert!(take_all(&second).into_iter().map(number).eq(5000..5100));
}

/// A CPU that gets its index late, and begins with a large request, finds what lies in the slot of that index.
#[test]
fn a_large_request_finds_what_lies_in_an_inherited_slot() {
    struct Late<'i>(&'i AtomicUsize);
    // SAFETY: one thread plays the one CPU.
    unsafe impl PinCpu for Late<'_> {
        type Guard = ();
        fn pin(&self) -> (CpuIndex, ()) {
            (CpuIndex(self.0.load(Relaxed)), ())
        }
        fn enlist(&self, _: CpuIndex) -> CpuIndex {
            self.0.store(0, Relaxed);
            CpuIndex(0)
        }
    }
    let mut slots = slots(1);
    let index = AtomicUsize::new(usize::MAX);
    let cache = PerCpu::new(SetBackend::new(range(1, 256)), Late(&index));
    cache.attach(&mut slots).unwrap();
    give(&cache, cache.alloc_frame());
    assert!(cache.cached_frames() > 0);
    index.store(usize::MAX, Relaxed);
    let mut frames = vec![PhysAddr::from(0); 256];
    assert_eq!(cache.alloc_bulk(&mut frames), 256);
}

/// An interrupt that meets its own CPU's slot in use gets nothing out of it, but has it emptied.
#[test]
fn an_interrupt_asks_its_own_cpu_to_give_back() {
    let (mut slots, cpus) = (slots(2), SimCpus::default());
    let mut others = Vec::new();
    let cache = PerCpu::new(SetBackend::new(range(1, 200)), &cpus);
    cache.attach(&mut slots).unwrap();
    let all = take_all(&cache);
    give(&cache, all[..128].iter().copied());
    let answer = std::sync::Arc::new(std::sync::Mutex::new(None));
    let told = answer.clone();
    // SAFETY: the hook runs, and is dropped, before `cache` is.
    let in_handler: &'static PerCpu<'_, SetBackend, &SimCpus> = unsafe { std::mem::transmute(&cache) };
    let interrupt = move || {
        told.lock().unwrap().get_or_insert_with(|| in_handler.alloc_frame());
    };
    *cache.backend().hook.lock().unwrap() = Some(Box::new(interrupt));
    // One more than the slot holds: half of it is handed back, and before the first of that comes the interrupt.
    give(&cache, [all[128]]);
    cache.backend().hook.lock().unwrap().take();
    assert_eq!(*answer.lock().unwrap(), Some(Err(AllocError::NoMemory)));
    // Another CPU that needs frames kicks this one, though it was asked already; once.
    cpus.switch(1);
    assert_eq!(cpus.kicks.load(Relaxed), 0);
    for _ in 0..3 {
        take_all(&cache).into_iter().for_each(|frame| others.push(frame));
        assert_eq!(cpus.kicks.load(Relaxed), 1);
    }
    cpus.switch(0);
    // The next operation gives everything back.
    give(&cache, [all[129]]);
    assert_eq!((cache.cached_frames(), cache.backend().free_count()), (0, 130 - others.len()));
}
