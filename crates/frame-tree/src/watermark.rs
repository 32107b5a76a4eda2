//! The watermark: beyond which frames are better handed back than kept in a cache.
//!
//! Were all frames in use packed where allocation begins, they would reach up to some frame. Frames beyond it (with some
//! slack) are the ones to hand back: what is handed back there is taken again before it, and whole blocks come free. Zones
//! are filled one after another (see `zone`), so the upper memory has its watermark, and only when it is full the lower.
//!
//! That needs the number of frames in use, and a counter that every operation updates would be the one cache line that
//! all CPUs fight for. Instead the rows are counted, one group of 64 blocks at a time, by one in 128 bulk calls and
//! polls: once all groups were counted, about a quarter of the memory changed hands, whatever its size. It is a hint:
//! exact counts come from [`stats`](frame_core::FrameAllocator::stats).

use frame_core::CacheWatermark;

use crate::{
    geometry::{BLOCK_FRAMES, Block, Blocks, Frame, Frames, GROUP_BLOCKS, Group},
    region::Region,
    registry::Registry,
    sync::{AtomicUsize, Relaxed, const_unless_loom},
    zone::zones,
};

/// One frame in so many may lie beyond the others.
const SLACK: usize = 64;

/// What came and went will come again: the most that was in use is forgotten by one part in so many with each update.
const DECAY: usize = 8;

/// The frames in use, about, and what follows from it. On lines of its own: it is written now and then, and what lies
/// beside it is read by every free.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Watermark {
    /// The sum of the groups' `used`.
    used: AtomicUsize,
    /// The most that was in use lately.
    most: AtomicUsize,
    /// The group that is counted next, among those of all regions.
    next: AtomicUsize,
    /// What caches had better keep.
    kept: Mark,
    /// Twice as far: where a shard may stay in blocks of its own, though others have room before them.
    near: Mark,
}

/// A [`CacheWatermark`] that is read and changed without care: the halves may be of different times.
#[derive(Debug)]
struct Mark {
    low: AtomicUsize,
    high: AtomicUsize,
}

impl Mark {
    const_unless_loom! {
        fn new() -> Self {
            Self { low: AtomicUsize::new(usize::MAX), high: AtomicUsize::new(usize::MAX) }
        }
    }

    #[inline(always)]
    fn load(&self) -> CacheWatermark {
        CacheWatermark::split(self.low.load(Relaxed), self.high.load(Relaxed))
    }

    /// Writes only what differs: everybody reads these words.
    fn store(&self, mark: CacheWatermark) {
        for (word, value) in [(&self.low, mark.low()), (&self.high, mark.high())] {
            if word.load(Relaxed) != value {
                word.store(value, Relaxed);
            }
        }
    }
}

impl Watermark {
    const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self {
                used: AtomicUsize::new(0),
                most: AtomicUsize::new(0),
                next: AtomicUsize::new(0),
                kept: Mark::new(),
                near: Mark::new(),
            }
        }
    }

    /// Which frames a cache had better keep.
    #[inline(always)]
    pub(crate) fn kept(&self) -> CacheWatermark {
        self.kept.load()
    }

    /// The part of a zone before the watermark.
    pub(crate) fn kept_in(&self, zone: Blocks) -> Blocks {
        before(self.kept.load(), zone)
    }

    /// The part of a zone in which a shard may stay in blocks of its own.
    pub(crate) fn near_in(&self, zone: Blocks) -> Blocks {
        before(self.near.load(), zone)
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
        region.group(group).forget_homes();
        let frames = region.frames().and(group.blocks().frames());
        let blocks = region.blocks().and(group.blocks());
        let free: usize = blocks.iter().map(|block| region.block(block).count_free()).sum();
        let used = frames.count() - free.min(frames.count());
        let before = region.group(group).used.swap(used as u64, Relaxed) as usize;
        // Two counts of one group at a time: each adds the difference to what it replaced, so the sum stays the sum.
        self.used.fetch_add(used.wrapping_sub(before), Relaxed);
    }

    /// Finds how far packed frames would reach.
    pub(crate) fn update<const N: usize>(&self, regions: &Registry<'_, N>) {
        // Below zero for a moment, when a group is counted while somebody else has noted a change in the group but not
        // yet in the sum.
        let used = usize::try_from(self.used.load(Relaxed) as isize).unwrap_or(0);
        let most = self.most.load(Relaxed);
        let used = used.max(most - most / DECAY);
        self.most.store(used, Relaxed);
        self.kept.store(reach(regions, used + used / SLACK + BLOCK_FRAMES / 4));
        self.near.store(reach(regions, 2 * used + GROUP_BLOCKS * BLOCK_FRAMES));
    }
}

/// The part of a zone before a mark.
fn before(mark: CacheWatermark, zone: Blocks) -> Blocks {
    let low = zone.lo.first_frame().0 < CacheWatermark::SPLIT;
    let end = Frame(if low { mark.low() } else { mark.high() });
    Blocks { lo: zone.lo, hi: zone.hi.min(end.block()).max(zone.lo) }
}

/// How far so many frames reach, in the order in which zones are filled.
fn reach<const N: usize>(regions: &Registry<'_, N>, mut frames: usize) -> CacheWatermark {
    for zone in zones(Frames::ALL) {
        for (_, region) in regions.iter() {
            let part = zone.and(region.frames());
            if frames < part.count() {
                let end = part.lo.0 + frames;
                return match zone.lo.0 {
                    CacheWatermark::SPLIT.. => CacheWatermark::split(0, end),
                    // The lowest memory is filled last: by then everything is worth keeping.
                    0 => CacheWatermark::KEEP_ALL,
                    _ => CacheWatermark::split(end, usize::MAX),
                };
            }
            frames -= part.count();
        }
    }
    CacheWatermark::KEEP_ALL
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
            assert_eq!(watermark.kept(), CacheWatermark::KEEP_ALL);
        }
    }
}
