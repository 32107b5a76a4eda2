//! Which chunks have what: for each class from 1 to 10, one bit for each chunk.
//!
//! The bit of class `k + 1` says that the chunk is of this class or a higher one, so that it may have 2^k
//! free frames at a multiple of 2^k. A word is 1 GiB: finding the next chunk for a run reads one word for
//! each.
//!
//! Invariant: bits of chunks that there are not are 0.

use core::mem::MaybeUninit;

use crate::{chunk::CLASSES, metadata};

const BITS: usize = u64::BITS as usize;

/// One bit for each chunk and class.
pub(crate) struct Summary<'m> {
    /// For class 1 the words of all chunks, then for class 2, and so on.
    words: &'m mut [u64],
}

impl<'m> Summary<'m> {
    /// Nothing of no chunk.
    pub(crate) const fn empty() -> Self {
        Self { words: &mut [] }
    }

    /// Words for so many chunks.
    pub(crate) const fn words(chunks: usize) -> usize {
        chunks.div_ceil(BITS) * CLASSES
    }

    /// `chunks` chunks of the highest class, in as many words as they need.
    pub(crate) fn free(words: &'m mut [MaybeUninit<u64>], chunks: usize) -> Self {
        let words = metadata::fill(words, || !0);
        if chunks % BITS != 0 {
            for class in words.chunks_exact_mut(chunks.div_ceil(BITS)) {
                class[chunks / BITS] = !0 >> (BITS - chunks % BITS);
            }
        }
        Self { words }
    }

    /// The first chunk from `chunk` on of class `class` (at least 1) or higher.
    #[inline]
    pub(crate) fn next(&self, class: usize, chunk: usize) -> Option<usize> {
        let len = self.words.len() / CLASSES;
        let words = &self.words[(class - 1) * len..class * len];
        let mut index = chunk / BITS;
        let mut word = words.get(index)? & (!0 << (chunk % BITS));
        while word == 0 {
            index += 1;
            word = *words.get(index)?;
        }
        Some(index * BITS + word.trailing_zeros() as usize)
    }

    /// Notes that `chunk` has gone from one class to another.
    pub(crate) fn change(&mut self, chunk: usize, before: usize, after: usize) {
        let len = self.words.len() / CLASSES;
        let bit = 1 << (chunk % BITS);
        for class in before..after {
            self.words[class * len + chunk / BITS] |= bit;
        }
        for class in after..before {
            self.words[class * len + chunk / BITS] &= !bit;
        }
    }
}
