//! Why memory was not added, removed or reached.

use core::fmt;

use axerrno::AxErrorKind;
use frame_core::AllocError;

use crate::GuestPhysAddr;

/// Why memory was not added, removed or reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuestMemoryError {
    /// No frames could be allocated, for memory or for the books.
    Alloc(AllocError),
    /// A guest address is wider than the tables translate.
    TooWide {
        /// That address.
        guest: GuestPhysAddr,
        /// Bits that are translated.
        width: u32,
    },
    /// A part of the range is backed already.
    Backed {
        /// The first address that is.
        guest: GuestPhysAddr,
    },
    /// A byte is not backed.
    NotBacked {
        /// The first one.
        guest: GuestPhysAddr,
    },
}

impl fmt::Display for GuestMemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alloc(error) => write!(f, "no frames for guest memory: {error}"),
            Self::TooWide { guest, width } => {
                write!(f, "guest address {guest:#x} has more than the {width} bits that the EPT translates")
            }
            Self::Backed { guest } => write!(f, "guest address {guest:#x} is backed already"),
            Self::NotBacked { guest } => write!(f, "guest address {guest:#x} is not backed by memory"),
        }
    }
}

impl core::error::Error for GuestMemoryError {}

impl From<AllocError> for GuestMemoryError {
    fn from(error: AllocError) -> Self {
        Self::Alloc(error)
    }
}

impl From<GuestMemoryError> for AxErrorKind {
    fn from(error: GuestMemoryError) -> Self {
        match error {
            GuestMemoryError::Alloc(error) => error.into(),
            GuestMemoryError::TooWide { .. } => Self::OutOfRange,
            GuestMemoryError::Backed { .. } => Self::AlreadyExists,
            GuestMemoryError::NotBacked { .. } => Self::BadAddress,
        }
    }
}
