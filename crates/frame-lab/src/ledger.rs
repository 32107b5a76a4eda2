//! Who owns which frame: kept beside an allocator, sharing nothing with it.
//!
//! The watched pass of a replay enters every frame that it is given and strikes out every frame that it gives back. A frame
//! entered twice, or one that was never there, is an allocator's lie. The ledger also knows the exact state of each 2 MiB
//! block at any moment, so that the lowest number of whole free blocks is the lowest of all moments, and is the same
//! measure for every backend: a frame in a cache counts as free.
//!
//! Invariant: `used` of a block is the number of set bits of its frames; `whole_free` counts the blocks all of whose 512 frames are
//! managed and none is owned.

use frame_core::{FRAME_SIZE, FrameLayout, FrameRange, PhysAddr};

/// Frames in a 2 MiB block.
pub(crate) const BLOCK_FRAMES: usize = 512;

/// The ownership map of the frames of a memory map.
#[derive(Debug)]
pub(crate) struct Ledger {
    regions: Vec<Region>,
    blocks: Vec<Block>,
    owned: usize,
    total: usize,
    whole_free: usize,
    /// Frames that were given while owned, outside of the regions, or misaligned.
    doubled: u64,
}

#[derive(Debug)]
struct Region {
    range: FrameRange,
    /// A set bit: owned.
    bits: Vec<u64>,
    /// Index of the block in which the region starts.
    first_block: usize,
}

/// A 2 MiB block in which at least one frame is managed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Its address divided by its size.
    pub(crate) number: usize,
    /// Frames of it that are managed: less than 512 at the edges of regions.
    pub(crate) managed: u16,
    /// Frames of it that are owned.
    pub(crate) used: u16,
}

impl Block {
    fn is_whole_free(&self) -> bool {
        self.managed as usize == BLOCK_FRAMES && self.used == 0
    }
}

impl Ledger {
    /// A ledger of frames that nobody owns yet. The regions are disjoint and sorted.
    pub(crate) fn new(ranges: &[FrameRange]) -> Self {
        let mut blocks: Vec<Block> = Vec::new();
        let mut regions = Vec::new();
        for &range in ranges {
            let (first, last) = (block_of(range.start()), block_of(range.end() - FRAME_SIZE));
            // A hole inside a block leaves two regions with a block in common.
            let shared = blocks.last().is_some_and(|block| block.number == first);
            let first_block = blocks.len() - usize::from(shared);
            blocks.extend((first + usize::from(shared)..=last).map(|number| Block {
                number,
                managed: 0,
                used: 0,
            }));
            let (start, end) = (range.start().as_usize() / FRAME_SIZE, range.end().as_usize() / FRAME_SIZE);
            for block in &mut blocks[first_block..] {
                let first = block.number * BLOCK_FRAMES;
                block.managed += (end.min(first + BLOCK_FRAMES) - start.max(first)) as u16;
            }
            regions.push(Region { range, bits: vec![0; range.count().div_ceil(64)], first_block });
        }
        let whole_free = blocks.iter().filter(|block| block.is_whole_free()).count();
        let total = ranges.iter().map(|range| range.count()).sum();
        Self { regions, blocks, owned: 0, total, whole_free, doubled: 0 }
    }

    /// Enters what an allocator gave. Frames that it must not have given are counted, not entered.
    pub(crate) fn give(&mut self, start: PhysAddr, layout: FrameLayout) {
        if !start.as_usize().is_multiple_of(layout.align()) {
            self.doubled += layout.count() as u64;
        }
        for i in 0..layout.count() {
            match self.locate(start.as_usize().saturating_add(i * FRAME_SIZE)) {
                Some((region, index)) if !self.regions[region].is_owned(index) => {
                    self.flip(region, index, true)
                }
                _ => self.doubled += 1,
            }
        }
    }

    /// Strikes out what was given back.
    pub(crate) fn take(&mut self, start: PhysAddr, layout: FrameLayout) {
        for i in 0..layout.count() {
            if let Some((region, index)) = self.locate(start.as_usize() + i * FRAME_SIZE)
                && self.regions[region].is_owned(index)
            {
                self.flip(region, index, false);
            }
        }
    }

    /// Frames of `run` that a free run must not hold: owned, or not managed.
    pub(crate) fn not_free_in(&self, run: FrameRange) -> u64 {
        let free = |frame: &PhysAddr| {
            self.locate(frame.as_usize()).is_some_and(|(region, index)| !self.regions[region].is_owned(index))
        };
        run.frames().filter(|frame| !free(frame)).count() as u64
    }

    /// Frames that are managed.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Frames that nobody owns.
    pub(crate) fn free(&self) -> usize {
        self.total - self.owned
    }

    /// Blocks all of whose 512 frames are free: the 2 MiB frames that could be had.
    pub(crate) fn whole_free(&self) -> usize {
        self.whole_free
    }

    /// Share of the free frames that lie outside of whole free blocks.
    pub(crate) fn fragmentation(&self) -> f64 {
        match self.free() {
            0 => 0.0,
            free => 1.0 - (self.whole_free * BLOCK_FRAMES) as f64 / free as f64,
        }
    }

    /// Frames that were given wrongly so far.
    pub(crate) fn doubled(&self) -> u64 {
        self.doubled
    }

    /// The blocks, lowest address first.
    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    fn locate(&self, addr: usize) -> Option<(usize, usize)> {
        let addr = PhysAddr::from(addr);
        let region = self.regions.partition_point(|region| region.range.end() <= addr);
        let range = self.regions.get(region)?.range;
        range.contains(addr).then(|| (region, (addr - range.start()) / FRAME_SIZE))
    }

    fn flip(&mut self, region: usize, index: usize, owned: bool) {
        let Region { range, bits, first_block } = &mut self.regions[region];
        bits[index / 64] ^= 1 << (index % 64);
        let addr = range.start() + index * FRAME_SIZE;
        let block = &mut self.blocks[*first_block + block_of(addr) - block_of(range.start())];
        self.whole_free -= usize::from(block.is_whole_free());
        if owned {
            block.used += 1;
            self.owned += 1;
        } else {
            block.used -= 1;
            self.owned -= 1;
        }
        self.whole_free += usize::from(block.is_whole_free());
    }
}

impl Region {
    fn is_owned(&self, index: usize) -> bool {
        self.bits[index / 64] >> (index % 64) & 1 == 1
    }
}

/// Whole, aligned 2 MiB frames in these ranges, which are disjoint and do not adjoin.
pub(crate) fn whole_blocks(ranges: &[FrameRange]) -> usize {
    const SIZE: usize = BLOCK_FRAMES * FRAME_SIZE;
    let whole =
        |r: &FrameRange| (r.end().as_usize() / SIZE).saturating_sub(r.start().as_usize().div_ceil(SIZE));
    ranges.iter().map(whole).sum()
}

fn block_of(addr: PhysAddr) -> usize {
    addr.as_usize() / (BLOCK_FRAMES * FRAME_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: usize, end: usize) -> FrameRange {
        FrameRange::new(PhysAddr::from(first * FRAME_SIZE), end - first).unwrap()
    }

    fn at(frame: usize) -> PhysAddr {
        PhysAddr::from(frame * FRAME_SIZE)
    }

    #[test]
    fn blocks_at_the_edges_of_regions() {
        // Block 0 lacks frame 0, block 1 has a hole in it, block 2 is whole.
        let ledger = Ledger::new(&[range(1, 600), range(700, 1536)]);
        let blocks: Vec<_> = ledger.blocks().iter().map(|b| (b.number, b.managed)).collect();
        assert_eq!(blocks, [(0, 511), (1, 88 + 324), (2, 512)]);
        assert_eq!((ledger.whole_free(), ledger.free()), (1, 599 + 836));
        assert_eq!(whole_blocks(&[range(1, 600), range(700, 1536)]), 1);
    }

    #[test]
    fn the_last_block_of_the_address_space() {
        let last = usize::MAX / FRAME_SIZE;
        let ledger = Ledger::new(&[range(last - 255, last)]);
        assert_eq!(ledger.blocks(), [Block { number: last / 512, managed: 255, used: 0 }]);
    }

    #[test]
    fn what_is_given_is_known_until_it_is_taken() {
        let mut ledger = Ledger::new(&[range(1, 600), range(700, 2048)]);
        let four = FrameLayout::new(4, 4 * FRAME_SIZE).unwrap();
        ledger.give(at(1024), four);
        ledger.give(at(598), FrameLayout::contiguous(2).unwrap());
        assert_eq!((ledger.whole_free(), ledger.total() - ledger.free(), ledger.doubled()), (1, 6, 0));
        assert_eq!(ledger.not_free_in(range(1020, 1030)), 4);
        assert_eq!(ledger.not_free_in(range(590, 710)), 2 + 100);
        ledger.take(at(1024), four);
        ledger.take(at(598), FrameLayout::contiguous(2).unwrap());
        assert_eq!((ledger.whole_free(), ledger.free()), (2, ledger.total()));
        assert!(ledger.blocks().iter().all(|block| block.used == 0));
    }

    #[test]
    fn lies_are_counted() {
        let mut ledger = Ledger::new(&[range(1, 600)]);
        let two = FrameLayout::new(2, 2 * FRAME_SIZE).unwrap();
        ledger.give(at(2), two);
        ledger.give(at(3), FrameLayout::SINGLE); // owned
        assert_eq!(ledger.doubled(), 1);
        ledger.give(at(599), FrameLayout::contiguous(2).unwrap()); // one frame beyond the end
        assert_eq!(ledger.doubled(), 2);
        ledger.give(at(0), FrameLayout::SINGLE);
        assert_eq!(ledger.doubled(), 3);
        ledger.give(at(5), two); // misaligned: both frames are wrong
        assert_eq!(ledger.doubled(), 5);
    }
}
