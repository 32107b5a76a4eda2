//! Sub-page write permissions: which 128-byte pieces of a write-protected page may be written (SDM 28.3.4).
//!
//! A 4 KiB leaf without write permission but with [`EptFlags::SUB_PAGE_WRITE`](crate::EptFlags::SUB_PAGE_WRITE) sends
//! writes to the SPP table. It has 4 levels, indexed as EPT tables are. An entry of levels 4 to 2 is valid by bit 0 and
//! holds the address of the next table; all its other bits are reserved. An entry of level 1 belongs to one page: bit
//! `2 * i` is 1 if sub-page `i` may be written, and odd bits are reserved.
//!
//! Entries of these tables have no bits for software, so who owns the tables stands in a [`FrameTrie`] beside them: each
//! table is a frame in the trie, under a key made of its level and of the addresses that it serves.

use core::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use axerrno::AxErrorKind;
use frame_core::{AllocError, FrameHal, FrameLayout, FrameStack, PhysAddr, PhysFrames};

use crate::{
    Ept, GuestPhysAddr, Invalidation, PageSize,
    trie::{FrameTrie, Refused},
};

const LEVELS: u32 = 4;
/// Bits of a guest-physical address that are translated.
const WIDTH: u32 = 48;
const VALID: u64 = 1;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Bits of a level-1 entry that may be set.
const EVEN: u64 = 0x5555_5555_5555_5555;
const ENTRIES: usize = 512;

const fn shift(level: u32) -> u32 {
    12 + 9 * (level - 1)
}

const fn index(guest: u64, level: u32) -> usize {
    (guest >> shift(level)) as usize % ENTRIES
}

/// The trie's address of the table of this level that serves a guest address: the level in bits 47:45, below it the
/// address bits above the table's reach.
const fn key(guest: u64, level: u32) -> u64 {
    (level as u64) << 45 | (guest >> shift(level + 1)) << 12
}

/// What the processor makes of a write to a sub-page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SppVerdict {
    /// The write goes through.
    Allowed,
    /// The write is an EPT violation.
    Refused,
    /// No table holds the page: an SPP-related event, reason 66, "SPP miss".
    Miss,
    /// The entry has reserved bits: reason 66, "SPP misconfiguration".
    Misconfigured,
}

/// The tables of sub-page write permissions, which they own.
pub struct SppTable<H: FrameHal> {
    tables: FrameTrie<H>,
    root: PhysAddr,
    count: usize,
}

impl<H: FrameHal> SppTable<H> {
    /// Tables that hold no page.
    ///
    /// # Errors
    /// No frames.
    pub fn new() -> Result<Self, SppError> {
        let mut table = Self { tables: FrameTrie::new(LEVELS)?, root: PhysAddr::from(0), count: 0 };
        table.root = table.add(0, LEVELS)?;
        Ok(table)
    }

    /// The physical address of the highest table: the SPPTP field of the VMCS.
    pub const fn phys_addr(&self) -> PhysAddr {
        self.root
    }

    /// Frames that the tables take, and the books about them.
    pub const fn table_frames(&self) -> usize {
        self.count + self.tables.tables()
    }

    /// Says which sub-pages of a page may be written: bit `i` of `writable` stands for the bytes `128 * i` on. `ept` is
    /// what the table is used with: its leaf for the page must have the flag, and it names the INVEPT that is owed if
    /// less is allowed than before.
    ///
    /// # Errors
    /// The address is misaligned or wider than 48 bits, or there is no frame. Nothing was changed then.
    pub fn set(
        &mut self,
        page: GuestPhysAddr,
        writable: u32,
        ept: &Ept<H>,
    ) -> Result<Invalidation<H>, SppError> {
        let guest = checked(page)?;
        // From the lowest table up, so that each is complete before it is linked.
        let missing = (1..LEVELS).take_while(|&level| self.table(guest, level).is_none()).count() as u32;
        for level in 1..=missing {
            if let Err(error) = self.add(guest, level) {
                for added in 1..level {
                    self.drop_table(guest, added);
                }
                return Err(error);
            }
        }
        let new = spread(writable);
        let old =
            self.table(guest, 1).map_or(0, |(table, _)| table[index(guest, 1)].swap(new, Ordering::AcqRel));
        for level in 1..=missing {
            if let (Some((_, start)), Some((parent, _))) =
                (self.table(guest, level), self.table(guest, level + 1))
            {
                let word = start.as_usize() as u64 | VALID;
                parent[index(guest, level + 1)].store(word, Ordering::Release);
            }
        }
        Ok(ept.owed(old & !new != 0, FrameStack::new()))
    }

    /// Which sub-pages of a page may be written; `None` when no table holds the page.
    pub fn get(&self, page: GuestPhysAddr) -> Option<u32> {
        let guest = page.as_u64();
        if guest >> WIDTH != 0 {
            return None;
        }
        let (table, _) = self.table(guest, 1)?;
        let word = table[index(guest, 1)].load(Ordering::Acquire);
        Some((0..32).fold(0, |bits, i| bits | ((word >> (2 * i) & 1) as u32) << i))
    }

    /// Takes the table out that serves this address, with the permissions of the 2 MiB of pages around it, and the tables
    /// above that serve nothing else. They are freed after the INVEPT.
    ///
    /// # Errors
    /// The address is wider than 48 bits, or no table serves it.
    pub fn remove(&mut self, address: GuestPhysAddr, ept: &Ept<H>) -> Result<Invalidation<H>, SppError> {
        let guest = address.as_u64() & !((1 << shift(2)) - 1);
        let guest = checked(GuestPhysAddr::new(guest))?;
        if self.table(guest, 1).is_none() {
            return Err(SppError::Absent { page: address });
        }
        let mut retired = FrameStack::new();
        for level in 1..LEVELS {
            if let Some((parent, _)) = self.table(guest, level + 1) {
                parent[index(guest, level + 1)].store(0, Ordering::Release);
            }
            self.retire(guest, level, &mut retired);
            let above = self.table(guest, level + 1);
            let serves_more =
                above.is_some_and(|(table, _)| table.iter().any(|word| word.load(Ordering::Relaxed) != 0));
            if serves_more {
                break;
            }
        }
        Ok(ept.owed(true, retired))
    }

    /// What the processor makes of a write of `bytes` bytes (at least 1) at an address whose leaf has the flag. A write to
    /// two sub-pages needs both; what lies beyond the page is another access.
    pub fn check(&self, address: GuestPhysAddr, bytes: u64) -> SppVerdict {
        let guest = address.as_u64();
        let mut level = LEVELS;
        if guest >> WIDTH != 0 {
            return SppVerdict::Miss;
        }
        loop {
            let Some((table, _)) = self.table(guest, level) else { return SppVerdict::Miss };
            let word = table[index(guest, level)].load(Ordering::Acquire);
            if level == 1 {
                if word & !EVEN != 0 {
                    return SppVerdict::Misconfigured;
                }
                let first = (guest & 0xfff) / 128;
                let last = ((guest & 0xfff) + bytes.max(1) - 1).min(0xfff) / 128;
                let allowed = (first..=last).all(|i| word >> (2 * i) & 1 == 1);
                return if allowed { SppVerdict::Allowed } else { SppVerdict::Refused };
            }
            if word & VALID == 0 {
                return SppVerdict::Miss;
            }
            if word & !(ADDRESS | VALID) != 0 {
                return SppVerdict::Misconfigured;
            }
            level -= 1;
        }
    }

    /// The table of a level that serves an address, and where it lies.
    fn table(&self, guest: u64, level: u32) -> Option<(&[AtomicU64; ENTRIES], PhysAddr)> {
        let (owned, words) = self.tables.get(key(guest, level))?;
        Some((words.try_into().ok()?, owned.frames.start()))
    }

    /// Makes an empty table, not yet linked.
    fn add(&mut self, guest: u64, level: u32) -> Result<PhysAddr, SppError> {
        let mut frame = PhysFrames::try_alloc(FrameLayout::SINGLE)?;
        frame.fill(0);
        let start = frame.start_paddr();
        self.tables.insert(key(guest, level), frame, PageSize::Size4K).map_err(|why| match why {
            Refused::Alloc(error) => SppError::Alloc(error),
            Refused::Occupied => SppError::Alloc(AllocError::InUse),
        })?;
        self.count += 1;
        Ok(start)
    }

    fn drop_table(&mut self, guest: u64, level: u32) {
        self.count -= usize::from(self.tables.remove(key(guest, level)).is_some());
    }

    /// Takes a table that is no longer linked out of the books.
    fn retire(&mut self, guest: u64, level: u32, retired: &mut FrameStack<H>) {
        if let Some(frame) = self.tables.remove(key(guest, level)) {
            self.count -= 1;
            frame.into_iter().for_each(|frame| retired.push(frame));
        }
    }
}

fn checked(page: GuestPhysAddr) -> Result<u64, SppError> {
    let guest = page.as_u64();
    if guest >> WIDTH != 0 || guest & 0xfff != 0 {
        return Err(SppError::Address { page });
    }
    Ok(guest)
}

/// Bit `i` goes to bit `2 * i`.
fn spread(writable: u32) -> u64 {
    (0..32).fold(0, |word, i| word | u64::from(writable >> i & 1) << (2 * i))
}

impl<H: FrameHal> fmt::Debug for SppTable<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SppTable")
            .field("address", &format_args!("{:#x}", self.root))
            .field("table_frames", &self.table_frames())
            .finish()
    }
}

/// Why an operation on SPP tables was refused: nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SppError {
    /// No frame for a table.
    Alloc(AllocError),
    /// The address is not that of a page, or is wider than the 48 bits that the tables serve.
    Address {
        /// That address.
        page: GuestPhysAddr,
    },
    /// No table serves the address.
    Absent {
        /// That address.
        page: GuestPhysAddr,
    },
}

impl fmt::Display for SppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alloc(error) => write!(f, "no frame for an SPP table: {error}"),
            Self::Address { page } => {
                write!(f, "guest address {page:#x} is not the start of a page, or has more than {WIDTH} bits")
            }
            Self::Absent { page } => write!(f, "no SPP table serves guest address {page:#x}"),
        }
    }
}

impl core::error::Error for SppError {}

impl From<AllocError> for SppError {
    fn from(error: AllocError) -> Self {
        Self::Alloc(error)
    }
}

impl From<SppError> for AxErrorKind {
    fn from(error: SppError) -> Self {
        match error {
            SppError::Alloc(error) => error.into(),
            SppError::Address { .. } => Self::InvalidInput,
            SppError::Absent { .. } => Self::NotFound,
        }
    }
}
