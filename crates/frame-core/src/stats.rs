//! Counts: how much there is, how much is free, and in which runs.
//!
//! [`FrameStats`] is what a backend keeps anyway. [`FreeRuns`] is derived from
//! [`visit_free`](crate::FrameAllocator::visit_free) and so is computed in the same way for every backend: free
//! runs by order as Linux's `/proc/buddyinfo` lists them, the longest run, free 2 MiB and 1 GiB frames, and
//! external fragmentation.

use core::fmt;

use crate::{FRAME_SIZE, FrameAllocator, FrameRange};

/// The size of an allocator, in frames, and of its books, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameStats {
    /// Frames managed.
    pub total_frames: usize,
    /// Frames free, those in caches included.
    pub free_frames: usize,
    /// Of the free frames, those that lie in per-CPU caches.
    pub cached_frames: usize,
    /// Bytes of metadata, wherever they lie.
    pub metadata_bytes: usize,
}

impl FrameStats {
    /// Frames in use.
    pub const fn used_frames(self) -> usize {
        self.total_frames - self.free_frames
    }
}

/// Orders that [`FreeRuns`] tells apart: 0 (4 KiB) to 18 (1 GiB).
const ORDERS: usize = 19;

/// Free memory by the largest aligned power-of-two runs that it can be cut into.
///
/// Feed it the runs of [`visit_free`](FrameAllocator::visit_free) in address order; adjoining runs are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FreeRuns {
    by_order: [usize; ORDERS],
    huge_2m: usize,
    longest: usize,
    free: usize,
    /// The run that is being joined: start and end, in frame numbers.
    open: Option<(usize, usize)>,
}

impl FreeRuns {
    /// The free runs of an allocator.
    pub fn of<A: FrameAllocator + ?Sized>(allocator: &A) -> Self {
        let mut runs = Self::default();
        allocator.visit_free(&mut |run| runs.add(run));
        runs.finish()
    }

    /// Adds a run; runs must come in address order.
    pub fn add(&mut self, run: FrameRange) {
        let (start, end) = (run.start().as_usize() / FRAME_SIZE, run.end().as_usize() / FRAME_SIZE);
        match &mut self.open {
            Some((_, open_end)) if *open_end == start => *open_end = end,
            _ => {
                self.close();
                self.open = Some((start, end));
            }
        }
    }

    /// Counts the last run.
    #[must_use]
    pub fn finish(mut self) -> Self {
        self.close();
        self
    }

    fn close(&mut self) {
        let Some((mut start, end)) = self.open.take() else { return };
        self.free += end - start;
        self.longest = self.longest.max(end - start);
        self.huge_2m += (end / 512).saturating_sub(start.div_ceil(512));
        while start < end {
            let aligned = start.trailing_zeros().min(ORDERS as u32 - 1);
            let order = aligned.min((end - start).ilog2());
            self.by_order[order as usize] += 1;
            start += 1 << order;
        }
    }

    /// Free runs of `2^order` frames for each order from 0 (4 KiB) to 18 (1 GiB, larger ones counted in pieces).
    pub const fn by_order(&self) -> &[usize; ORDERS] {
        &self.by_order
    }

    /// Aligned, wholly free 2 MiB frames, those inside larger runs included.
    pub const fn huge_2m(&self) -> usize {
        self.huge_2m
    }

    /// The longest run of free frames, aligned or not.
    pub const fn longest(&self) -> usize {
        self.longest
    }

    /// Free frames.
    pub const fn free_frames(&self) -> usize {
        self.free
    }

    /// External fragmentation for a request of 2 MiB: the share of free memory that lies outside aligned, wholly
    /// free 2 MiB frames. 0 is whole, 1 is dust; nothing free counts as 0.
    pub fn fragmentation(&self) -> f64 {
        if self.free == 0 {
            return 0.0;
        }
        1.0 - (self.huge_2m * 512) as f64 / self.free as f64
    }
}

impl fmt::Display for FreeRuns {
    /// One line in the manner of `/proc/buddyinfo`: the count of free runs for each order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for count in self.by_order {
            write!(f, "{count:>7}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PhysAddr;

    fn run(start: usize, count: usize) -> FrameRange {
        FrameRange::new(PhysAddr::from(start * FRAME_SIZE), count).unwrap()
    }

    #[test]
    fn runs_are_joined_and_cut_at_their_alignment() {
        let mut runs = FreeRuns::default();
        runs.add(run(1, 3)); // 1, 2-3
        runs.add(run(4, 4)); // joined: 1, 2-3, 4-7
        runs.add(run(512, 1025)); // 512-1023, 1024-1535, 1536
        let runs = runs.finish();
        assert_eq!(&runs.by_order()[..4], &[2, 1, 1, 0]);
        assert_eq!(runs.by_order()[9], 2);
        assert_eq!((runs.huge_2m(), runs.longest(), runs.free_frames()), (2, 1025, 1032));
        assert!((runs.fragmentation() - 8.0 / 1032.0).abs() < 1e-12);
    }

    #[test]
    fn a_gibibyte_is_512_huge_frames() {
        let mut runs = FreeRuns::default();
        runs.add(run(1 << 18, 2 << 18));
        let runs = runs.finish();
        assert_eq!((runs.by_order()[18], runs.huge_2m()), (2, 1024));
    }
}
