//! The judge among allocators: a `bool` for each frame, one lock, lowest address first.
//!
//! Nothing here is clever, so that a reader can see that it is right. It serves the whole trait, and the conformance
//! suite runs on it too: a case that the oracle fails is a wrong case.
//!
//! Invariants: regions are sorted, disjoint and without frame 0; no frame of a region below its `hint` is free.

use alloc::{vec, vec::Vec};

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

    fn take(&mut self, index: usize, count: usize) -> PhysAddr {
        self.free[index..index + count].fill(false);
        while self.hint < self.free.len() && !self.free[self.hint] {
            self.hint += 1;
        }
        self.range.start() + index * FRAME_SIZE
    }
}

/// The state of the frame at `addr`: which region, which index; `None` where none is managed.
fn locate(regions: &[Region], addr: PhysAddr) -> Option<(usize, usize)> {
    let region = regions.iter().position(|region| region.range.contains(addr))?;
    Some((region, (addr.as_usize() - regions[region].range.start().as_usize()) / FRAME_SIZE))
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
        regions.insert(at, Region { range: region, free: vec![true; region.count()], hint: 0 });
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
        let frames =
            || (0..layout.count()).map(|i| PhysAddr::from(start.as_usize().wrapping_add(i * FRAME_SIZE)));
        for frame in frames() {
            match locate(&regions, frame) {
                None => return Err(DeallocError::new(frame, DeallocErrorKind::NotManaged)),
                Some((region, index)) if regions[region].free[index] => {
                    return Err(DeallocError::new(frame, DeallocErrorKind::NotAllocated));
                }
                Some(_) => {}
            }
        }
        for frame in frames() {
            let (region, index) = locate(&regions, frame).expect("every frame was looked up");
            regions[region].free[index] = true;
            regions[region].hint = regions[region].hint.min(index);
        }
        Ok(())
    }

    fn stats(&self) -> FrameStats {
        let regions = self.regions.lock();
        let mut stats = FrameStats::default();
        for region in regions.iter() {
            stats.total_frames += region.free.len();
            stats.free_frames += region.free.iter().filter(|&&free| free).count();
            stats.metadata_bytes += region.free.len();
        }
        stats
    }

    fn visit_free(&self, visit: &mut dyn FnMut(FrameRange)) {
        for region in self.regions.lock().iter() {
            let mut index = 0;
            for run in region.free.chunk_by(|left, right| left == right) {
                if run[0] {
                    let start = region.range.start() + index * FRAME_SIZE;
                    visit(FrameRange::new(start, run.len()).expect("a part of the region"));
                }
                index += run.len();
            }
        }
    }

    fn alloc_at(&self, range: FrameRange) -> Result<(), AllocError> {
        let mut regions = self.regions.lock();
        if range.frames().any(|frame| locate(&regions, frame).is_none()) {
            return Err(AllocError::NotManaged);
        }
        let places: Vec<_> = range.frames().filter_map(|frame| locate(&regions, frame)).collect();
        if places.iter().any(|&(region, index)| !regions[region].free[index]) {
            return Err(AllocError::InUse);
        }
        for (region, index) in places {
            regions[region].take(index, 1);
        }
        Ok(())
    }

    fn alloc_in(&self, layout: FrameLayout, window: FrameRange) -> Result<PhysAddr, AllocError> {
        let mut regions = self.regions.lock();
        for region in regions.iter_mut() {
            if let Some(index) = region.find(layout, window) {
                return Ok(region.take(index, layout.count()));
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
