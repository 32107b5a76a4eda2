//! Looking up again and again in one part of the guest: a view.
//!
//! The tables at the top are the same for all of a guest's memory: below 512 GiB, one entry of level 4; for a small guest,
//! or a device, one of level 3 as well. A view walks to where they end once, and each lookup starts there. It borrows the
//! tables, so nothing changes under it but accessed and dirty flags.

use core::fmt;

use frame_core::{FrameHal, TableRef};

use super::entry::{index, slot_mask};
use super::lookup::{below_2, below_3, readable, required, translation};
use super::{Ept, EptAccess, EptError, EptFault, EptFlags, EptLeaf, EptTranslation};
use crate::{GuestPhysAddr, GuestRange, PageSize};

/// Lookups in a part of the guest: see [`Ept::view`].
pub struct EptView<'a, H: FrameHal> {
    ept: &'a Ept<H>,
    start: Start<'a, H>,
    first: u64,
    /// Bytes of what is looked up by the tables; 0 where they are not there, or where an entry was edited.
    bytes: u64,
}

/// Where lookups start.
enum Start<'a, H: FrameHal> {
    /// In a table of level 2.
    Directory(TableRef<'a, H>),
    /// In a table of level 3: one for addresses before the border, one for those behind it.
    Regions(TableRef<'a, H>, u64, TableRef<'a, H>),
}

impl<H: FrameHal> Ept<H> {
    /// A view of a part of the guest, in which lookups are faster: by one table, where that is there, in up to two regions of
    /// 512 GiB; by two where the part lies in one gibibyte that has a table. Other addresses are looked up as well, as
    /// without a view.
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
        let border = last & !slot_mask(4);
        let regions = if self.edited { (None, None) } else { (self.region(first), self.region(last)) };
        let view = |start, first, last| EptView { ept: self, start, first, bytes: last - first + 1 };
        let only = |table| Start::Regions(table, u64::MAX, table);
        Ok(match regions {
            (Some(table), _) if first >= border => {
                let directory = table.child(index(first, 3)).filter(|_| index(first, 3) == index(last, 3));
                view(directory.map_or(only(table), Start::Directory), first, last)
            }
            (Some(before), Some(behind)) if border - first <= slot_mask(4) + 1 => {
                view(Start::Regions(before, border, behind), first, last)
            }
            // Of more, or where only one is there: the first part, or the last.
            (Some(before), _) => view(only(before), first, first | slot_mask(4)),
            (None, Some(behind)) => view(only(behind), border, last),
            (None, None) => EptView { bytes: 0, ..view(only(self.tree.words()), first, last) },
        })
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
        match self.descend(address, &readable(address)) {
            None => query_beyond(self.ept, guest),
            leaf => leaf,
        }
    }

    /// As [`Ept::translate`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn translate(&self, guest: GuestPhysAddr, access: EptAccess) -> Result<EptTranslation, EptFault> {
        let address = guest.as_u64();
        let required = required(&self.ept.config, access);
        match self.descend(address, &|word, size| translation(address, word, size, required)) {
            None => translate_beyond(self.ept, guest, access),
            Some(translation) => Ok(translation),
        }
    }

    /// Goes down to the word that maps the page of an address, from where lookups start, if they do for this one.
    #[inline(always)]
    fn descend<T>(&self, address: u64, leaf: &impl Fn(u64, PageSize) -> Option<T>) -> Option<T> {
        if address.wrapping_sub(self.first) >= self.bytes {
            return None;
        }
        match self.start {
            Start::Directory(table) => below_2(table, address, leaf),
            Start::Regions(before, border, behind) => {
                let entry = if address < border { before } else { behind }.entry(index(address, 3));
                // What is to be looked up mostly is there, and can be read: this is where it is known first.
                if entry.word() & EptFlags::READ.bits() == 0 {
                    return None;
                }
                below_3(entry, address, leaf)
            }
        }
    }
}

// These take no view, so that it may lie in registers.

#[cold]
#[inline(never)]
fn query_beyond<H: FrameHal>(ept: &Ept<H>, guest: GuestPhysAddr) -> Option<EptLeaf> {
    ept.query(guest)
}

#[cold]
#[inline(never)]
fn translate_beyond<H: FrameHal>(
    ept: &Ept<H>,
    guest: GuestPhysAddr,
    access: EptAccess,
) -> Result<EptTranslation, EptFault> {
    ept.translate(guest, access)
}

impl<H: FrameHal> Clone for EptView<'_, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H: FrameHal> Copy for EptView<'_, H> {}

impl<H: FrameHal> Clone for Start<'_, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H: FrameHal> Copy for Start<'_, H> {}

impl<H: FrameHal> fmt::Debug for EptView<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EptView")
            .field("ept", &self.ept.pointer())
            .field("first", &format_args!("{:#x}", self.first))
            .field("bytes", &self.bytes)
            .finish()
    }
}
