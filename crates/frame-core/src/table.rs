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
//! Invariant of a word: if [`TABLE`] or [`RUN`] is set, never both, it owns that, and its [`TableRef::ADDRESS`] bits
//! are the address of it; no other word and no value owns the same. Words with one of these are written by
//! [`TableMut::link`] and [`TableMut::own_run`] alone, which consume an owner, and removed only by what gives the
//! owner back. All other writers leave the three groups of bits alone or are refused.

use core::{
    fmt, hint,
    marker::PhantomData,
    mem, ptr, slice,
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
};

use crate::{AllocError, FRAME_SIZE, FrameHal, FrameRange, PhysAddr, PhysFrame, PhysFrames};

/// Words in a table.
const WORDS: usize = FRAME_SIZE / size_of::<u64>();

/// Set in a word that owns a table: one bit, for every step of a walk looks at it.
const TABLE: u64 = 1 << 55;
/// Set in a word that owns a run of frames.
const RUN: u64 = 1 << 54;
/// One of these is set in a word that owns something.
const OWNED: u64 = TABLE | RUN;
/// How long the run is: `512^n` frames.
const KIND: u64 = 3 << 52;
const KIND_SHIFT: u32 = 52;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Bits that only an owner may change.
const HELD: u64 = OWNED | KIND | ADDRESS;

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
        TableMut { shared: self.words(), _exclusive: PhantomData }
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
    unsafe fn at(start: PhysAddr) -> Self {
        let start: *const [AtomicU64; WORDS] = H::phys_to_virt(start).as_ptr().cast();
        // SAFETY: the address is not null (promise of `FrameHal`). Said, so that a walk does not look.
        unsafe { hint::assert_unchecked(!start.is_null()) };
        // SAFETY: the frame can be read and written there and is frame-aligned (promise of `FrameHal`), and the caller
        // promises the rest.
        let words = unsafe { &*start };
        Self { words, _hal: PhantomData }
    }

    #[inline]
    fn slot(self, i: usize) -> &'a AtomicU64 {
        &self.words[i % WORDS]
    }

    /// The word.
    #[inline]
    pub fn word(self, i: usize) -> u64 {
        self.slot(i).load(Ordering::Acquire)
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
        self.follow(i).1
    }

    /// The word, and the table that it owns, by one load: for walking down.
    #[inline]
    pub fn follow(self, i: usize) -> (u64, Option<TableRef<'a, H>>) {
        let word = self.word(i);
        // SAFETY: the word owns the table at that address (invariant of a word), and cannot give it away while this
        // table is borrowed.
        let table =
            Self::is_link(word).then(|| unsafe { TableRef::at(PhysAddr::from((word & ADDRESS) as usize)) });
        (word, table)
    }

    /// Where the run that the word owns lies.
    pub fn run(self, i: usize) -> Option<FrameRange> {
        let word = self.word(i);
        let kind = (word & KIND) >> KIND_SHIFT;
        if word & RUN == 0 {
            return None;
        }
        FrameRange::new(PhysAddr::from((word & ADDRESS) as usize), WORDS.pow(kind as u32)).ok()
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

/// An exclusive borrow of a table: nobody else changes what its words own. Indices count modulo 512.
pub struct TableMut<'a, H: FrameHal> {
    shared: TableRef<'a, H>,
    _exclusive: PhantomData<&'a mut FrameTable<H>>,
}

impl<'a, H: FrameHal> TableMut<'a, H> {
    /// The words, to be read.
    #[inline]
    pub fn words(&self) -> TableRef<'_, H> {
        self.shared
    }

    /// The same borrow, for a shorter time.
    #[inline]
    pub fn reborrow(&mut self) -> TableMut<'_, H> {
        TableMut { shared: self.shared, _exclusive: PhantomData }
    }

    /// The word.
    #[inline]
    pub fn word(&self, i: usize) -> u64 {
        self.shared.word(i)
    }

    /// The table that the word owns.
    #[inline]
    pub fn child(&mut self, i: usize) -> Option<TableMut<'_, H>> {
        self.shared.child(i).map(|shared| TableMut { shared, _exclusive: PhantomData })
    }

    /// The table that the word owns, for as long as this borrow was to live: for walking down in a loop.
    ///
    /// # Errors
    /// This borrow, when the word owns no table.
    #[inline]
    pub fn into_child(self, i: usize) -> Result<TableMut<'a, H>, Self> {
        match self.shared.child(i) {
            Some(shared) => Ok(TableMut { shared, _exclusive: PhantomData }),
            None => Err(self),
        }
    }

    /// Writes a plain word over a plain word.
    ///
    /// # Errors
    /// [`OwnedWord`] when the word owns something, or the new one says so (bits 55:54). Nothing was written.
    #[inline]
    pub fn set(&mut self, i: usize, word: u64) -> Result<(), OwnedWord> {
        let slot = self.shared.slot(i);
        if (word | slot.load(Ordering::Relaxed)) & OWNED != 0 {
            return Err(OwnedWord);
        }
        slot.store(word, Ordering::Release);
        Ok(())
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
        let slot = self.shared.slot(i);
        if (word | slot.load(Ordering::Relaxed)) & OWNED != 0 {
            return Err(OwnedWord);
        }
        Ok(slot.swap(word, Ordering::AcqRel))
    }

    /// Writes bits 7:0 of a plain word, and none of the others: what hardware sets in those meanwhile stays, without
    /// the locked operation that [`swap`](Self::swap) is.
    ///
    /// # Errors
    /// [`OwnedWord`] when the word owns something. Nothing was written.
    #[inline]
    pub fn set_low_byte(&mut self, i: usize, byte: u8) -> Result<(), OwnedWord> {
        let slot = self.shared.slot(i);
        if slot.load(Ordering::Relaxed) & OWNED != 0 {
            return Err(OwnedWord);
        }
        let low = if cfg!(target_endian = "little") { 0 } else { size_of::<u64>() - 1 };
        // SAFETY: the byte lies in the word, which lives as long as the borrow, and an atomic byte has no alignment. No
        // other thread accesses the word as a whole at the same time, which atomics of two sizes must not do: a
        // `TableRef` of this table would borrow `self`, which is borrowed exclusively.
        let byte_slot = unsafe { &*ptr::from_ref(slot).cast::<AtomicU8>().add(low) };
        byte_slot.store(byte, Ordering::Release);
        Ok(())
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
        let kind = match run.count() {
            1 => 0,
            WORDS => 1,
            count if count == WORDS * WORDS => 2,
            _ => return Err(run),
        };
        match self.own(i, run.start_paddr(), RUN | kind << KIND_SHIFT, flags) {
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

/// A plain write met a word that owns something, or would have made one: nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnedWord;

impl fmt::Display for OwnedWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word that owns a table or a run cannot be written: unlink it first")
    }
}

impl core::error::Error for OwnedWord {}

#[cfg(test)]
mod tests {
    use core::cell::UnsafeCell;
    use core::sync::atomic::AtomicUsize;

    use super::*;
    use crate::{FrameLayout, VirtAddr};

    const FRAMES: usize = 2048;

    /// Host memory, handed out in order; counts the frames that live.
    struct Hal;

    #[repr(align(4096))]
    struct Memory(UnsafeCell<[[u8; FRAME_SIZE]; FRAMES]>);
    // SAFETY: the memory is reached through frames, each owned once.
    unsafe impl Sync for Memory {}
    static MEMORY: Memory = Memory(UnsafeCell::new([[0xff; FRAME_SIZE]; FRAMES]));
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    static LIVE: AtomicUsize = AtomicUsize::new(0);

    // SAFETY: frame n lies at MEMORY[n - 1] and is handed out once.
    unsafe impl FrameHal for Hal {
        fn alloc_frame() -> Option<PhysAddr> {
            Self::alloc_frames(FrameLayout::SINGLE).ok()
        }
        unsafe fn dealloc_frame(_: PhysAddr) {
            LIVE.fetch_sub(1, Ordering::Relaxed);
        }
        fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
            VirtAddr::from(MEMORY.0.get() as usize + paddr.as_usize() - FRAME_SIZE)
        }
        fn alloc_frames(layout: FrameLayout) -> Result<PhysAddr, AllocError> {
            let first = NEXT.fetch_add(layout.count(), Ordering::Relaxed);
            if first + layout.count() > FRAMES {
                return Err(AllocError::NoMemory);
            }
            LIVE.fetch_add(layout.count(), Ordering::Relaxed);
            Ok(PhysAddr::from((first + 1) * FRAME_SIZE))
        }
    }

    #[test]
    fn a_tree_owns_what_it_links_and_nothing_else_can_forge_it() {
        let mut root = FrameTable::<Hal>::new(!0).unwrap();
        assert!((0..WORDS).all(|i| root.words().word(i) == !OWNED), "no word is born an owner");
        for i in 0..WORDS {
            root.words_mut().set(i, 0).unwrap();
        }
        let leaf = FrameTable::<Hal>::new(0).unwrap();
        let at = leaf.start_paddr().as_usize() as u64;
        assert_eq!(root.words_mut().link(5, leaf, !0).unwrap(), 0);
        let mut words = root.words_mut();
        // Flags cannot disturb the address or the marks, at birth or later.
        assert_eq!(words.word(5), at | TABLE | !HELD);
        assert_eq!(words.words().clear_bits(5, !0), at | TABLE | !HELD);
        assert_eq!(words.word(5), at | TABLE);
        words.words().set_bits(5, !0);
        assert_eq!(words.word(5), at | TABLE | !HELD);
        words.words().set_bits(6, !0);
        assert_eq!(words.word(6), !HELD);
        // An owner cannot be overwritten, nor written.
        assert_eq!(words.set(5, 0), Err(OwnedWord));
        assert_eq!(words.swap(5, 0), Err(OwnedWord));
        assert_eq!(words.set(7, TABLE), Err(OwnedWord));
        assert_eq!(words.set(7, RUN), Err(OwnedWord));
        let other = FrameTable::<Hal>::new(0).unwrap();
        let other = words.link(5, other, 0).unwrap_err();
        assert_eq!(LIVE.load(Ordering::Relaxed), 3);
        drop(other);

        // Runs: only the sizes of pages; the length survives flags.
        let odd = PhysFrames::<Hal>::try_alloc(FrameLayout::contiguous(2).unwrap()).unwrap();
        drop(words.own_run(8, odd, 0).unwrap_err());
        let run = PhysFrames::<Hal>::try_alloc(FrameLayout::contiguous(512).unwrap()).unwrap();
        let range = run.range();
        words.own_run(8, run, !0).unwrap();
        assert_eq!(words.words().run(8), Some(range));
        assert!(words.words().child(8).is_none() && words.unlink(8, 0).is_none());
        let bytes = words.words().run_words(8).unwrap();
        assert_eq!(bytes.len(), 512 * 512);
        bytes[512 * 512 - 1].store(7, Ordering::Relaxed);

        // Down, change, up; then take one out and drop the rest.
        words.child(5).unwrap().set(511, 0x1000).unwrap();
        assert_eq!(words.words().child(5).unwrap().word(511 + 512), 0x1000, "indices count modulo 512");
        assert_eq!(LIVE.load(Ordering::Relaxed), 2 + 512);
        let leaf = words.unlink(5, !0).unwrap();
        assert_eq!(words.word(5), !OWNED);
        assert_eq!(leaf.words().word(511), 0x1000);
        drop(leaf);
        assert_eq!(LIVE.load(Ordering::Relaxed), 1 + 512);
        drop(root);
        assert_eq!(LIVE.load(Ordering::Relaxed), 0);
    }
}
