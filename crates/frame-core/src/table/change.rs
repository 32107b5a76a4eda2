//! Changing a table: what its words say, and what they own.

use core::{
    fmt,
    marker::PhantomData,
    mem,
    ops::Range,
    ptr,
    sync::atomic::{AtomicU8, Ordering},
};

use super::{ADDRESS, FrameTable, HELD, OWNED, RUN_SHIFT, TABLE, TableRef, WORDS};
use crate::{FrameHal, PhysAddr, PhysFrame, PhysFrames};

/// An exclusive borrow of a table: nobody else changes what its words own. Indices count modulo 512.
pub struct TableMut<'a, H: FrameHal> {
    shared: TableRef<'a, H>,
    _exclusive: PhantomData<&'a mut FrameTable<H>>,
}

impl<'a, H: FrameHal> TableMut<'a, H> {
    /// Of a table that nobody else can change for `'a`: its owner, or a table above it, is borrowed exclusively.
    #[inline]
    pub(super) fn of(shared: TableRef<'a, H>) -> Self {
        Self { shared, _exclusive: PhantomData }
    }

    /// The words, to be read.
    #[inline]
    pub fn words(&self) -> TableRef<'_, H> {
        self.shared
    }

    /// The same borrow, for a shorter time.
    #[inline]
    pub fn reborrow(&mut self) -> TableMut<'_, H> {
        TableMut::of(self.shared)
    }

    /// The word.
    #[inline]
    pub fn word(&self, i: usize) -> u64 {
        self.shared.word(i)
    }

    /// The table that the word owns.
    #[inline]
    pub fn child(&mut self, i: usize) -> Option<TableMut<'_, H>> {
        self.shared.child(i).map(TableMut::of)
    }

    /// The table that the word owns, for as long as this borrow was to live: for walking down in a loop.
    ///
    /// # Errors
    /// This borrow, when the word owns no table.
    #[inline]
    pub fn into_child(self, i: usize) -> Result<TableMut<'a, H>, Self> {
        match self.shared.child(i) {
            Some(shared) => Ok(TableMut::of(shared)),
            None => Err(self),
        }
    }

    /// The word, to be changed: looked at once, for more than one thing done with it.
    #[inline]
    pub fn word_mut(&mut self, i: usize) -> WordMut<'_, H> {
        WordMut::of(self.shared, i, self.shared.word(i))
    }

    /// Writes a plain word over a plain word.
    ///
    /// # Errors
    /// [`OwnedWord`] when the word owns something, or the new one says so (bits 55:52). Nothing was written.
    #[inline]
    pub fn set(&mut self, i: usize, word: u64) -> Result<(), OwnedWord> {
        self.word_mut(i).set(PlainWord::new(word)?)
    }

    /// Writes a plain word over a plain word that has none of the bits of `mask`. Returns whether it did.
    #[inline]
    pub fn set_if_clear(&mut self, i: usize, mask: u64, word: u64) -> bool {
        let slot = self.shared.slot(i);
        if (slot.load(Ordering::Relaxed) & (mask | OWNED)) | (word & OWNED) != 0 {
            return false;
        }
        slot.store(word, Ordering::Release);
        true
    }

    /// As [`set`](Self::set), and returns the word as it was: no bit that hardware sets meanwhile is lost.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    #[inline]
    pub fn swap(&mut self, i: usize, word: u64) -> Result<u64, OwnedWord> {
        self.word_mut(i).swap(PlainWord::new(word)?)
    }

    /// Writes bits 7:0 of the words of a range, and none of the others: what hardware sets in those meanwhile stays,
    /// without the locked operation that [`swap`](Self::swap) is. What a word owns is not said there, so any will do.
    ///
    /// # Panics
    /// The range ends beyond 512.
    #[inline]
    pub fn set_low_bytes(&mut self, range: Range<usize>, byte: u8) {
        const LOW: usize = if cfg!(target_endian = "little") { 0 } else { size_of::<u64>() - 1 };
        for slot in self.shared.slots(range) {
            // SAFETY: the byte lies in the word, which lives as long as the borrow, and an atomic byte has no alignment.
            // No other thread accesses the word as a whole at the same time, which atomics of two sizes must not do: a
            // `TableRef` of this table would borrow `self`, which is borrowed exclusively.
            let low = unsafe { &*ptr::from_ref(slot).cast::<AtomicU8>().add(LOW) };
            low.store(byte, Ordering::Release);
        }
    }

    /// Makes a plain word own `table`; `flags` are its other bits. Returns the word as it was.
    ///
    /// # Errors
    /// The table, when the word owns something already or the table's address has bits above 51.
    #[inline]
    pub fn link(&mut self, i: usize, table: FrameTable<H>, flags: u64) -> Result<u64, FrameTable<H>> {
        match self.own(i, table.start_paddr(), TABLE, flags) {
            Some(old) => {
                mem::forget(table);
                Ok(old)
            }
            None => Err(table),
        }
    }

    /// Takes the table out of a word that owns one; the word becomes `word`, less what would mark it as an owner.
    #[inline]
    pub fn unlink(&mut self, i: usize, word: u64) -> Option<FrameTable<H>> {
        let slot = self.shared.slot(i);
        let old = slot.load(Ordering::Relaxed);
        if !TableRef::<H>::is_link(old) {
            return None;
        }
        slot.store(word & !OWNED, Ordering::Release);
        // SAFETY: the word owned a table at that address (invariant of a word), and no longer does.
        let frame = unsafe { PhysFrame::from_raw(PhysAddr::from((old & ADDRESS) as usize)) };
        Some(FrameTable { frame })
    }

    /// Makes a plain word own a run of 1, 512 or 512² frames; `flags` are its other bits. Returns the word as it was.
    ///
    /// # Errors
    /// The run, when it has another length, when the word owns something already, or when the run's address has bits
    /// above 51.
    pub fn own_run(&mut self, i: usize, run: PhysFrames<H>, flags: u64) -> Result<u64, PhysFrames<H>> {
        let mark = match run.count() {
            1 => 1,
            WORDS => 2,
            count if count == WORDS * WORDS => 3,
            _ => return Err(run),
        };
        match self.own(i, run.start_paddr(), mark << RUN_SHIFT, flags) {
            Some(old) => {
                mem::forget(run);
                Ok(old)
            }
            None => Err(run),
        }
    }

    /// Takes the run out of a word that owns one; the word becomes `word`, less what would mark it as an owner.
    pub fn disown_run(&mut self, i: usize, word: u64) -> Option<PhysFrames<H>> {
        let range = self.shared.run(i)?;
        self.shared.slot(i).store(word & !OWNED, Ordering::Release);
        // SAFETY: the word owned these frames (invariant of a word), and no longer does.
        Some(unsafe { PhysFrames::from_raw(range) })
    }

    /// Writes an owning word over a plain one. The caller forgets the owner exactly if this gives `Some`.
    #[inline]
    fn own(&mut self, i: usize, start: PhysAddr, mark: u64, flags: u64) -> Option<u64> {
        let slot = self.shared.slot(i);
        let start = start.as_usize() as u64;
        if slot.load(Ordering::Relaxed) & OWNED != 0 || start & !ADDRESS != 0 {
            return None;
        }
        let word = flags & !HELD | mark | start;
        Some(slot.swap(word, Ordering::AcqRel))
    }
}

impl<H: FrameHal> fmt::Debug for TableMut<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

/// A word that owns nothing, known once for many writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainWord(u64);

impl PlainWord {
    /// The word, if it does not say that it owns something (bits 55:52).
    ///
    /// # Errors
    /// It says so.
    #[inline]
    pub const fn new(word: u64) -> Result<Self, OwnedWord> {
        if word & OWNED != 0 { Err(OwnedWord) } else { Ok(Self(word)) }
    }

    /// The word, less what would mark it as an owner.
    #[inline]
    pub const fn of(word: u64) -> Self {
        Self(word & !OWNED)
    }

    /// The word.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// An exclusive borrow of one word.
pub struct WordMut<'a, H: FrameHal> {
    table: TableRef<'a, H>,
    i: usize,
    /// As it was when it was looked at: what it owns is still the same.
    word: u64,
    _exclusive: PhantomData<&'a mut FrameTable<H>>,
}

impl<'a, H: FrameHal> WordMut<'a, H> {
    /// Of the word of a table that nobody else can change for `'a`, which was just read as `word`.
    #[inline]
    pub(super) fn of(table: TableRef<'a, H>, i: usize, word: u64) -> Self {
        Self { table, i, word, _exclusive: PhantomData }
    }

    /// The word as it was when it was looked at: hardware may have set bits since.
    #[inline]
    pub const fn word(&self) -> u64 {
        self.word
    }

    /// The words of the table that it is one of.
    #[inline]
    pub const fn table(&self) -> TableRef<'a, H> {
        self.table
    }

    /// Writes a plain word over a plain word.
    ///
    /// # Errors
    /// [`OwnedWord`] when the word owns something. Nothing was written.
    #[inline]
    pub fn set(self, word: PlainWord) -> Result<(), OwnedWord> {
        PlainWord::new(self.word)?;
        self.table.slot(self.i).store(word.get(), Ordering::Release);
        Ok(())
    }

    /// As [`set`](Self::set), and returns the word as it was: no bit that hardware sets meanwhile is lost.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    #[inline]
    pub fn swap(self, word: PlainWord) -> Result<u64, OwnedWord> {
        PlainWord::new(self.word)?;
        Ok(self.table.slot(self.i).swap(word.get(), Ordering::AcqRel))
    }
}

impl<H: FrameHal> fmt::Debug for WordMut<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WordMut({:#x})", self.word)
    }
}

/// A plain write met a word that owns something, or would have made one: nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnedWord;

impl fmt::Display for OwnedWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word that owns a table or a run cannot be written: unlink it first")
    }
}

impl core::error::Error for OwnedWord {}
