//! A map from addresses to owned frames, itself made of frames: no heap, any size.
//!
//! A trie in the shape of page tables: tables of 512 words, indexed by 9 bits of the address each. A word owns a table of
//! the level below, or a run of frames: 1 at level 1, 512 at level 2, 512² at level 3, just as a page table maps pages.
//! Hardware does not read it, so it can hold what hardware's tables have no room for: whose the frames are.
//!
//! Invariant: no table but the root is without an owner.

use core::sync::atomic::AtomicU64;

use frame_core::{AllocError, FrameHal, FrameRange, FrameTable, PhysFrame, PhysFrames, TableMut, TableRef};

use crate::PageSize;

const ENTRIES: usize = 512;

const fn shift(level: u32) -> u32 {
    12 + 9 * (level - 1)
}

const fn index(address: u64, level: u32) -> usize {
    (address >> shift(level)) as usize % ENTRIES
}

/// Owns runs of frames by address. Addresses have `12 + 9 * levels` bits.
pub(crate) struct FrameTrie<H: FrameHal> {
    root: FrameTable<H>,
    levels: u32,
    tables: usize,
}

/// A run that the trie owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    /// The first address that leads to it.
    pub(crate) address: u64,
    pub(crate) size: PageSize,
    pub(crate) frames: FrameRange,
}

impl Owned {
    pub(crate) const fn last(&self) -> u64 {
        self.address + (self.size.bytes() - 1)
    }
}

/// Why a run was not taken in; the run comes back.
pub(crate) enum Refused {
    /// No frame for a table.
    Alloc(AllocError),
    /// There is a run already, or smaller ones below, or the address is too wide.
    Occupied,
}

impl<H: FrameHal> FrameTrie<H> {
    pub(crate) fn new(levels: u32) -> Result<Self, AllocError> {
        Ok(Self { root: FrameTable::new(0)?, levels, tables: 1 })
    }

    /// Frames that the trie itself takes.
    pub(crate) const fn tables(&self) -> usize {
        self.tables
    }

    /// Bits of an address.
    pub(crate) const fn width(&self) -> u32 {
        12 + 9 * self.levels
    }

    /// Takes a run of `size` in at an address that is aligned to it. Nothing is left behind when it is refused.
    pub(crate) fn insert(&mut self, address: u64, run: PhysFrames<H>, size: PageSize) -> Result<(), Refused> {
        if address >> self.width() != 0 || address % size.bytes() != 0 || run.count() as u64 != size.frames()
        {
            return Err(Refused::Occupied);
        }
        // Walk to where the path ends, make the rest of the path apart, and link it in one go.
        let mut table = self.root.words_mut();
        let mut level = self.levels;
        while level > size.level() {
            match table.into_child(index(address, level)) {
                Ok(child) => table = child,
                Err(last) => {
                    table = last;
                    break;
                }
            }
            level -= 1;
        }
        let i = index(address, level);
        if TableRef::<H>::is_owner(table.word(i)) {
            return Err(Refused::Occupied);
        }
        if level == size.level() {
            return table.own_run(i, run, 0).map(|_| ()).map_err(|_| Refused::Occupied);
        }
        let mut below = FrameTable::new(0).map_err(Refused::Alloc)?;
        below.words_mut().own_run(index(address, size.level()), run, 0).map_err(|_| Refused::Occupied)?;
        let mut made = 1;
        for above in size.level() + 1..level {
            let mut parent = FrameTable::new(0).map_err(Refused::Alloc)?;
            parent.words_mut().link(index(address, above), below, 0).map_err(|_| Refused::Occupied)?;
            below = parent;
            made += 1;
        }
        table.link(i, below, 0).map_err(|_| Refused::Occupied)?;
        self.tables += made;
        Ok(())
    }

    /// Takes the run out that holds an address, and the tables that own nothing after it.
    pub(crate) fn remove(&mut self, address: u64) -> Option<PhysFrames<H>> {
        fn remove<H: FrameHal>(
            mut table: TableMut<'_, H>,
            level: u32,
            address: u64,
            freed: &mut usize,
        ) -> Option<PhysFrames<H>> {
            let i = index(address, level);
            let Some(mut child) = table.child(i) else { return table.disown_run(i, 0) };
            let run = remove(child.reborrow(), level - 1, address, freed)?;
            let child = child.words();
            if (0..ENTRIES).all(|j| !TableRef::<H>::is_owner(child.word(j))) {
                drop(table.unlink(i, 0));
                *freed += 1;
            }
            Some(run)
        }
        if address >> self.width() != 0 {
            return None;
        }
        let mut freed = 0;
        let run = remove(self.root.words_mut(), self.levels, address, &mut freed);
        self.tables -= freed;
        run
    }

    /// Cuts the run that holds an address into 512 runs of the next smaller size, in a table made of `frame`. Returns
    /// whether there was one to cut.
    pub(crate) fn cut(&mut self, address: u64, frame: PhysFrame<H>) -> bool {
        if address >> self.width() != 0 {
            return false;
        }
        let mut table = self.root.words_mut();
        let mut level = self.levels;
        while level > 1 {
            match table.into_child(index(address, level)) {
                Ok(child) => table = child,
                Err(last) => {
                    table = last;
                    break;
                }
            }
            level -= 1;
        }
        let i = index(address, level);
        if level == 1 {
            return false;
        }
        let Some(run) = table.disown_run(i, 0) else { return false };
        let frames = run.count() / ENTRIES;
        let mut pieces = FrameTable::from_fn(frame, |_| 0);
        let mut rest = Some(run);
        for j in 0..ENTRIES {
            let Some(run) = rest.take() else { break };
            let piece = match run.split_at(frames) {
                Ok((piece, behind)) => {
                    rest = Some(behind);
                    piece
                }
                Err(last) => last,
            };
            // The word is empty and the piece has the size of a page, so it is taken.
            let _ = pieces.words_mut().own_run(j, piece, 0);
        }
        let _ = table.link(i, pieces, 0); // empty since `disown_run`
        self.tables += 1;
        true
    }

    /// The run that holds an address, and its contents.
    pub(crate) fn get(&self, address: u64) -> Option<(Owned, &[AtomicU64])> {
        if address >> self.width() != 0 {
            return None;
        }
        let mut table = self.root.words();
        for level in (1..=self.levels).rev() {
            let i = index(address, level);
            match table.child(i) {
                Some(child) => table = child,
                None => {
                    let owned = owned(table, i, level, address)?;
                    return Some((owned, table.run_words(i)?));
                }
            }
        }
        None
    }

    /// The first run of which a part lies at or behind an address.
    pub(crate) fn next(&self, from: u64) -> Option<Owned> {
        fn next<H: FrameHal>(table: TableRef<'_, H>, level: u32, base: u64, from: u64) -> Option<Owned> {
            let first = if from > base { index(from, level) } else { 0 };
            (first..ENTRIES).find_map(|i| {
                let address = base + ((i as u64) << shift(level));
                match table.child(i) {
                    Some(child) => next(child, level - 1, address, from),
                    None => owned(table, i, level, address),
                }
            })
        }
        if from >> self.width() != 0 {
            return None;
        }
        next(self.root.words(), self.levels, 0, from)
    }
}

fn owned<H: FrameHal>(table: TableRef<'_, H>, i: usize, level: u32, address: u64) -> Option<Owned> {
    let size = PageSize::of_level(level)?;
    Some(Owned { address: address & !(size.bytes() - 1), size, frames: table.run(i)? })
}
