//! The judge among allocators: a `bool` for each frame, one lock, lowest address first.
//!
//! Nothing here is clever, so that a reader can see that it is right. It serves the whole trait, and the conformance
//! suite runs on it too: a case that the oracle fails is a wrong case.
//!
//! Invariants: regions are sorted, disjoint and without frame 0; no frame of a region below its `hint` is free;
//! `free_frames` counts the `true` of `free`.

use alloc::{vec, vec::Vec};
use core::ops::Range;

use frame_core::{
    AllocError, DeallocError, DeallocErrorKind, FRAME_SIZE, FrameAllocator, FrameLayout, FrameRange,
    FrameStats, PhysAddr, RegionError,
};
use spin::Mutex;

use crate::Backend;

/// The slow and simple allocator.
///
/// ```
/// use frame_testkit::{Oracle, frame_core::*};
///
/// let oracle = Oracle::new();
/// oracle.add_region(FrameRange::new(PhysAddr::from(0x1000), 4)?)?;
/// assert_eq!(oracle.alloc_frame(), Ok(PhysAddr::from(0x1000)));
/// assert_eq!(oracle.alloc(FrameLayout::contiguous(4)?), Err(AllocError::NoMemory));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Oracle {
    regions: Mutex<Vec<Region>>,
}

#[derive(Debug)]
struct Region {
    range: FrameRange,
    free: Vec<bool>,
    free_frames: usize,
    hint: usize,
}

impl Region {
    /// The lowest run for `layout` in `window`: its index in the region.
    fn find(&self, layout: FrameLayout, window: FrameRange) -> Option<usize> {
        let window = self.range.intersection(window)?;
        let index = |addr: PhysAddr| (addr.as_usize() - self.range.start().as_usize()) / FRAME_SIZE;
        let end = index(window.end());
        let mut start = index(window.start()).max(self.hint);
        loop {
            // The next aligned address, and the frames from there on.
            let addr = self.range.start().as_usize() + start * FRAME_SIZE;
            start += (addr.checked_next_multiple_of(layout.align())? - addr) / FRAME_SIZE;
            if start >= end || end - start < layout.count() {
                return None;
            }
            match (start..start + layout.count()).rev().find(|&i| !self.free[i]) {
                Some(taken) => start = taken + 1,
                None => return Some(start),
            }
        }
    }

    fn take(&mut self, frames: Range<usize>) {
        self.free_frames -= frames.len();
        self.free[frames].fill(false);
        while self.hint < self.free.len() && !self.free[self.hint] {
            self.hint += 1;
        }
    }

    fn give(&mut self, frames: Range<usize>) {
        self.free_frames += frames.len();
        self.hint = self.hint.min(frames.start);
        self.free[frames].fill(true);
    }
}

/// Cuts a run at the seams of regions: for each region that it touches, which one and which of its frames, lowest
/// first. Ends with an `Err` at the first frame that is not managed.
fn pieces(
    regions: &[Region],
    start: PhysAddr,
    count: usize,
) -> impl Iterator<Item = Result<(usize, Range<usize>), PhysAddr>> {
    let (mut at, mut left) = (start, count);
    core::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let Some(number) = regions.iter().position(|region| region.range.contains(at)) else {
            left = 0;
            return Some(Err(at));
        };
        let range = regions[number].range;
        let index = (at.as_usize() - range.start().as_usize()) / FRAME_SIZE;
        let here = left.min(range.count() - index);
        left -= here;
        at = range.end();
        Some(Ok((number, index..index + here)))
    })
}

impl Oracle {
    /// An allocator without frames.
    pub const fn new() -> Self {
        Self { regions: Mutex::new(Vec::new()) }
    }

    /// Takes a region over. Nothing is behind its frames: they are numbers.
    ///
    /// # Errors
    /// It holds frame 0, or overlaps a region that is there.
    pub fn add_region(&self, region: FrameRange) -> Result<(), RegionError> {
        if region.start().as_usize() == 0 {
            return Err(RegionError::FrameZero);
        }
        let mut regions = self.regions.lock();
        if let Some(there) = regions.iter().find(|there| there.range.overlaps(region)) {
            return Err(RegionError::Overlap { region, managed: there.range });
        }
        let at = regions.partition_point(|there| there.range < region);
        regions.insert(
            at,
            Region { range: region, free: vec![true; region.count()], free_frames: region.count(), hint: 0 },
        );
        Ok(())
    }
}

/// The whole address space.
pub(crate) fn everywhere() -> FrameRange {
    FrameRange::new(PhysAddr::from(0), usize::MAX / FRAME_SIZE).expect("ends where addresses do")
}

// SAFETY: a frame is handed out when its bool says free, under the lock, and the bool then says taken until the frame
// comes back; regions are disjoint and without frame 0; nothing writes to frames.
unsafe impl FrameAllocator for Oracle {
    fn alloc(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        self.alloc_in(layout, everywhere())
    }

    unsafe fn dealloc(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
        if start.as_usize() % layout.align() != 0 {
            return Err(DeallocError::new(start, DeallocErrorKind::Misaligned));
        }
        let mut regions = self.regions.lock();
        let mut good = Vec::new();
        for piece in pieces(&regions, start, layout.count()) {
            let (number, frames) =
                piece.map_err(|frame| DeallocError::new(frame, DeallocErrorKind::NotManaged))?;
            let region = &regions[number];
            if let Some(i) = frames.clone().find(|&i| region.free[i]) {
                let frame = region.range.start() + i * FRAME_SIZE;
                return Err(DeallocError::new(frame, DeallocErrorKind::NotAllocated));
            }
            good.push((number, frames));
        }
        for (number, frames) in good {
            regions[number].give(frames);
        }
        Ok(())
    }

    fn stats(&self) -> FrameStats {
        let regions = self.regions.lock();
        let mut stats = FrameStats::default();
        for region in regions.iter() {
            stats.total_frames += region.free.len();
            stats.free_frames += region.free_frames;
            stats.metadata_bytes += region.free.len();
        }
        stats
    }

    fn visit_free(&self, visit: &mut dyn FnMut(FrameRange)) {
        for region in self.regions.lock().iter() {
            let next =
                |from: usize, free| region.free[from..].iter().position(|&f| f == free).map(|i| from + i);
            let mut at = 0;
            while let Some(start) = next(at, true) {
                at = next(start, false).unwrap_or(region.free.len());
                let paddr = region.range.start() + start * FRAME_SIZE;
                visit(FrameRange::new(paddr, at - start).expect("a part of the region"));
            }
        }
    }

    fn alloc_at(&self, range: FrameRange) -> Result<(), AllocError> {
        let mut regions = self.regions.lock();
        let pieces: Result<Vec<_>, _> = pieces(&regions, range.start(), range.count()).collect();
        let pieces = pieces.map_err(|_| AllocError::NotManaged)?;
        if pieces.iter().any(|(number, frames)| frames.clone().any(|i| !regions[*number].free[i])) {
            return Err(AllocError::InUse);
        }
        for (number, frames) in pieces {
            regions[number].take(frames);
        }
        Ok(())
    }

    fn alloc_in(&self, layout: FrameLayout, window: FrameRange) -> Result<PhysAddr, AllocError> {
        let mut regions = self.regions.lock();
        for region in regions.iter_mut() {
            if let Some(index) = region.find(layout, window) {
                region.take(index..index + layout.count());
                return Ok(region.range.start() + index * FRAME_SIZE);
            }
        }
        Err(AllocError::NoMemory)
    }
}

/// [`Oracle`] as a [`Backend`].
#[derive(Debug)]
pub struct OracleBackend;

impl Backend for OracleBackend {
    const NAME: &'static str = "oracle";
    type Allocator<'m> = Oracle;

    fn with<R>(regions: &[FrameRange], test: impl FnOnce(&Oracle) -> R) -> R {
        let oracle = Oracle::new();
        for &region in regions {
            oracle.add_region(region).expect("regions are disjoint, without frame 0");
        }
        test(&oracle)
    }

    fn offer(oracle: &Oracle, region: FrameRange) -> Option<Result<(), RegionError>> {
        Some(oracle.add_region(region))
    }
}
