//! What becomes of an access: a translation, or an exit of one of two kinds (SDM 28.3.3).
//!
//! An **EPT violation** has a qualification, which tells of the access and of what the entries allow. An **EPT
//! misconfiguration** has none: the software that wrote the entry has to find out what is wrong with it.

use core::fmt;

use frame_core::PhysAddr;

use super::{EptFlags, EptMemoryType, EptQualification};
use crate::{GuestPhysAddr, PageSize};

/// Where an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EptTranslation {
    /// The host-physical address.
    pub host: PhysAddr,
    /// The size of the page.
    pub size: PageSize,
    /// What every entry used allows (READ, WRITE, EXECUTE, and with mode-based execute USER_EXECUTE), and the leaf's
    /// other flags.
    pub flags: EptFlags,
    /// The leaf's memory type.
    pub memory_type: EptMemoryType,
}

/// Why an access does not go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EptFault {
    /// EPT violation: exit reason 48, or a virtualization exception.
    Violation(EptViolation),
    /// EPT misconfiguration: exit reason 49.
    Misconfiguration(EptMisconfiguration),
    /// No verdict: the reader given to [`walk_ept`](super::walk_ept) had no such table.
    Unreadable {
        /// The table.
        table: PhysAddr,
    },
}

/// An EPT violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EptViolation {
    /// The guest-physical address of the access.
    pub guest: GuestPhysAddr,
    /// The exit qualification.
    pub qualification: EptQualification,
    /// Whether it would be a virtualization exception, if "EPT-violation #VE" is 1 and the #VE area is not busy: bit 63
    /// is 0 in the last entry used.
    pub convertible: bool,
}

/// An EPT misconfiguration. Its exit has no qualification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EptMisconfiguration {
    /// The guest-physical address of the access.
    pub guest: GuestPhysAddr,
    /// The level of the entry.
    pub level: u32,
    /// The entry.
    pub word: u64,
    /// The first rule that it breaks.
    pub cause: MisconfigurationCause,
}

/// The rule that a misconfigured entry breaks (SDM 28.3.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MisconfigurationCause {
    /// Writes without reads.
    WriteWithoutRead,
    /// Fetches without reads, on a processor without execute-only translations.
    ExecuteWithoutRead,
    /// Reserved bits: 6:3 or 7 of an entry that points to a table, address bits beyond MAXPHYADDR, low address bits of
    /// a large page.
    ReservedBits,
    /// The memory type of a leaf is 2, 3 or 7.
    MemoryType,
}

impl fmt::Display for EptFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(EptViolation { guest, qualification, .. }) => {
                write!(f, "EPT violation at {guest:#x}, qualification {:#x}", qualification.bits())
            }
            Self::Misconfiguration(EptMisconfiguration { guest, level, word, cause }) => {
                write!(
                    f,
                    "EPT misconfiguration at {guest:#x}: {cause:?} in the entry {word:#x} of level {level}"
                )
            }
            Self::Unreadable { table } => write!(f, "the EPT table at {table:#x} cannot be read"),
        }
    }
}

impl core::error::Error for EptFault {}
