//! 16 MiB of frames: the package's bitmap of 4,096 bits, and counts beside it.
//!
//! `BitAlloc4K` is a tree of 16-bit nodes. It finds the lowest free bit, and the next free bit, in three
//! steps, and sets and clears runs node by node. What it cannot do is see *used* bits other than one by one,
//! so it walks runs bit by bit. What stands beside it saves the walk:
//!
//! - how many frames of each row (64) and of each block (512, 2 MiB) are free: what is wholly free is stepped
//!   over;
//! - the *class* of each block: an upper bound of the aligned free run that it holds. 0 is nothing free,
//!   `k + 1` is at most 2^k frames at a multiple of 2^k. A block is searched only if its class allows the run,
//!   and a search in vain lowers the class; a free raises it to what it made.
//!
//! A chunk lies at a multiple of 16 MiB of physical memory: what is aligned in it is aligned.
//!
//! Invariants:
//! - each count is the number of free bits in its row or its block;
//! - a block's class is at least that of each aligned free run in it, and at most the class of its count; so
//!   it is 0 if and only if nothing is free, and 10 if the block is wholly free and only then;
//! - `class` is the highest of the blocks' classes.

use core::ops::Range;

use bitmap_allocator::{BitAlloc, BitAlloc4K};

/// Frames in a chunk.
pub(crate) const CHUNK: usize = BitAlloc4K::CAP;
/// Frames in a block: 2 MiB.
pub(crate) const BLOCK: usize = 512;
/// Frames in a row.
const ROW: usize = 64;

/// How many classes there are beside 0: aligned runs of 1, 2, 4, ... 512 frames.
pub(crate) const CLASSES: usize = 10;

/// The class of a count of free frames, or of a power of two: its length in bits.
const fn class_of(count: u16) -> u8 {
    (u16::BITS - count.leading_zeros()) as u8
}

/// The free frames of 16 MiB. Frames are numbered from 0 to 4,095 here.
pub(crate) struct Chunk {
    bits: BitAlloc4K,
    class: u8,
    classes: [u8; CHUNK / BLOCK],
    blocks: [u16; CHUNK / BLOCK],
    rows: [u8; CHUNK / ROW],
}

impl Chunk {
    /// A chunk without free frames.
    pub(crate) const fn used() -> Self {
        Self {
            bits: BitAlloc4K::DEFAULT,
            class: 0,
            classes: [0; CHUNK / BLOCK],
            blocks: [0; CHUNK / BLOCK],
            rows: [0; CHUNK / ROW],
        }
    }

    /// A chunk with nothing but free frames.
    pub(crate) fn free() -> Self {
        let mut bits = BitAlloc4K::DEFAULT;
        bits.insert(0..CHUNK);
        Self {
            bits,
            class: CLASSES as u8,
            classes: [CLASSES as u8; CHUNK / BLOCK],
            blocks: [BLOCK as u16; CHUNK / BLOCK],
            rows: [ROW as u8; CHUNK / ROW],
        }
    }

    /// The highest class of its blocks.
    #[inline]
    pub(crate) fn class(&self) -> usize {
        usize::from(self.class)
    }

    /// Takes the lowest free frame.
    #[inline]
    pub(crate) fn take_lowest(&mut self) -> Option<usize> {
        let frame = self.bits.alloc()?;
        self.rows[frame / ROW] -= 1;
        self.taken(frame / BLOCK, 1);
        Some(frame)
    }

    /// Gives one frame back; `false` and no change when it is free.
    #[inline]
    pub(crate) fn give_one(&mut self, frame: usize) -> bool {
        // The package sets the bit and then says whether it was clear: no change when it was set.
        if !self.bits.dealloc(frame) {
            return false;
        }
        self.rows[frame / ROW] += 1;
        // Mostly the other frame of its pair is used, and no larger run comes of it.
        let class = |chunk: &Self| if chunk.bits.test(frame ^ 1) { chunk.class_at(frame, 1) } else { 1 };
        self.given(frame / BLOCK, 1, class);
        true
    }

    /// Takes a run, which is not empty and free.
    pub(crate) fn take(&mut self, run: Range<usize>) {
        self.bits.remove(run.clone());
        for (row, part) in pieces(&run, ROW) {
            self.rows[row] -= part.len() as u8;
        }
        for (block, part) in pieces(&run, BLOCK) {
            self.taken(block, part.len() as u16);
        }
    }

    /// Gives a run back, which is not empty and used.
    pub(crate) fn give(&mut self, run: Range<usize>) {
        self.bits.insert(run.clone());
        for (row, part) in pieces(&run, ROW) {
            self.rows[row] += part.len() as u8;
        }
        for (block, part) in pieces(&run, BLOCK) {
            self.given(block, part.len() as u16, |chunk| chunk.class_around(part));
        }
    }

    /// The lowest free run of 2^`order` frames (1 to 512) at a multiple of 2^`order`. Blocks that seemed to
    /// have one and have not are in a lower class afterwards.
    pub(crate) fn find_aligned(&mut self, order: usize) -> Option<usize> {
        for block in 0..self.blocks.len() {
            if usize::from(self.classes[block]) > order {
                match self.find_in_block(block, 1 << order) {
                    None => self.set_class(block, order as u8),
                    found => return found,
                }
            }
        }
        None
    }

    /// The lowest block at or behind the one with `frame` that may have an aligned free run of 2^`order`
    /// frames: its first frame.
    pub(crate) fn next_block(&self, frame: usize, order: usize) -> Option<usize> {
        let first = frame / BLOCK;
        let at = self.classes[first..].iter().position(|&class| usize::from(class) > order)?;
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
            } else if self.rows[frame / ROW] > 0 && self.bits.test(frame) {
                end = frame;
            } else {
                return Some(frame);
            }
        }
        None
    }

    /// The lowest free run of `size` frames (a power of two) at a multiple of `size` in a block.
    fn find_in_block(&self, block: usize, size: usize) -> Option<usize> {
        let mut rows = (block * BLOCK / ROW..(block + 1) * BLOCK / ROW).step_by(size.div_ceil(ROW));
        if size >= ROW {
            let is_free =
                |&row: &usize| self.rows[row..row + size / ROW].iter().all(|&free| usize::from(free) == ROW);
            return rows.find(is_free).map(|row| row * ROW);
        }
        rows.filter(|&row| usize::from(self.rows[row]) >= size).find_map(|row| self.find_in_row(row, size))
    }

    fn find_in_row(&self, row: usize, size: usize) -> Option<usize> {
        let mut from = row * ROW;
        loop {
            from = (self.bits.next(from)? + size - 1) & !(size - 1);
            if from + size > (row + 1) * ROW {
                return None;
            }
            match self.last_used(from..from + size) {
                None => return Some(from),
                Some(used) => from = used + 1,
            }
        }
    }

    /// Counts `frames` that were taken from `block`.
    #[inline]
    fn taken(&mut self, block: usize, frames: u16) {
        self.blocks[block] -= frames;
        let class = class_of(self.blocks[block]);
        if class < self.classes[block] {
            self.set_class(block, class);
        }
    }

    /// Counts `frames` that were given back to `block`; `class` is that of the largest run that came of it.
    #[inline]
    fn given(&mut self, block: usize, frames: u16, class: impl FnOnce(&Self) -> u8) {
        self.blocks[block] += frames;
        let most = class_of(self.blocks[block]);
        if usize::from(most) == CLASSES {
            self.set_class(block, most);
        } else if self.classes[block] < most {
            let class = class(self);
            if self.classes[block] < class {
                self.set_class(block, class);
            }
        }
    }

    /// The class of the largest aligned free run of a block that has a frame of `run`, which is free and lies
    /// there.
    fn class_around(&self, run: Range<usize>) -> u8 {
        if run.len().is_power_of_two() && run.start % run.len() == 0 {
            return self.class_at(run.start, run.len().ilog2() as u8);
        }
        // `middle` is the multiple of the highest power of two in `run`. Of the aligned runs behind it, one
        // that lies inside is no larger than the one that begins at `middle`, and one that reaches out is a
        // part of it. Before it likewise.
        let last = run.end - 1;
        let order = (run.start ^ last).ilog2();
        let middle = last >> order << order;
        self.class_at(middle - 1, 0).max(self.class_at(middle, 0))
    }

    /// The class of the largest aligned free run of a block that holds `frame`; its 2^`order` frames around
    /// that are free.
    fn class_at(&self, frame: usize, mut order: u8) -> u8 {
        while 1 << order < BLOCK {
            let size = 1 << order;
            let other_half = frame & !(size - 1) ^ size;
            if self.last_used(other_half..other_half + size).is_some() {
                break;
            }
            order += 1;
        }
        order + 1
    }

    #[inline]
    fn set_class(&mut self, block: usize, class: u8) {
        let before = core::mem::replace(&mut self.classes[block], class);
        if class > self.class {
            self.class = class;
        } else if before == self.class {
            self.class = self.classes.into_iter().fold(0, u8::max);
        }
    }
}

/// The parts of `run` that lie in each piece of `size` frames: the piece's number, and the frames.
pub(crate) fn pieces(
    run: &Range<usize>,
    size: usize,
) -> impl DoubleEndedIterator<Item = (usize, Range<usize>)> + use<> {
    let Range { start, end } = *run;
    (start / size..end.div_ceil(size))
        .map(move |piece| (piece, start.max(piece * size)..end.min((piece + 1) * size)))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{vec, vec::Vec};

    use super::*;

    /// Compares a chunk with a `bool` for each frame: free or not.
    fn check(chunk: &Chunk, free: &[bool]) {
        assert!((0..CHUNK).all(|frame| chunk.bits.test(frame) == free[frame]));
        let count = |frames: &[bool]| frames.iter().filter(|&&free| free).count();
        assert!(free.chunks(ROW).map(count).eq(chunk.rows.iter().map(|&n| usize::from(n))));
        assert!(free.chunks(BLOCK).map(count).eq(chunk.blocks.iter().map(|&n| usize::from(n))));
        for (block, &class) in free.chunks(BLOCK).zip(&chunk.classes) {
            let largest = (0..CLASSES).rev().find(|&k| block.chunks(1 << k).any(|run| count(run) == 1 << k));
            let largest = largest.map_or(0, |order| order + 1);
            assert!(largest <= usize::from(class) && class <= class_of(count(block) as u16));
        }
        assert_eq!(Some(&chunk.class), chunk.classes.iter().max());
    }

    #[test]
    fn counts_and_classes_hold_after_every_change() {
        let mut seed = 0x1234_5678_9abc_def1_u64;
        let mut below = move |limit: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % limit
        };
        for (mut chunk, first) in [(Chunk::free(), true), (Chunk::used(), false)] {
            let mut free = vec![first; CHUNK];
            for step in 0..4000 {
                let len = 1 << below(11);
                let len = if below(2) == 0 { len } else { 1 + below(len) };
                let start = below(CHUNK - len + 1);
                let run = start..start + len;
                let held: Vec<bool> = free[run.clone()].to_vec();
                match below(6) {
                    0 => {
                        let lowest = free.iter().position(|&free| free);
                        assert_eq!(chunk.take_lowest(), lowest);
                        lowest.into_iter().for_each(|frame| free[frame] = false);
                    }
                    1 => {
                        assert_eq!(chunk.give_one(start), !free[start]);
                        free[start] = true;
                    }
                    2 => {
                        let order = below(CLASSES);
                        let lowest = free.chunks(1 << order).position(|run| run.iter().all(|&free| free));
                        assert_eq!(chunk.find_aligned(order), lowest.map(|at| at << order));
                    }
                    // Half of the time more is taken, half of the time more is given back.
                    3 if step % 400 < 200 && held.iter().all(|&free| free) => {
                        chunk.take(run.clone());
                        free[run].fill(false);
                    }
                    _ if held.iter().all(|&free| !free) => {
                        chunk.give(run.clone());
                        free[run].fill(true);
                    }
                    _ => {
                        let at = |found: Option<usize>| found.map(|at| start + at);
                        assert_eq!(chunk.first_used(run.clone()), at(held.iter().position(|&free| !free)));
                        assert_eq!(chunk.last_used(run), at(held.iter().rposition(|&free| !free)));
                        let next = free[start..].iter().position(|&free| free);
                        assert_eq!(chunk.next_free(start), at(next));
                    }
                }
                check(&chunk, &free);
            }
        }
    }
}
