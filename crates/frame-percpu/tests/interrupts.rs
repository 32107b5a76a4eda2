//! What interrupts an operation on its CPU goes to the backend, never waits, and never sees the slot halfway: once
//! with interrupts at the points where the backend is called, once with real, asynchronous signals.

mod common;

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::*},
    },
    time::{Duration, Instant},
};

use common::*;
use frame_core::*;
use frame_percpu::*;

/// Owner of every frame: whoever gains one must find it free.
struct Owners(BTreeSet<usize>);

impl Owners {
    fn gain(&mut self, frame: PhysAddr) {
        assert!(self.0.insert(number(frame)), "frame {frame:#x} was handed out twice");
    }
}

type Cache = PerCpu<'static, SetBackend, &'static SimCpus>;

/// In every bulk call, at every step of it, an interrupt allocates and frees through the same cache on the same CPU.
#[test]
fn an_interrupt_inside_a_refill_or_spill_passes_by() {
    static OWNERS: Mutex<Owners> = Mutex::new(Owners(BTreeSet::new()));
    static HELD: Mutex<Vec<PhysAddr>> = Mutex::new(Vec::new());
    let cpus: &'static SimCpus = Box::leak(Box::default());
    let cache: &'static Cache = Box::leak(Box::new(PerCpu::new(SetBackend::new(range(3, 2000)), cpus)));
    cache.attach(Box::leak(slots(1).into())).unwrap();

    let interrupts = std::sync::Arc::new(AtomicUsize::new(0));
    let count = interrupts.clone();
    *cache.backend().hook.lock().unwrap() = Some(Box::new(move || {
        let before = cache.cpu_stats(CpuIndex(0)).unwrap();
        let n = count.fetch_add(1, Relaxed);
        let mut held = HELD.lock().unwrap();
        // Sometimes more is taken than given, sometimes less.
        if n % 3 != 0 {
            let frame = cache.alloc_frame().expect("there are plenty");
            OWNERS.lock().unwrap().gain(frame);
            held.push(frame);
        } else if let Some(frame) = held.pop() {
            assert!(OWNERS.lock().unwrap().0.remove(&number(frame)));
            // SAFETY: owned until now.
            unsafe { cache.dealloc_frame(frame) }.unwrap();
        }
        if n % 7 == 0 {
            // Also what passes by, and a drain, which must leave its work to the interrupted code.
            assert_eq!(cache.drain_local(), 0);
            let run = cache.alloc(FrameLayout::contiguous(3).unwrap()).unwrap();
            // SAFETY: just allocated.
            unsafe { cache.dealloc(run, FrameLayout::contiguous(3).unwrap()) }.unwrap();
        }
        let after = cache.cpu_stats(CpuIndex(0)).unwrap();
        assert_eq!(before.cached_frames, after.cached_frames, "an interrupt touched a busy slot");
        assert_eq!(before.hits, after.hits);
        assert!(after.bypasses > before.bypasses || n % 3 == 0);
        if held.len() > 500 {
            for frame in held.drain(..) {
                assert!(OWNERS.lock().unwrap().0.remove(&number(frame)));
                // SAFETY: owned until now.
                unsafe { cache.dealloc_frame(frame) }.unwrap();
            }
        }
    }));

    let mut mine = Vec::new();
    for round in 0..40 {
        for _ in 0..300 {
            let frame = cache.alloc_frame().unwrap();
            OWNERS.lock().unwrap().gain(frame);
            mine.push(frame);
        }
        for i in 0..300 {
            let frame = mine.swap_remove((i * 37 + round) % mine.len());
            assert!(OWNERS.lock().unwrap().0.remove(&number(frame)));
            // SAFETY: owned until now.
            unsafe { cache.dealloc_frame(frame) }.unwrap();
        }
    }
    *cache.backend().hook.lock().unwrap() = None;
    assert!(interrupts.load(Relaxed) > 10_000);
    for frame in HELD.lock().unwrap().drain(..) {
        // SAFETY: owned until now.
        unsafe { cache.dealloc_frame(frame) }.unwrap();
    }
    cache.drain_local();
    assert_eq!((cache.cached_frames(), cache.backend().free_count()), (0, 2000));
    assert_eq!(cache.cpu_stats(CpuIndex(0)).unwrap().refusals, 0);
}

/// In every call of the backend for a run, from a slot at work or past it, an interrupt allocates and frees runs and
/// frames through the same cache on the same CPU.
#[test]
fn an_interrupt_inside_an_operation_on_runs() {
    static OWNERS: Mutex<Owners> = Mutex::new(Owners(BTreeSet::new()));
    fn gain(start: PhysAddr, count: usize) {
        (0..count).for_each(|i| OWNERS.lock().unwrap().gain(start + i * FRAME_SIZE));
    }
    fn lose(start: PhysAddr, count: usize) {
        (0..count).for_each(|i| assert!(OWNERS.lock().unwrap().0.remove(&(number(start) + i))));
    }
    let cpus: &'static SimCpus = Box::leak(Box::default());
    let cache: &'static Cache = Box::leak(Box::new(PerCpu::new(SetBackend::new(range(3, 3000)), cpus)));
    cache.attach(Box::leak(slots(1).into())).unwrap();
    let take = |order: usize| {
        let run = cache.alloc(FrameLayout::new(1 << order, FRAME_SIZE << order).unwrap()).unwrap();
        gain(run, 1 << order);
        run
    };
    let give = |order: usize, run| {
        lose(run, 1 << order);
        // SAFETY: owned until now.
        unsafe { cache.dealloc(run, FrameLayout::new(1 << order, FRAME_SIZE << order).unwrap()) }.unwrap();
    };

    let (at_rest, at_work) =
        (std::sync::Arc::new(AtomicUsize::new(0)), std::sync::Arc::new(AtomicUsize::new(0)));
    let counts = (at_rest.clone(), at_work.clone());
    let mut held = Vec::new();
    *cache.backend().hook.lock().unwrap() = Some(Box::new(move || {
        let before = cache.cpu_stats(CpuIndex(0)).unwrap();
        let n = counts.0.load(Relaxed) + counts.1.load(Relaxed);
        let order = [1, 3, 3, 0][n % 4];
        held.push((order, take(order)));
        if n % 5 == 0 || held.len() > 20 {
            held.drain(held.len() / 2..).for_each(|(order, run)| give(order, run));
        }
        let after = cache.cpu_stats(CpuIndex(0)).unwrap();
        if after.bypasses > before.bypasses {
            counts.1.fetch_add(1, Relaxed);
            let seen = |stats: CacheStats| (stats.cached_frames, stats.hits, stats.spills);
            assert_eq!(seen(before), seen(after), "an interrupt touched a busy slot");
        } else {
            counts.0.fetch_add(1, Relaxed);
        }
    }));
    let mut mine = Vec::new();
    for round in 0..30 {
        for i in 0..60 {
            let order = [1, 3][i % 2];
            mine.push((order, take(order)));
        }
        for i in 0..60 {
            let (order, run) = mine.swap_remove((i * 37 + round) % mine.len());
            give(order, run);
        }
    }
    *cache.backend().hook.lock().unwrap() = None; // what it held stays allocated
    let (at_rest, at_work) = (at_rest.load(Relaxed), at_work.load(Relaxed));
    assert!(at_rest > 500 && at_work > 500, "{at_rest} interrupts met a slot at rest, {at_work} one at work");
    let owned = OWNERS.lock().unwrap().0.len();
    assert_eq!(cache.stats().free_frames, 3000 - owned);
    cache.drain_local();
    assert_eq!((cache.cached_frames(), cache.backend().free_count()), (0, 3000 - owned));
    assert_eq!(cache.cpu_stats(CpuIndex(0)).unwrap().refusals, 0);
}

const FIRST: usize = 64;
const WORDS: usize = 16;

/// A frame's owner: 0 nobody, 1 the thread, 2 a signal handler.
static OWNER: [AtomicU8; WORDS * 64] = [const { AtomicU8::new(0) }; WORDS * 64];
static BROKEN: AtomicBool = AtomicBool::new(false);
static SIGNALS: AtomicUsize = AtomicUsize::new(0);

fn gain(frame: PhysAddr, owner: u8) {
    if OWNER[number(frame) - FIRST].swap(owner, SeqCst) != 0 {
        BROKEN.store(true, SeqCst); // a handler must not panic
    }
}

fn lose(frame: PhysAddr, owner: u8) {
    if OWNER[number(frame) - FIRST].swap(0, SeqCst) != owner {
        BROKEN.store(true, SeqCst);
    }
}

fn signalled() -> &'static PerCpu<'static, AtomicBackend, ThreadCpus> {
    static CACHE: OnceLock<PerCpu<'static, AtomicBackend, ThreadCpus>> = OnceLock::new();
    CACHE.get_or_init(|| PerCpu::new(AtomicBackend::new(FIRST, WORDS), ThreadCpus))
}

/// Allocates and frees like an interrupt handler; keeps a few frames over to the next signals.
extern "C" fn handler(_: libc::c_int) {
    static KEPT: [AtomicUsize; 8] = [const { AtomicUsize::new(0) }; 8];
    let n = SIGNALS.fetch_add(1, Relaxed);
    let cache = signalled();
    for slot in &KEPT[n % 4..n % 4 + 4] {
        let kept = slot.swap(0, Relaxed);
        if kept != 0 {
            lose(PhysAddr::from(kept), 2);
            // SAFETY: a handler owned it until now.
            if unsafe { cache.dealloc_frame(PhysAddr::from(kept)) }.is_err() {
                BROKEN.store(true, SeqCst);
            }
        }
        if let Ok(frame) = cache.alloc_frame() {
            gain(frame, 2);
            slot.store(frame.as_usize(), Relaxed);
        }
    }
}

#[test]
fn signals_interrupt_a_thread_anywhere() {
    let cache = signalled();
    cache.attach(Box::leak(slots(64).into())).unwrap();
    // Takes an index for this thread, so that handlers find a slot (see `ThreadCpus`).
    let frame = cache.alloc_frame().unwrap();
    // SAFETY: just allocated.
    unsafe { cache.dealloc_frame(frame) }.unwrap();
    let cpu = ThreadCpus.pin().0;

    // SAFETY: the handler uses atomics and the cache alone.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = handler as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, core::ptr::null_mut()), 0);
    }
    // SAFETY: names the calling thread.
    let target = unsafe { libc::pthread_self() };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                // SAFETY: the target thread lives until the scope has joined this one.
                unsafe { libc::pthread_kill(target, libc::SIGUSR1) };
                for _ in 0..200 {
                    core::hint::spin_loop();
                }
            }
        });
        let (start, mut held, mut seed) = (Instant::now(), Vec::new(), 1u64);
        let done = |start: Instant| {
            let enough = SIGNALS.load(Relaxed) > 100 && cache.cpu_stats(cpu).unwrap().bypasses > 20;
            enough || start.elapsed() > Duration::from_secs(15)
        };
        while !done(start) && !BROKEN.load(SeqCst) {
            for _ in 0..1000 {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                if held.is_empty() || (held.len() < 600 && seed >> 63 == 0) {
                    let frame = cache.alloc_frame().unwrap();
                    gain(frame, 1);
                    held.push(frame);
                } else {
                    let frame = held.swap_remove((seed >> 33) as usize % held.len());
                    lose(frame, 1);
                    // SAFETY: owned until now.
                    unsafe { cache.dealloc_frame(frame) }.unwrap();
                }
            }
        }
        stop.store(true, Relaxed);
        for frame in held {
            lose(frame, 1);
            // SAFETY: owned until now.
            unsafe { cache.dealloc_frame(frame) }.unwrap();
        }
    });
    assert!(!BROKEN.load(SeqCst), "a frame had two owners, or a free was refused");
    let stats = cache.cpu_stats(cpu).unwrap();
    assert!(stats.bypasses > 0, "{} signals, {stats:?}: none met a busy slot", SIGNALS.load(Relaxed));
    assert_eq!(stats.refusals, 0);
    let kept = OWNER.iter().filter(|owner| owner.load(SeqCst) == 2).count();
    cache.drain_local();
    assert_eq!(cache.backend().free_count() + kept, WORDS * 64);
}
