//! What can go wrong, typed: what, and where.
//!
//! [`AllocError`] is one byte, so that a `Result<PhysAddr, AllocError>` travels in two registers. A
//! [`DeallocError`] names the frame that was refused. Both turn into [`AxError`](crate::AxError) for code that
//! speaks `AxResult`.

use core::fmt;

use axerrno::AxErrorKind;

use crate::{FrameRange, PhysAddr};

/// Why no frames were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllocError {
    /// No free run fits the layout (and the window, where there is one).
    NoMemory,
    /// A frame of the asked range is already allocated.
    InUse,
    /// A frame of the asked range was never given to this allocator.
    NotManaged,
    /// This backend cannot do this kind of request; its documentation says which it can.
    Unsupported,
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoMemory => "no free run of frames fits: free some, ask for fewer, or add a region",
            Self::InUse => "a frame of the range is already allocated",
            Self::NotManaged => "a frame of the range was never given to this allocator",
            Self::Unsupported => "this backend cannot do this kind of request: choose one that can",
        })
    }
}

impl core::error::Error for AllocError {}

impl From<AllocError> for AxErrorKind {
    fn from(error: AllocError) -> Self {
        match error {
            AllocError::NoMemory => Self::NoMemory,
            AllocError::InUse => Self::ResourceBusy,
            AllocError::NotManaged => Self::InvalidInput,
            AllocError::Unsupported => Self::Unsupported,
        }
    }
}

/// Why frames were not taken back: nothing was freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeallocError {
    /// The frame that was refused: the lowest one of the request for which `kind` holds.
    pub frame: PhysAddr,
    /// What is wrong with it.
    pub kind: DeallocErrorKind,
}

/// What is wrong with a frame that was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeallocErrorKind {
    /// The address is not aligned as the layout says: not the start of such an allocation.
    Misaligned,
    /// The frame was never given to this allocator: a foreign frame, or a run that is too long.
    NotManaged,
    /// The frame is free already: a double free, or a run that is too long.
    NotAllocated,
}

impl DeallocError {
    /// A refusal of `frame`.
    pub const fn new(frame: PhysAddr, kind: DeallocErrorKind) -> Self {
        Self { frame, kind }
    }
}

impl fmt::Display for DeallocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            DeallocErrorKind::Misaligned => "is not aligned as its layout says",
            DeallocErrorKind::NotManaged => {
                "was never given to this allocator (a foreign frame, or a count larger than was allocated)"
            }
            DeallocErrorKind::NotAllocated => {
                "is free already (a double free, or a count larger than was allocated)"
            }
        };
        write!(f, "frame {:#x} {what}; nothing was freed", self.frame)
    }
}

impl core::error::Error for DeallocError {}

impl From<DeallocError> for AxErrorKind {
    fn from(error: DeallocError) -> Self {
        match error.kind {
            DeallocErrorKind::Misaligned | DeallocErrorKind::NotManaged => Self::InvalidInput,
            DeallocErrorKind::NotAllocated => Self::BadState,
        }
    }
}

/// Why a backend does not take a region over: it is left as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegionError {
    /// The region holds frame 0, which is never handed out.
    FrameZero,
    /// The region overlaps one that is managed already.
    Overlap {
        /// The region offered.
        region: FrameRange,
        /// The region that is there.
        managed: FrameRange,
    },
    /// The backend has no room for another region.
    TooManyRegions {
        /// How many it can hold.
        limit: usize,
    },
    /// The region has more frames, or lies at higher addresses, than the backend can manage.
    TooLarge {
        /// The region offered.
        region: FrameRange,
    },
    /// The metadata is too small.
    MetadataTooSmall {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// The global heap has no room for the books of a backend that keeps them there.
    HeapExhausted {
        /// Bytes needed.
        needed: usize,
    },
    /// The metadata is not aligned.
    MetadataMisaligned {
        /// The alignment needed, in bytes.
        align: usize,
    },
}

impl fmt::Display for RegionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::FrameZero => {
                f.write_str("the region holds frame 0, which is never handed out: start it at 0x1000")
            }
            Self::Overlap { region, managed } => {
                write!(f, "the region {region} overlaps {managed}, which is managed already")
            }
            Self::TooManyRegions { limit } => {
                write!(f, "the allocator holds {limit} regions and has no room for another: raise its limit")
            }
            Self::TooLarge { region } => {
                write!(f, "the region {region} is larger or higher than this backend can manage")
            }
            Self::MetadataTooSmall { needed, given } => {
                write!(f, "{given} bytes of metadata, {needed} are needed (see metadata_layout)")
            }
            Self::HeapExhausted { needed } => {
                write!(
                    f,
                    "the global heap has no {needed} bytes for the books of the region: grow it, or use a backend that needs none"
                )
            }
            Self::MetadataMisaligned { align } => {
                write!(f, "the metadata is not aligned to {align} bytes (see metadata_layout)")
            }
        }
    }
}

impl core::error::Error for RegionError {}

impl From<RegionError> for AxErrorKind {
    fn from(error: RegionError) -> Self {
        match error {
            RegionError::FrameZero | RegionError::MetadataMisaligned { .. } => Self::InvalidInput,
            RegionError::Overlap { .. } => Self::AlreadyExists,
            RegionError::TooManyRegions { .. } | RegionError::TooLarge { .. } => Self::OutOfRange,
            RegionError::MetadataTooSmall { .. } | RegionError::HeapExhausted { .. } => Self::NoMemory,
        }
    }
}

const _: () = assert!(size_of::<AllocError>() == 1);
