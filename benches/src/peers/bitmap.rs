//! `bitmap-allocator` 0.4: a tree of 16-bit sets, behind a spin lock.

use std::ops::Range;

use bitmap_allocator::{BitAlloc, BitAlloc1M};
use spin::Mutex;

use crate::{contender::Contender, roster::Books};

/// `BitAlloc1M`: room for 4 GiB.
#[allow(missing_debug_implementations, reason = "the peer has none")]
pub struct RawBitmap {
    base: usize,
    bits: Mutex<Box<BitAlloc1M>>,
}

impl RawBitmap {
    /// Manages the arena.
    ///
    /// # Panics
    /// The arena is empty or larger than 4 GiB.
    pub fn new(arena: Range<usize>) -> Self {
        let mut bits = Box::new(BitAlloc1M::DEFAULT);
        bits.insert(0..arena.len() / 4096);
        Self { base: arena.start, bits: Mutex::new(bits) }
    }

    /// The same for any memory.
    pub fn books() -> Books {
        Books::bytes(size_of::<BitAlloc1M>(), "the same for any memory up to 4 GiB")
    }
}

impl Contender for RawBitmap {
    #[inline]
    fn alloc(&self, order: u32) -> Option<usize> {
        let mut bits = self.bits.lock();
        let bit = match order {
            0 => bits.alloc(),
            _ => bits.alloc_contiguous(None, 1 << order, order as usize),
        };
        bit.map(|bit| self.base + bit * 4096)
    }

    #[inline]
    fn free(&self, address: usize, order: u32) {
        let bit = (address - self.base) / 4096;
        let mut bits = self.bits.lock();
        match order {
            0 => bits.dealloc(bit),
            _ => bits.dealloc_contiguous(bit, 1 << order),
        };
    }
}
