//! The frames of one region, by their number (address / 4096).
//!
//! Chunks lie at multiples of 16 MiB, so the first and the last of a region may reach beyond it: their frames
//! outside are never free. Over each 4,096 chunks (64 GiB) stand two summaries, bitmaps of the package too: which
//! chunks have a free frame, and which have a free 2 MiB block.
//!
//! Invariants:
//! - a free frame lies in the region;
//! - a bit of `any` is set if the chunk has a free frame, a bit of `block` if it has a wholly free block, else clear;
//! - `lowest` is the first chunk with a free frame, or the number of chunks.

use core::ops::Range;

use bitmap_allocator::{BitAlloc, BitAlloc4K};
use frame_core::RegionError;

use crate::{
    chunk::{BLOCK, CHUNK, pieces},
    chunks::{Chunks, View},
    metadata,
};

/// Chunks under one pair of summaries.
pub(crate) const SECTION: usize = BitAlloc4K::CAP;

/// Summaries of 4,096 chunks.
pub(crate) struct Section {
    any: BitAlloc4K,
    block: BitAlloc4K,
}

impl Section {
    const fn new() -> Self {
        Self { any: BitAlloc4K::DEFAULT, block: BitAlloc4K::DEFAULT }
    }
}

/// Sets or clears one bit.
#[inline]
fn put(bits: &mut BitAlloc4K, bit: usize, set: bool) {
    if set {
        bits.dealloc(bit);
    } else {
        bits.remove(bit..bit + 1);
    }
}

/// How many chunks the frames reach into.
pub(crate) const fn chunk_count(frames: &Range<usize>) -> usize {
    frames.end.div_ceil(CHUNK) - frames.start / CHUNK
}

/// A region and its books.
pub(crate) struct Region<'m> {
    frames: Range<usize>,
    chunks: Chunks<'m>,
    sections: &'m mut [Section],
    lowest: usize,
}

impl<'m> Region<'m> {
    /// No frames.
    pub(crate) const fn empty() -> Self {
        Self { frames: 0..0, chunks: Chunks::empty(), sections: &mut [], lowest: 0 }
    }

    /// A region whose frames are all free.
    pub(crate) fn new(
        frames: Range<usize>,
        metadata: &'m mut [core::mem::MaybeUninit<u8>],
    ) -> Result<Self, RegionError> {
        let count = chunk_count(&frames);
        let parts = metadata::cut(metadata, count)?;
        let mut region = Self {
            chunks: Chunks::free(parts.states, parts.slots),
            sections: metadata::fill(parts.sections, Section::new),
            lowest: 0,
            frames,
        };
        for (section, chunks) in pieces(&(0..count), SECTION) {
            region.sections[section].any.insert(0..chunks);
            region.sections[section].block.insert(0..chunks);
        }
        let Range { start, end } = region.frames;
        let first = region.first_frame(0);
        for outside in [first..start, end..first + count * CHUNK] {
            if !outside.is_empty() {
                region.take(outside);
            }
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
        let chunk = self.chunks.bits(index);
        let frame = chunk.take_lowest()?;
        let left = chunk.count();
        if chunk.block_lacks(frame, 1) && !chunk.has_free_block() {
            put(&mut self.sections[index / SECTION].block, index % SECTION, false);
        }
        if left == 0 {
            put(&mut self.sections[index / SECTION].any, index % SECTION, false);
            self.lowest = self.next_with_free(index + 1);
        }
        Some(self.first_frame(index) + frame)
    }

    /// Gives one frame of the region back; `false` and no change when it is free.
    #[inline]
    pub(crate) fn give_one(&mut self, frame: usize) -> bool {
        let (index, bit) = self.place(frame);
        if let View::Free = self.chunks.view(index) {
            return false;
        }
        let chunk = self.chunks.bits(index);
        if !chunk.give_one(bit) {
            return false;
        }
        let (now, whole_block) = (chunk.count(), chunk.block_lacks(bit, 0));
        if now == 1 {
            put(&mut self.sections[index / SECTION].any, index % SECTION, true);
            self.lowest = self.lowest.min(index);
        }
        if whole_block {
            put(&mut self.sections[index / SECTION].block, index % SECTION, true);
        }
        true
    }

    /// Takes a run, which is not empty, and free.
    pub(crate) fn take(&mut self, run: Range<usize>) {
        for (index, part) in self.parts(run) {
            let (any, block) = if part.len() == CHUNK {
                self.chunks.set_used(index);
                (false, false)
            } else {
                let chunk = self.chunks.bits(index);
                chunk.take(part);
                (chunk.count() > 0, chunk.has_free_block())
            };
            let section = &mut self.sections[index / SECTION];
            if !block {
                put(&mut section.block, index % SECTION, false);
            }
            if !any {
                put(&mut section.any, index % SECTION, false);
                if self.lowest == index {
                    self.lowest = self.next_with_free(index + 1);
                }
            }
        }
    }

    /// Gives back a run of the region, which is not empty, and used.
    pub(crate) fn give(&mut self, run: Range<usize>) {
        for (index, part) in self.parts(run) {
            let block = if part.len() == CHUNK {
                self.chunks.set_free(index);
                true
            } else {
                let chunk = self.chunks.bits(index);
                chunk.give(part);
                chunk.has_free_block()
            };
            let section = &mut self.sections[index / SECTION];
            put(&mut section.any, index % SECTION, true);
            if block {
                put(&mut section.block, index % SECTION, true);
            }
            self.lowest = self.lowest.min(index);
        }
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
                None => frame = self.first_frame(self.next_with_free(index + 1)),
            }
        }
        None
    }

    /// The first frame of the lowest wholly free block at or behind `frame`, which lies in the region.
    pub(crate) fn next_free_block(&self, frame: usize) -> Option<usize> {
        let (mut index, mut bit) = self.place(frame);
        while index < self.chunks.len() {
            let found = match self.chunks.view(index) {
                View::Free => Some(bit.next_multiple_of(BLOCK)).filter(|&bit| bit < CHUNK),
                View::Used => None,
                View::Bits(chunk) => chunk.next_free_block(bit),
            };
            if let Some(bit) = found {
                return Some(self.first_frame(index) + bit);
            }
            index = self.next(index + 1, |section| &section.block);
            bit = 0;
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

    /// The first chunk from `index` on that has a free frame, or the number of chunks.
    fn next_with_free(&self, index: usize) -> usize {
        self.next(index, |section| &section.any)
    }

    fn next(&self, from: usize, summary: impl Fn(&Section) -> &BitAlloc4K) -> usize {
        let mut key = from % SECTION;
        for (index, section) in self.sections.iter().enumerate().skip(from / SECTION) {
            if let Some(bit) = summary(section).next(key) {
                return index * SECTION + bit;
            }
            key = 0;
        }
        self.chunks.len()
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
    fn parts(&self, run: Range<usize>) -> impl DoubleEndedIterator<Item = (usize, Range<usize>)> + use<'m> {
        let first = self.frames.start / CHUNK;
        (run.start / CHUNK..run.end.div_ceil(CHUNK)).map(move |chunk| {
            let base = chunk * CHUNK;
            (chunk - first, run.start.max(base) - base..run.end.min(base + CHUNK) - base)
        })
    }
}
