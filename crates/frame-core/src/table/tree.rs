//! A tree with two bookmarks: whoever comes back to the table of last time, or near it, need not walk to it from the root.
//!
//! Processors have caches for that, of paging-structure entries; this is the same in software, of two entries. A
//! [`TableWalk`] goes down from the root and marks the table where it ends, with a label that the caller chooses, the
//! addresses that the table serves for instance. A [`FrameTree`] that still has the label is at that table. On the way a
//! walk may [base](TableWalk::base) itself: the next that goes below the same table starts there.
//!
//! Invariants:
//! - the marked table and the base belong to the tree, and the marked table is the base or lies below it;
//! - tables leave a tree through a [`TableMut`] of a table above them alone, so both go back to the root whenever one of a
//!   table that may lie above them is given out; below the marked table, anything may happen.

use core::fmt;

use super::{ADDRESS, FrameTable, TableMut, TableRef, WordMut};
use crate::{FrameHal, PhysAddr};

/// A tree of tables, and bookmarks in it.
///
/// ```
/// # use frame_core::{FrameHal, FrameTree};
/// fn write<H: FrameHal>(tree: &mut FrameTree<H>, address: u64, word: u64) {
///     let label = address >> 9;
///     if tree.label() != label {
///         let mut walk = tree.walk();
///         if !walk.down(address as usize >> 9) {
///             return; // no table there
///         }
///         walk.mark(label);
///     }
///     let _ = tree.marked_mut().set(address as usize, word);
/// }
/// ```
pub struct FrameTree<H: FrameHal> {
    root: FrameTable<H>,
    /// Where the root lies: as `root` says, without looking whether it is one.
    top: PhysAddr,
    /// Where the marked table lies; the root when there is no other.
    marked: PhysAddr,
    label: u64,
    /// Where the base lies; the root when there is no other.
    base: PhysAddr,
    base_label: u64,
}

impl<H: FrameHal> FrameTree<H> {
    /// The label of a tree in which nothing is marked, or of a mark that is not to be found again.
    pub const UNMARKED: u64 = u64::MAX;

    /// The tree below a table.
    pub fn new(root: FrameTable<H>) -> Self {
        let top = root.start_paddr();
        Self { root, top, marked: top, label: Self::UNMARKED, base: top, base_label: Self::UNMARKED }
    }

    /// The physical address of the root.
    #[inline]
    pub const fn start_paddr(&self) -> PhysAddr {
        self.top
    }

    /// The words of the root, to be read.
    #[inline]
    pub fn words(&self) -> TableRef<'_, H> {
        // SAFETY: the root lies there, and is owned for as long as `self` is borrowed.
        unsafe { TableRef::at(self.top) }
    }

    /// The words of the root, to be changed. The bookmarks are taken out.
    #[inline]
    pub fn words_mut(&mut self) -> TableMut<'_, H> {
        self.unmark();
        self.root.words_mut()
    }

    /// What the bookmark says; [`UNMARKED`](Self::UNMARKED) when there is none.
    #[inline]
    pub const fn label(&self) -> u64 {
        self.label
    }

    /// The marked table, to be read; the base or the root when none is marked.
    #[inline]
    pub fn marked(&self) -> TableRef<'_, H> {
        // SAFETY: the marked table belongs to the tree (invariant), which is owned for as long as `self` is borrowed.
        unsafe { TableRef::at(self.marked) }
    }

    /// The marked table, to be changed; the base or the root when none is marked.
    #[inline]
    pub fn marked_mut(&mut self) -> TableMut<'_, H> {
        // What it unlinks lies below it, and the bookmark does not.
        TableMut::of(self.marked())
    }

    /// Takes the bookmarks out.
    #[inline]
    pub fn unmark(&mut self) {
        (self.marked, self.label) = (self.top, Self::UNMARKED);
        (self.base, self.base_label) = (self.top, Self::UNMARKED);
    }

    /// The label of the base; [`UNMARKED`](Self::UNMARKED) when there is none.
    #[inline]
    pub const fn base_label(&self) -> u64 {
        self.base_label
    }

    /// A walk that starts at the root.
    #[inline]
    pub fn walk(&mut self) -> TableWalk<'_, H> {
        // SAFETY: as in `words`; no table leaves the tree while the walk borrows it.
        let at = unsafe { TableRef::at(self.top) };
        let place = self.top;
        TableWalk { tree: self, at, place, from_base: false }
    }

    /// A walk that starts at the marked table; at the base or the root when none is marked.
    #[inline]
    pub fn walk_from_mark(&mut self) -> TableWalk<'_, H> {
        let place = self.marked;
        // SAFETY: the marked table belongs to the tree (invariant); no table leaves the tree while the walk borrows it.
        let at = unsafe { TableRef::at(place) };
        TableWalk { tree: self, at, place, from_base: true }
    }

    /// A walk that starts at the base; at the root when there is none.
    #[inline]
    pub fn walk_from_base(&mut self) -> TableWalk<'_, H> {
        let place = self.base;
        // SAFETY: the base belongs to the tree (invariant); no table leaves the tree while the walk borrows it.
        let at = unsafe { TableRef::at(place) };
        TableWalk { tree: self, at, place, from_base: true }
    }
}

impl<H: FrameHal> fmt::Debug for FrameTree<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameTree({:#x}, {:#x} marked as {:#x}, ", self.top, self.marked, self.label)?;
        write!(f, "based on {:#x} as {:#x})", self.base, self.base_label)
    }
}

/// What a walk finds in a word.
pub enum TableStep<'a, H: FrameHal> {
    /// The word, which owns the table in which the walk is now.
    Table(u64),
    /// A word that owns no table. The walk stays.
    Word(WordMut<'a, H>),
}

/// A walk down a tree: to a table that is then marked, or to a word.
pub struct TableWalk<'a, H: FrameHal> {
    tree: &'a mut FrameTree<H>,
    /// A table of `tree`.
    at: TableRef<'a, H>,
    /// Where it lies.
    place: PhysAddr,
    /// Whether `at` is the base of `tree` or lies below it.
    from_base: bool,
}

impl<'a, H: FrameHal> TableWalk<'a, H> {
    /// The words of the table that the walk has come to.
    #[inline]
    pub fn words(&self) -> TableRef<'_, H> {
        self.at
    }

    /// Goes to the table that a word owns. Returns whether it owns one; if not, the walk stays.
    #[inline]
    pub fn down(&mut self, i: usize) -> bool {
        matches!(self.step(i), TableStep::Table(_))
    }

    /// Goes to the table that a word owns, if it owns one; if not, the word can be changed.
    #[inline]
    pub fn step(&mut self, i: usize) -> TableStep<'_, H> {
        let entry = self.at.entry(i);
        match entry.child() {
            Some(child) => {
                self.at = child;
                self.place = PhysAddr::from((entry.word() & ADDRESS) as usize);
                TableStep::Table(entry.word())
            }
            // The tree is borrowed exclusively, so nobody else changes the word; and no table leaves the tree by it.
            None => TableStep::Word(WordMut::of(self.at, i, entry.word())),
        }
    }

    /// A word of the table that the walk has come to, to be changed.
    #[inline]
    pub fn word_mut(&mut self, i: usize) -> WordMut<'_, H> {
        // As in `step`.
        WordMut::of(self.at, i, self.at.word(i))
    }

    /// Makes the table that the walk has come to the base, and goes on. Nothing is marked until the walk ends.
    #[inline]
    pub fn base(self, label: u64) -> Self {
        (self.tree.base, self.tree.base_label) = (self.place, label);
        // The marked table must not lie above the base.
        (self.tree.marked, self.tree.label) = (self.place, FrameTree::<H>::UNMARKED);
        Self { from_base: true, ..self }
    }

    /// Ends the walk and marks the table, which can then be changed.
    #[inline]
    pub fn mark(self, label: u64) -> TableMut<'a, H> {
        if !self.from_base {
            (self.tree.base, self.tree.base_label) = (self.tree.top, FrameTree::<H>::UNMARKED);
        }
        self.tree.marked = self.place;
        self.tree.label = label;
        // What it unlinks lies below it, and the bookmark does not.
        TableMut::of(self.at)
    }
}

impl<H: FrameHal> fmt::Debug for TableStep<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(word) => write!(f, "Table({word:#x})"),
            Self::Word(word) => word.fmt(f),
        }
    }
}

impl<H: FrameHal> fmt::Debug for TableWalk<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at.fmt(f)
    }
}
