//! Looking up: which page holds an address, and the way there.
//!
//! These are the paths that an exit handler takes for each access that it emulates, so they are written out level by
//! level: the index of each is a constant shift, and an entry is told by one or two masks ([`Format`]).
//!
//! Addresses that 4 levels translate are *near*, those of trees with 5 levels are *far*: one comparison tells whether
//! the short way is right, and that the address is not too wide.
//!
//! Whoever changes a page leaves bookmarks ([`FrameTree`]) in the tables of levels 3 and 2, as processors have caches of
//! entries on the way: the next change in the same 512 GiB, or the same gibibyte, need not walk to there. Their labels are
//! the [`number`]s of these parts.
//!
//! Where no entry was edited, one that is present and owns no table maps a page, of a memory type that there is: nothing
//! else needs to be asked.

use frame_core::{FrameHal, FrameTree, PhysAddr, TableEntry, TableMut, TableRef, TableWalk};

use super::entry::{ADDRESS, index, shift};
use super::format::Format;
use super::walk::needed;
use super::{Ept, EptAccess, EptConfig, EptFlags, EptLeaf, EptMemoryType, EptTranslation};
use crate::{GuestPhysAddr, PageSize};

impl<H: FrameHal> Ept<H> {
    /// The page that holds this address; `None` when nothing is mapped there.
    #[inline]
    pub fn query(&self, guest: GuestPhysAddr) -> Option<EptLeaf> {
        let address = guest.as_u64();
        if address < self.plain {
            if let Some(leaf) = below_4(self.tree.words(), address, &readable(address)) {
                return Some(leaf);
            }
        }
        self.query_closely(address)
    }

    /// As [`query`](Self::query), whatever is there: pages that cannot be read, edited entries, 5 levels.
    #[cold]
    #[inline(never)]
    fn query_closely(&self, address: u64) -> Option<EptLeaf> {
        let format = &self.format;
        let mut table = self.tree.words();
        if address >= format.near {
            table = table.child(format.far_index(address)?)?;
        }
        below_4(table, address, &|word, size| format.leaf(address, size, word))
    }

    /// The translation, if all is as it mostly is: no entry was edited, so those on the way allow everything, and a leaf
    /// that can be read allows the access.
    #[inline(always)]
    pub(super) fn translate_fast(&self, address: u64, access: EptAccess) -> Option<EptTranslation> {
        let format = &self.format;
        let mut table = self.tree.words();
        if address >= self.plain {
            if self.edited {
                return None;
            }
            table = table.child(format.far_index(address)?)?;
        }
        let required = required(&self.config, access);
        below_4(table, address, &|word, size| translation(address, word, size, required))
    }

    /// The lowest table that holds all of `first..=last`, and its level.
    #[inline]
    pub(super) fn lowest_of(&mut self, first: u64, last: u64) -> (TableMut<'_, H>, u32) {
        let mut level = self.levels();
        let mut table = self.tree.words_mut();
        while level > 1 && index(first, level) == index(last, level) {
            match table.into_child(index(first, level)) {
                Ok(child) => table = child,
                Err(table) => return (table, level),
            }
            level -= 1;
        }
        (table, level)
    }
}

/// Goes down from a table of level 4 to the entry for an address that owns no table: `leaf` gets its word, and the size of
/// what it maps, if it maps something. Where no entry was edited, it does if it is present.
#[inline(always)]
pub(super) fn below_4<T, H: FrameHal>(
    table: TableRef<'_, H>,
    address: u64,
    leaf: &impl Fn(u64, PageSize) -> Option<T>,
) -> Option<T> {
    let table = table.child(index(address, 4))?;
    below_3(table.entry(index(address, 3)), address, leaf)
}

/// As [`below_4`], from an entry of level 3.
#[inline(always)]
pub(super) fn below_3<T, H: FrameHal>(
    entry: TableEntry<'_, H>,
    address: u64,
    leaf: &impl Fn(u64, PageSize) -> Option<T>,
) -> Option<T> {
    match entry.child() {
        Some(table) => below_2(table, address, leaf),
        None => leaf(entry.word(), PageSize::Size1G),
    }
}

/// As [`below_4`], from a table of level 2.
#[inline(always)]
pub(super) fn below_2<T, H: FrameHal>(
    table: TableRef<'_, H>,
    address: u64,
    leaf: &impl Fn(u64, PageSize) -> Option<T>,
) -> Option<T> {
    let entry = table.entry(index(address, 2));
    match entry.child() {
        Some(table) => leaf(table.word(index(address, 1)), PageSize::Size4K),
        None => leaf(entry.word(), PageSize::Size2M),
    }
}

/// The page that a word from [`below_4`] maps, if it can be read, as most can.
#[inline(always)]
pub(super) fn readable(address: u64) -> impl Fn(u64, PageSize) -> Option<EptLeaf> {
    move |word, size| {
        if word & EptFlags::READ.bits() != 0 { Some(EptLeaf::of(address, size, word)) } else { None }
    }
}

/// What a leaf must allow for an access to go the short way.
#[inline(always)]
pub(super) fn required(config: &EptConfig, access: EptAccess) -> u64 {
    (needed(config, access) | EptFlags::READ).bits()
}

/// What a word from [`below_4`] makes of an address, if it allows what is required.
#[inline(always)]
pub(super) fn translation(address: u64, word: u64, size: PageSize, required: u64) -> Option<EptTranslation> {
    if word & required != required {
        return None;
    }
    Some(EptTranslation {
        host: PhysAddr::from((word & ADDRESS | address & (size.bytes() - 1)) as usize),
        size,
        flags: EptFlags::from_bits_truncate(word),
        memory_type: EptMemoryType::in_leaf(word),
    })
}

/// The number of the table of this level that serves an address: the label of its bookmark.
#[inline(always)]
pub(super) const fn number(address: u64, level: u32) -> u64 {
    address >> shift(level + 1)
}

/// Goes to the base for an address, the table of level 3; none if it is not there, or the address is too wide.
#[inline(always)]
pub(super) fn region<'a, H: FrameHal>(
    tree: &'a mut FrameTree<H>,
    format: &Format,
    address: u64,
) -> Option<TableWalk<'a, H>> {
    if tree.base_label() == number(address, 3) || base_elsewhere(tree, format, address) {
        Some(tree.walk_from_base())
    } else {
        None
    }
}

/// Makes the table of level 3 for an address the base. Returns whether it is there.
#[cold]
#[inline(never)]
fn base_elsewhere<H: FrameHal>(tree: &mut FrameTree<H>, format: &Format, address: u64) -> bool {
    let mut walk = tree.walk();
    let near = address < format.near || format.far_index(address).is_some_and(|i| walk.down(i));
    let found = near && walk.down(index(address, 4));
    if found {
        walk.base(number(address, 3));
    }
    found
}

/// The table of level 2 for an address, or else that of level 3, and its level: 4 for an address that has neither, or is
/// too wide. The table is then marked.
#[inline(always)]
fn directory<'a, H: FrameHal>(
    tree: &'a mut FrameTree<H>,
    format: &Format,
    address: u64,
) -> Result<TableMut<'a, H>, (TableMut<'a, H>, u32)> {
    if tree.label() == number(address, 2) {
        return Ok(tree.marked_mut());
    }
    if tree.base_label() != number(address, 3) && !base_elsewhere(tree, format, address) {
        return Err((tree.words_mut(), 4));
    }
    let mut walk = tree.walk_from_base();
    if walk.down(index(address, 3)) {
        Ok(walk.mark(number(address, 2)))
    } else {
        Err((walk.mark(FrameTree::<H>::UNMARKED), 3))
    }
}

/// The lowest table that holds an address, and its level; 4 for one above level 3, or an address that is too wide.
#[inline(always)]
pub(super) fn lowest<'a, H: FrameHal>(
    tree: &'a mut FrameTree<H>,
    format: &Format,
    address: u64,
) -> (TableMut<'a, H>, u32) {
    match directory(tree, format, address) {
        Ok(table) => match table.into_child(index(address, 2)) {
            Ok(table) => (table, 1),
            Err(table) => (table, 2),
        },
        Err(above) => above,
    }
}

/// The table of this level (1, 2 or 3) that holds an address that is not too wide, if there is one.
#[inline(always)]
pub(super) fn table_at<'a, const LEVEL: u32, H: FrameHal>(
    tree: &'a mut FrameTree<H>,
    format: &Format,
    address: u64,
) -> Option<TableMut<'a, H>> {
    if LEVEL < 3 {
        let table = directory(tree, format, address).ok()?;
        return if LEVEL == 2 { Some(table) } else { table.into_child(index(address, 2)).ok() };
    }
    Some(region(tree, format, address)?.mark(FrameTree::<H>::UNMARKED))
}

/// The table above the one of this level (1, 2 or 3) for an address, if it is there.
pub(super) fn table_above<'a, H: FrameHal>(
    tree: &'a mut FrameTree<H>,
    format: &Format,
    address: u64,
    level: u32,
) -> Option<TableMut<'a, H>> {
    match level {
        1 => table_at::<2, H>(tree, format, address),
        2 => table_at::<3, H>(tree, format, address),
        _ if address < format.near => Some(tree.words_mut()),
        _ => tree.words_mut().into_child(format.far_index(address)?).ok(),
    }
}

/// Clears marks in the word that owns the table of this level for an address, if there is one, and sets others.
pub(super) fn change_link<H: FrameHal>(
    tree: &mut FrameTree<H>,
    format: &Format,
    address: u64,
    level: u32,
    clear: u64,
    set: u64,
) {
    let Some(table) = table_above(tree, format, address, level) else { return };
    let i = index(address, level + 1);
    let link = table.word(i);
    if !TableRef::<H>::is_link(link) {
        return;
    }
    if link & clear != 0 {
        table.words().clear_bits(i, clear);
    }
    if set & !link != 0 {
        table.words().set_bits(i, set);
    }
}
