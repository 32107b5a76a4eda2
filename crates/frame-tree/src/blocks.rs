//! Ranges over several blocks: whole blocks by the words of `taken`, the others through their rows.
//!
//! Words are taken one by one, lowest first, and given back in full when one fails. Giving back is an ordinary free, so
//! whatever happened meanwhile, blocks that are full again are seen. While such a claim lasts others find used what will be
//! free again; it says so when that comes back (`note_returned`).

use crate::{
    block::OwnedBlock,
    geometry::{Blocks, Frame, Frames, Group},
    region::Region,
    sync::{AcqRel, Relaxed, SeqCst},
};

impl Region<'_> {
    /// Takes wholly free blocks, all of them or none. Their rows are live and zero then.
    pub(crate) fn claim_whole(&self, blocks: Blocks) -> bool {
        for group in blocks.groups() {
            let mask = blocks.group_mask(group);
            let word = &self.group(group).taken;
            let mut taken = word.load(Relaxed);
            while taken & mask == 0 {
                match word.compare_exchange_weak(taken, taken | mask, AcqRel, Relaxed) {
                    Ok(_) => break,
                    Err(now) => taken = now,
                }
            }
            if taken & mask != 0 {
                let done = Blocks { lo: blocks.lo, hi: group.blocks().lo.max(blocks.lo) };
                if !done.is_empty() {
                    let _ = self.release_whole(done);
                    self.storage.note_returned();
                }
                return false;
            }
        }
        for block in blocks.iter() {
            // SAFETY: the bit in `taken` was set by this thread, just now.
            unsafe { OwnedBlock::claimed(self.block(block)) }.keep();
        }
        true
    }

    /// Gives back blocks that the caller owns as a whole.
    ///
    /// # Errors
    /// The first block that was free already.
    pub(crate) fn release_whole(&self, blocks: Blocks) -> Result<(), Frame> {
        if blocks.lo.0 + 1 == blocks.hi.0 {
            return self.release_in(blocks.lo.group(), blocks.lo.bit());
        }
        let mut result = Ok(());
        for group in blocks.groups() {
            result = result.and(self.release_in(group, blocks.group_mask(group)));
        }
        result
    }

    #[inline]
    fn release_in(&self, group: Group, mask: u64) -> Result<(), Frame> {
        if mask == 0 {
            return Ok(());
        }
        let free = !self.group(group).taken.fetch_and(!mask, SeqCst) & mask;
        self.untouched_again(group);
        if free == 0 { Ok(()) } else { Err(group.block(free.trailing_zeros()).first_frame()) }
    }

    /// Gives back `frames`, all of this region. Whole blocks become untouched again.
    ///
    /// # Errors
    /// A frame that was free already. The others were given back all the same.
    pub(crate) fn give(&self, frames: Frames) -> Result<(), Frame> {
        if frames.is_empty() {
            return Ok(());
        }
        let whole = frames.whole_blocks();
        if whole.is_empty() {
            // Up to two blocks, a part of each.
            let border = whole.lo.first_frame();
            if border.0 - frames.lo.0 >= frames.count() || border == frames.lo {
                return self.block(frames.lo.block()).give(frames);
            }
            let below = self.block(frames.lo.block()).give(Frames { lo: frames.lo, hi: border });
            return below.and(self.block(border.block()).give(Frames { lo: border, hi: frames.hi }));
        }
        let inner = whole.frames();
        if inner == frames {
            return self.release_whole(whole);
        }
        let mut result = Ok(());
        for edge in [Frames { lo: frames.lo, hi: inner.lo }, Frames { lo: inner.hi, hi: frames.hi }] {
            if !edge.is_empty() {
                result = result.and(self.block(edge.lo.block()).give(edge));
            }
        }
        result.and(self.release_whole(whole))
    }

    /// The lowest of `frames`, all of this region, that is free.
    #[inline]
    pub(crate) fn lowest_free(&self, frames: Frames) -> Option<Frame> {
        let blocks = frames.blocks();
        if blocks.lo.0 + 1 == blocks.hi.0 {
            return self.block(blocks.lo).lowest_free(frames);
        }
        blocks.iter().find_map(|block| self.block(block).lowest_free(frames.and(block.frames())))
    }

    /// Takes exactly `frames`, all of this region.
    ///
    /// On failure nothing is taken, and the error is a frame that was not free.
    pub(crate) fn take_exactly(&self, frames: Frames) -> Result<(), Frame> {
        for block in frames.blocks().iter() {
            if let Err(missing) = self.block(block).take_anyhow(frames.and(block.frames())) {
                let done = Frames { lo: frames.lo, hi: block.first_frame().max(frames.lo) };
                if !done.is_empty() {
                    let _ = self.give(done);
                    self.storage.note_returned();
                }
                return Err(missing);
            }
        }
        Ok(())
    }
}
