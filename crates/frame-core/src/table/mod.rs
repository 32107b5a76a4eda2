//! Frames that own frames: what page tables are made of.
//!
//! Hardware walks a tree of tables, each a frame of 512 words. A word is either **plain**, whatever its writer put
//! there, or it **owns** what its address bits name: a further table, or a run of frames. Ownership stands in the
//! word itself, in bits 55:52, which x86 page tables, EPT entries and the descriptors of Armv8 leave to software; so
//! a tree of any size needs no heap and no second set of books, and dropping the root frees all of it.
//!
//! Hardware may read the words at any time and set bits in them (accessed, dirty), so every access is atomic. What
//! only software may do, changing what a word owns, needs a [`TableMut`]: one exists at a time, by borrowing.
//!
//! Invariant of a word: if a bit of [`TABLE`] or of [`RUN`] is set, never of both, it owns that, and its [`TableRef::ADDRESS`] bits
//! are the address of it; no other word and no value owns the same. Words with one of these are written by
//! [`TableMut::link`] and [`TableMut::own_run`] alone, which consume an owner, and removed only by what gives the
//! owner back. All other writers leave these bits alone or are refused.
mod change;
mod tree;
mod words;

use core::{fmt, mem};

use crate::{AllocError, FRAME_SIZE, FrameHal, PhysAddr, PhysFrame};

pub use change::{OwnedWord, PlainWord, TableMut, WordMut};
pub use tree::{FrameTree, TableStep, TableWalk};
pub use words::{TableEntry, TableRef};

/// Words in a table.
const WORDS: usize = FRAME_SIZE / size_of::<u64>();

/// Both set in a word that owns a table. Every step of a walk looks at them: two bits, for compilers take it for likely
/// that one of several is set, and lay out the way down without jumps.
const TABLE: u64 = 3 << 54;
/// In a word that owns a run of `512^n` frames: `n + 1`.
const RUN: u64 = 3 << RUN_SHIFT;
const RUN_SHIFT: u32 = 52;
/// One of these is set in a word that owns something.
const OWNED: u64 = TABLE | RUN;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Bits that only an owner may change.
const HELD: u64 = OWNED | ADDRESS;

/// A frame of 512 words, some of which own further tables or runs of frames. Dropping it frees all of them.
///
/// Drop and the walk over children recurse as deep as the tree is: 4 or 5 levels in a page table.
///
/// ```
/// # use frame_core::{AllocError, FrameHal, FrameTable};
/// fn two_levels<H: FrameHal>() -> Result<FrameTable<H>, AllocError> {
///     let mut leaf = FrameTable::<H>::new(0)?;
///     let _ = leaf.words_mut().set(7, 0x20_0000 | 0x87);
///     let mut root = FrameTable::new(0)?;
///     let linked = root.words_mut().link(3, leaf, 0x7); // present, writable, user
///     assert!(linked.is_ok());
///     assert_eq!(root.words().child(3).unwrap().word(7), 0x20_0087);
///     Ok(root) // one value owns both frames
/// }
/// ```
pub struct FrameTable<H: FrameHal> {
    frame: PhysFrame<H>,
}

impl<H: FrameHal> FrameTable<H> {
    /// Allocates a table and sets every word to `word`, less what would mark it as an owner.
    ///
    /// # Errors
    /// [`AllocError::NoMemory`] when the HAL has no frame.
    pub fn new(word: u64) -> Result<Self, AllocError> {
        Ok(Self::from_fn(PhysFrame::try_alloc()?, |_| word))
    }

    /// Makes a table of a frame: word `i` is `word(i)`, less what would mark it as an owner.
    ///
    /// # Panics
    /// "uninitialized PhysFrame" on a value from [`PhysFrame::uninit`].
    #[inline]
    pub fn from_fn(frame: PhysFrame<H>, mut word: impl FnMut(usize) -> u64) -> Self {
        let start: *mut u64 = frame.as_mut_ptr().cast();
        for i in 0..WORDS {
            // SAFETY: the frame is writable and frame-aligned (promise of `FrameHal`), is owned and not borrowed here, and
            // has `WORDS` words. No word is left as the last owner of the frame wrote it.
            unsafe { start.add(i).write(word(i) & !OWNED) };
        }
        Self { frame }
    }

    /// The physical address of the table: a multiple of [`FRAME_SIZE`].
    #[inline]
    pub fn start_paddr(&self) -> PhysAddr {
        self.frame.start_paddr()
    }

    /// The words, to be read.
    #[inline]
    pub fn words(&self) -> TableRef<'_, H> {
        // SAFETY: `self` owns an initialised table, for as long as it is borrowed.
        unsafe { TableRef::at(self.start_paddr()) }
    }

    /// The words, to be changed.
    #[inline]
    pub fn words_mut(&mut self) -> TableMut<'_, H> {
        TableMut::of(self.words())
    }

    /// The frame alone. What the words own is neither freed nor kept: it leaks, so take it out before.
    #[inline]
    pub fn into_frame(self) -> PhysFrame<H> {
        let start = self.start_paddr();
        mem::forget(self);
        // SAFETY: the frame was owned by `self`, which is forgotten.
        unsafe { PhysFrame::from_raw(start) }
    }
}

impl<H: FrameHal> Drop for FrameTable<H> {
    fn drop(&mut self) {
        let mut words = self.words_mut();
        for i in 0..WORDS {
            drop(words.unlink(i, 0));
            drop(words.disown_run(i, 0));
        }
    }
}

impl<H: FrameHal> fmt::Debug for FrameTable<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameTable({:#x})", self.start_paddr())
    }
}

#[cfg(test)]
mod tests;
