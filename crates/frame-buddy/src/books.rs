//! What the lock guards: the package's free lists, and beside them the bits that say who owns what.
//!
//! The package answers fast and believes everything it is told: it takes a double free for a new free block,
//! a region added twice for twice the memory, and it subtracts what was freed from what was allocated without
//! a look. So each call is checked against the bits first, and the package is told only what is true.
//!
//! Frames are named by their number (address / 4096), alignments counted in frames.
//!
//! Invariants, whenever the lock is free:
//! - the frames in the package's free lists are those whose bit is set, and `free` is their number;
//! - a block whose frames are all free lies within *one* block of the free lists (two free halves are always
//!   joined), so that [`carve`](Books::carve) finds it;
//! - regions are sorted, and no two overlap or adjoin: adjoining ones are made one when they are added, so a
//!   run that crosses their seam is like any other.

use core::ops::Range;

use buddy_system_allocator::FrameAllocator;
use frame_core::{
    AllocError, DeallocError, DeallocErrorKind, FRAME_SIZE, FrameRange, FrameStats, PhysAddr, RegionError,
};

use crate::{
    blocks::{MAX_BLOCK, ORDERS, blocks},
    free_bits::FreeBits,
};

/// Most heap bytes for each block in a free list, and for each list that ever had one.
///
/// A free list is a `BTreeSet<usize>`. On 64-bit machines a leaf takes 104 bytes (room for 11 numbers, a
/// pointer and two `u16`) and an inner node 200 (12 pointers more); every node but the root holds at least 5
/// numbers, and an inner one has a child more than numbers. The dearest sets are those of 11 and more numbers
/// with nodes of 5: 408 bytes for 11, 1,848 for 71, 24 bytes a number in the long run. A set that was emptied
/// keeps one leaf.
const BLOCK_BYTES: usize = 28;
const LIST_BYTES: usize = 104;

/// See the module.
pub(crate) struct Books<const REGIONS: usize> {
    lists: FrameAllocator<ORDERS>,
    regions: [FreeBits; REGIONS],
    used_regions: usize,
    total: usize,
    free: usize,
}

impl<const REGIONS: usize> Books<REGIONS> {
    pub(crate) const fn new() -> Self {
        Self {
            lists: FrameAllocator::new(),
            regions: [const { FreeBits::EMPTY }; REGIONS],
            used_regions: 0,
            total: 0,
            free: 0,
        }
    }

    /// Takes over the frames of `region`.
    pub(crate) fn add(&mut self, region: FrameRange) -> Result<(), RegionError> {
        let frames = numbers(region);
        if frames.start == 0 {
            return Err(RegionError::FrameZero);
        }
        if let Some(there) = self.regions().iter().find(|r| overlap(&r.frames(), &frames)) {
            return Err(RegionError::Overlap { region, managed: range(there.frames()) });
        }
        // `at..behind`: the neighbours that adjoin and become one with it, two at most.
        let at = self.regions().partition_point(|r| r.frames().end < frames.start);
        let behind = self.regions().partition_point(|r| r.frames().start <= frames.end);
        if at == behind && self.used_regions == REGIONS {
            return Err(RegionError::TooManyRegions { limit: REGIONS });
        }
        let joined = &self.regions[at..behind];
        let start = joined.first().map_or(frames.start, |r| r.frames().start.min(frames.start));
        let end = joined.last().map_or(frames.end, |r| r.frames().end.max(frames.end));
        let mut bits = FreeBits::new(start..end).map_err(|needed| RegionError::HeapExhausted { needed })?;
        joined.iter().for_each(|part| bits.join(part));
        bits.set(frames.clone());

        // The places of the joined ones go to the end of the used part, and all but one of them fall out of
        // it.
        if at == behind {
            self.regions[at..=self.used_regions].rotate_right(1);
            self.used_regions += 1;
        } else {
            self.regions[at + 1..self.used_regions].rotate_left(behind - at - 1);
            self.used_regions -= behind - at - 1;
            self.regions[self.used_regions..].fill_with(|| FreeBits::EMPTY);
        }
        self.regions[at] = bits;

        self.lists.add_frame(frames.start, frames.end);
        // The package does not join what it is given with free neighbours; a free does. So each new block is
        // taken and freed, one after the other (blocks joined before are split and joined again).
        for (start, size) in blocks(frames.clone()) {
            if self.lists.alloc_at(start, size).is_some() {
                self.lists.dealloc(start, size);
            }
        }
        self.total += frames.len();
        self.free += frames.len();
        Ok(())
    }

    /// Any frame.
    #[inline]
    pub(crate) fn alloc_frame(&mut self) -> Result<usize, AllocError> {
        let frame = self.lists.alloc(1).ok_or(AllocError::NoMemory)?;
        self.free -= 1;
        if let Some(region) = self.region_of_mut(frame) {
            region.put(frame, false);
        }
        Ok(frame)
    }

    /// A run of `count` frames that starts at a multiple of `align` frames.
    pub(crate) fn alloc(&mut self, count: usize, align: usize) -> Result<usize, AllocError> {
        if count > self.free {
            return Err(AllocError::NoMemory);
        }
        // The smallest block that is large and aligned enough; what is behind the run goes back.
        let size = count.next_power_of_two().max(align);
        if let Some(start) = self.lists.alloc(size) {
            for (start, size) in blocks(start + count..start + size) {
                self.lists.dealloc(start, size);
            }
            self.mark_used(start..start + count);
            return Ok(start);
        }
        if size == count && size == align && size <= MAX_BLOCK {
            // Such a run is a block: the free lists would have had it.
            return Err(AllocError::NoMemory);
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
        let find = |region: &FreeBits| region.find_run(window.clone(), count, align);
        let start = self.regions().iter().find_map(find).ok_or(AllocError::NoMemory)?;
        self.carve(start..start + count)?;
        Ok(start)
    }

    /// Exactly the frames of `run`.
    pub(crate) fn alloc_at(&mut self, run: Range<usize>) -> Result<(), AllocError> {
        let region = self.region_of(run.start).ok_or(AllocError::NotManaged)?;
        if run.end > region.frames().end {
            return Err(AllocError::NotManaged);
        }
        match region.first_used(run.clone()) {
            Some(_) => Err(AllocError::InUse),
            None => self.carve(run),
        }
    }

    /// Takes up to `frames.len()` single frames; returns how many.
    ///
    /// A frame that was split off leaves its buddy free, and the buddy of the two, and so on: these are taken
    /// next, whole, which is what one call after another would do, with fewer changes to the lists.
    pub(crate) fn alloc_bulk(&mut self, frames: &mut [PhysAddr]) -> usize {
        let mut done = 0;
        while done < frames.len() {
            let Some(first) = self.lists.alloc(1) else { break };
            let mut end = first + 1;
            while end - first <= frames.len() - done - (end - first) && self.is_free(end..end + (end - first))
            {
                let size = end - first;
                if first % (2 * size) != 0 || self.lists.alloc_at(end, size).is_none() {
                    break;
                }
                end += size;
            }
            self.mark_used(first..end);
            for frame in first..end {
                frames[done] = address(frame);
                done += 1;
            }
        }
        done
    }

    /// Gives one frame back.
    #[inline]
    pub(crate) fn dealloc_frame(&mut self, frame: usize) -> Result<(), DeallocError> {
        let Some(region) = self.region_of_mut(frame) else {
            return Err(DeallocError::new(address(frame), DeallocErrorKind::NotManaged));
        };
        if !region.put(frame, true) {
            return Err(DeallocError::new(address(frame), DeallocErrorKind::NotAllocated));
        }
        self.free += 1;
        self.lists.dealloc(frame, 1);
        Ok(())
    }

    /// Gives `run` back.
    pub(crate) fn dealloc(&mut self, run: Range<usize>) -> Result<(), DeallocError> {
        let refuse = |frame, kind| Err(DeallocError::new(address(frame), kind));
        let Some(region) = self.region_of_mut(run.start) else {
            return refuse(run.start, DeallocErrorKind::NotManaged);
        };
        let end = region.frames().end;
        if let Some(free) = region.first_free(run.start..run.end.min(end)) {
            return refuse(free, DeallocErrorKind::NotAllocated);
        }
        if run.end > end {
            return refuse(end, DeallocErrorKind::NotManaged);
        }
        region.set(run.clone());
        self.free += run.len();
        for (start, size) in blocks(run) {
            self.lists.dealloc(start, size);
        }
        Ok(())
    }

    /// Calls `visit` with the longest free runs, lowest first.
    pub(crate) fn visit_free(&self, visit: &mut dyn FnMut(FrameRange)) {
        self.regions().iter().flat_map(FreeBits::runs).for_each(|run| visit(range(run)));
    }

    pub(crate) fn stats(&self) -> FrameStats {
        let regions = self.regions();
        let bits: usize = regions.iter().map(FreeBits::heap_bytes).sum();
        let blocks: usize = regions.iter().map(FreeBits::block_count).sum();
        // No block is larger than all memory, so the lists above that were never used.
        let lists = self.total.checked_ilog2().map_or(0, |order| (order as usize + 1).min(ORDERS));
        FrameStats {
            total_frames: self.total,
            free_frames: self.free,
            cached_frames: 0,
            metadata_bytes: size_of::<Self>() + bits + blocks * BLOCK_BYTES + lists * LIST_BYTES,
        }
    }

    /// Whether `window` holds every frame there is.
    pub(crate) fn all_in(&self, window: &Range<usize>) -> bool {
        let regions = self.regions();
        regions.first().is_none_or(|first| window.start <= first.frames().start)
            && regions.last().is_none_or(|last| last.frames().end <= window.end)
    }

    /// Takes the free frames of `run` out of the free lists, block by block.
    fn carve(&mut self, run: Range<usize>) -> Result<(), AllocError> {
        for (start, size) in blocks(run.clone()) {
            if self.lists.alloc_at(start, size).is_none() {
                // The second invariant says that this cannot be. If the package breaks it, nothing is taken.
                debug_assert!(false, "a free block at frame {start:#x} is not in the free lists");
                blocks(run.start..start).for_each(|(start, size)| self.lists.dealloc(start, size));
                return Err(AllocError::NoMemory);
            }
        }
        self.mark_used(run);
        Ok(())
    }

    fn mark_used(&mut self, run: Range<usize>) {
        // A run that came from the free lists is managed, and lies in one region because adjoining ones are
        // joined.
        self.free -= run.len();
        if let Some(region) = self.region_of_mut(run.start) {
            region.clear(run);
        }
    }

    fn is_free(&self, run: Range<usize>) -> bool {
        self.region_of(run.start)
            .is_some_and(|region| run.end <= region.frames().end && region.first_used(run).is_none())
    }

    fn regions(&self) -> &[FreeBits] {
        &self.regions[..self.used_regions]
    }

    fn region_of(&self, frame: usize) -> Option<&FreeBits> {
        let regions = self.regions();
        regions
            .get(regions.partition_point(|r| r.frames().end <= frame))
            .filter(|r| r.frames().start <= frame)
    }

    #[inline]
    fn region_of_mut(&mut self, frame: usize) -> Option<&mut FreeBits> {
        let regions = &mut self.regions[..self.used_regions];
        let at = regions.partition_point(|r| r.frames().end <= frame);
        regions.get_mut(at).filter(|r| r.frames().start <= frame)
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

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}
