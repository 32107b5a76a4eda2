//! Why an operation on EPT tables was refused. The tables are then exactly as they were.

use core::fmt;

use axerrno::AxErrorKind;
use frame_core::{AllocError, PhysAddr};

use super::{AttributeError, EptPointerError};
use crate::{GuestPhysAddr, PageSize};

/// Why an operation was refused: nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EptError {
    /// No frame for a table.
    Alloc(AllocError),
    /// The attributes cannot be.
    Attributes(AttributeError),
    /// The frame of the highest table cannot be pointed to.
    Pointer(EptPointerError),
    /// The guest address is not aligned to the page.
    GuestMisaligned {
        /// That address.
        guest: GuestPhysAddr,
        /// The page.
        size: PageSize,
    },
    /// The host address is not aligned to the page.
    HostMisaligned {
        /// That address.
        host: PhysAddr,
        /// The page.
        size: PageSize,
    },
    /// A guest address is wider than the tables translate.
    GuestTooWide {
        /// That address.
        guest: GuestPhysAddr,
        /// Bits that are translated.
        width: u32,
    },
    /// A host address is wider than the processor's.
    HostTooWide {
        /// That address.
        host: PhysAddr,
        /// MAXPHYADDR, in bits.
        width: u8,
    },
    /// The processor has no pages of this size.
    PageSize {
        /// The size.
        size: PageSize,
    },
    /// Something is mapped there already.
    Occupied {
        /// The first address at which.
        guest: GuestPhysAddr,
    },
    /// Nothing is mapped there.
    NotMapped {
        /// The first address at which.
        guest: GuestPhysAddr,
    },
    /// The ranges to be mapped overlap or are not in ascending order.
    Unordered {
        /// The start of the range that comes too late.
        guest: GuestPhysAddr,
    },
    /// An entry made by [`Ept::edit_entry`](super::Ept::edit_entry) stands in the way: it maps nothing that could be
    /// cut or changed.
    Malformed {
        /// The first address that it translates.
        guest: GuestPhysAddr,
        /// Its level.
        level: u32,
    },
    /// The entry cannot be edited so: it would point to a table that is not owned here, or there is no such level.
    Edit,
    /// Accessed and dirty flags are off.
    NoAccessedDirty,
}

impl fmt::Display for EptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alloc(error) => write!(f, "no frame for an EPT table: {error}"),
            Self::Attributes(error) => error.fmt(f),
            Self::Pointer(error) => error.fmt(f),
            Self::GuestMisaligned { guest, size } => {
                write!(f, "guest address {guest:#x} is not the start of a page of {size}")
            }
            Self::HostMisaligned { host, size } => {
                write!(f, "host address {host:#x} is not aligned to a page of {size}")
            }
            Self::GuestTooWide { guest, width } => {
                write!(f, "guest address {guest:#x} has more than the {width} bits that the EPT translates")
            }
            Self::HostTooWide { host, width } => {
                write!(f, "host address {host:#x} has more than the {width} bits of a physical address")
            }
            Self::PageSize { size } => {
                write!(f, "the processor has no EPT pages of {size}: use a smaller size")
            }
            Self::Occupied { guest } => {
                write!(f, "guest address {guest:#x} is mapped already: unmap it first")
            }
            Self::NotMapped { guest } => write!(f, "guest address {guest:#x} is not mapped"),
            Self::Unordered { guest } => {
                write!(
                    f,
                    "the range at guest address {guest:#x} does not lie behind the one before it: sort them"
                )
            }
            Self::Malformed { guest, level } => {
                write!(
                    f,
                    "the edited entry of level {level} at guest address {guest:#x} is no mapping: clear it first"
                )
            }
            Self::Edit => {
                f.write_str("an entry cannot be edited into a pointer to a table that is not owned")
            }
            Self::NoAccessedDirty => {
                f.write_str("accessed and dirty flags are off: see EptConfig::with_accessed_dirty")
            }
        }
    }
}

impl core::error::Error for EptError {}

impl From<AllocError> for EptError {
    fn from(error: AllocError) -> Self {
        Self::Alloc(error)
    }
}

impl From<AttributeError> for EptError {
    fn from(error: AttributeError) -> Self {
        Self::Attributes(error)
    }
}

impl From<EptPointerError> for EptError {
    fn from(error: EptPointerError) -> Self {
        Self::Pointer(error)
    }
}

impl From<EptError> for AxErrorKind {
    fn from(error: EptError) -> Self {
        match error {
            EptError::Alloc(error) => error.into(),
            EptError::Occupied { .. } => Self::AlreadyExists,
            EptError::NotMapped { .. } => Self::NotFound,
            EptError::GuestTooWide { .. } | EptError::HostTooWide { .. } => Self::OutOfRange,
            EptError::PageSize { .. } | EptError::NoAccessedDirty => Self::Unsupported,
            EptError::Malformed { .. } => Self::BadState,
            _ => Self::InvalidInput,
        }
    }
}
