//! One page at a time: unmap, remap.
//!
//! Both find the lowest table that holds the address, mostly by its bookmark, and change one entry of it.
//!
//! A processor may be writing to the page meanwhile, and then sets the dirty flag of its entry, by a locked operation
//! that looks whether the entry still allows the write. So if the page is clean and can be written, the entry is taken
//! by an exchange, and the flag is in what it returns; else a plain store does, for there is nothing to be lost. The
//! accessed flag is as it was when the entry was looked at: a guest that reads while its page goes away may have read
//! just before as well.

use frame_core::{FrameHal, FrameStack, FrameTree, PhysAddr, TableMut};

use super::entry::{EptLeaf, index, leaf_word, slot_mask};
use super::format::Format;
use super::lookup::{lowest, no_longer_full};
use super::{Ept, EptAttributes, EptError, Invalidation, is_empty};
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
        no_longer_full(&mut self.tree, &self.format, address);
        let Some((leaf, table)) = take_page(&mut self.tree, &self.format, address) else {
            return Err(self.no_page(guest));
        };
        let is_last = is_empty(&self.format, table.words(), leaf.index());
        let retired = if is_last { self.prune(address) } else { FrameStack::new() };
        Ok((leaf, self.owed(true, retired)))
    }

    /// Why there is no page that starts at an address.
    #[cold]
    #[inline(never)]
    pub(super) fn no_page(&self, guest: GuestPhysAddr) -> EptError {
        self.leaf_at(guest).err().unwrap_or(EptError::NotMapped { guest })
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

/// Takes the page that starts at an address out of its table, and gives both.
#[inline(always)]
pub(super) fn take_page<'a, H: FrameHal>(
    tree: &'a mut FrameTree<H>,
    format: &Format,
    address: u64,
) -> Option<(EptLeaf, TableMut<'a, H>)> {
    let (table, level) = lowest(tree, format, address);
    match level {
        1 => take_leaf::<1, H>(format, table, address),
        2 => take_leaf::<2, H>(format, table, address),
        3 => take_leaf::<3, H>(format, table, address),
        _ => None,
    }
}

/// Takes the page of this level that starts at an address out of its table.
#[inline(always)]
pub(super) fn take_leaf<'a, const LEVEL: u32, H: FrameHal>(
    format: &Format,
    mut table: TableMut<'a, H>,
    address: u64,
) -> Option<(EptLeaf, TableMut<'a, H>)> {
    let slot = table.plain(index(address, LEVEL))?;
    let word = slot.word();
    let large = leaf_word(0, 0, LEVEL);
    if !format.is_present(word) || word & large != large || address & slot_mask(LEVEL) != 0 {
        return None;
    }
    let word = if format.may_get_dirty(word) {
        slot.swap(format.vacant).ok()?
    } else {
        slot.set(format.vacant).ok()?;
        word
    };
    Some((EptLeaf::new(address, LEVEL, word)?, table))
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
    if is_empty(format, child.words(), index(address, level - 1)) {
        if let Some(child) = table.unlink(i, format.vacant) {
            retired.push(child.into_frame());
        }
    }
}
