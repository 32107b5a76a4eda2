//! Looking up: which page holds an address, and the way there.
//!
//! These are the paths that an exit handler takes for each access that it emulates, so they are written out level by
//! level: the index of each is a constant shift, and an entry is told by one or two masks ([`Format`](super::format)).

use frame_core::{FrameHal, PhysAddr, TableMut};

use super::entry::{ADDRESS, index, slot_mask};
use super::walk::needed;
use super::{Ept, EptAccess, EptLeaf, EptMemoryType, EptTranslation};
use crate::{GuestPhysAddr, PageSize};

impl<H: FrameHal> Ept<H> {
    /// The page that holds this address; `None` when nothing is mapped there.
    #[inline]
    pub fn query(&self, guest: GuestPhysAddr) -> Option<EptLeaf> {
        let (address, format) = (guest.as_u64(), &self.format);
        if address & format.beyond != 0 {
            return None;
        }
        let mut table = self.root.words();
        if format.five {
            table = table.child(index(address, 5))?;
        }
        table = table.child(index(address, 4))?;
        let (word, child) = table.follow(index(address, 3));
        let Some(table) = child else { return format.leaf(address, 3, word) };
        let (word, child) = table.follow(index(address, 2));
        let Some(table) = child else { return format.leaf(address, 2, word) };
        format.leaf(address, 1, table.word(index(address, 1)))
    }

    /// The translation, if all is as it mostly is: entries that allow everything lead to a leaf that can be read and
    /// allows the access.
    #[inline]
    pub(super) fn translate_fast(&self, address: u64, access: EptAccess) -> Option<EptTranslation> {
        if address & self.format.beyond != 0 {
            return None;
        }
        let mut table = self.root.words();
        // The bits that all entries on the way have, and those that any has.
        let (mut all, mut any) = (u64::MAX, 0);
        if self.format.five {
            let (word, child) = table.follow(index(address, 5));
            table = child?;
            (all, any) = (word, word);
        }
        let (word, table) = table.follow(index(address, 4));
        let table = table?;
        (all, any) = (all & word, any | word);
        let (word, child) = table.follow(index(address, 3));
        let Some(table) = child else {
            return self.translate_leaf::<3>(address, PageSize::Size1G, word, access, all, any);
        };
        (all, any) = (all & word, any | word);
        let (word, child) = table.follow(index(address, 2));
        let Some(table) = child else {
            return self.translate_leaf::<2>(address, PageSize::Size2M, word, access, all, any);
        };
        (all, any) = (all & word, any | word);
        let word = table.word(index(address, 1));
        self.translate_leaf::<1>(address, PageSize::Size4K, word, access, all, any)
    }

    #[inline(always)]
    fn translate_leaf<const LEVEL: u32>(
        &self,
        address: u64,
        size: PageSize,
        word: u64,
        access: EptAccess,
        all: u64,
        any: u64,
    ) -> Option<EptTranslation> {
        let flags = self.format.plain_leaf(word, LEVEL)?;
        if !self.format.are_open(all, any) || !flags.contains(needed(&self.config, access)) {
            return None;
        }
        Some(EptTranslation {
            host: PhysAddr::from((word & ADDRESS | address & slot_mask(LEVEL)) as usize),
            size,
            flags,
            memory_type: EptMemoryType::from_number((word >> 3 & 7) as u8)?,
        })
    }

    /// The table of this level (1, 2 or 3) that holds an address, if there is one.
    #[inline]
    pub(super) fn table_at(&mut self, address: u64, level: u32) -> Option<TableMut<'_, H>> {
        let five = self.format.five;
        let mut table = self.root.words_mut();
        if five {
            table = table.into_child(index(address, 5)).ok()?;
        }
        table = table.into_child(index(address, 4)).ok()?;
        if level == 3 {
            return Some(table);
        }
        table = table.into_child(index(address, 3)).ok()?;
        if level == 2 {
            return Some(table);
        }
        table.into_child(index(address, 2)).ok()
    }

    /// The lowest table that holds an address, and its level.
    #[inline(always)]
    pub(super) fn lowest_at(&mut self, address: u64) -> (TableMut<'_, H>, u32) {
        let five = self.format.five;
        let mut table = self.root.words_mut();
        if five {
            table = match table.into_child(index(address, 5)) {
                Ok(child) => child,
                Err(table) => return (table, 5),
            };
        }
        table = match table.into_child(index(address, 4)) {
            Ok(child) => child,
            Err(table) => return (table, 4),
        };
        table = match table.into_child(index(address, 3)) {
            Ok(child) => child,
            Err(table) => return (table, 3),
        };
        match table.into_child(index(address, 2)) {
            Ok(child) => (child, 1),
            Err(table) => (table, 2),
        }
    }

    /// The lowest table that holds all of `first..=last`, and its level.
    #[inline]
    pub(super) fn lowest(&mut self, first: u64, last: u64) -> (TableMut<'_, H>, u32) {
        let mut level = self.levels();
        let mut table = self.root.words_mut();
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
