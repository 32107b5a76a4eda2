//! One page at a time: unmap, remap.
//!
//! Both find the lowest table that holds the address, from a bookmark on where there is one, and change one entry of it.
//!
//! A processor may be writing to the page meanwhile, and then sets the dirty flag of its entry, by a locked operation
//! that looks whether the entry still allows the write. So if the page is clean and can be written, the entry is taken
//! by an exchange, and the flag is in what it returns; else a plain store does, for there is nothing to be lost. The
//! accessed flag is as it was when the entry was looked at: a guest that reads while its page goes away may have read
//! just before as well.

use frame_core::{
    FrameHal, FrameStack, FrameTree, PhysAddr, PhysFrame, TableMut, TableRef, TableStep, TableWalk, WordMut,
};

use super::entry::{EptLeaf, FULL, LARGE, NOTED, index, leaf_word, slot_mask};
use super::format::Format;
use super::lookup::{change_link, lowest, number, region, table_above};
use super::vacancy::{is_empty, used_entry};
use super::{Ept, EptAttributes, EptError, EptFlags, Invalidation};
use crate::GuestPhysAddr;

impl<H: FrameHal> Ept<H> {
    /// Takes one page out. `guest` is its start, whatever its size. Returns the page as it was, its dirty flag included,
    /// and the INVEPT that is owed.
    ///
    /// # Errors
    /// Nothing is mapped there, or a page that starts elsewhere.
    #[inline]
    pub fn unmap(&mut self, guest: GuestPhysAddr) -> Result<(EptLeaf, Invalidation<H>), EptError> {
        let address = guest.as_u64();
        let (format, witnesses) = (&self.format, &self.witnesses);
        let is_known = |level, link, table: TableRef<'_, H>| {
            (level > 1 || link & FULL == 0) && witnesses.knows(format, table, address, level)
        };
        let taken = if self.tree.label() == number(address, 2) {
            take_below::<true, H>(self.tree.walk_from_mark(), 0, format, address, is_known)
        } else {
            take_page::<true, H>(&mut self.tree, format, address, is_known)
        };
        match taken {
            Some((leaf, None)) => Ok((leaf, self.owed(true, FrameStack::new()))),
            Some((leaf, Some(level))) => Ok((leaf, self.tidy(address, level))),
            None => Err(self.no_page(guest)),
        }
    }

    /// What is owed after a page was taken out of the table of this level, if it may be empty now, or be marked as full.
    #[cold]
    #[inline(never)]
    fn tidy(&mut self, address: u64, level: u32) -> Invalidation<H> {
        if level == 1 {
            change_link(&mut self.tree, &self.format, address, level, FULL, 0);
        }
        let (table, _) = lowest(&mut self.tree, &self.format, address);
        let retired = match used_entry(&self.format, table.words(), index(address, level)) {
            Some(i) => {
                self.witnesses.remember(address, level, i);
                FrameStack::new()
            }
            None => self.prune(address),
        };
        self.owed(true, retired)
    }

    /// Why there is no page that starts at an address.
    #[cold]
    #[inline(never)]
    pub(super) fn no_page(&self, guest: GuestPhysAddr) -> EptError {
        self.leaf_at(guest).err().unwrap_or(EptError::NotMapped { guest })
    }

    /// Takes the table of this level for an address out, if it is empty; if not, it is no longer noted.
    pub(super) fn take_empty(&mut self, level: u32, address: u64) -> Option<PhysFrame<H>> {
        let (mut above, i) =
            (table_above(&mut self.tree, &self.format, address, level)?, index(address, level + 1));
        if !is_empty(&self.format, above.child(i)?.words()) {
            above.words().clear_bits(i, NOTED);
            return None;
        }
        let table = above.unlink(i, self.format.vacant.get())?;
        self.tables -= 1;
        Some(table.into_frame())
    }

    /// Takes the tables out on the way to an address that map nothing any more.
    #[cold]
    #[inline(never)]
    pub(super) fn prune(&mut self, address: u64) -> FrameStack<H> {
        let mut retired = FrameStack::new();
        let level = self.levels();
        prune(&self.format, self.tree.words_mut(), level, address, &mut retired);
        self.tables -= retired.len();
        retired
    }

    /// Points one page, which starts at `guest`, at other host memory, with these attributes, in one store: a guest
    /// never sees it unmapped. Accessed and dirty flags start clear.
    ///
    /// # Errors
    /// No page starts there, the host address is misaligned to its size or too wide, or the attributes are not supported.
    pub fn remap(
        &mut self,
        guest: GuestPhysAddr,
        host: PhysAddr,
        attributes: EptAttributes,
    ) -> Result<(EptLeaf, Invalidation<H>), EptError> {
        let bits = attributes.encode(&self.config)?;
        let leaf = self.leaf_at(guest)?;
        let host = self.config.check_host(host, leaf.size().bytes(), leaf.size())?;
        let (mut table, level) = lowest(&mut self.tree, &self.format, guest.as_u64());
        let word = leaf_word(bits, host, level);
        let old = table.swap(index(guest.as_u64(), level), word);
        let old = old.map_err(|_| EptError::NotMapped { guest })?;
        let old = EptLeaf::new(guest.as_u64(), level, old).unwrap_or(leaf);
        Ok((old, self.owed(true, FrameStack::new())))
    }

    /// The page that starts at an address.
    fn leaf_at(&self, guest: GuestPhysAddr) -> Result<EptLeaf, EptError> {
        let width = self.config.guest_width();
        if guest.as_u64() >> width != 0 {
            return Err(EptError::GuestTooWide { guest, width });
        }
        let leaf = self.query(guest).ok_or(EptError::NotMapped { guest })?;
        if leaf.guest() != guest {
            return Err(EptError::GuestMisaligned { guest, size: leaf.size() });
        }
        Ok(leaf)
    }
}

/// Takes the page that starts at an address out of its table. Returns it, and the level of the table, if somebody has to
/// look whether it is empty now: not if it is known to be no concern, as `is_known` says, of its level, the word that owns
/// it (0 at level 3), and its words. If `EXACT`, the dirty flag is that of a write at this very moment.
#[inline(always)]
pub(super) fn take_page<const EXACT: bool, H: FrameHal>(
    tree: &mut FrameTree<H>,
    format: &Format,
    address: u64,
    is_known: impl Fn(u32, u64, TableRef<'_, H>) -> bool,
) -> Option<(EptLeaf, Option<u32>)> {
    let mut walk = region(tree, format, address)?;
    match walk.step(index(address, 3)) {
        TableStep::Table(link) => take_below::<EXACT, H>(walk, link, format, address, is_known),
        TableStep::Word(entry) => {
            let table = entry.table();
            Some((take_leaf::<3, EXACT, H>(format, entry, address)?, (!is_known(3, 0, table)).then_some(3)))
        }
    }
}

/// As [`take_page`], by a walk that has come to a table of level 2, which is owned by the word `link`: 0 where `is_known` has
/// no use for that.
#[inline(always)]
fn take_below<const EXACT: bool, H: FrameHal>(
    mut walk: TableWalk<'_, H>,
    link: u64,
    format: &Format,
    address: u64,
    is_known: impl Fn(u32, u64, TableRef<'_, H>) -> bool,
) -> Option<(EptLeaf, Option<u32>)> {
    match walk.step(index(address, 2)) {
        TableStep::Table(link) => {
            let entry = walk.word_mut(index(address, 1));
            let table = entry.table();
            Some((
                take_leaf::<1, EXACT, H>(format, entry, address)?,
                (!is_known(1, link, table)).then_some(1),
            ))
        }
        TableStep::Word(entry) => {
            let table = entry.table();
            Some((
                take_leaf::<2, EXACT, H>(format, entry, address)?,
                (!is_known(2, link, table)).then_some(2),
            ))
        }
    }
}

/// Takes the page of this level that starts at an address out of its entry.
#[inline(always)]
fn take_leaf<const LEVEL: u32, const EXACT: bool, H: FrameHal>(
    format: &Format,
    entry: WordMut<'_, H>,
    address: u64,
) -> Option<EptLeaf> {
    let word = entry.word();
    if word & EptFlags::READ.bits() == 0 && !is_rare_leaf(format, word) {
        return None;
    }
    if address as u32 & slot_mask(LEVEL) as u32 != 0 || LEVEL > 1 && word & LARGE == 0 {
        return None;
    }
    let word = if EXACT && format.may_get_dirty(word) {
        entry.swap(format.vacant).ok()?
    } else {
        entry.set(format.vacant).ok()?;
        word
    };
    EptLeaf::new(address, LEVEL, word)
}

/// Whether a word that does not allow reads is present all the same.
#[cold]
#[inline(never)]
fn is_rare_leaf(format: &Format, word: u64) -> bool {
    format.is_present(word)
}

/// Unlinks the tables on the way to an address that map nothing, the lowest first.
fn prune<H: FrameHal>(
    format: &Format,
    mut table: TableMut<'_, H>,
    level: u32,
    address: u64,
    retired: &mut FrameStack<H>,
) {
    let i = index(address, level);
    let Some(mut child) = table.child(i) else { return };
    prune(format, child.reborrow(), level - 1, address, retired);
    if is_empty(format, child.words()) {
        if let Some(child) = table.unlink(i, format.vacant.get()) {
            retired.push(child.into_frame());
        }
    }
}
