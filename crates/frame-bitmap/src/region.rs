//! The frames of one region, by their number (address / 4096).
//!
//! Chunks lie at multiples of 16 MiB, so the first and the last of a region may reach beyond it: their frames
//! outside are never free.
//!
//! Invariants:
//! - a free frame lies in the region;
//! - the summary has the class of each chunk;
//! - `lowest` is the first chunk with a free frame, or the number of chunks.

use core::{mem::MaybeUninit, ops::Range};

use frame_core::RegionError;

use crate::{
    chunk::{CHUNK, CLASSES, Chunk, pieces},
    chunks::{Chunks, View},
    metadata,
    summary::Summary,
};

/// How many chunks the frames reach into.
pub(crate) const fn chunk_count(frames: &Range<usize>) -> usize {
    frames.end.div_ceil(CHUNK) - frames.start / CHUNK
}

/// A region and its books.
pub(crate) struct Region<'m> {
    frames: Range<usize>,
    chunks: Chunks<'m>,
    summary: Summary<'m>,
    lowest: usize,
}

impl<'m> Region<'m> {
    /// No frames.
    pub(crate) const fn empty() -> Self {
        Self { frames: 0..0, chunks: Chunks::empty(), summary: Summary::empty(), lowest: 0 }
    }

    /// A region whose frames are all free.
    pub(crate) fn new(
        frames: Range<usize>,
        metadata: &'m mut [MaybeUninit<u8>],
    ) -> Result<Self, RegionError> {
        let count = chunk_count(&frames);
        let parts = metadata::cut(metadata, count)?;
        let mut region = Self {
            chunks: Chunks::free(parts.states, parts.slots),
            summary: Summary::free(parts.summary, count),
            lowest: 0,
            frames,
        };
        let Range { start, end } = region.frames;
        let first = region.first_frame(0);
        for outside in [first..start, end..first + count * CHUNK] {
            region.take(outside);
        }
        Ok(region)
    }

    /// The frames of the region.
    #[inline]
    pub(crate) fn frames(&self) -> Range<usize> {
        self.frames.clone()
    }

    /// Bytes of metadata.
    pub(crate) fn metadata_bytes(&self) -> usize {
        metadata::size(self.chunks.len())
    }

    /// Takes the lowest free frame.
    #[inline]
    pub(crate) fn take_lowest(&mut self) -> Option<usize> {
        let index = self.lowest;
        if index == self.chunks.len() {
            return None;
        }
        let frame = self.change(index, Chunk::take_lowest)?;
        Some(self.first_frame(index) + frame)
    }

    /// Takes the lowest free frames, as many as `each` wants: it is told their numbers and says whether to go on.
    pub(crate) fn take_lowest_while(&mut self, mut each: impl FnMut(usize) -> bool) {
        let mut go_on = true;
        while go_on && self.lowest < self.chunks.len() {
            let first = self.first_frame(self.lowest);
            self.change(self.lowest, |chunk| {
                while go_on {
                    let Some(frame) = chunk.take_lowest() else { break };
                    go_on = each(first + frame);
                }
            });
        }
    }

    /// Gives one frame of the region back; `false` and no change when it is free.
    #[inline]
    pub(crate) fn give_one(&mut self, frame: usize) -> bool {
        let (index, bit) = self.place(frame);
        self.change(index, |chunk| chunk.give_one(bit))
    }

    /// Takes a run, which is free.
    pub(crate) fn take(&mut self, run: Range<usize>) {
        for (index, part) in self.parts(run) {
            if part.len() == CHUNK {
                let before = self.class(index);
                self.chunks.set_used(index);
                self.note(index, before, 0);
            } else {
                self.change(index, |chunk| chunk.take(part));
            }
        }
    }

    /// Gives back a run of the region, which is used.
    pub(crate) fn give(&mut self, run: Range<usize>) {
        for (index, part) in self.parts(run) {
            if part.len() == CHUNK {
                let before = self.class(index);
                self.chunks.set_free(index);
                self.note(index, before, CLASSES);
            } else {
                self.change(index, |chunk| chunk.give(part));
            }
        }
    }

    /// The lowest free run of 2^`order` frames (1 to 512) at a multiple of 2^`order`.
    pub(crate) fn find_aligned(&mut self, order: usize) -> Option<usize> {
        // Each turn finds it, or lowers the class of a chunk.
        while let Some(index) = self.summary.next(order + 1, self.lowest) {
            let found = match self.chunks.view(index) {
                View::Free => Some(0),
                View::Used => None,
                View::Bits(_) => self.change(index, |chunk| chunk.find_aligned(order)),
            };
            if let Some(frame) = found {
                return Some(self.first_frame(index) + frame);
            }
        }
        None
    }

    /// The lowest 2 MiB block at or behind the one with `frame` that may have 2^`order` free frames (1 to
    /// 512) at a multiple of 2^`order`: its first frame.
    pub(crate) fn next_block(&self, frame: usize, order: usize) -> Option<usize> {
        let (from, bit) = self.place(frame);
        let mut next = self.summary.next(order + 1, from);
        while let Some(index) = next {
            let bit = if index == from { bit } else { 0 };
            let found = match self.chunks.view(index) {
                View::Free => Some(bit),
                View::Used => None,
                View::Bits(chunk) => chunk.next_block(bit, order),
            };
            if let Some(bit) = found {
                return Some(self.first_frame(index) + bit);
            }
            next = self.summary.next(order + 1, index + 1);
        }
        None
    }

    /// The lowest free frame of `run`, which lies in the region.
    pub(crate) fn first_free(&self, run: Range<usize>) -> Option<usize> {
        let mut frame = run.start;
        while frame < run.end {
            let (index, bit) = self.place(frame);
            let found = match self.chunks.view(index) {
                View::Free => Some(bit),
                View::Used => None,
                View::Bits(chunk) => chunk.next_free(bit),
            };
            match found {
                Some(bit) => return Some(self.first_frame(index) + bit).filter(|&frame| frame < run.end),
                None => frame = self.first_frame(self.summary.next(1, index + 1)?),
            }
        }
        None
    }

    /// The lowest used frame of `run`, which lies in the region.
    pub(crate) fn first_used(&self, run: Range<usize>) -> Option<usize> {
        self.parts(run).find_map(|(index, part)| match self.chunks.view(index) {
            View::Free => None,
            View::Used => Some(self.first_frame(index) + part.start),
            View::Bits(chunk) => chunk.first_used(part).map(|bit| self.first_frame(index) + bit),
        })
    }

    /// The highest used frame of `run`, which lies in the region.
    pub(crate) fn last_used(&self, run: Range<usize>) -> Option<usize> {
        self.parts(run).rev().find_map(|(index, part)| match self.chunks.view(index) {
            View::Free => None,
            View::Used => Some(self.first_frame(index) + part.end - 1),
            View::Bits(chunk) => chunk.last_used(part).map(|bit| self.first_frame(index) + bit),
        })
    }

    /// Changes a part of chunk `index`, whose class is noted if it is another afterwards.
    #[inline]
    fn change<T>(&mut self, index: usize, change: impl FnOnce(&mut Chunk) -> T) -> T {
        let chunk = self.chunks.bits(index);
        let before = chunk.class();
        let result = change(chunk);
        let after = chunk.class();
        if before != after {
            self.note(index, before, after);
        }
        result
    }

    fn note(&mut self, index: usize, before: usize, after: usize) {
        self.summary.change(index, before, after);
        if after > 0 {
            self.lowest = self.lowest.min(index);
        } else if self.lowest == index {
            self.lowest = self.summary.next(1, index + 1).unwrap_or(self.chunks.len());
        }
    }

    #[inline]
    fn class(&self, index: usize) -> usize {
        match self.chunks.view(index) {
            View::Free => CLASSES,
            View::Used => 0,
            View::Bits(chunk) => chunk.class(),
        }
    }

    /// The chunk of a frame, and its number there.
    #[inline]
    fn place(&self, frame: usize) -> (usize, usize) {
        (frame / CHUNK - self.frames.start / CHUNK, frame % CHUNK)
    }

    /// The number of the first frame of chunk `index`.
    #[inline]
    fn first_frame(&self, index: usize) -> usize {
        (self.frames.start / CHUNK + index) * CHUNK
    }

    /// The chunks that `run` reaches into, and its frames there.
    fn parts(&self, run: Range<usize>) -> impl DoubleEndedIterator<Item = (usize, Range<usize>)> + use<> {
        let first = self.frames.start / CHUNK;
        pieces(&run, CHUNK)
            .filter(|(_, part)| !part.is_empty())
            .map(move |(chunk, part)| (chunk - first, part.start - chunk * CHUNK..part.end - chunk * CHUNK))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;

    use super::*;

    /// Compares the summary and `lowest` with the chunks.
    fn check(region: &Region<'_>) {
        let count = region.chunks.len();
        for class in 1..=CLASSES {
            for chunk in 0..=count {
                let expected = (chunk..count).find(|&index| region.class(index) >= class);
                assert_eq!(region.summary.next(class, chunk), expected);
            }
        }
        assert_eq!(region.lowest, region.summary.next(1, 0).unwrap_or(count));
    }

    #[test]
    fn the_summary_follows_every_change() {
        // 70 chunks: more than a word of the summary; both ends are ragged.
        let frames = 4000..4000 + 69 * CHUNK;
        let mut metadata = vec![MaybeUninit::new(0xee); metadata::size(chunk_count(&frames))];
        let mut region = Region::new(frames.clone(), &mut metadata).unwrap();
        check(&region);
        let mut seed = 7_u64;
        let mut below = move |limit: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % limit
        };
        let mut taken = vec![];
        for step in 0..1500 {
            if step % 300 < 200 {
                let start = frames.start + below(frames.len() - 1);
                let len = [1, 5, 512, 4096, 5000, 100_000][below(6)].min(frames.end - start);
                let run = match below(3) {
                    0 => region.find_aligned(below(CLASSES)).map_or(start..start + 1, |at| at..at + 1),
                    1 => start / CHUNK * CHUNK + CHUNK..start / CHUNK * CHUNK + 2 * CHUNK,
                    _ => start..start + len,
                };
                if run.end <= frames.end && region.last_used(run.clone()).is_none() {
                    assert_eq!(region.first_used(run.clone()), None);
                    region.take(run.clone());
                    assert_eq!(region.first_free(run.clone()), None);
                    taken.push(run);
                }
            } else if !taken.is_empty() {
                let run = taken.swap_remove(below(taken.len()));
                region.give(run.clone());
                assert_eq!(region.first_free(run.clone()), Some(run.start));
                assert!(run.len() > 1 || !region.give_one(run.start), "a double free");
            }
            check(&region);
        }
        taken.into_iter().for_each(|run| region.give(run));
        assert_eq!(region.first_used(frames), None);
        check(&region);
    }
}
