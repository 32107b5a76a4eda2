//! Finding a block by its hints, or by its bit in `taken`.
//!
//! Regions are filled one after another, lowest first. Inside a region small runs come from the lowest block of the
//! first band of classes that has them: what is broken is broken further, and large runs stay. Whole blocks come from the
//! top of the highest region. So small allocations gather at the bottom, huge ones at the top, and what is free lies
//! between them in one piece.
//!
//! A search walks the summary (one bit a group), then the group's word (one bit a block). It looks at each candidate
//! once: no loop here waits for anybody.

use crate::{
    block::OwnedBlock,
    geometry::{Block, Blocks, GROUP_BLOCKS, Group, Span, bits, mask},
    hints::Band,
    region::{BlockRef, Region},
    shard::Home,
    sync::Relaxed,
};

/// What a look at a candidate brought.
pub(crate) enum Look<T> {
    /// The run was there, and is taken.
    Found(T),
    /// The hint was wrong.
    Nothing,
    /// The block is of no use here, though the hint is right.
    Unfit,
}

/// Which open blocks a search looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Whose {
    /// Those that are this shard's or nobody's, and not reserved. Not a search of all memory.
    Own(Home),
    /// Those that nobody reserved.
    Any,
    /// Those that somebody reserved: better than nothing.
    Reserved,
}

/// Groups with none of the shard's own blocks that it looks at before it takes anybody's.
const PATIENCE: usize = 16;

/// The part of a region that a search may use: blocks, never none of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'r> {
    pub(crate) region: &'r Region<'r>,
    blocks: Blocks,
    first_span: Span,
    last_span: Span,
    /// Blocks outside of the region have no bits in any word, so only a smaller scope must mask them out.
    is_all: bool,
}

impl<'m> Region<'m> {
    /// The part of the region that lies in `zone`.
    #[inline]
    pub(crate) fn scope(&self, zone: Blocks) -> Option<Scope<'_>> {
        let all = self.blocks();
        let blocks = zone.and(all);
        (!blocks.is_empty()).then(|| Scope {
            region: self,
            blocks,
            first_span: blocks.lo.group().span(),
            last_span: Block(blocks.hi.0 - 1).group().span(),
            is_all: blocks == all,
        })
    }
}

impl<'r> Scope<'r> {
    #[inline(always)]
    fn spans(self) -> impl DoubleEndedIterator<Item = Span> {
        (self.first_span.0..self.last_span.0 + 1).map(Span)
    }

    #[inline(always)]
    fn span_mask(self, span: Span) -> u64 {
        if self.is_all { !0 } else { self.blocks.span_mask(span) }
    }

    #[inline(always)]
    fn group_mask(self, group: Group) -> u64 {
        if self.is_all { !0 } else { self.blocks.group_mask(group) }
    }

    /// Groups where some block may be of a class in `band`.
    #[inline(always)]
    fn groups_of(self, band: Band, span: Span) -> u64 {
        let summary = |class| self.region.storage.summary(class, span).load(Relaxed);
        (band.lo..=band.hi).fold(0, |groups, class| groups | summary(class)) & self.span_mask(span)
    }

    /// Groups that may have a wholly free block.
    #[inline(always)]
    fn groups_with_whole(self, span: Span) -> u64 {
        // The summary has no bits for groups outside of the region, so here they must be masked out in any case.
        !self.region.storage.full(span).load(Relaxed) & self.blocks.span_mask(span)
    }

    /// Looks at open blocks, band by band, in each the lowest block first, until `look` finds what it wants.
    #[inline(always)]
    pub(crate) fn search_open<T>(
        self,
        bands: impl Iterator<Item = Band>,
        whose: Whose,
        mut look: impl FnMut(BlockRef<'r>) -> Look<T>,
    ) -> Option<T> {
        let mut patience = PATIENCE;
        for band in bands {
            for span in self.spans() {
                let mut groups = self.groups_of(band, span);
                while groups != 0 {
                    let group = span.group(groups.trailing_zeros());
                    groups &= groups - 1;
                    let words = self.region.group(group);
                    let reserved = words.reserved.load(Relaxed);
                    let wanted = match whose {
                        Whose::Own(home) => !reserved & words.blocks_at(home),
                        Whose::Any => !reserved,
                        Whose::Reserved => reserved,
                    };
                    let mut blocks = self.region.blocks_of(group, band) & self.group_mask(group) & wanted;
                    if blocks == 0 && matches!(whose, Whose::Own(_)) {
                        patience -= 1;
                        if patience == 0 {
                            return None;
                        }
                    }
                    while blocks != 0 {
                        let block = self.region.block(group.block(blocks.trailing_zeros()));
                        blocks &= blocks - 1;
                        match look(block) {
                            Look::Found(found) => return Some(found),
                            Look::Nothing => block.refresh(),
                            Look::Unfit => {}
                        }
                    }
                }
            }
        }
        None
    }

    /// Takes the lowest wholly free block.
    pub(crate) fn claim_lowest(self) -> Option<OwnedBlock<'r>> {
        for span in self.spans() {
            for group in bits(self.groups_with_whole(span)).map(|bit| span.group(bit)) {
                for bit in bits(self.region.untouched(group) & self.group_mask(group)) {
                    let owned = self.region.block(group.block(bit)).claim();
                    if owned.is_some() {
                        return owned;
                    }
                }
            }
        }
        None
    }

    /// Takes the highest wholly free block.
    #[inline]
    pub(crate) fn claim_highest(self) -> Option<OwnedBlock<'r>> {
        for span in self.spans().rev() {
            let mut groups = self.groups_with_whole(span);
            while groups != 0 {
                let group = span.group(groups.ilog2());
                groups &= !group.bit();
                let mut free = self.region.untouched(group) & self.group_mask(group);
                while free != 0 {
                    let block = self.region.block(group.block(free.ilog2()));
                    free &= !block.bit;
                    let owned = block.claim();
                    if owned.is_some() {
                        return owned;
                    }
                }
            }
        }
        None
    }

    /// Takes `count` adjoining wholly free blocks, the first at a multiple of `align` blocks, highest first.
    pub(crate) fn claim_highest_run(self, count: usize, align: usize) -> Option<Blocks> {
        // The run of wholly free blocks that the walk is in. The highest place in it depends on its end alone, so it
        // is tried as soon as the run has sunk that far.
        let mut run = Blocks::new(self.blocks.hi, 0);
        for span in self.spans().rev() {
            let mut groups = self.groups_with_whole(span);
            while groups != 0 {
                let group = span.group(groups.ilog2());
                groups &= !group.bit();
                let mut free = self.region.untouched(group) & self.group_mask(group);
                while let Some(piece) = highest_run(&mut free, group) {
                    run = if piece.hi == run.lo { Blocks { lo: piece.lo, hi: run.hi } } else { piece };
                    while let Some(at) = run.hi.0.checked_sub(count).map(|at| at & !(align - 1)) {
                        let blocks = Blocks::new(Block(at), count);
                        if at < run.lo.0 {
                            break;
                        }
                        if self.region.claim_whole(blocks) {
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

    /// Makes all open blocks that have nothing but free frames untouched again. Whether there was one.
    pub(crate) fn close_all(self) -> bool {
        let mut any = false;
        for span in self.spans() {
            for group in bits(self.groups_of(Band::WHOLE, span)).map(|bit| span.group(bit)) {
                for bit in bits(self.region.blocks_of(group, Band::WHOLE) & self.group_mask(group)) {
                    any |= self.region.block(group.block(bit)).close(self.region);
                }
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
