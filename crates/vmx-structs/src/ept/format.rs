//! What a configuration makes of addresses and words, worked out once: masks for the paths that are taken most.
//!
//! Nothing is decided here that [`EptConfig`] does not say. What a mask does not let through goes to the code that looks
//! closely, and says what is wrong.

use frame_core::{FrameHal, PhysAddr, PlainWord, TableRef};

use super::entry::{ACCESSED, ADDRESS, DIRTY, EptLeaf, LARGE, index, slot_mask};
use super::{EptAttributes, EptConfig, EptFlags, EptLevels};
use crate::PageSize;

/// Masks of one configuration.
#[derive(Clone, Copy)]
pub(super) struct Format {
    /// Whether there is a level 5.
    pub(super) five: bool,
    /// Address bits that no table translates.
    pub(super) beyond: u64,
    /// Addresses below this are translated from level 4 on: all that are translated where there is no level 5, else none.
    pub(super) near: u64,
    /// Any of these makes an entry present.
    pub(super) present: u64,
    /// An entry that maps nothing.
    pub(super) vacant: PlainWord,
    /// What a processor may set in a leaf.
    sets: u64,
    /// A leaf with one of these may be written to, so that a processor sets its dirty flag; none where there are no flags.
    writes: u64,
    /// Flags that a leaf may have.
    supported: u64,
    /// Address bits that a leaf of level 1, 2, 3 must not have; all of them where there is no such leaf.
    reserved: [u64; 3],
}

impl Format {
    pub(super) fn new(config: &EptConfig) -> Self {
        let reserved = PageSize::ALL.map(|size| {
            let width = (1 << config.physical_width()) - 1;
            if config.supports(size) { !width | (size.bytes() - 1) } else { u64::MAX }
        });
        // Shadow stacks and sub-pages are written to in pages that allow no other writes.
        let writes = EptFlags::WRITE | EptFlags::SUPERVISOR_SHADOW_STACK | EptFlags::SUB_PAGE_WRITE;
        let user = if config.mode_based_execute() { EptFlags::USER_EXECUTE.bits() } else { 0 };
        Self {
            five: config.levels() == EptLevels::Five,
            beyond: !((1 << config.guest_width()) - 1),
            near: if config.levels() == EptLevels::Four { 1 << config.guest_width() } else { 0 },
            present: (EptFlags::READ | EptFlags::WRITE | EptFlags::EXECUTE).bits() | user,
            vacant: PlainWord::of(config.vacant()),
            sets: if config.accessed_dirty() { ACCESSED | DIRTY } else { 0 },
            writes: if config.accessed_dirty() { writes.bits() } else { 0 },
            supported: config.supported_flags().bits(),
            reserved,
        }
    }

    /// The index of an address in a table of level 5, if there is one and the address is not too wide. Out of line, for
    /// such trees are rare.
    #[cold]
    #[inline(never)]
    pub(super) fn far_index(&self, address: u64) -> Option<usize> {
        let far = self.five && address & self.beyond == 0;
        if far { Some(index(address, 5)) } else { None }
    }

    /// Whether a processor can address a table there.
    pub(super) fn reaches(&self, table: PhysAddr) -> bool {
        table.as_usize() as u64 & self.reserved[0] & ADDRESS == 0
    }

    #[inline]
    pub(super) const fn is_present(&self, word: u64) -> bool {
        word & self.present != 0
    }

    /// Whether a word of this level maps a page.
    #[inline]
    pub(super) const fn maps<H: FrameHal>(&self, word: u64, level: u32) -> bool {
        let large = level == 1 || level <= 3 && word & LARGE != 0;
        large && self.is_present(word) && !TableRef::<H>::is_owner(word)
    }

    /// The page that a word maps, if it maps one: of this size, by its level.
    #[inline]
    pub(super) fn leaf(&self, guest: u64, size: PageSize, word: u64) -> Option<EptLeaf> {
        let large = size == PageSize::Size4K || word & LARGE != 0;
        if large && self.is_present(word) { Some(EptLeaf::of(guest, size, word)) } else { None }
    }

    /// Whether a processor may still change a leaf: one that has both flags has nothing more to get.
    #[inline]
    pub(super) const fn may_change(&self, word: u64) -> bool {
        self.sets & !word != 0
    }

    /// Whether a processor may set the dirty flag of a leaf: only of a page that is clean and can be written.
    #[inline]
    pub(super) const fn may_get_dirty(&self, word: u64) -> bool {
        word & self.writes != 0 && word & DIRTY == 0
    }

    /// The attribute bits of a leaf; `None` when they are not of the common kind, right or not.
    #[inline]
    pub(super) fn encode(&self, attributes: EptAttributes) -> Option<u64> {
        const USER: u64 = EptFlags::USER_EXECUTE.bits();
        let flags = attributes.flags.bits();
        let supported = flags & !(self.supported | USER) == 0;
        let user_alone = flags & (USER | EptFlags::EXECUTE.bits()) == USER;
        if supported && !user_alone && flags & EptFlags::READ.bits() != 0 {
            Some(flags & self.supported | (attributes.memory_type as u64) << 3)
        } else {
            None
        }
    }

    /// Whether a leaf of this level may map one address to the other: aligned, not too wide, and of a size that there is.
    #[inline]
    pub(super) fn fits(&self, guest: u64, host: u64, level: u32) -> bool {
        let reserved = self.reserved.get(level as usize - 1).copied().unwrap_or(u64::MAX);
        host & reserved == 0 && guest & (self.beyond | slot_mask(level)) == 0
    }
}
