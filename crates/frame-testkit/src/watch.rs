//! An ownership check around any allocator, for long runs: a bit for each frame says whether it is handed out.
//!
//! The check shares nothing with the allocator that it watches. It is an atomic bit operation for each frame, so it
//! serves threads too; a fault ends the test with a panic that names the frame.
//!
//! Order matters between threads: a frame's bit is cleared before the free, because another thread may be given
//! the frame at once.

use alloc::{boxed::Box, vec::Vec};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use frame_core::{
    AllocError, CacheWatermark, DeallocError, DeallocErrorKind, FRAME_SIZE, FrameAllocator, FrameLayout,
    FrameRange, FrameStats, PhysAddr,
};

/// An allocator whose every answer is checked.
///
/// It panics when a frame is handed out twice, misaligned, outside the regions or the asked window; when a good free
/// is refused or a bad one taken; when the counts of `stats` do not fit ([`check`](Self::check)).
///
/// ```
/// use frame_testkit::{Oracle, Watch, frame_core::*};
///
/// let region = FrameRange::new(PhysAddr::from(0x1000), 8)?;
/// let oracle = Oracle::new();
/// oracle.add_region(region)?;
/// let watch = Watch::new(oracle, &[region]);
/// let frame = watch.alloc_frame()?;
/// assert_eq!(watch.owned(), 1);
/// // SAFETY: the frame is owned.
/// unsafe { watch.dealloc_frame(frame) }?;
/// watch.check();
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Watch<A> {
    inner: A,
    regions: Vec<Ledger>,
    owned: AtomicUsize,
}

#[derive(Debug)]
struct Ledger {
    range: FrameRange,
    /// A set bit: the frame is handed out.
    bits: Box<[AtomicU64]>,
}

impl<A: FrameAllocator> Watch<A> {
    /// Watches an allocator that manages exactly these regions, all free.
    ///
    /// # Panics
    /// The allocator's counts differ from that.
    #[track_caller]
    pub fn new(inner: A, regions: &[FrameRange]) -> Self {
        let watch = Self::over(inner, regions);
        watch.check();
        watch
    }

    /// As [`new`](Self::new), for an allocator that is yet to be given some of the regions: the counts are not
    /// compared.
    pub fn over(inner: A, regions: &[FrameRange]) -> Self {
        let ledger = |&range: &FrameRange| Ledger {
            range,
            bits: (0..range.count().div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
        };
        Self { inner, regions: regions.iter().map(ledger).collect(), owned: AtomicUsize::new(0) }
    }

    /// Frames that are handed out now.
    pub fn owned(&self) -> usize {
        self.owned.load(SeqCst)
    }

    /// The allocator inside.
    pub const fn inner(&self) -> &A {
        &self.inner
    }

    /// The allocator, unwatched.
    pub fn into_inner(self) -> A {
        self.inner
    }

    /// Compares the allocator's counts with the frames handed out. Only when nothing runs.
    ///
    /// # Panics
    /// They differ: a frame was lost or doubled.
    #[track_caller]
    pub fn check(&self) {
        let total: usize = self.regions.iter().map(|ledger| ledger.range.count()).sum();
        let stats = self.inner.stats();
        assert_eq!(stats.total_frames, total, "frames managed");
        assert_eq!(stats.free_frames, total - self.owned(), "frames free, {} are handed out", self.owned());
    }

    /// Calls `each` with the word and the mask of each 64 frames of the run; stops at a frame that is not managed
    /// and returns it.
    fn words(
        &self,
        start: PhysAddr,
        count: usize,
        mut each: impl FnMut(&AtomicU64, u64, PhysAddr),
    ) -> Option<PhysAddr> {
        let mut at = start.as_usize();
        let mut left = count;
        while left > 0 {
            let Some(ledger) = self.regions.iter().find(|ledger| ledger.range.contains(PhysAddr::from(at)))
            else {
                return Some(PhysAddr::from(at));
            };
            let index = (at - ledger.range.start().as_usize()) / FRAME_SIZE;
            let bit = index % 64;
            let here = left.min(64 - bit).min(ledger.range.count() - index);
            let mask = (u64::MAX >> (64 - here)) << bit;
            each(&ledger.bits[index / 64], mask, PhysAddr::from(at - bit * FRAME_SIZE));
            at = at.wrapping_add(here * FRAME_SIZE);
            left -= here;
        }
        None
    }

    #[track_caller]
    fn give(&self, start: PhysAddr, layout: FrameLayout) {
        assert!(
            start.as_usize() % layout.align() == 0,
            "{start:#x} was handed out for {layout:?}: misaligned"
        );
        assert!(start.as_usize() != 0, "frame 0 was handed out");
        let foreign = self.words(start, layout.count(), |word, mask, base| {
            let twice = word.fetch_or(mask, SeqCst) & mask;
            assert!(twice == 0, "frame {:#x} was handed out twice", lowest(base, twice));
        });
        if let Some(frame) = foreign {
            panic!("frame {frame:#x} was handed out, which is in no region");
        }
        self.owned.fetch_add(layout.count(), SeqCst);
    }

    /// Takes the run out of the books, or says what is wrong with freeing it and leaves them.
    fn take_back(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocErrorKind> {
        if start.as_usize() % layout.align() != 0 {
            return Err(DeallocErrorKind::Misaligned);
        }
        let mut bad = false;
        let foreign =
            self.words(start, layout.count(), |word, mask, _| bad |= word.load(SeqCst) & mask != mask);
        match (foreign, bad) {
            (Some(_), _) => return Err(DeallocErrorKind::NotManaged),
            (_, true) => return Err(DeallocErrorKind::NotAllocated),
            _ => {}
        }
        self.words(start, layout.count(), |word, mask, base| {
            let before = word.fetch_and(!mask, SeqCst) & mask;
            assert!(before == mask, "frame {:#x} was freed twice at once", lowest(base, before ^ mask));
        });
        self.owned.fetch_sub(layout.count(), SeqCst);
        Ok(())
    }
}

fn lowest(base: PhysAddr, bits: u64) -> PhysAddr {
    PhysAddr::from(base.as_usize() + bits.trailing_zeros() as usize * FRAME_SIZE)
}

// SAFETY: every call goes to the allocator inside; what it answers is passed on, or the thread panics.
unsafe impl<A: FrameAllocator> FrameAllocator for Watch<A> {
    fn alloc(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        let start = self.inner.alloc(layout)?;
        self.give(start, layout);
        Ok(start)
    }

    unsafe fn dealloc(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
        let expected = self.take_back(start, layout);
        // SAFETY: the caller's promise is passed on.
        let freed = unsafe { self.inner.dealloc(start, layout) };
        judge_free(start, layout, expected, freed);
        freed
    }

    fn stats(&self) -> FrameStats {
        self.inner.stats()
    }

    fn visit_free(&self, visit: &mut dyn FnMut(FrameRange)) {
        self.inner.visit_free(visit);
    }

    fn alloc_frame(&self) -> Result<PhysAddr, AllocError> {
        let frame = self.inner.alloc_frame()?;
        self.give(frame, FrameLayout::SINGLE);
        Ok(frame)
    }

    unsafe fn dealloc_frame(&self, frame: PhysAddr) -> Result<(), DeallocError> {
        let expected = self.take_back(frame, FrameLayout::SINGLE);
        // SAFETY: the caller's promise is passed on.
        let freed = unsafe { self.inner.dealloc_frame(frame) };
        judge_free(frame, FrameLayout::SINGLE, expected, freed);
        freed
    }

    fn alloc_bulk(&self, frames: &mut [PhysAddr]) -> usize {
        let done = self.inner.alloc_bulk(frames);
        frames[..done].iter().for_each(|&frame| self.give(frame, FrameLayout::SINGLE));
        done
    }

    fn alloc_bulk_for(&self, cpu: usize, frames: &mut [PhysAddr]) -> usize {
        let done = self.inner.alloc_bulk_for(cpu, frames);
        frames[..done].iter().for_each(|&frame| self.give(frame, FrameLayout::SINGLE));
        done
    }

    unsafe fn dealloc_bulk(&self, frames: &[PhysAddr]) -> Result<(), DeallocError> {
        let bad = frames.iter().filter(|&&frame| self.take_back(frame, FrameLayout::SINGLE).is_err()).count();
        // SAFETY: the caller's promise is passed on.
        let freed = unsafe { self.inner.dealloc_bulk(frames) };
        assert!(freed.is_err() == (bad > 0), "{bad} bad frames in a bulk free, and the answer was {freed:?}");
        freed
    }

    fn alloc_at(&self, range: FrameRange) -> Result<(), AllocError> {
        self.inner.alloc_at(range)?;
        self.give(range.start(), FrameLayout::contiguous(range.count()).expect("the size of a range"));
        Ok(())
    }

    fn alloc_in(&self, layout: FrameLayout, window: FrameRange) -> Result<PhysAddr, AllocError> {
        let start = self.inner.alloc_in(layout, window)?;
        self.give(start, layout);
        let given = FrameRange::new(start, layout.count());
        assert!(
            given.is_ok_and(|given| window.contains_range(given)),
            "{start:#x} lies outside the window {window}"
        );
        Ok(start)
    }

    fn cache_watermark(&self) -> CacheWatermark {
        self.inner.cache_watermark()
    }
}

fn judge_free(
    start: PhysAddr,
    layout: FrameLayout,
    expected: Result<(), DeallocErrorKind>,
    freed: Result<(), DeallocError>,
) {
    match (expected, freed) {
        (Ok(()), Ok(())) | (Err(_), Err(_)) => {}
        (Ok(()), Err(refused)) => panic!("a good free of {layout:?} at {start:#x} was refused: {refused}"),
        (Err(kind), Ok(())) => panic!("a bad free of {layout:?} at {start:#x} was taken: {kind:?}"),
    }
}
