//! The words of EPT tables: what each bit is, and what a word is at its level (SDM 28.3.2).
//!
//! Levels count from 1 (page table) to 4 or 5 (the highest). A slot of level `l` translates `4096 * 512^(l-1)` bytes.

use core::fmt;

use frame_core::{FrameHal, PhysAddr, TableRef};

use super::{EptAttributes, EptConfig, EptFlags};
use crate::{GuestPhysAddr, PageSize};

/// Bits 51:12.
pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// A leaf at level 2 or 3.
pub(super) const LARGE: u64 = 1 << 7;
/// Set by the processor when it uses the entry.
pub(super) const ACCESSED: u64 = 1 << 8;
/// Set by the processor when it writes to the page of a leaf.
pub(super) const DIRTY: u64 = 1 << 9;
/// In an entry that owns a table of level 1: every entry of that maps a page. Known of tables that were filled at once, so
/// that a plan need not read them; whoever makes an entry vacant takes the mark away first. Processors ignore the bit.
pub(super) const FULL: u64 = 1 << 56;
/// In an entry that owns a table: that is among the [`Suspects`](super::vacancy::Suspects). Processors
/// ignore the bit.
pub(super) const NOTED: u64 = 1 << 11;
/// Entries in a table.
pub(super) const ENTRIES: usize = 512;
/// Entries in a cache line.
pub(super) const LINE: usize = 8;

/// Bits of an address below the index of a level.
#[inline]
pub(super) const fn shift(level: u32) -> u32 {
    12 + 9 * (level - 1)
}

/// The last address minus the first of a slot.
#[inline]
pub(super) const fn slot_mask(level: u32) -> u64 {
    (1 << shift(level)) - 1
}

/// The index of an address in a table of this level.
#[inline]
pub(super) const fn index(guest: u64, level: u32) -> usize {
    (guest >> shift(level)) as usize % ENTRIES
}

/// What a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Maps nothing.
    Vacant,
    /// Owns a table.
    Table,
    /// Maps a page.
    Leaf,
    /// Present, but neither: an edited entry.
    Malformed,
}

#[inline]
pub(super) fn classify<H: FrameHal>(config: &EptConfig, word: u64, level: u32) -> Slot {
    if TableRef::<H>::is_link(word) {
        Slot::Table
    } else if !config.is_present(word) {
        Slot::Vacant
    } else if level == 1 || level <= 3 && word & LARGE != 0 {
        Slot::Leaf
    } else {
        Slot::Malformed
    }
}

/// The word of a leaf: attribute bits, address, and the large-page bit where the level needs it.
#[inline]
pub(super) const fn leaf_word(bits: u64, host: u64, level: u32) -> u64 {
    bits | host | if level > 1 { LARGE } else { 0 }
}

/// The word that maps piece `j` of a leaf when its page is cut into 512.
#[inline]
pub(super) const fn piece(word: u64, level: u32, j: usize) -> u64 {
    let word = word + ((j as u64) << shift(level - 1));
    if level == 2 { word & !LARGE } else { word }
}

/// The parts of `first..=last` in the slots of a level: index, and the first and last address in that slot.
pub(super) fn slots(first: u64, last: u64, level: u32) -> impl Iterator<Item = (usize, u64, u64)> {
    let mut from = Some(first);
    core::iter::from_fn(move || {
        let start = from?;
        let end = (start | slot_mask(level)).min(last);
        from = if end == last { None } else { Some(end + 1) };
        Some((index(start, level), start, end))
    })
}

/// Whether `first..=last` is a whole slot of a level.
#[inline]
pub(super) const fn is_whole(first: u64, last: u64, level: u32) -> bool {
    last - first == slot_mask(level)
}

/// A page that is mapped: a leaf of the tables.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EptLeaf {
    /// The first guest address of the page.
    guest: u64,
    word: u64,
    size: PageSize,
}

impl EptLeaf {
    /// A leaf of this level whose slot holds the address `guest`; `None` for a level that has none.
    #[inline(always)]
    pub(super) fn new(guest: u64, level: u32, word: u64) -> Option<Self> {
        Some(Self::of(guest, PageSize::of_level(level)?, word))
    }

    /// A leaf that maps the page of this size that holds the address `guest`.
    #[inline(always)]
    pub(super) const fn of(guest: u64, size: PageSize, word: u64) -> Self {
        Self { guest: guest & !(size.bytes() - 1), word, size }
    }

    /// The first guest-physical address of the page.
    #[inline]
    pub const fn guest(&self) -> GuestPhysAddr {
        GuestPhysAddr::new(self.guest)
    }

    /// The first host-physical address of the page.
    #[inline]
    pub fn host(&self) -> PhysAddr {
        PhysAddr::from((self.word & ADDRESS) as usize)
    }

    /// The host-physical address of a guest-physical address in this page.
    #[inline]
    pub fn host_at(&self, guest: GuestPhysAddr) -> PhysAddr {
        let offset = guest.as_u64() & (self.size.bytes() - 1);
        PhysAddr::from((self.word & ADDRESS | offset) as usize)
    }

    /// The size of the page.
    #[inline]
    pub const fn size(&self) -> PageSize {
        self.size
    }

    /// Permissions and the rest, without the memory type.
    #[inline]
    pub const fn flags(&self) -> EptFlags {
        EptFlags::from_bits_truncate(self.word)
    }

    /// Permissions, memory type and the rest; `None` for a reserved memory type, which an edited entry may have.
    #[inline]
    pub const fn attributes(&self) -> Option<EptAttributes> {
        EptAttributes::decode(self.word)
    }

    /// Whether the accessed flag is set.
    #[inline]
    pub const fn accessed(&self) -> bool {
        self.word & ACCESSED != 0
    }

    /// Whether the dirty flag is set.
    #[inline]
    pub const fn dirty(&self) -> bool {
        self.word & DIRTY != 0
    }

    /// The entry as the processor reads it.
    #[inline]
    pub const fn word(&self) -> u64 {
        self.word
    }

    pub(super) const fn last(&self) -> u64 {
        self.guest + (self.size.bytes() - 1)
    }
}

impl fmt::Debug for EptLeaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EptLeaf")
            .field("guest", &format_args!("{:#x}", self.guest()))
            .field("host", &format_args!("{:#x}", self.word & ADDRESS))
            .field("size", &self.size())
            .field("attributes", &self.attributes())
            .field("accessed", &self.accessed())
            .field("dirty", &self.dirty())
            .finish()
    }
}
