//! Looking up: which page holds an address, and the way there.
//!
//! These are the paths that an exit handler takes for each access that it emulates, so they are written out level by
//! level: the index of each is a constant shift, and an entry is told by one or two masks ([`Format`]).
//!
//! Addresses that 4 levels translate are *near*, those of trees with 5 levels are *far*: one comparison tells whether
//! the short way is right, and that the address is not too wide.
//!
//! Whoever changes a page leaves a bookmark in its table ([`FrameTree`]), as processors have a cache of entries on the
//! way: the next change in the same table need not walk. Its label is the first address that the table serves, and in
//! the low bits the level.

use frame_core::{FrameHal, FrameTree, PhysAddr, TableMut, TableRef};

use super::entry::{ADDRESS, LARGE, index, slot_mask};
use super::format::Format;
use super::walk::needed;
use super::{Ept, EptAccess, EptFlags, EptLeaf, EptMemoryType, EptTranslation};
use crate::{GuestPhysAddr, PageSize};

impl<H: FrameHal> Ept<H> {
    /// The page that holds this address; `None` when nothing is mapped there.
    #[inline]
    pub fn query(&self, guest: GuestPhysAddr) -> Option<EptLeaf> {
        let address = guest.as_u64();
        if address < self.format.near {
            query(&self.format, self.tree.words(), address)
        } else {
            self.query_far(address)
        }
    }

    #[cold]
    #[inline(never)]
    fn query_far(&self, address: u64) -> Option<EptLeaf> {
        query(&self.format, self.far(address)?, address)
    }

    /// The translation, if all is as it mostly is: no entry was edited, so those on the way allow everything, and a leaf
    /// that can be read allows the access.
    #[inline]
    pub(super) fn translate_fast(&self, address: u64, access: EptAccess) -> Option<EptTranslation> {
        if address < self.plain {
            translate(self.tree.words(), address, needed(&self.config, access))
        } else {
            None
        }
    }

    /// As [`translate_fast`](Self::translate_fast), with 5 levels.
    pub(super) fn translate_far(&self, address: u64, access: EptAccess) -> Option<EptTranslation> {
        if self.edited {
            return None;
        }
        translate(self.far(address)?, address, needed(&self.config, access))
    }

    /// The table of level 4 for an address, in a tree of 5 levels.
    fn far(&self, address: u64) -> Option<TableRef<'_, H>> {
        if !self.format.five || address & self.format.beyond != 0 {
            return None;
        }
        self.tree.words().child(index(address, 5))
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

/// The page that holds an address, from the table of level 4 on.
#[inline(always)]
fn query<H: FrameHal>(format: &Format, table: TableRef<'_, H>, address: u64) -> Option<EptLeaf> {
    let table = table.child(index(address, 4))?;
    let (word, child) = table.follow(index(address, 3));
    let Some(table) = child else { return format.leaf(address, 3, word) };
    let (word, child) = table.follow(index(address, 2));
    let Some(table) = child else { return format.leaf(address, 2, word) };
    format.leaf(address, 1, table.word(index(address, 1)))
}

/// What becomes of an access, from the table of level 4 on, if nothing but the leaf has a say.
#[inline(always)]
fn translate<H: FrameHal>(table: TableRef<'_, H>, address: u64, needed: EptFlags) -> Option<EptTranslation> {
    let table = table.child(index(address, 4))?;
    let (word, child) = table.follow(index(address, 3));
    let Some(table) = child else {
        return translation::<3>(address, word, PageSize::Size1G, needed);
    };
    let (word, child) = table.follow(index(address, 2));
    let Some(table) = child else {
        return translation::<2>(address, word, PageSize::Size2M, needed);
    };
    translation::<1>(address, table.word(index(address, 1)), PageSize::Size4K, needed)
}

#[inline(always)]
fn translation<const LEVEL: u32>(
    address: u64,
    word: u64,
    size: PageSize,
    needed: EptFlags,
) -> Option<EptTranslation> {
    let large = if LEVEL == 1 { 0 } else { LARGE };
    let required = needed.bits() | EptFlags::READ.bits() | large;
    if word & required != required {
        return None;
    }
    Some(EptTranslation {
        host: PhysAddr::from((word & ADDRESS | address & slot_mask(LEVEL)) as usize),
        size,
        flags: EptFlags::from_bits_truncate(word),
        memory_type: EptMemoryType::from_number((word >> 3 & 7) as u8)?,
    })
}

/// The label of the table of this level that serves an address.
#[inline(always)]
pub(super) const fn label(address: u64, level: u32) -> u64 {
    address & !slot_mask(level + 1) | level as u64
}

/// The lowest table that holds an address, which is then marked, and its level.
#[inline(always)]
pub(super) fn lowest<'a, H: FrameHal>(
    tree: &'a mut FrameTree<H>,
    format: &Format,
    address: u64,
) -> (TableMut<'a, H>, u32) {
    if tree.label() == label(address, 1) {
        return (tree.marked_mut(), 1);
    }
    if address >= format.near {
        return lowest_far(tree, address);
    }
    let mut walk = tree.walk();
    if !walk.down(index(address, 4)) {
        return (walk.mark(label(address, 4)), 4);
    }
    if !walk.down(index(address, 3)) {
        return (walk.mark(label(address, 3)), 3);
    }
    if !walk.down(index(address, 2)) {
        return (walk.mark(label(address, 2)), 2);
    }
    (walk.mark(label(address, 1)), 1)
}

/// As [`lowest`], with 5 levels.
#[cold]
#[inline(never)]
fn lowest_far<H: FrameHal>(tree: &mut FrameTree<H>, address: u64) -> (TableMut<'_, H>, u32) {
    let mut walk = tree.walk();
    let mut level = 5;
    while level > 1 && walk.down(index(address, level)) {
        level -= 1;
    }
    (walk.mark(label(address, level)), level)
}

/// The table of this level that holds an address, which is then marked, if there is one.
#[inline(always)]
pub(super) fn table_at<'a, const LEVEL: u32, H: FrameHal>(
    tree: &'a mut FrameTree<H>,
    format: &Format,
    address: u64,
) -> Option<TableMut<'a, H>> {
    if tree.label() == label(address, LEVEL) {
        return Some(tree.marked_mut());
    }
    let mut walk = tree.walk();
    let near = address < format.near;
    let found = (near || walk.down(index(address, 5)))
        && walk.down(index(address, 4))
        && (LEVEL == 3 || walk.down(index(address, 3)))
        && (LEVEL >= 2 || walk.down(index(address, 2)));
    if found { Some(walk.mark(label(address, LEVEL))) } else { None }
}
