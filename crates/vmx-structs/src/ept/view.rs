//! Looking up again and again in one part of the guest: a view.
//!
//! The tables at the top are the same for all of a guest's memory: below 512 GiB, one entry of level 4; for a small guest,
//! or a device, one of level 3 as well. A view walks to where they end once, and each lookup starts there. A part that
//! crosses one border of 512 GiB has two such places. It borrows the tables, so nothing changes under it but accessed and dirty flags.

use core::fmt;

use frame_core::{FrameHal, TableRef};

use super::entry::{index, shift, slot_mask};
use super::lookup::{below_2, below_3, readable, required, translation};
use super::{Ept, EptAccess, EptError, EptFault, EptLeaf, EptTranslation};
use crate::{GuestPhysAddr, GuestRange};

/// Lookups in a part of the guest: see [`Ept::view`].
pub struct EptView<'a, H: FrameHal> {
    ept: &'a Ept<H>,
    /// The table that all lookups in the part go through, of level 2 or 3; where the part crosses a border of 512 GiB,
    /// that of level 3 before it.
    table: TableRef<'a, H>,
    /// The table of level 3 behind the border, and the border.
    beyond: Option<(TableRef<'a, H>, u64)>,
    level: u32,
    first: u64,
    /// Bytes of the part; 0 where there is no such table, or where an entry was edited.
    bytes: u64,
}

impl<H: FrameHal> Ept<H> {
    /// A view of a part of the guest, in which lookups are faster: by one table where it crosses no more than one
    /// border of 512 GiB, by two where it does not cross one of 1 GiB. Addresses beyond are looked up as well, as without a view.
    ///
    /// ```
    /// # use frame_core::FrameHal;
    /// # use vmx_structs::*;
    /// fn writable<H: FrameHal>(ept: &Ept<H>, ram: GuestRange, pages: &[GuestPhysAddr]) -> Result<usize, EptError> {
    ///     let view = ept.view(ram)?;
    ///     Ok(pages.iter().filter(|&&page| view.translate(page, EptAccess::WRITE).is_ok()).count())
    /// }
    /// ```
    ///
    /// # Errors
    /// The range is too wide.
    pub fn view(&self, range: GuestRange) -> Result<EptView<'_, H>, EptError> {
        let (first, last) = self.config.span(range)?;
        let (mut table, mut level) = (self.tree.words(), self.levels());
        while level > 2 && index(first, level) == index(last, level) {
            let Some(child) = table.child(index(first, level)) else { break };
            table = child;
            level -= 1;
        }
        let mut beyond = None;
        if level > 3 && first >> shift(4) == (last >> shift(4)).wrapping_sub(1) {
            if let (Some(before), Some(behind)) = (self.region(first), self.region(last)) {
                (table, level, beyond) = (before, 3, Some((behind, last & !slot_mask(4))));
            }
        }
        let bytes = if level <= 3 && !self.edited { last - first + 1 } else { 0 };
        Ok(EptView { ept: self, table, beyond, level, first, bytes })
    }

    /// The table of level 3 for an address.
    fn region(&self, address: u64) -> Option<TableRef<'_, H>> {
        let mut table = self.tree.words();
        for level in (4..=self.levels()).rev() {
            table = table.child(index(address, level))?;
        }
        Some(table)
    }
}

impl<H: FrameHal> EptView<'_, H> {
    /// As [`Ept::query`].
    #[inline(always)]
    pub fn query(&self, guest: GuestPhysAddr) -> Option<EptLeaf> {
        let address = guest.as_u64();
        if self.holds(address) {
            if let Some(leaf) = self.descend(address, &readable(address)) {
                return Some(leaf);
            }
        }
        self.query_beyond(guest)
    }

    /// As [`Ept::translate`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn translate(&self, guest: GuestPhysAddr, access: EptAccess) -> Result<EptTranslation, EptFault> {
        let address = guest.as_u64();
        if self.holds(address) {
            let required = required(&self.ept.config, access);
            let seen = self.descend(address, &|word, level| translation(address, word, level, required));
            if let Some(translation) = seen {
                return Ok(translation);
            }
        }
        self.translate_beyond(guest, access)
    }

    #[cold]
    #[inline(never)]
    fn query_beyond(&self, guest: GuestPhysAddr) -> Option<EptLeaf> {
        self.ept.query(guest)
    }

    #[cold]
    #[inline(never)]
    fn translate_beyond(&self, guest: GuestPhysAddr, access: EptAccess) -> Result<EptTranslation, EptFault> {
        self.ept.translate(guest, access)
    }

    #[inline(always)]
    fn holds(&self, address: u64) -> bool {
        address.wrapping_sub(self.first) < self.bytes
    }

    #[inline(always)]
    fn descend<T>(&self, address: u64, leaf: &impl Fn(u64, u32) -> Option<T>) -> Option<T> {
        match self.beyond {
            Some((table, border)) => {
                below_3(if address < border { self.table } else { table }, address, leaf)
            }
            None if self.level == 2 => below_2(self.table, address, leaf),
            None => below_3(self.table, address, leaf),
        }
    }
}

impl<H: FrameHal> Clone for EptView<'_, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H: FrameHal> Copy for EptView<'_, H> {}

impl<H: FrameHal> fmt::Debug for EptView<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EptView")
            .field("ept", &self.ept.pointer())
            .field("level", &self.level)
            .field("first", &format_args!("{:#x}", self.first))
            .field("bytes", &self.bytes)
            .finish()
    }
}
