//! What the tests stand on: two simple backends and a CPU index that a test switches by hand.
#![allow(dead_code, unreachable_pub)] // each test file uses its own part
#![allow(clippy::undocumented_unsafe_blocks, clippy::missing_panics_doc)] // the backends are plain and the lock keeps them right

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*},
    },
};

use frame_core::*;
use frame_percpu::*;

pub fn addr(frame: usize) -> PhysAddr {
    PhysAddr::from(frame * FRAME_SIZE)
}

pub fn number(frame: PhysAddr) -> usize {
    assert_eq!(frame.as_usize() % FRAME_SIZE, 0, "{frame:#x} is no frame");
    frame.as_usize() / FRAME_SIZE
}

pub fn range(start: usize, count: usize) -> FrameRange {
    FrameRange::new(addr(start), count).unwrap()
}

pub fn slots(count: usize) -> Vec<CpuSlot> {
    (0..count).map(|_| CpuSlot::new()).collect()
}

/// The lowest aligned run of `count` frames in a set, by trying every start.
pub fn find_run(
    free: &BTreeSet<usize>,
    count: usize,
    align: usize,
    window: std::ops::Range<usize>,
) -> Option<usize> {
    free.range(window.start..)
        .copied()
        .filter(|start| start % align == 0 && start + count <= window.end)
        .find(|&start| (start..start + count).all(|frame| free.contains(&frame)))
}

/// A set of free frames behind a lock, slow and plain. `hook` runs between the steps of the bulk calls, and before and
/// after a run comes or goes, outside of the lock: there a test lets an "interrupt" happen.
pub struct SetBackend {
    pub managed: FrameRange,
    pub free: Mutex<BTreeSet<usize>>,
    pub watermark: AtomicUsize,
    pub bulk_calls: AtomicUsize,
    pub run_calls: AtomicUsize,
    pub hook: Mutex<Option<Box<dyn FnMut() + Send>>>,
}

impl SetBackend {
    pub fn new(managed: FrameRange) -> Self {
        Self {
            managed,
            free: Mutex::new(managed.frames().map(number).collect()),
            watermark: AtomicUsize::new(usize::MAX),
            bulk_calls: AtomicUsize::new(0),
            run_calls: AtomicUsize::new(0),
            hook: Mutex::new(None),
        }
    }

    pub fn free_count(&self) -> usize {
        self.free.lock().unwrap().len()
    }

    pub fn is_free(&self, frame: usize) -> bool {
        self.free.lock().unwrap().contains(&frame)
    }

    fn interrupt(&self) {
        // Taken out while it runs: an interrupt of the interrupt has no hook.
        let hook = self.hook.lock().unwrap().take();
        if let Some(mut hook) = hook {
            hook();
            self.hook.lock().unwrap().get_or_insert(hook);
        }
    }

    fn take(&self, count: usize, align: usize, window: FrameRange) -> Result<PhysAddr, AllocError> {
        let mut free = self.free.lock().unwrap();
        let window = number(window.start())..number(window.end());
        let start = find_run(&free, count, align / FRAME_SIZE, window).ok_or(AllocError::NoMemory)?;
        (start..start + count).for_each(|frame| assert!(free.remove(&frame)));
        Ok(addr(start))
    }

    fn give(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
        let mut free = self.free.lock().unwrap();
        let frames = || (0..layout.count()).map(|i| start + i * FRAME_SIZE);
        for frame in frames() {
            if !self.managed.contains(frame) {
                return Err(DeallocError::new(frame, DeallocErrorKind::NotManaged));
            }
            if free.contains(&number(frame)) {
                return Err(DeallocError::new(frame, DeallocErrorKind::NotAllocated));
            }
        }
        free.extend(frames().map(number));
        Ok(())
    }
}

unsafe impl FrameAllocator for SetBackend {
    fn alloc(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        if layout.count() > 1 {
            self.run_calls.fetch_add(1, Relaxed);
            self.interrupt();
        }
        let start = self.take(layout.count(), layout.align(), self.managed);
        if layout.count() > 1 {
            self.interrupt();
        }
        start
    }

    unsafe fn dealloc(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
        if start.as_usize() % layout.align() != 0 {
            return Err(DeallocError::new(start, DeallocErrorKind::Misaligned));
        }
        if layout.count() > 1 {
            self.interrupt();
        }
        let freed = self.give(start, layout);
        if layout.count() > 1 {
            self.interrupt();
        }
        freed
    }

    fn stats(&self) -> FrameStats {
        FrameStats {
            total_frames: self.managed.count(),
            free_frames: self.free_count(),
            cached_frames: 0,
            metadata_bytes: 0,
        }
    }

    fn visit_free(&self, visit: &mut dyn FnMut(FrameRange)) {
        self.free.lock().unwrap().iter().for_each(|&frame| visit(range(frame, 1)));
    }

    fn alloc_bulk(&self, frames: &mut [PhysAddr]) -> usize {
        self.bulk_calls.fetch_add(1, Relaxed);
        for (done, slot) in frames.iter_mut().enumerate() {
            self.interrupt();
            match self.take(1, FRAME_SIZE, self.managed) {
                Ok(frame) => *slot = frame,
                Err(_) => return done,
            }
        }
        self.interrupt();
        frames.len()
    }

    unsafe fn dealloc_bulk(&self, frames: &[PhysAddr]) -> Result<(), DeallocError> {
        self.bulk_calls.fetch_add(1, Relaxed);
        let mut result = Ok(());
        for &frame in frames {
            self.interrupt();
            let freed = unsafe { self.dealloc_frame(frame) };
            result = result.and(freed);
        }
        self.interrupt();
        result
    }

    fn alloc_at(&self, range: FrameRange) -> Result<(), AllocError> {
        if !self.managed.contains_range(range) {
            return Err(AllocError::NotManaged);
        }
        let mut free = self.free.lock().unwrap();
        if !range.frames().all(|frame| free.contains(&number(frame))) {
            return Err(AllocError::InUse);
        }
        range.frames().for_each(|frame| assert!(free.remove(&number(frame))));
        Ok(())
    }

    fn alloc_in(&self, layout: FrameLayout, window: FrameRange) -> Result<PhysAddr, AllocError> {
        let window = self.managed.intersection(window).ok_or(AllocError::NoMemory)?;
        self.take(layout.count(), layout.align(), window)
    }

    fn cache_watermark(&self) -> CacheWatermark {
        CacheWatermark::below(self.watermark.load(Relaxed) / FRAME_SIZE)
    }
}

/// A bitmap of atomic words, single frames only: for tests with signals and many threads, where a lock would deadlock.
pub struct AtomicBackend {
    first: usize,
    words: Vec<AtomicU64>,
}

impl AtomicBackend {
    pub fn new(first: usize, words: usize) -> Self {
        Self { first, words: (0..words).map(|_| AtomicU64::new(!0)).collect() }
    }

    pub fn total(&self) -> usize {
        self.words.len() * 64
    }

    pub fn free_count(&self) -> usize {
        self.words.iter().map(|word| word.load(SeqCst).count_ones() as usize).sum()
    }
}

unsafe impl FrameAllocator for AtomicBackend {
    fn alloc(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        if !layout.is_single() {
            return Err(AllocError::Unsupported);
        }
        for (i, word) in self.words.iter().enumerate() {
            let mut old = word.load(Relaxed);
            while old != 0 {
                match word.compare_exchange(old, old & (old - 1), AcqRel, Relaxed) {
                    Ok(_) => return Ok(addr(self.first + i * 64 + old.trailing_zeros() as usize)),
                    Err(now) => old = now,
                }
            }
        }
        Err(AllocError::NoMemory)
    }

    unsafe fn dealloc(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
        assert!(layout.is_single());
        let refuse = |kind| Err(DeallocError::new(start, kind));
        if start.as_usize() % FRAME_SIZE != 0 {
            return refuse(DeallocErrorKind::Misaligned);
        }
        let index = number(start).wrapping_sub(self.first);
        let Some(word) = self.words.get(index / 64) else { return refuse(DeallocErrorKind::NotManaged) };
        let bit = 1 << (index % 64);
        if word.fetch_or(bit, AcqRel) & bit != 0 {
            return refuse(DeallocErrorKind::NotAllocated);
        }
        Ok(())
    }

    fn stats(&self) -> FrameStats {
        FrameStats {
            total_frames: self.total(),
            free_frames: self.free_count(),
            cached_frames: 0,
            metadata_bytes: self.words.len() * 8,
        }
    }

    fn visit_free(&self, _: &mut dyn FnMut(FrameRange)) {}
}

/// CPUs that one thread plays in turn. With `absent`, the place of every CPU but the current one can be taken.
#[derive(Default)]
pub struct SimCpus {
    current: AtomicUsize,
    pub absent: AtomicBool,
    pub kicks: AtomicUsize,
    pub pinned: AtomicUsize,
}

impl SimCpus {
    pub fn switch(&self, cpu: usize) {
        assert_eq!(self.pinned.load(Relaxed), 0, "a pin was not undone");
        self.current.store(cpu, Relaxed);
    }

    pub fn current(&self) -> usize {
        self.current.load(Relaxed)
    }
}

pub struct SimPin(*const SimCpus);

impl Drop for SimPin {
    fn drop(&mut self) {
        // SAFETY: the pin lives no longer than the operation, the CPUs longer.
        unsafe { (*self.0).pinned.fetch_sub(1, Relaxed) };
    }
}

// SAFETY: one thread plays all CPUs, and what runs inside an operation (a backend's hook) ends before it goes on.
unsafe impl PinCpu for SimCpus {
    type Guard = SimPin;
    fn pin(&self) -> (CpuIndex, SimPin) {
        self.pinned.fetch_add(1, Relaxed);
        (CpuIndex(self.current()), SimPin(self))
    }
    fn claim(&self, cpu: CpuIndex) -> bool {
        self.absent.load(Relaxed) && cpu.0 != self.current()
    }
    fn kick(&self, _: CpuIndex) {
        self.kicks.fetch_add(1, Relaxed);
    }
}
