//! The watermark: above which address frames are better handed back than kept in a cache.
//!
//! Were all frames in use packed at the bottom, they would reach up to some address. Frames above it (with some slack)
//! are the ones to hand back: allocation goes by address, so what is handed back above is taken again below, and whole
//! blocks come free at the top.
//!
//! That needs the number of frames in use, and a counter that every operation updates would be the one cache line that
//! all CPUs fight for. Instead the rows are counted, one group of 64 blocks at a time, by one in 64 bulk calls and
//! polls: once all groups were counted, about an eighth of the memory changed hands, whatever its size. It is a hint:
//! exact counts come from [`stats`](frame_core::FrameAllocator::stats).

use frame_core::PhysAddr;

use crate::{
    geometry::{BLOCK_FRAMES, Block, Frame, Frames, Group},
    region::Region,
    registry::Registry,
    sync::{AtomicUsize, Relaxed},
    zone::zones,
};

/// One frame in so many may lie above the others.
const SLACK: usize = 64;

/// The frames in use, about, and the address that follows from it.
#[derive(Debug)]
pub(crate) struct Watermark {
    /// The sum of the groups' `used`.
    used: AtomicUsize,
    /// The group that is counted next, among those of all regions.
    next: AtomicUsize,
    /// The address.
    address: AtomicUsize,
}

impl Watermark {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self { used: AtomicUsize::new(0), next: AtomicUsize::new(0), address: AtomicUsize::new(usize::MAX) }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { used: AtomicUsize::new(0), next: AtomicUsize::new(0), address: AtomicUsize::new(usize::MAX) }
    }

    /// The address at and above which frames are better handed back.
    #[inline(always)]
    pub(crate) fn address(&self) -> PhysAddr {
        PhysAddr::from_usize(self.address.load(Relaxed))
    }

    /// Notes that the frames of an untouched block came into use.
    pub(crate) fn note_opened<const N: usize>(&self, regions: &Registry<'_, N>, block: Block) {
        if let Some(region) = regions.find(block.first_frame()) {
            region.group(block.group()).used.fetch_add(BLOCK_FRAMES as u64, Relaxed);
            self.used.fetch_add(BLOCK_FRAMES, Relaxed);
            self.update(regions);
        }
    }

    /// Counts the next group.
    pub(crate) fn count_next<const N: usize>(&self, regions: &Registry<'_, N>) {
        let next = self.next.load(Relaxed);
        let mut skip = next;
        for (_, region) in regions.iter() {
            let mut groups = region.blocks().groups();
            match groups.nth(skip) {
                Some(group) => {
                    self.next.store(next + 1, Relaxed);
                    self.count(region, group);
                    return self.update(regions);
                }
                None => skip -= region.blocks().groups().len(),
            }
        }
        self.next.store(0, Relaxed);
    }

    fn count(&self, region: &Region<'_>, group: Group) {
        let frames = region.frames().and(group.blocks().frames());
        let blocks = region.blocks().and(group.blocks());
        let free: usize = blocks.iter().map(|block| region.block(block).count_free()).sum();
        let used = frames.count() - free.min(frames.count());
        let before = region.group(group).used.swap(used as u64, Relaxed) as usize;
        // Two counts of one group at a time: each adds the difference to what it replaced, so the sum stays the sum.
        self.used.fetch_add(used.wrapping_sub(before), Relaxed);
    }

    /// Finds the address that packed frames would reach, in the order in which zones are filled.
    pub(crate) fn update<const N: usize>(&self, regions: &Registry<'_, N>) {
        // Below zero for a moment, when a group is counted while somebody else has noted a change in the group but not
        // yet in the sum.
        let used = usize::try_from(self.used.load(Relaxed) as isize).unwrap_or(0);
        let mut left = used + used / SLACK + BLOCK_FRAMES / 4;
        let mut address = usize::MAX;
        'zones: for zone in zones(Frames::ALL) {
            for (_, region) in regions.iter() {
                let part = zone.and(region.frames());
                if left < part.count() {
                    address = Frame(part.lo.0 + left).addr().as_usize();
                    break 'zones;
                }
                left -= part.count();
            }
        }
        if self.address.load(Relaxed) != address {
            self.address.store(address, Relaxed);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A group was counted between the two additions of `note_opened`, before anything else came into use.
    #[test]
    fn a_sum_below_zero_for_a_moment_is_no_use_at_all() {
        let (watermark, regions) = (Watermark::new(), Registry::<1>::new());
        for below in [1, 448, BLOCK_FRAMES] {
            watermark.used.store(0usize.wrapping_sub(below), Relaxed);
            watermark.update(&regions);
            assert_eq!(watermark.address(), PhysAddr::from_usize(usize::MAX));
        }
    }
}
