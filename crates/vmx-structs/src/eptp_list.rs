//! The EPT pointers that a guest may switch between by itself, with VMFUNC leaf 0 (SDM 24.6.14, 25.5.6.3).
//!
//! A frame of 512 pointers; the guest names one by its index in ECX. An index above 511, or a pointer that VM entry
//! would refuse, is a VM exit: so an entry of 0 is one that cannot be chosen.

use core::fmt;

use axerrno::AxErrorKind;
use frame_core::{AxResult, FrameBox, FrameHal, PhysAddr};

use crate::{EptPointer, EptPointerError, EptVpidCap};

/// Entries in the list.
const ENTRIES: usize = 512;

/// The list, in a frame.
pub struct EptpList<H: FrameHal> {
    entries: FrameBox<[u64; ENTRIES], H>,
}

impl<H: FrameHal> EptpList<H> {
    /// A list from which nothing can be chosen.
    ///
    /// # Errors
    /// [`AxError::NoMemory`](frame_core::AxError::NoMemory) without a frame.
    pub fn new() -> AxResult<Self> {
        Ok(Self { entries: FrameBox::new_zeroed()? })
    }

    /// The physical address, for the VMCS.
    pub fn phys_addr(&self) -> PhysAddr {
        self.entries.start_paddr()
    }

    /// Puts a pointer at an index, or takes it away. The caller keeps the tables alive as long as it is there.
    ///
    /// # Errors
    /// The index is above 511.
    pub fn set(&mut self, index: usize, pointer: Option<EptPointer>) -> Result<(), EptpListError> {
        let entry = self.entries.get_mut(index).ok_or(EptpListError::Index { index })?;
        *entry = pointer.map_or(0, EptPointer::bits).to_le();
        Ok(())
    }

    /// The pointer at an index.
    pub fn get(&self, index: usize) -> Option<EptPointer> {
        match u64::from_le(*self.entries.get(index)?) {
            0 => None,
            bits => Some(EptPointer::from_bits(bits)),
        }
    }

    /// The pointers that are there, with their indices.
    pub fn iter(&self) -> impl Iterator<Item = (usize, EptPointer)> + '_ {
        (0..ENTRIES).filter_map(|index| Some((index, self.get(index)?)))
    }

    /// What VMFUNC leaf 0 does with this value of ECX, on a processor with these capabilities and this physical-address
    /// width: the pointer that becomes current.
    ///
    /// # Errors
    /// It would be a VM exit (reason 59).
    pub fn choose(&self, ecx: u32, cap: EptVpidCap, physical_width: u8) -> Result<EptPointer, EptpListError> {
        let index = ecx as usize;
        let bits = *self.entries.get(index).ok_or(EptpListError::Index { index })?;
        let pointer = EptPointer::from_bits(u64::from_le(bits));
        pointer.check(cap, physical_width).map_err(|error| EptpListError::Pointer { index, error })?;
        Ok(pointer)
    }
}

impl<H: FrameHal> fmt::Debug for EptpList<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EptpList({:#x}) ", self.phys_addr())?;
        f.debug_map().entries(self.iter()).finish()
    }
}

/// An entry that is not there, or cannot be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EptpListError {
    /// The list has 512 entries.
    Index {
        /// The index asked for.
        index: usize,
    },
    /// The pointer there is none that the processor takes.
    Pointer {
        /// Its index.
        index: usize,
        /// What is wrong with it.
        error: EptPointerError,
    },
}

impl fmt::Display for EptpListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index { index } => write!(f, "the EPTP list has 512 entries and none at {index}"),
            Self::Pointer { index, error } => {
                write!(f, "entry {index} of the EPTP list cannot be chosen: {error}")
            }
        }
    }
}

impl core::error::Error for EptpListError {}

impl From<EptpListError> for AxErrorKind {
    fn from(_: EptpListError) -> Self {
        Self::InvalidInput
    }
}
