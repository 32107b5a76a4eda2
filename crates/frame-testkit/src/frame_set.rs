//! A set of frames: what should be free.
//!
//! The suite compares allocators of millions of frames after many operations, so the set is kept as runs. Bits would
//! be simpler still; a test compares the two.
//!
//! Invariants: runs are not empty, neither overlap nor touch, and `frames` is the sum of their lengths.

use alloc::collections::BTreeMap;
use core::fmt;

use frame_core::{FRAME_SIZE, FrameAllocator, FrameLayout, FrameRange, PhysAddr};

/// A set of frames, kept as runs.
///
/// ```
/// use frame_testkit::{FrameSet, frame_core::{FrameRange, PhysAddr}};
///
/// let range = |start: usize, count| FrameRange::new(PhysAddr::from(start), count).unwrap();
/// let mut free = FrameSet::from_iter([range(0x1000, 8)]);
/// free.remove(range(0x3000, 2)).unwrap();
/// assert_eq!(free.count(), 6);
/// assert_eq!(free.remove(range(0x2000, 2)), Err(PhysAddr::from(0x3000))); // the lowest that is not there
/// assert!(free.runs().eq([range(0x1000, 2), range(0x5000, 4)]));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FrameSet {
    /// Frame numbers: start to end, exclusive.
    runs: BTreeMap<usize, usize>,
    frames: usize,
}

/// The frame numbers of a range: start and end, exclusive.
pub(crate) fn numbers(range: FrameRange) -> (usize, usize) {
    (range.start().as_usize() / FRAME_SIZE, range.end().as_usize() / FRAME_SIZE)
}

/// The range of frame numbers `start..end`, which must not be empty.
pub(crate) fn range(start: usize, end: usize) -> FrameRange {
    FrameRange::new(PhysAddr::from(start * FRAME_SIZE), end - start)
        .expect("not empty, and in the address space")
}

impl FrameSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self { runs: BTreeMap::new(), frames: 0 }
    }

    /// What an allocator says is free.
    ///
    /// # Panics
    /// The runs of `visit_free` are unsorted or overlap, which the trait forbids.
    #[track_caller]
    pub fn free_in<A: FrameAllocator + ?Sized>(allocator: &A) -> Self {
        let mut free = Self::new();
        let mut last: Option<FrameRange> = None;
        allocator.visit_free(&mut |run| {
            if let Some(last) = last {
                assert!(last.end() <= run.start(), "visit_free: {run} after {last}: unsorted or overlapping");
            }
            last = Some(run);
            free.insert(run).expect("sorted runs do not overlap");
        });
        free
    }

    /// Adds frames, none of which may be there.
    ///
    /// # Errors
    /// The lowest frame that is there already; the set is as it was.
    pub fn insert(&mut self, frames: FrameRange) -> Result<(), PhysAddr> {
        if let Some(there) = self.first_present(frames) {
            return Err(there);
        }
        let (mut start, mut end) = numbers(frames);
        self.frames += end - start;
        if let Some((&before, &before_end)) = self.runs.range(..start).next_back() {
            if before_end == start {
                start = before;
            }
        }
        if let Some(after_end) = self.runs.remove(&end) {
            end = after_end;
        }
        self.runs.insert(start, end);
        Ok(())
    }

    /// Takes frames out, all of which must be there.
    ///
    /// # Errors
    /// The lowest frame that is not there; the set is as it was.
    pub fn remove(&mut self, frames: FrameRange) -> Result<(), PhysAddr> {
        if let Some(missing) = self.first_missing(frames) {
            return Err(missing);
        }
        let (start, end) = numbers(frames);
        let (&run, &run_end) = self.runs.range(..=start).next_back().expect("the frames lie in one run");
        self.frames -= end - start;
        self.runs.remove(&run);
        if run < start {
            self.runs.insert(run, start);
        }
        if end < run_end {
            self.runs.insert(end, run_end);
        }
        Ok(())
    }

    /// The lowest frame of `frames` that is not in the set.
    pub fn first_missing(&self, frames: FrameRange) -> Option<PhysAddr> {
        let (start, end) = numbers(frames);
        // Runs do not touch, so the first frame behind a run is missing.
        let missing = match self.runs.range(..=start).next_back() {
            Some((_, &run_end)) if run_end > start => run_end,
            _ => start,
        };
        (missing < end).then(|| PhysAddr::from(missing * FRAME_SIZE))
    }

    /// The lowest frame of `frames` that is in the set.
    pub fn first_present(&self, frames: FrameRange) -> Option<PhysAddr> {
        let (start, end) = numbers(frames);
        let present = match self.runs.range(..=start).next_back() {
            Some((_, &run_end)) if run_end > start => start,
            _ => *self.runs.range(start..end).next()?.0,
        };
        Some(PhysAddr::from(present * FRAME_SIZE))
    }

    /// Whether every frame of `frames` is in the set.
    pub fn contains_range(&self, frames: FrameRange) -> bool {
        self.first_missing(frames).is_none()
    }

    /// Frames in the set.
    pub const fn count(&self) -> usize {
        self.frames
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// The runs, lowest first, as long as they can be.
    pub fn runs(&self) -> impl DoubleEndedIterator<Item = FrameRange> + '_ {
        self.runs.iter().map(|(&start, &end)| range(start, end))
    }

    /// The longest run; of several, the lowest.
    pub fn longest(&self) -> Option<FrameRange> {
        self.runs().rev().max_by_key(|run| run.count())
    }

    /// The frames of the set that lie in `window`, as runs.
    pub fn runs_in(&self, window: FrameRange) -> impl Iterator<Item = FrameRange> + '_ {
        let (start, end) = numbers(window);
        let first = self.runs.range(..=start).next_back().map_or(start, |(&run, _)| run);
        self.runs
            .range(first..end)
            .filter_map(move |(&run, &run_end)| range(run, run_end).intersection(window))
    }

    /// The lowest place in `window` for `layout`.
    pub fn find(&self, layout: FrameLayout, window: FrameRange) -> Option<FrameRange> {
        self.runs_in(window).find_map(|run| {
            let start = run.start().as_usize().checked_next_multiple_of(layout.align())?;
            let fit = FrameRange::new(PhysAddr::from(start), layout.count()).ok()?;
            run.contains_range(fit).then_some(fit)
        })
    }
}

impl FromIterator<FrameRange> for FrameSet {
    /// # Panics
    /// Ranges overlap.
    fn from_iter<I: IntoIterator<Item = FrameRange>>(ranges: I) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert(range).unwrap_or_else(|frame| panic!("{range} overlaps another at {frame:#x}"));
        }
        set
    }
}

impl fmt::Debug for FrameSet {
    /// The first runs and the count: a set of a large machine does not flood a test's output.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 16;
        write!(f, "{} frames in {} runs: ", self.frames, self.runs.len())?;
        f.debug_list().entries(self.runs().take(SHOWN)).finish()?;
        if self.runs.len() > SHOWN {
            f.write_str(" ...")?;
        }
        Ok(())
    }
}

/// What differs between two sets, for a failed test: frames only in the first, and only in the second.
pub(crate) fn difference(left: &FrameSet, right: &FrameSet) -> (FrameSet, FrameSet) {
    let without = |set: &FrameSet, other: &FrameSet| {
        let mut rest = set.clone();
        for run in other.runs() {
            let common: alloc::vec::Vec<FrameRange> = rest.runs_in(run).collect();
            for common in common {
                rest.remove(common).expect("a part of the set");
            }
        }
        rest
    };
    (without(left, right), without(right, left))
}
