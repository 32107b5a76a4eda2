//! What the lock guards: the regions, sorted, and what is counted over all of them.
//!
//! Frames are named by their number (address / 4096), alignments counted in frames.
//!
//! Invariants: the regions in use come first, sorted by address, disjoint and without frame 0; `free` is the
//! number of their free frames.

use core::{mem::MaybeUninit, ops::Range};

use frame_core::{
    AllocError, DeallocError, DeallocErrorKind, FRAME_SIZE, FrameRange, FrameStats, PhysAddr, RegionError,
};

use crate::{chunk::CLASSES, region::Region, search};

/// See the module.
pub(crate) struct Books<'m, const REGIONS: usize> {
    regions: [Region<'m>; REGIONS],
    used_regions: usize,
    total: usize,
    free: usize,
}

impl<'m, const REGIONS: usize> Books<'m, REGIONS> {
    pub(crate) const fn new() -> Self {
        Self { regions: [const { Region::empty() }; REGIONS], used_regions: 0, total: 0, free: 0 }
    }

    /// Takes over the frames of `region`.
    pub(crate) fn add(
        &mut self,
        region: FrameRange,
        metadata: &'m mut [MaybeUninit<u8>],
    ) -> Result<(), RegionError> {
        let frames = numbers(region);
        if frames.start == 0 {
            return Err(RegionError::FrameZero);
        }
        let at = self.regions().partition_point(|r| r.frames().end <= frames.start);
        if let Some(there) = self.regions().get(at).map(Region::frames).filter(|r| r.start < frames.end) {
            return Err(RegionError::Overlap { region, managed: range(there) });
        }
        if self.used_regions == REGIONS {
            return Err(RegionError::TooManyRegions { limit: REGIONS });
        }
        let books = Region::new(frames, metadata)?;
        self.regions[at..=self.used_regions].rotate_right(1);
        self.regions[at] = books;
        self.used_regions += 1;
        self.total += region.count();
        self.free += region.count();
        Ok(())
    }

    /// The lowest free frame.
    #[inline]
    pub(crate) fn alloc_frame(&mut self) -> Result<usize, AllocError> {
        for region in &mut self.regions[..self.used_regions] {
            if let Some(frame) = region.take_lowest() {
                self.free -= 1;
                return Ok(frame);
            }
        }
        Err(AllocError::NoMemory)
    }

    /// Takes the lowest free frames, up to `frames.len()`; returns how many.
    pub(crate) fn alloc_bulk(&mut self, frames: &mut [PhysAddr]) -> usize {
        let mut done = 0;
        for region in &mut self.regions[..self.used_regions] {
            if done == frames.len() {
                break;
            }
            region.take_lowest_while(|frame| {
                frames[done] = address(frame);
                done += 1;
                done < frames.len()
            });
        }
        self.free -= done;
        done
    }

    /// A run of `count` frames that starts at a multiple of `align` frames.
    pub(crate) fn alloc(&mut self, count: usize, align: usize) -> Result<usize, AllocError> {
        if count > self.free {
            return Err(AllocError::NoMemory);
        }
        // The lowest aligned power of two that holds it is found at once, if there is one.
        let order = count.next_power_of_two().max(align).ilog2() as usize;
        if order < CLASSES {
            for region in &mut self.regions[..self.used_regions] {
                if let Some(start) = region.find_aligned(order) {
                    region.take(start..start + count);
                    self.free -= count;
                    return Ok(start);
                }
            }
        }
        self.alloc_in(count, align, 0..usize::MAX)
    }

    /// The lowest run of `count` frames in `window` that starts at a multiple of `align` frames.
    pub(crate) fn alloc_in(
        &mut self,
        count: usize,
        align: usize,
        window: Range<usize>,
    ) -> Result<usize, AllocError> {
        if count > self.free {
            return Err(AllocError::NoMemory);
        }
        let adjoin = |a: &Region<'_>, b: &Region<'_>| a.frames().end == b.frames().start;
        let start = self
            .regions()
            .chunk_by(adjoin)
            .find_map(|chain| search::lowest_run(chain, &window, count, align))
            .ok_or(AllocError::NoMemory)?;
        self.take(start..start + count);
        Ok(start)
    }

    /// Exactly the frames of `run`.
    pub(crate) fn alloc_at(&mut self, run: Range<usize>) -> Result<(), AllocError> {
        let mut in_use = false;
        let managed = self.walk(run.clone(), |region, part| in_use |= region.first_used(part).is_some());
        if managed < run.end {
            return Err(AllocError::NotManaged);
        }
        if in_use {
            return Err(AllocError::InUse);
        }
        self.take(run);
        Ok(())
    }

    /// Gives one frame back.
    #[inline]
    pub(crate) fn dealloc_frame(&mut self, frame: usize) -> Result<(), DeallocError> {
        let Some(region) = self.index_of(frame).map(|at| &mut self.regions[at]) else {
            return Err(DeallocError::new(address(frame), DeallocErrorKind::NotManaged));
        };
        if !region.give_one(frame) {
            return Err(DeallocError::new(address(frame), DeallocErrorKind::NotAllocated));
        }
        self.free += 1;
        Ok(())
    }

    /// Gives `run` back.
    pub(crate) fn dealloc(&mut self, run: Range<usize>) -> Result<(), DeallocError> {
        let mut free = None;
        let managed = self.walk(run.clone(), |region, part| free = free.or_else(|| region.first_free(part)));
        if let Some(frame) = free {
            return Err(DeallocError::new(address(frame), DeallocErrorKind::NotAllocated));
        }
        if managed < run.end {
            return Err(DeallocError::new(address(managed), DeallocErrorKind::NotManaged));
        }
        self.free += run.len();
        self.walk(run, |region, part| region.give(part));
        Ok(())
    }

    /// Calls `visit` with runs of free frames, lowest first; none crosses from one region into another.
    pub(crate) fn visit_free(&self, visit: &mut dyn FnMut(FrameRange)) {
        for region in self.regions() {
            let Range { mut start, end } = region.frames();
            while let Some(first) = region.first_free(start..end) {
                start = region.first_used(first..end).unwrap_or(end);
                visit(range(first..start));
            }
        }
    }

    pub(crate) fn stats(&self) -> FrameStats {
        let metadata: usize = self.regions().iter().map(Region::metadata_bytes).sum();
        FrameStats {
            total_frames: self.total,
            free_frames: self.free,
            cached_frames: 0,
            metadata_bytes: size_of::<Self>() + metadata,
        }
    }

    /// Takes a run that is managed and free.
    fn take(&mut self, run: Range<usize>) {
        self.free -= run.len();
        self.walk(run, |region, part| region.take(part));
    }

    /// Calls `each` with the regions that hold `run` and its frames there, lowest first, up to the first
    /// frame that no region holds: returns that, or the end of the run.
    fn walk(&mut self, run: Range<usize>, mut each: impl FnMut(&mut Region<'m>, Range<usize>)) -> usize {
        let mut frame = run.start;
        let Some(at) = self.index_of(frame) else { return frame };
        for region in &mut self.regions[at..self.used_regions] {
            if frame >= run.end || region.frames().start > frame {
                break;
            }
            let end = run.end.min(region.frames().end);
            each(region, frame..end);
            frame = end;
        }
        frame
    }

    fn regions(&self) -> &[Region<'m>] {
        &self.regions[..self.used_regions]
    }

    /// Where the region with `frame` stands.
    #[inline]
    fn index_of(&self, frame: usize) -> Option<usize> {
        let regions = self.regions();
        let at = regions.partition_point(|r| r.frames().end <= frame);
        regions.get(at).filter(|r| r.frames().start <= frame).map(|_| at)
    }
}

/// The numbers of the frames of `range`.
pub(crate) fn numbers(range: FrameRange) -> Range<usize> {
    let start = range.start().as_usize() / FRAME_SIZE;
    start..start + range.count()
}

/// The address of a frame.
pub(crate) fn address(frame: usize) -> PhysAddr {
    PhysAddr::from(frame * FRAME_SIZE)
}

/// The range of these frames: a part of a region, which is not empty and does not overflow.
fn range(frames: Range<usize>) -> FrameRange {
    FrameRange::new(address(frames.start), frames.len()).expect("a part of a region")
}
