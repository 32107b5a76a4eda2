//! 16 MiB of frames: the package's bitmap of 4,096 bits, and counts beside it.
//!
//! `BitAlloc4K` is a tree of 16-bit nodes. It finds the lowest free bit, and the next free bit, in three steps, and
//! sets and clears runs node by node. What it cannot do is see *used* bits other than one by one, so it walks runs
//! bit by bit. The counts say how many frames of each row (64) and of each block (512, 2 MiB) are free, so that a
//! search steps over what is wholly free or wholly used.
//!
//! A chunk lies at a multiple of 16 MiB of physical memory: what is aligned in it is aligned.
//!
//! Invariant: each count is the number of free bits in its row, its block, or the chunk.

use core::ops::Range;

use bitmap_allocator::{BitAlloc, BitAlloc4K};

/// Frames in a chunk.
pub(crate) const CHUNK: usize = BitAlloc4K::CAP;
/// Frames in a block: 2 MiB.
pub(crate) const BLOCK: usize = 512;
/// Frames in a row.
const ROW: usize = 64;

/// The free frames of 16 MiB. Frames are numbered from 0 to 4,095 here.
pub(crate) struct Chunk {
    bits: BitAlloc4K,
    count: u16,
    blocks: [u16; CHUNK / BLOCK],
    rows: [u8; CHUNK / ROW],
}

impl Chunk {
    /// A chunk without free frames.
    pub(crate) const fn used() -> Self {
        Self { bits: BitAlloc4K::DEFAULT, count: 0, blocks: [0; CHUNK / BLOCK], rows: [0; CHUNK / ROW] }
    }

    /// A chunk with nothing but free frames.
    pub(crate) fn free() -> Self {
        let mut bits = BitAlloc4K::DEFAULT;
        bits.insert(0..CHUNK);
        Self {
            bits,
            count: CHUNK as u16,
            blocks: [BLOCK as u16; CHUNK / BLOCK],
            rows: [ROW as u8; CHUNK / ROW],
        }
    }

    /// Free frames.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// Takes the lowest free frame.
    #[inline]
    pub(crate) fn take_lowest(&mut self) -> Option<usize> {
        let frame = self.bits.alloc()?;
        self.count -= 1;
        self.blocks[frame / BLOCK] -= 1;
        self.rows[frame / ROW] -= 1;
        Some(frame)
    }

    /// Gives one frame back; `false` and no change when it is free.
    #[inline]
    pub(crate) fn give_one(&mut self, frame: usize) -> bool {
        // The package sets the bit and then says whether it was clear: no change when it was set.
        let was_used = self.bits.dealloc(frame);
        self.count += u16::from(was_used);
        self.blocks[frame / BLOCK] += u16::from(was_used);
        self.rows[frame / ROW] += u8::from(was_used);
        was_used
    }

    /// Takes a run, which is not empty and free.
    pub(crate) fn take(&mut self, run: Range<usize>) {
        self.bits.remove(run.clone());
        self.count -= run.len() as u16;
        for (block, frames) in pieces(&run, BLOCK) {
            self.blocks[block] -= frames as u16;
        }
        for (row, frames) in pieces(&run, ROW) {
            self.rows[row] -= frames as u8;
        }
    }

    /// Gives a run back, which is not empty and used.
    pub(crate) fn give(&mut self, run: Range<usize>) {
        self.bits.insert(run.clone());
        self.count += run.len() as u16;
        for (block, frames) in pieces(&run, BLOCK) {
            self.blocks[block] += frames as u16;
        }
        for (row, frames) in pieces(&run, ROW) {
            self.rows[row] += frames as u8;
        }
    }

    /// Whether a block is wholly free.
    pub(crate) fn has_free_block(&self) -> bool {
        self.blocks.contains(&(BLOCK as u16))
    }

    /// Whether the block of `frame` is wholly free but for `frames` frames.
    #[inline]
    pub(crate) fn block_lacks(&self, frame: usize, frames: usize) -> bool {
        usize::from(self.blocks[frame / BLOCK]) + frames == BLOCK
    }

    /// The first frame of the lowest wholly free block at or behind `from`.
    pub(crate) fn next_free_block(&self, from: usize) -> Option<usize> {
        let first = from.div_ceil(BLOCK);
        let at = self.blocks.get(first..)?.iter().position(|&free| usize::from(free) == BLOCK)?;
        Some((first + at) * BLOCK)
    }

    /// The lowest free frame at or behind `from`.
    pub(crate) fn next_free(&self, from: usize) -> Option<usize> {
        self.bits.next(from)
    }

    /// The lowest used frame of `run`.
    pub(crate) fn first_used(&self, run: Range<usize>) -> Option<usize> {
        let mut frame = run.start;
        while frame < run.end {
            if usize::from(self.blocks[frame / BLOCK]) == BLOCK {
                frame = (frame / BLOCK + 1) * BLOCK;
            } else if usize::from(self.rows[frame / ROW]) == ROW {
                frame = (frame / ROW + 1) * ROW;
            } else if self.bits.test(frame) {
                frame += 1;
            } else {
                return Some(frame);
            }
        }
        None
    }

    /// The highest used frame of `run`.
    pub(crate) fn last_used(&self, run: Range<usize>) -> Option<usize> {
        let mut end = run.end;
        while end > run.start {
            let frame = end - 1;
            if usize::from(self.blocks[frame / BLOCK]) == BLOCK {
                end = frame / BLOCK * BLOCK;
            } else if usize::from(self.rows[frame / ROW]) == ROW {
                end = frame / ROW * ROW;
            } else if self.bits.test(frame) {
                end = frame;
            } else {
                return Some(frame);
            }
        }
        None
    }
}

/// The parts of `run` that lie in each piece of `size` frames: the piece's number, and how many.
pub(crate) fn pieces(run: &Range<usize>, size: usize) -> impl Iterator<Item = (usize, usize)> {
    let Range { start, end } = *run;
    (start / size..end.div_ceil(size))
        .map(move |piece| (piece, end.min((piece + 1) * size) - start.max(piece * size)))
}
