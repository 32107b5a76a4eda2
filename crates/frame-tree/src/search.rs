//! Finding a block by its hints, or by its bit in `taken`.
//!
//! Small runs come from the lowest block of the smallest class that has them: what is broken is broken further, and
//! large runs stay. Whole blocks come from the top. So small allocations gather at the bottom of a region, huge ones
//! at its top, and what is free lies between them in one piece.
//!
//! A search walks the summary (one bit a group), then the group's word (one bit a block). It looks at each candidate
//! once: no loop here waits for anybody.

use crate::{
    geometry::{Block, Blocks, GROUP_BLOCKS, Group, bits, mask},
    region::{BlockRef, Region},
    sync::Relaxed,
};

/// What a look at a candidate brought.
pub(crate) enum Look<T> {
    /// The run was there, and is taken.
    Found(T),
    /// The hint was wrong.
    Nothing,
    /// Somebody else is at it.
    Busy,
}

/// Which blocks of a class a search looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reserved {
    /// Those that nobody reserved.
    Avoid,
    /// Those that somebody reserved: better than nothing.
    Only,
}

impl Region<'_> {
    /// Looks at the open blocks of `zone` whose class is `class`, lowest first, until `look` finds what it wants.
    #[inline]
    pub(crate) fn search_open<'r, T>(
        &'r self,
        zone: Blocks,
        class: usize,
        reserved: Reserved,
        mut look: impl FnMut(BlockRef<'r>) -> Look<T>,
    ) -> Option<T> {
        let zone = zone.and(self.blocks());
        if zone.is_empty() {
            return None;
        }
        for span in zone.spans() {
            let groups = self.storage.summary(class, span).load(Relaxed) & zone.span_mask(span);
            for group in bits(groups).map(|bit| span.group(bit)) {
                let taken = self.group(group).reserved.load(Relaxed);
                let wanted = if reserved == Reserved::Only { taken } else { !taken };
                let candidates = self.blocks_of_class(group, class) & zone.group_mask(group) & wanted;
                for block in bits(candidates).map(|bit| self.block(group.block(bit))) {
                    match look(block) {
                        Look::Found(found) => return Some(found),
                        Look::Nothing => block.refresh(),
                        Look::Busy => {}
                    }
                }
            }
        }
        None
    }

    /// Takes the lowest wholly free block of `zone`. The caller owns all of its frames; its rows may not be live.
    pub(crate) fn claim_lowest(&self, zone: Blocks) -> Option<BlockRef<'_>> {
        let zone = zone.and(self.blocks());
        if zone.is_empty() {
            return None;
        }
        for span in zone.spans() {
            let groups = !self.storage.full(span).load(Relaxed) & zone.span_mask(span);
            for group in bits(groups).map(|bit| span.group(bit)) {
                for bit in bits(self.untouched(group) & zone.group_mask(group)) {
                    let block = self.block(group.block(bit));
                    if block.claim() {
                        return Some(block);
                    }
                }
            }
        }
        None
    }

    /// Takes `count` adjoining wholly free blocks, the first at a multiple of `align` blocks, highest first.
    pub(crate) fn claim_highest(&self, zone: Blocks, count: usize, align: usize) -> Option<Blocks> {
        let zone = zone.and(self.blocks());
        if zone.is_empty() {
            return None;
        }
        // The run of wholly free blocks that the walk is in. The highest place in it depends on its end alone, so it
        // is tried as soon as the run has sunk that far.
        let mut run = Blocks::new(zone.hi, 0);
        for span in zone.spans().rev() {
            let mut groups = !self.storage.full(span).load(Relaxed) & zone.span_mask(span);
            while groups != 0 {
                let group = span.group(groups.ilog2());
                groups &= !group.bit();
                let mut free = self.untouched(group) & zone.group_mask(group);
                while let Some(piece) = highest_run(&mut free, group) {
                    run = if piece.hi == run.lo { Blocks { lo: piece.lo, hi: run.hi } } else { piece };
                    while let Some(at) = run.hi.0.checked_sub(count).map(|at| at & !(align - 1)) {
                        let blocks = Blocks::new(Block(at), count);
                        if at < run.lo.0 {
                            break;
                        }
                        if self.claim_whole(blocks) {
                            return Some(blocks);
                        }
                        // Somebody else was faster: go on below.
                        run.hi = Block(at + count - 1);
                    }
                }
            }
        }
        None
    }

    /// Makes all open blocks of `zone` that have nothing but free frames untouched again. Whether there was one.
    pub(crate) fn close_all(&self, zone: Blocks) -> bool {
        let zone = zone.and(self.blocks());
        let mut any = false;
        if zone.is_empty() {
            return false;
        }
        for span in zone.spans() {
            let groups =
                self.storage.summary(crate::storage::WHOLE, span).load(Relaxed) & zone.span_mask(span);
            for group in bits(groups).map(|bit| span.group(bit)) {
                let candidates = self.blocks_of_class(group, crate::storage::WHOLE) & zone.group_mask(group);
                any |= self.close_blocks(group, candidates);
            }
        }
        any
    }
}

/// Takes the highest run of ones out of `free`, a word of `group`.
#[inline]
fn highest_run(free: &mut u64, group: Group) -> Option<Blocks> {
    if *free == 0 {
        return None;
    }
    let hi = free.ilog2() as usize + 1;
    let length = (*free << (GROUP_BLOCKS - hi)).leading_ones() as usize;
    *free &= !mask(hi - length, length);
    let first = group.blocks().lo.0;
    Some(Blocks { lo: Block(first + hi - length), hi: Block(first + hi) })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn runs_of_a_word_come_highest_first() {
        for word in [0, 1, !0, 1 << 63, 0b1011_0111 << 20, 0xf000_0000_0000_000f] {
            let (mut free, mut seen, mut last) = (word, 0, usize::MAX);
            while let Some(run) = highest_run(&mut free, Group(3)) {
                assert!(run.hi.0 < last, "runs are maximal and sink");
                last = run.lo.0;
                seen |= run.group_mask(Group(3));
            }
            assert_eq!(seen, word);
        }
    }
}
