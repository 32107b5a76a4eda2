//! Drives an allocator and compares every answer with a [`FrameSet`] of what must be free.
//!
//! The judge owns what it allocates as numbers: it never touches the memory behind a frame, so that it may break the
//! rules of `dealloc` on purpose and see them enforced.

use alloc::{format, string::String, vec::Vec};

use frame_core::{
    AllocError, DeallocError, DeallocErrorKind, FRAME_SIZE, FrameAllocator, FrameLayout, FrameRange,
    PhysAddr, RegionError,
};

use crate::{
    Backend, FrameSet,
    frame_set::{difference, range},
    oracle::everywhere,
};

/// An allocator, the frames that it manages, and those that must be free.
///
/// Every method panics when an answer is wrong; the message names the backend, the map and the operation.
pub struct Judge<'a> {
    label: String,
    allocator: &'a dyn FrameAllocator,
    settle: &'a dyn Fn(),
    offer: &'a dyn Fn(FrameRange) -> Option<Result<(), RegionError>>,
    largest_order: u32,
    regions: Vec<FrameRange>,
    managed: FrameSet,
    free: FrameSet,
}

impl<'a> Judge<'a> {
    /// Builds a backend over `regions` and runs `test` with its judge; `map` names the regions in messages. In the
    /// end all that `test` has not freed is freed, and all must be as in the beginning.
    #[track_caller]
    pub fn run<B: Backend, R>(
        map: &str,
        regions: &[FrameRange],
        test: impl FnOnce(&mut Judge<'_>) -> R,
    ) -> R {
        B::with(regions, |allocator| {
            let all = FrameSet::from_iter(regions.iter().copied());
            let mut judge = Judge {
                label: format!("{} on {map}", B::NAME),
                allocator,
                settle: &|| B::settle(allocator),
                offer: &|region| B::offer(allocator, region),
                largest_order: B::LARGEST_ORDER,
                regions: regions.to_vec(),
                managed: all.clone(),
                free: all,
            };
            judge.check();
            let result = test(&mut judge);
            judge.free_all();
            judge.check();
            result
        })
    }

    /// The allocator.
    pub const fn allocator(&self) -> &'a dyn FrameAllocator {
        self.allocator
    }

    /// What must be free.
    pub const fn free_set(&self) -> &FrameSet {
        &self.free
    }

    /// What is managed.
    pub const fn managed(&self) -> &FrameSet {
        &self.managed
    }

    /// The backend and the map.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Compares `stats` and `visit_free` with the books.
    #[track_caller]
    pub fn check(&self) {
        let label = &self.label;
        let stats = self.allocator.stats();
        if stats.cached_frames > 0 {
            // Before the caches are emptied: their frames count as free, and are the ones that are not shown.
            let shown = FrameSet::free_in(self.allocator).count();
            assert_eq!(
                shown + stats.cached_frames,
                self.free.count(),
                "{label}: shown and cached, {stats:?}"
            );
        }
        (self.settle)();
        let stats = self.allocator.stats();
        assert_eq!(stats.cached_frames, 0, "{label}: frames in caches that were emptied, {stats:?}");
        assert_eq!(stats.total_frames, self.managed.count(), "{label}: frames managed, {stats:?}");
        assert_eq!(stats.free_frames, self.free.count(), "{label}: frames free, {stats:?}");
        let free = FrameSet::free_in(self.allocator);
        if free != self.free {
            let (wrong, lost) = difference(&free, &self.free);
            panic!(
                "{label}: visit_free shows frames that are taken: {wrong:?}, and lacks free ones: {lost:?}"
            );
        }
    }

    /// Allocates a run and checks the answer. `NoMemory` is right only when no region has a free, aligned power-of-two
    /// block that would hold the run.
    ///
    /// # Errors
    /// [`AllocError::NoMemory`].
    #[track_caller]
    pub fn alloc(&mut self, layout: FrameLayout) -> Result<FrameRange, AllocError> {
        let answer = self.allocator.alloc(layout);
        self.given(layout, everywhere(), answer)
    }

    /// Allocates a single frame by `alloc_frame`.
    ///
    /// # Errors
    /// [`AllocError::NoMemory`].
    #[track_caller]
    pub fn alloc_frame(&mut self) -> Result<FrameRange, AllocError> {
        let answer = self.allocator.alloc_frame();
        self.given(FrameLayout::SINGLE, everywhere(), answer)
    }

    /// Allocates in a window.
    ///
    /// # Errors
    /// [`AllocError::NoMemory`].
    #[track_caller]
    pub fn alloc_in(&mut self, layout: FrameLayout, window: FrameRange) -> Result<FrameRange, AllocError> {
        let answer = self.allocator.alloc_in(layout, window);
        self.given(layout, window, answer)
    }

    /// Allocates at an address and checks that the answer is what the books say.
    ///
    /// # Errors
    /// [`AllocError::NotManaged`], [`AllocError::InUse`].
    #[track_caller]
    pub fn alloc_at(&mut self, range: FrameRange) -> Result<(), AllocError> {
        let answer = self.allocator.alloc_at(range);
        let foreign = !self.managed.contains_range(range);
        let taken = self.managed.runs_in(range).any(|run| !self.free.contains_range(run));
        let right = match answer {
            Ok(()) => !foreign && !taken,
            Err(AllocError::NotManaged) => foreign,
            Err(AllocError::InUse) => taken,
            Err(_) => false,
        };
        assert!(
            right,
            "{}: alloc_at({range}) gave {answer:?}; foreign: {foreign}, in use: {taken}",
            self.label
        );
        if answer.is_ok() {
            self.free.remove(range).expect("seen to be free");
        }
        answer
    }

    /// Allocates single frames by `alloc_bulk`: as many as there are, up to `frames.len()`. Returns how many.
    #[track_caller]
    pub fn alloc_bulk(&mut self, frames: &mut [PhysAddr]) -> usize {
        const UNTOUCHED: usize = 0xdead_0001;
        frames.fill(PhysAddr::from(UNTOUCHED));
        let free = self.free.count();
        let done = self.allocator.alloc_bulk(frames);
        let label = &self.label;
        assert_eq!(done, frames.len().min(free), "{label}: alloc_bulk of {} with {free} free", frames.len());
        assert!(
            frames[done..].iter().all(|frame| frame.as_usize() == UNTOUCHED),
            "{label}: alloc_bulk wrote behind what it gave"
        );
        for &frame in &frames[..done] {
            self.given(FrameLayout::SINGLE, everywhere(), Ok(frame)).expect("given");
        }
        done
    }

    #[track_caller]
    fn given(
        &mut self,
        layout: FrameLayout,
        window: FrameRange,
        answer: Result<PhysAddr, AllocError>,
    ) -> Result<FrameRange, AllocError> {
        let label = &self.label;
        let start = match answer {
            Ok(start) => start,
            Err(AllocError::NoMemory) => {
                if let Some(block) = self.must_find(layout, window) {
                    panic!("{label}: NoMemory for {layout:?} in {window}, though {block} is free");
                }
                return Err(AllocError::NoMemory);
            }
            Err(error) => panic!("{label}: {layout:?} in {window} gave {error:?}"),
        };
        assert!(start.as_usize() != 0, "{label}: {layout:?} gave frame 0");
        assert!(start.as_usize() % layout.align() == 0, "{label}: {layout:?} gave {start:#x}: misaligned");
        let given = FrameRange::new(start, layout.count()).unwrap_or_else(|error| panic!("{label}: {error}"));
        assert!(window.contains_range(given), "{label}: {layout:?} gave {given}, outside {window}");
        if let Some(frame) = self.managed.first_missing(given) {
            panic!("{label}: {layout:?} gave {given}, but {frame:#x} is not managed");
        }
        if let Err(frame) = self.free.remove(given) {
            panic!("{label}: {layout:?} gave {given}, but {frame:#x} is handed out already");
        }
        Ok(given)
    }

    /// A free block that obliges the allocator to serve `layout`: of the next power of two, naturally aligned, in one
    /// region (an allocator need not find a run across the seam of two that adjoin).
    fn must_find(&self, layout: FrameLayout, window: FrameRange) -> Option<FrameRange> {
        let count = layout.count().checked_next_power_of_two()?;
        if count > 1 << self.largest_order {
            return None;
        }
        let align = layout.align().max(count * FRAME_SIZE);
        let block = FrameLayout::new(count, align).ok()?;
        let windows = self.regions.iter().filter_map(|region| region.intersection(window));
        windows.filter_map(|window| self.free.find(block, window)).next()
    }

    /// Frees frames that are handed out; the free must succeed.
    #[track_caller]
    pub fn free(&mut self, frames: FrameRange) {
        let layout = FrameLayout::contiguous(frames.count()).expect("the size of a range");
        // SAFETY: the frames are numbers that the judge was given and has not freed; nothing uses memory there.
        let answer = unsafe { self.allocator.dealloc(frames.start(), layout) };
        assert_eq!(answer, Ok(()), "{}: a good free of {frames}", self.label);
        self.freed(frames);
    }

    /// Frees one frame by `dealloc_frame`.
    #[track_caller]
    pub fn free_frame(&mut self, frame: PhysAddr) {
        // SAFETY: as in `free`.
        let answer = unsafe { self.allocator.dealloc_frame(frame) };
        assert_eq!(answer, Ok(()), "{}: a good free of {frame:#x}", self.label);
        self.freed(FrameRange::new(frame, 1).expect("a frame that was given"));
    }

    /// Frees single frames by `dealloc_bulk`.
    #[track_caller]
    pub fn free_bulk(&mut self, frames: &[PhysAddr]) {
        // SAFETY: as in `free`.
        let answer = unsafe { self.allocator.dealloc_bulk(frames) };
        assert_eq!(answer, Ok(()), "{}: a good bulk free of {} frames", self.label, frames.len());
        for &frame in frames {
            self.freed(FrameRange::new(frame, 1).expect("a frame that was given"));
        }
    }

    /// Frees single frames by `dealloc_bulk`, of which the one at `bad` must be refused as `kind` and the others
    /// freed.
    #[track_caller]
    pub fn free_bulk_but(&mut self, frames: &[PhysAddr], bad: usize, kind: DeallocErrorKind) {
        // SAFETY: as in `free`, but for one frame whose free must be refused; if it is not, the test fails.
        let answer = unsafe { self.allocator.dealloc_bulk(frames) };
        let right = DeallocError::new(frames[bad], kind);
        assert_eq!(answer, Err(right), "{}: a bulk free of {} frames", self.label, frames.len());
        for (i, &frame) in frames.iter().enumerate() {
            if i != bad {
                self.freed(FrameRange::new(frame, 1).expect("a frame that was given"));
            }
        }
    }

    /// Frees with a wrong layout, or what is not handed out: must be refused with a true error, and change nothing.
    #[track_caller]
    pub fn refuse(&mut self, start: PhysAddr, layout: FrameLayout) -> DeallocError {
        // SAFETY: the free must be refused; if it is not, nothing uses memory there, and the test fails.
        let answer = unsafe { self.allocator.dealloc(start, layout) };
        let label = &self.label;
        let Err(error) = answer else { panic!("{label}: a bad free of {layout:?} at {start:#x} was taken") };
        let right = self.faults_of(start, layout);
        assert!(
            right.into_iter().flatten().any(|fault| fault == error),
            "{label}: a bad free of {layout:?} at {start:#x} gave {error:?}, right is one of {right:?}"
        );
        self.check();
        error
    }

    /// What is wrong with a free: for each kind of fault, the lowest frame that has it.
    pub fn faults_of(&self, start: PhysAddr, layout: FrameLayout) -> [Option<DeallocError>; 3] {
        let fault = |frame, kind| Some(DeallocError::new(frame, kind));
        let mut faults = [None; 3];
        if start.as_usize() % layout.align() != 0 {
            faults[0] = fault(start, DeallocErrorKind::Misaligned);
        }
        let first = start.as_usize() / FRAME_SIZE;
        // Frames behind the last address are not managed.
        let end = first.saturating_add(layout.count()).min(usize::MAX / FRAME_SIZE);
        if first >= end {
            faults[1] = fault(start, DeallocErrorKind::NotManaged);
            return faults;
        }
        let frames = range(first, end);
        if let Some(foreign) = self.managed.first_missing(frames) {
            faults[1] = fault(foreign, DeallocErrorKind::NotManaged);
        }
        if let Some(free) = self.free.first_present(frames) {
            faults[2] = fault(free, DeallocErrorKind::NotAllocated);
        }
        faults
    }

    /// Offers a region to the allocator in use; `None` where the backend's tests cannot.
    #[track_caller]
    pub fn offer(&mut self, region: FrameRange) -> Option<Result<(), RegionError>> {
        let answer = (self.offer)(region)?;
        if answer.is_ok() {
            let added = self.managed.insert(region).and_then(|()| self.free.insert(region));
            assert_eq!(added, Ok(()), "{}: took the region {region}, which overlaps", self.label);
            self.regions.push(region);
        }
        Some(answer)
    }

    /// Frees all that is handed out.
    #[track_caller]
    pub fn free_all(&mut self) {
        let (taken, _) = difference(&self.managed, &self.free);
        for run in taken.runs() {
            self.free(run);
        }
    }

    #[track_caller]
    fn freed(&mut self, frames: FrameRange) {
        assert!(self.managed.contains_range(frames), "{}: {frames} was freed, a case at fault", self.label);
        if let Err(frame) = self.free.insert(frames) {
            panic!("{}: {frame:#x} was freed though it is free, a case at fault", self.label);
        }
    }
}

impl core::fmt::Debug for Judge<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Judge").field("label", &self.label).field("free", &self.free).finish_non_exhaustive()
    }
}
