//! Reading a table, and setting or clearing bits that say nothing of what a word owns.

use core::{
    fmt, hint,
    marker::PhantomData,
    ops::Range,
    slice,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{ADDRESS, HELD, OWNED, RUN, RUN_SHIFT, TABLE, WORDS};
use crate::{FrameHal, FrameRange, PhysAddr};

/// A shared borrow of a table's words. Indices count modulo 512.
pub struct TableRef<'a, H: FrameHal> {
    words: &'a [AtomicU64; WORDS],
    _hal: PhantomData<fn() -> H>,
}

impl<H: FrameHal> Clone for TableRef<'_, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H: FrameHal> Copy for TableRef<'_, H> {}

impl<'a, H: FrameHal> TableRef<'a, H> {
    /// The bits of a word that hold an address: 51:12.
    pub const ADDRESS: u64 = ADDRESS;

    /// # Safety
    /// `start` is the address of a table that is owned, and not changed but through atomics, for `'a`.
    #[inline]
    pub(super) unsafe fn at(start: PhysAddr) -> Self {
        let start: *const [AtomicU64; WORDS] = H::phys_to_virt(start).as_ptr().cast();
        // SAFETY: the address is not null (promise of `FrameHal`). Said, so that a walk does not look.
        unsafe { hint::assert_unchecked(!start.is_null()) };
        // SAFETY: the frame can be read and written there and is frame-aligned (promise of `FrameHal`), and the caller
        // promises the rest.
        let words = unsafe { &*start };
        Self { words, _hal: PhantomData }
    }

    #[inline]
    pub(super) fn slot(self, i: usize) -> &'a AtomicU64 {
        &self.words[i % WORDS]
    }

    /// # Panics
    /// The range ends beyond 512.
    #[inline]
    pub(super) fn slots(self, range: Range<usize>) -> &'a [AtomicU64] {
        &self.words[range]
    }

    /// The word.
    #[inline]
    pub fn word(self, i: usize) -> u64 {
        self.slot(i).load(Ordering::Acquire)
    }

    /// The bits that all words of a range have, and those that any of them has.
    ///
    /// # Panics
    /// The range ends beyond 512.
    #[inline]
    pub fn gather(self, range: Range<usize>) -> (u64, u64) {
        self.slots(range).iter().fold((u64::MAX, 0), |(all, any), word| {
            let word = word.load(Ordering::Acquire);
            (all & word, any | word)
        })
    }

    /// Whether the word owns a table.
    #[inline]
    pub const fn is_link(word: u64) -> bool {
        word & TABLE != 0
    }

    /// Whether the word owns a table or a run.
    #[inline]
    pub const fn is_owner(word: u64) -> bool {
        word & OWNED != 0
    }

    /// The table that the word owns.
    #[inline]
    pub fn child(self, i: usize) -> Option<TableRef<'a, H>> {
        self.entry(i).child()
    }

    /// The word as it is now, for more than one look at it.
    #[inline]
    pub fn entry(self, i: usize) -> TableEntry<'a, H> {
        TableEntry { word: self.word(i), _table: PhantomData }
    }

    /// Where the run that the word owns lies.
    pub fn run(self, i: usize) -> Option<FrameRange> {
        let word = self.word(i);
        if Self::is_link(word) || word & RUN == 0 {
            return None;
        }
        let power = (word & RUN) >> RUN_SHIFT;
        FrameRange::new(PhysAddr::from((word & ADDRESS) as usize), WORDS.pow(power as u32 - 1)).ok()
    }

    /// The contents of the run that the word owns. They are atomic because hardware, or a guest, may write there.
    pub fn run_words(self, i: usize) -> Option<&'a [AtomicU64]> {
        let range = self.run(i)?;
        let start = H::phys_to_virt(range.start()).as_mut_ptr().cast();
        // SAFETY: the frames of a run are adjacent, initialised and aligned (promise of `FrameHal`); the word owns them
        // and cannot give them away while this table is borrowed; nobody has a reference that is not atomic.
        Some(unsafe { slice::from_raw_parts(start, range.size() / size_of::<u64>()) })
    }

    /// Clears the bits of `mask` in the word, less those that say what it owns (55:52 and 51:12). Returns the word as
    /// it was. Atomic, so what hardware sets meanwhile is kept.
    #[inline]
    pub fn clear_bits(self, i: usize, mask: u64) -> u64 {
        self.slot(i).fetch_and(!(mask & !HELD), Ordering::AcqRel)
    }

    /// Sets bits, under the rules of [`clear_bits`](Self::clear_bits).
    #[inline]
    pub fn set_bits(self, i: usize, mask: u64) -> u64 {
        self.slot(i).fetch_or(mask & !HELD, Ordering::AcqRel)
    }
}

/// A word as it was at one moment, while its table is borrowed.
pub struct TableEntry<'a, H: FrameHal> {
    word: u64,
    _table: PhantomData<TableRef<'a, H>>,
}

impl<'a, H: FrameHal> TableEntry<'a, H> {
    /// The word.
    #[inline]
    pub const fn word(&self) -> u64 {
        self.word
    }

    /// The table that the word owns.
    #[inline]
    pub fn child(&self) -> Option<TableRef<'a, H>> {
        if !TableRef::<H>::is_link(self.word) {
            return None;
        }
        let start = PhysAddr::from((self.word & ADDRESS) as usize);
        // SAFETY: the word owned the table at that address when it was read (invariant of a word), and cannot give it
        // away while its table is borrowed.
        Some(unsafe { TableRef::at(start) })
    }
}

impl<H: FrameHal> Clone for TableEntry<'_, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H: FrameHal> Copy for TableEntry<'_, H> {}

impl<H: FrameHal> fmt::Debug for TableEntry<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(self.word).fmt(f)
    }
}

impl<H: FrameHal> fmt::Debug for TableRef<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = (0..WORDS).map(|i| (i, self.word(i))).filter(|(_, word)| *word != 0);
        f.debug_map().entries(words.map(|(i, word)| (i, Hex(word)))).finish()
    }
}

struct Hex(u64);

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
