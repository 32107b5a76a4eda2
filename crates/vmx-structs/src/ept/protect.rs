//! Other attributes for pages that stay where they are.
//!
//! What a leaf allows, its memory type and its size lie in the low byte of the entry; what processors set, the accessed
//! and dirty flags, does not. So most changes of attributes are stores of bytes, and no flag is lost. Only where bits
//! above the flags change as well (mode-based execute, suppress-#VE and their like) an entry is exchanged as a whole.
//!
//! A run of leaves in one table, and most ranges are such runs, is looked at and written as one: its entries combined by
//! AND and by OR tell whether all of them map pages, which of them change more than the low byte, and whether one of
//! them allowed more than it will.

use core::ops::Range;

use frame_core::{FrameHal, FrameStack, TableMut, TableRef};

use super::change::{Change, Changer, Plan};
use super::entry::{ACCESSED, ADDRESS, DIRTY, index, leaf_word, shift};
use super::format::Format;
use super::lookup::table_at;
use super::{Ept, EptAttributes, EptError, EptFlags, Invalidation};
use crate::{GuestPhysAddr, GuestRange};

/// Bits of a leaf that lie in its low byte.
const LOW: u64 = 0xff;

impl<H: FrameHal> Ept<H> {
    /// Gives all pages of a range these attributes. Large pages are cut as in [`unmap_range`](Self::unmap_range).
    /// Accessed and dirty flags stay.
    ///
    /// # Errors
    /// The attributes are not supported, the range is too wide or has a gap, or there is no frame for a table.
    #[inline(always)]
    pub fn protect(
        &mut self,
        range: GuestRange,
        attributes: EptAttributes,
    ) -> Result<Invalidation<H>, EptError> {
        let needed = match self.protect_page(range, attributes) {
            Some((old, new)) => restricts(old, new),
            None => self.protect_closely(range, attributes)?,
        };
        Ok(self.owed(needed, FrameStack::new()))
    }

    /// If the range is one page of 4 KiB, and nothing is wrong: returns its entry as it was and as it is.
    #[inline(always)]
    pub(super) fn protect_page(
        &mut self,
        range: GuestRange,
        attributes: EptAttributes,
    ) -> Option<(u64, u64)> {
        let (address, format) = (range.start().as_u64(), &self.format);
        if range.count() != 1 {
            return None;
        }
        let bits = format.encode(attributes)?;
        let mut table = table_at::<1, H>(&mut self.tree, format, address)?;
        let i = index(address, 1);
        let word = table.word(i);
        if format.is_present(word) {
            Some(reprotect_word(format, &mut table, i, 1, word, bits))
        } else {
            None
        }
    }

    /// As `protect`, whatever is there and whatever is wrong. Returns whether an INVEPT is owed.
    #[cold]
    #[inline(never)]
    pub(super) fn protect_closely(
        &mut self,
        range: GuestRange,
        attributes: EptAttributes,
    ) -> Result<bool, EptError> {
        let bits = attributes.encode(&self.config)?;
        let (first, last) = self.config.span(range)?;
        let (config, format, change) = (self.config, self.format, Change::Protect(bits));
        // No table goes, so what lies above the lowest that holds the range need not be looked at.
        let (mut table, level) = self.lowest_of(first, last);
        let needed =
            Plan { config: &config, format: &format, change }.count(table.words(), level, first, last)?;
        let mut changer = Changer::new(&config, &format, change, FrameStack::alloc(needed)?);
        changer.apply(table.reborrow(), level, first, last)?;
        Ok(self.count_in(changer, needed).0)
    }
}

/// Gives a leaf other attributes. What the processor sets meanwhile is kept. Returns whether an INVEPT is owed.
#[inline]
pub(super) fn reprotect<H: FrameHal>(
    format: &Format,
    table: &mut TableMut<'_, H>,
    i: usize,
    level: u32,
    bits: u64,
) -> bool {
    let word = table.word(i);
    let (old, new) = reprotect_word(format, table, i, level, word, bits);
    restricts(old, new)
}

/// As `reprotect`, of a leaf that was read as `word`. Returns it as it was and as it is.
#[inline(always)]
fn reprotect_word<H: FrameHal>(
    format: &Format,
    table: &mut TableMut<'_, H>,
    i: usize,
    level: u32,
    word: u64,
    bits: u64,
) -> (u64, u64) {
    let new = leaf_word(bits, word & ADDRESS, level) | word & (ACCESSED | DIRTY);
    let old = if (word ^ new) & !LOW == 0 {
        table.set_low_bytes(i..i + 1, new as u8);
        word
    } else {
        reprotect_high(format, table, i, word, new)
    };
    (old, new)
}

/// Where more than the low byte changes. Returns the word as it was.
#[cold]
#[inline(never)]
fn reprotect_high<H: FrameHal>(
    format: &Format,
    table: &mut TableMut<'_, H>,
    i: usize,
    word: u64,
    new: u64,
) -> u64 {
    let old = if format.may_change(word) {
        let old = table.swap(i, new);
        let late = old.map_or(0, |old| old & !new & (ACCESSED | DIRTY));
        if late != 0 {
            table.words().set_bits(i, late);
        }
        old
    } else {
        table.set(i, new).map(|()| word)
    };
    // An owner is no leaf, so this is not refused.
    old.unwrap_or(new)
}

/// Whether a processor that goes on using the old entry does what the new one does not say.
#[inline]
pub(super) const fn restricts(old: u64, new: u64) -> bool {
    let access = EptFlags::RWX.bits();
    let same_page = (old ^ new) & !(access | ACCESSED | DIRTY) == 0;
    let allows_more_only = old & !new & access == 0;
    !(same_page && allows_more_only)
}

/// Whether all entries of a part of a table map pages that can be read. `false` says nothing.
#[inline]
pub(super) fn are_leaves<H: FrameHal>(table: TableRef<'_, H>, part: Range<usize>, level: u32) -> bool {
    level <= 3 && all_leaves::<H>(table.gather(part), level)
}

#[inline]
const fn all_leaves<H: FrameHal>((all, any): (u64, u64), level: u32) -> bool {
    let leaf = leaf_word(EptFlags::READ.bits(), 0, level);
    all & leaf == leaf && !TableRef::<H>::is_owner(any)
}

/// Gives a part of a table other attributes, if it is a run of leaves and no more than their low bytes change. Returns
/// whether an INVEPT is owed.
#[inline]
pub(super) fn reprotect_run<H: FrameHal>(
    table: &mut TableMut<'_, H>,
    part: Range<usize>,
    level: u32,
    bits: u64,
) -> Option<bool> {
    const HIGH: u64 = !(LOW | ACCESSED | DIRTY | ADDRESS);
    if level > 3 {
        return None;
    }
    let (all, any) = table.words().gather(part.clone());
    let new = leaf_word(bits, 0, level);
    // Bits in which some entry differs from the new one.
    let differ = all ^ new | any ^ new;
    if !all_leaves::<H>((all, any), level) || differ & HIGH != 0 {
        return None;
    }
    table.set_low_bytes(part, new as u8);
    let access = EptFlags::RWX.bits() & LOW;
    let same_pages = differ & (LOW & !access) == 0;
    let allow_more_only = any & !new & access == 0;
    Some(!(same_pages && allow_more_only))
}

/// That every entry of `first..=last` in a table of level 1 maps a page.
#[inline]
pub(super) fn check_mapped<H: FrameHal>(
    format: &Format,
    table: TableRef<'_, H>,
    first: u64,
    last: u64,
) -> Result<(), EptError> {
    let (from, to) = (index(first, 1), index(last, 1));
    if are_leaves(table, from..to + 1, 1) {
        return Ok(());
    }
    match (from..=to).find(|&i| !format.is_present(table.word(i))) {
        None => Ok(()),
        Some(i) => {
            let guest = GuestPhysAddr::new(first + (((i - from) as u64) << shift(1)));
            Err(EptError::NotMapped { guest })
        }
    }
}
