//! `Reclaiming`: the hook is called when there is no memory, with nothing held, and never without end.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
};

use frame_core::{
    AllocError, FRAME_SIZE, FrameAllocator, FrameLayout, FrameRange, HeapFree, PhysAddr, Reclaim,
    ReclaimHeapFree, Reclaiming, RegionError,
};
use frame_testkit::{Backend, Oracle};

fn ram(frames: usize) -> FrameRange {
    FrameRange::new(PhysAddr::from(16 << 20), frames).unwrap()
}

fn oracle(frames: usize) -> Oracle {
    let oracle = Oracle::new();
    oracle.add_region(ram(frames)).unwrap();
    oracle
}

/// With a hook that has nothing, it is the allocator behind it.
struct Wrapped;

impl Backend for Wrapped {
    const NAME: &'static str = "reclaiming";
    type Allocator<'m> = Reclaiming<Oracle, fn(usize) -> bool>;
    fn with<R>(regions: &[FrameRange], test: impl FnOnce(&Self::Allocator<'_>) -> R) -> R {
        let oracle = Oracle::new();
        regions.iter().for_each(|&region| oracle.add_region(region).unwrap());
        test(&Reclaiming::new(oracle, |_| false))
    }
    fn offer(allocator: &Self::Allocator<'_>, region: FrameRange) -> Option<Result<(), RegionError>> {
        Some(allocator.backend().add_region(region))
    }
}

mod suite {
    frame_testkit::conformance_suite!(super::Wrapped);
}

/// Frames that the kernel could do without, `each` of them at a call.
struct Spare<'o> {
    oracle: &'o Oracle,
    frames: Mutex<Vec<PhysAddr>>,
    each: usize,
    calls: Mutex<Vec<usize>>,
}

impl<'o> Spare<'o> {
    fn of(oracle: &'o Oracle, each: usize) -> Self {
        let frames = std::iter::from_fn(|| oracle.alloc_frame().ok()).collect();
        Self { oracle, frames: Mutex::new(frames), each, calls: Mutex::default() }
    }
}

impl Reclaim for &Spare<'_> {
    fn reclaim(&self, needed: usize) -> bool {
        self.calls.lock().unwrap().push(needed);
        let mut frames = self.frames.lock().unwrap();
        let kept = frames.len().saturating_sub(self.each);
        let freed = frames.split_off(kept);
        // SAFETY: taken by `of`, not given back since, and not used.
        unsafe { self.oracle.dealloc_bulk(&freed) }.unwrap();
        !freed.is_empty()
    }
}

#[test]
fn what_the_hook_frees_is_given() {
    let oracle = oracle(64);
    let spare = Spare::of(&oracle, 4);
    let frames = Reclaiming::new(&oracle, &spare);
    assert_eq!(spare.frames.lock().unwrap().len(), 64);
    frames.alloc_frame().unwrap();
    assert_eq!(*spare.calls.lock().unwrap(), [1]);
    (0..3).for_each(|_| _ = frames.alloc_frame().unwrap());
    assert_eq!(spare.calls.lock().unwrap().len(), 1, "there was memory");
    // Eight adjacent frames take two calls.
    frames.alloc(FrameLayout::contiguous(8).unwrap()).unwrap();
    assert_eq!(*spare.calls.lock().unwrap(), [1, 8, 8]);
    frames.alloc_in(FrameLayout::contiguous(2).unwrap(), ram(64)).unwrap();
    assert_eq!(*spare.calls.lock().unwrap(), [1, 8, 8, 2]);
    // In bulk: what there is is an answer; nothing is none.
    let mut bulk = [PhysAddr::from(0); 10];
    assert_eq!((frames.alloc_bulk(&mut bulk), spare.calls.lock().unwrap().len()), (2, 4));
    assert_eq!((frames.alloc_bulk(&mut bulk), frames.alloc_bulk(&mut [])), (4, 0));
    assert_eq!(spare.calls.lock().unwrap()[4..], [10]);
    let start = bulk[0];
    assert!(
        bulk[..4].iter().all(|&frame| frame >= start) && bulk[4..].iter().all(|&frame| frame.as_usize() == 0)
    );
    // Every frame once more, and then no more.
    let rest = std::iter::from_fn(|| frames.alloc_frame().ok()).count();
    assert_eq!(rest, 64 - 4 - 8 - 2 - 2 - 4);
    assert_eq!((frames.alloc_frame(), oracle.stats().free_frames), (Err(AllocError::NoMemory), 0));
}

#[test]
fn a_hook_that_lies_is_called_a_few_times_and_other_errors_are_not_its_concern() {
    let calls = AtomicUsize::new(0);
    let frames = Reclaiming::new(oracle(4), |_| {
        calls.fetch_add(1, SeqCst);
        true
    });
    assert_eq!(frames.alloc(FrameLayout::contiguous(5).unwrap()), Err(AllocError::NoMemory));
    assert!((1..10).contains(&calls.swap(0, SeqCst)));
    frames.alloc_at(ram(4)).unwrap();
    assert_eq!(frames.alloc_at(ram(1)), Err(AllocError::InUse));
    assert_eq!(frames.alloc_at(ram(5)), Err(AllocError::NotManaged));
    assert_eq!(calls.load(SeqCst), 0);
    assert_eq!(frames.alloc_bulk(&mut [PhysAddr::from(0); 2]), 0);
    assert!(calls.load(SeqCst) > 0);
}

#[test]
fn a_hook_that_allocates_does_not_call_itself() {
    static FRAMES: Reclaiming<Oracle, fn(usize) -> bool> = Reclaiming::new(Oracle::new(), hook);
    static DEPTH: AtomicUsize = AtomicUsize::new(0);
    fn hook(_: usize) -> bool {
        assert_eq!(DEPTH.fetch_add(1, SeqCst), 0, "called from itself");
        assert_eq!(FRAMES.alloc_frame(), Err(AllocError::NoMemory));
        DEPTH.fetch_sub(1, SeqCst);
        false
    }
    assert_eq!(FRAMES.alloc_frame(), Err(AllocError::NoMemory));
    FRAMES.backend().add_region(ram(1)).unwrap();
    FRAMES.alloc_frame().unwrap();

    // Where more than one may run at a time, it is called so deep and no deeper.
    static DEEP: Reclaiming<Oracle, fn(usize) -> bool> = Reclaiming::concurrent(Oracle::new(), deeper, 3);
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    fn deeper(_: usize) -> bool {
        CALLS.fetch_add(1, SeqCst);
        DEEP.alloc_frame().is_ok()
    }
    assert_eq!(DEEP.alloc_frame(), Err(AllocError::NoMemory));
    assert_eq!(CALLS.load(SeqCst), 3);
}

#[test]
fn a_hook_that_panics_is_called_again_next_time() {
    let frames = Reclaiming::new(Oracle::new(), |_: usize| -> bool { panic!("no") });
    for _ in 0..3 {
        assert!(catch_unwind(AssertUnwindSafe(|| frames.alloc_frame())).is_err(), "the hook is called");
    }
}

#[test]
fn another_cpu_does_not_wait_for_a_hook_that_works() {
    let (started, wait_for_start) = mpsc::channel();
    let (end, wait_for_end) = mpsc::channel();
    let (started, wait_for_end) = (Mutex::new(started), Mutex::new(wait_for_end));
    let frames = Reclaiming::new(oracle(1), |_: usize| {
        started.lock().unwrap().send(()).unwrap();
        wait_for_end.lock().unwrap().recv().unwrap()
    });
    let only = frames.alloc_frame().unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| frames.alloc_frame());
        wait_for_start.recv().unwrap();
        assert_eq!(frames.alloc_frame(), Err(AllocError::NoMemory));
        // SAFETY: allocated above, and not used.
        unsafe { frames.dealloc_frame(only) }.unwrap();
        end.send(true).unwrap();
        assert_eq!(first.join().unwrap(), Ok(only));
    });
}

#[test]
fn it_feeds_a_heap_only_if_the_hook_does_without_one() {
    struct Nothing;
    // SAFETY: gives nothing, and calls nothing.
    unsafe impl FrameAllocator for Nothing {
        fn alloc(&self, _: FrameLayout) -> Result<PhysAddr, AllocError> {
            Err(AllocError::NoMemory)
        }
        unsafe fn dealloc(&self, start: PhysAddr, _: FrameLayout) -> Result<(), frame_core::DeallocError> {
            Err(frame_core::DeallocError::new(start, frame_core::DeallocErrorKind::NotManaged))
        }
        fn stats(&self) -> frame_core::FrameStats {
            frame_core::FrameStats::default()
        }
        fn visit_free(&self, _: &mut dyn FnMut(FrameRange)) {}
    }
    // SAFETY: as above.
    unsafe impl HeapFree for Nothing {}
    struct Idle;
    impl Reclaim for Idle {
        fn reclaim(&self, _: usize) -> bool {
            false
        }
    }
    // SAFETY: calls nothing.
    unsafe impl ReclaimHeapFree for Idle {}
    fn feeds_a_heap(frames: &impl HeapFree) {
        assert_eq!(frames.alloc(FrameLayout::new(1, 2 * FRAME_SIZE).unwrap()), Err(AllocError::NoMemory));
    }
    feeds_a_heap(&Reclaiming::new(Nothing, Idle));
}
