//! Which frames of a region are free: one bit a frame.
//!
//! The package forgets a frame when it hands it out, and so cannot tell a right free from a wrong one. These
//! bits can. They also find the runs that a buddy system does not see, because they straddle its blocks.
//!
//! Frames are named by their number (address / 4096). Words begin at multiples of 64 frames, so that the bits
//! of two regions that adjoin can be joined word by word.
//!
//! Invariant: a bit outside the region is 0 (not free).

use alloc::vec::Vec;
use core::ops::Range;

use crate::blocks::blocks;

const BITS: usize = u64::BITS as usize;

/// What to look for.
#[derive(Clone, Copy, PartialEq)]
enum Look {
    Free,
    Used,
}

/// One bit for each frame of a region: 1 is free.
#[derive(Debug)]
pub(crate) struct FreeBits {
    frames: Range<usize>,
    words: Vec<u64>,
}

impl FreeBits {
    /// The bits of no region.
    pub(crate) const EMPTY: Self = Self { frames: 0..0, words: Vec::new() };

    /// Bits for `frames`, none of them free.
    ///
    /// # Errors
    /// The heap has not this many bytes.
    pub(crate) fn new(frames: Range<usize>) -> Result<Self, usize> {
        let len = frames.end.div_ceil(BITS) - frames.start / BITS;
        let mut words = Vec::new();
        words.try_reserve_exact(len).map_err(|_| len.saturating_mul(size_of::<u64>()))?;
        words.resize(len, 0);
        Ok(Self { frames, words })
    }

    /// The frames of the region.
    pub(crate) fn frames(&self) -> Range<usize> {
        self.frames.clone()
    }

    /// Bytes of heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    /// Takes over the bits of a region that lies in this one.
    pub(crate) fn join(&mut self, part: &Self) {
        let offset = part.frames.start / BITS - self.frames.start / BITS;
        for (into, from) in self.words[offset..].iter_mut().zip(&part.words) {
            *into |= from;
        }
    }

    /// Marks `run` free.
    pub(crate) fn set(&mut self, run: Range<usize>) {
        self.change(run, |word, mask| *word |= mask);
    }

    /// Marks `run` used.
    pub(crate) fn clear(&mut self, run: Range<usize>) {
        self.change(run, |word, mask| *word &= !mask);
    }

    /// Marks one frame of the region free or used; `false` and no change when it is that already.
    #[inline]
    pub(crate) fn put(&mut self, frame: usize, free: bool) -> bool {
        let word = &mut self.words[frame / BITS - self.frames.start / BITS];
        let before = *word;
        let bit = 1 << (frame % BITS);
        *word = if free { before | bit } else { before & !bit };
        *word != before
    }

    /// The lowest free frame of `run`.
    pub(crate) fn first_free(&self, run: Range<usize>) -> Option<usize> {
        self.first(run, Look::Free)
    }

    /// The lowest used frame of `run`.
    pub(crate) fn first_used(&self, run: Range<usize>) -> Option<usize> {
        self.first(run, Look::Used)
    }

    /// The lowest run of `count` free frames that lies in `window` and starts at a multiple of `align`
    /// frames.
    ///
    /// Looks at a candidate from its end: the last used frame found there rules out all starts up to it. So a
    /// search reads less the longer the run, and no word more than twice.
    pub(crate) fn find_run(&self, window: Range<usize>, count: usize, align: usize) -> Option<usize> {
        let end = window.end.min(self.frames.end);
        let mut from = window.start.max(self.frames.start);
        loop {
            // Frame numbers, counts and alignments are far below `usize::MAX`: these sums cannot overflow.
            let start = (self.first_free(from..end)? + align - 1) & !(align - 1);
            if start + count > end {
                return None;
            }
            match self.last_used(start..start + count) {
                None => return Some(start),
                Some(used) => from = used + 1,
            }
        }
    }

    /// The longest runs of free frames, lowest first.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Range<usize>> {
        let Range { mut start, end } = self.frames;
        core::iter::from_fn(move || {
            let first = self.first_free(start..end)?;
            start = self.first_used(first..end).unwrap_or(end);
            Some(first..start)
        })
    }

    /// How many blocks the free frames are cut into.
    ///
    /// In a word that is not wholly free these are counted at once: of the wholly free aligned pairs, fours,
    /// eights ..., each stands for two smaller ones that are not counted.
    pub(crate) fn block_count(&self) -> usize {
        let (mut count, mut whole) = (0, 0..0);
        let first = self.frames.start / BITS;
        for (i, &word) in (first..).zip(&self.words) {
            if word == !0 {
                whole = if whole.end == i { whole.start..i + 1 } else { i..i + 1 };
                continue;
            }
            count += blocks(whole).count();
            whole = 0..0;
            count += word.count_ones() as usize;
            let mut free = word;
            for (order, starts) in STARTS.iter().enumerate() {
                free &= free >> (1 << order) & starts;
                count -= free.count_ones() as usize;
            }
        }
        count + blocks(whole).count()
    }

    fn change(&mut self, run: Range<usize>, change: impl Fn(&mut u64, u64)) {
        let base = self.frames.start / BITS;
        for index in run.start / BITS..run.end.div_ceil(BITS) {
            change(&mut self.words[index - base], mask(index, &run));
        }
    }

    fn first(&self, run: Range<usize>, look: Look) -> Option<usize> {
        (run.start / BITS..run.end.div_ceil(BITS)).find_map(|index| {
            let found = self.matching(index, look) & mask(index, &run);
            (found != 0).then(|| index * BITS + found.trailing_zeros() as usize)
        })
    }

    fn last_used(&self, run: Range<usize>) -> Option<usize> {
        (run.start / BITS..run.end.div_ceil(BITS)).rev().find_map(|index| {
            let found = self.matching(index, Look::Used) & mask(index, &run);
            (found != 0).then(|| index * BITS + found.ilog2() as usize)
        })
    }

    fn matching(&self, index: usize, look: Look) -> u64 {
        let word = self.words[index - self.frames.start / BITS];
        if look == Look::Free { word } else { !word }
    }
}

/// For each order from 1 to 5: where in a word a block of it can start.
const STARTS: [u64; 5] = [
    0x5555_5555_5555_5555,
    0x1111_1111_1111_1111,
    0x0101_0101_0101_0101,
    0x0001_0001_0001_0001,
    0x0000_0001_0000_0001,
];

/// The bits of word `index` (counted from frame 0) that lie in `run`, which is not empty and reaches this
/// word.
fn mask(index: usize, run: &Range<usize>) -> u64 {
    let from = run.start.saturating_sub(index * BITS);
    let until = (run.end - index * BITS).min(BITS);
    (!0 << from) & (!0 >> (BITS - until))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_word_by_word_as_run_by_run() {
        let mut bits = FreeBits::new(37..37 + 6000).unwrap();
        let mut seed = 5_u64;
        for step in 0..3000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (start, len) = (37 + (seed >> 33) as usize % 5000, 1 + (seed >> 50) as usize % 1000);
            let run = start..start + if step % 3 == 0 { len } else { len % 20 };
            if step / 50 % 2 == 0 {
                bits.set(run)
            } else {
                bits.clear(run)
            }
            assert_eq!(bits.block_count(), bits.runs().map(|run| blocks(run).count()).sum::<usize>());
        }
    }
}
