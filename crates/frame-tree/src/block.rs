//! The protocol of a block: who owns which of its frames.
//!
//! Ownership of a frame is a token that lies in exactly one place:
//!
//! ```text
//!               claim: taken 0 -> 1                    open: rows = what is not kept
//!   UNTOUCHED ------------------------> all 512 owned --------------------------> OPEN
//!   taken = 0   <---------------------- by one caller  <-------------------------  taken = 1
//!   rows  = 0     release: taken 1 -> 0                 every row taken, !0 -> 0   rows: 1 = free
//! ```
//!
//! - `taken` is zero: the block holds the tokens of all its frames, and its rows are all zero (or not live);
//! - a row bit is one: the block holds that frame's token;
//! - otherwise the token is with whoever took it.
//!
//! A token moves by one atomic read-modify-write on one word, so it is never in two hands. Only a thread that holds
//! all 512 tokens may clear `taken`; then the rows are zero, so that nobody can take a frame through them. Zero rows
//! are also why an allocated huge frame needs no state of its own: it is an open block with nothing free, and giving
//! back a part of it is giving back frames.
//!
//! Several rows are taken one by one, lowest first, and given back in full when one fails. Giving back is an ordinary free:
//! it raises hints and sees full rows, whatever happened meanwhile. Ranges over several blocks: see `blocks`.

use core::sync::atomic::fence;

use crate::{
    bits,
    geometry::{BLOCK_FRAMES, BLOCK_ROWS, Blocks, Frame, Frames, ROW_FRAMES},
    hints::{Raise, class_of, raise_as_seen},
    region::{BlockRef, Region},
    storage::{Rows, WHOLE},
    sync::{AcqRel, Acquire, AtomicU64, Relaxed, Release, SeqCst},
};

/// Moves the frames of `mask` out of a row, if all of them are free.
#[inline]
fn take(row: &AtomicU64, mask: u64) -> Result<(), u64> {
    let mut free = row.load(Relaxed);
    while free & mask == mask {
        match row.compare_exchange_weak(free, free & !mask, SeqCst, Relaxed) {
            Ok(_) => return Ok(()),
            Err(now) => free = now,
        }
    }
    Err(mask & !free)
}

/// Moves the frames of `mask` into a row, if none of them is there, and says what it holds then.
#[inline(always)]
fn give(row: &AtomicU64, mask: u64) -> Result<u64, u64> {
    let mut free = row.load(Relaxed);
    loop {
        if free & mask != 0 {
            return Err(free & mask);
        }
        match row.compare_exchange_weak(free, free | mask, SeqCst, Relaxed) {
            Ok(_) => return Ok(free | mask),
            Err(now) => free = now,
        }
    }
}

/// A block whose 512 frames are all owned by whoever has this: fresh from `claim`, its rows not live, or zero.
#[derive(Debug)]
pub(crate) struct OwnedBlock<'r>(BlockRef<'r>);

impl<'r> OwnedBlock<'r> {
    /// A block that was claimed together with others.
    ///
    /// # Safety
    /// The calling thread turned the block's bit in `taken` from zero to one, and has given no frame of it back.
    #[inline]
    pub(crate) unsafe fn claimed(block: BlockRef<'r>) -> Self {
        Self(block)
    }

    /// The block.
    #[inline]
    pub(crate) fn block(&self) -> BlockRef<'r> {
        self.0
    }

    /// Keeps all frames. The rows are live and zero then.
    #[inline]
    pub(crate) fn keep(self) -> BlockRef<'r> {
        if self.0.rows().is_none() {
            self.write_first([0; BLOCK_ROWS]);
        }
        self.0
    }

    /// Keeps some frames, and gives the frames `free` back.
    pub(crate) fn open(self, free: [u64; BLOCK_ROWS]) -> BlockRef<'r> {
        match self.0.rows() {
            None => self.write_first(free),
            Some(rows) => {
                for (row, value) in rows.iter().zip(free) {
                    if value != 0 {
                        row.store(value, Release);
                    }
                }
            }
        }
        if let Some(class) = class_of(free) {
            // The stores come before the look at the hints: see `hints`.
            fence(SeqCst);
            self.0.raise(class, Raise::Exactly);
            self.0.storage.note_returned();
        }
        self.0
    }

    /// Keeps the frames below `kept` (0 to 512), and gives the others back.
    pub(crate) fn open_above(self, kept: usize) -> BlockRef<'r> {
        self.open(rows_above(kept))
    }

    fn write_first(&self, rows: [u64; BLOCK_ROWS]) {
        // SAFETY: this value says that the block was claimed and all its frames are owned by its holder, who is this
        // thread. `live` is not set: the callers looked, and it is set only here, by the owner of the whole block.
        unsafe { self.0.storage.write_first(self.0.block, rows) }
    }
}

impl<'r> BlockRef<'r> {
    /// Takes a wholly free block.
    #[inline]
    pub(crate) fn claim(self) -> Option<OwnedBlock<'r>> {
        let before = self.group.taken.fetch_or(self.bit, AcqRel);
        (before & self.bit == 0).then_some(OwnedBlock(self))
    }

    /// Takes the frames of `mask` from row `row` and says which, lowest first and at most `most` of them.
    #[inline]
    pub(crate) fn take_lowest(self, row: usize, most: usize) -> u64 {
        let Some(rows) = self.rows() else { return 0 };
        let row_word = &rows[row];
        let mut free = row_word.load(Relaxed);
        if free == 0 {
            return 0;
        }
        if free.count_ones() as usize <= most {
            // The whole row by one exchange.
            let taken = row_word.swap(0, AcqRel);
            let kept = bits::lowest(taken, most);
            if taken != kept {
                // Frames came free in between.
                let _ = self.give_row(row, taken & !kept);
                self.storage.note_returned();
            }
            return kept;
        }
        loop {
            let mask = bits::lowest(free, most);
            if mask == 0 {
                return 0;
            }
            match row_word.compare_exchange_weak(free, free & !mask, AcqRel, Relaxed) {
                Ok(_) => return mask,
                Err(now) => free = now,
            }
        }
    }

    /// Takes the lowest free frame of row `row`, as its bit's number.
    #[inline(always)]
    pub(crate) fn take_one(self, row: usize) -> Option<u32> {
        let row = &self.rows()?[row];
        let mut free = row.load(Relaxed);
        while free != 0 {
            match row.compare_exchange_weak(free, free & (free - 1), AcqRel, Relaxed) {
                Ok(_) => return Some(free.trailing_zeros()),
                Err(now) => free = now,
            }
        }
        None
    }

    /// Takes exactly `frames`, all of this block, through its rows.
    ///
    /// On failure nothing is taken, and the error is a frame that was not free.
    pub(crate) fn take_exactly(self, frames: Frames) -> Result<(), Frame> {
        let Some(rows) = self.rows() else { return Err(frames.lo) };
        for (row, mask) in frames.rows() {
            if let Err(missing) = take(&rows[row.in_block()], mask) {
                let done = Frames { lo: frames.lo, hi: row.first_frame().max(frames.lo) };
                if !done.is_empty() {
                    let _ = self.give(done);
                    self.storage.note_returned();
                }
                return Err(row.frame(missing.trailing_zeros()));
            }
        }
        Ok(())
    }

    /// Takes exactly `frames`, all of this block, whatever state it is in.
    ///
    /// On failure nothing is taken, and the error is a frame that was not free.
    pub(crate) fn take_anyhow(self, frames: Frames) -> Result<(), Frame> {
        loop {
            if self.is_untouched() {
                let mut rest = [!0; BLOCK_ROWS];
                for (row, mask) in frames.rows() {
                    rest[row.in_block()] &= !mask;
                }
                if let Some(owned) = self.claim() {
                    owned.open(rest);
                    return Ok(());
                }
            }
            match self.take_exactly(frames) {
                // Wholly free by now: somebody else gave all of it back.
                Err(_) if self.is_untouched() => {}
                result => return result,
            }
        }
    }

    /// Gives back the frames `mask` of row `row`.
    ///
    /// # Errors
    /// Some of them are free already, those in the error: then nothing was given back.
    #[inline(always)]
    pub(crate) fn give_row(self, row: usize, mask: u64) -> Result<(), u64> {
        if self.is_untouched() {
            return Err(mask);
        }
        let Some(rows) = self.rows() else { return Err(mask) };
        let free = give(&rows[row], mask)?;
        if free == !0 {
            self.row_filled(rows);
        } else {
            self.raise(bits::largest(free), Raise::Exactly);
        }
        Ok(())
    }

    /// Gives back frame `bit` of row `row`.
    ///
    /// # Errors
    /// It is free already.
    #[inline(always)]
    pub(crate) fn give_one(self, row: usize, bit: u32, how: Raise) -> Result<(), ()> {
        if self.is_untouched() {
            return Err(());
        }
        let Some(rows) = self.rows() else { return Err(()) };
        let free = give(&rows[row], 1 << bit).map_err(|_| ())?;
        if free == !0 {
            self.row_filled(rows);
        } else {
            // Every longer run was there before, and whoever completed it sees to its hint.
            self.raise(bits::order_around(free, bit), how);
        }
        Ok(())
    }

    /// A row became full: runs longer than a row may be free now.
    #[inline]
    fn row_filled(self, rows: &Rows) {
        if !self.is_hinted(WHOLE) {
            raise_as_seen(self.storage, self.block, rows);
        }
    }

    /// Gives back `frames`, all of this block.
    ///
    /// # Errors
    /// A frame that was free already. The others were given back all the same.
    pub(crate) fn give(self, frames: Frames) -> Result<(), Frame> {
        let (false, Some(rows)) = (self.is_untouched(), self.rows()) else { return Err(frames.lo) };
        let mut result = Ok(());
        for (row, mask) in frames.rows() {
            let word = &rows[row.in_block()];
            if let Err(free) = give(word, mask) {
                let _ = give(word, mask & !free);
                result = result.and(Err(row.frame(free.trailing_zeros())));
            }
        }
        // The hints once for all rows.
        self.row_filled(rows);
        result
    }

    /// How many of the block's frames are free.
    pub(crate) fn count_free(self) -> usize {
        match self.rows() {
            _ if self.is_untouched() => BLOCK_FRAMES,
            Some(rows) => rows.iter().map(|row| row.load(Relaxed).count_ones() as usize).sum(),
            None => 0,
        }
    }

    /// The lowest of `frames`, all of this block, that is free.
    #[inline]
    pub(crate) fn lowest_free(self, frames: Frames) -> Option<Frame> {
        if self.is_untouched() {
            return Some(frames.lo);
        }
        let Some(rows) = self.rows() else { return Some(frames.lo) };
        if frames.count() == BLOCK_FRAMES && rows.iter().fold(0, |any, row| any | row.load(Acquire)) == 0 {
            return None;
        }
        for (row, mask) in frames.rows() {
            let free = rows[row.in_block()].load(Acquire) & mask;
            if free != 0 {
                return Some(row.frame(free.trailing_zeros()));
            }
        }
        None
    }

    /// Makes an open block with nothing but free frames untouched again.
    pub(crate) fn close(self, region: &Region<'_>) -> bool {
        let taken = !self.is_untouched() && self.take_exactly(self.block.frames()).is_ok();
        if taken {
            let _ = region.release_whole(Blocks::new(self.block, 1));
            self.refresh();
            self.storage.note_returned();
        }
        taken
    }
}

/// The rows of a block whose frames from `kept` (0 to 512) on are free.
pub(crate) fn rows_above(kept: usize) -> [u64; BLOCK_ROWS] {
    core::array::from_fn(|row| match kept.saturating_sub(row * ROW_FRAMES) {
        0 => !0,
        below if below >= ROW_FRAMES => 0,
        below => !0 << below,
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn rows_above_a_frame() {
        for kept in 0..=512 {
            let rows = rows_above(kept);
            for frame in 0..512 {
                assert_eq!(rows[frame / 64] >> (frame % 64) & 1 == 1, frame >= kept, "{frame} of {kept}");
            }
        }
    }
}
