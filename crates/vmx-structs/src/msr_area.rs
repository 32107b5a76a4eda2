//! MSRs that the processor loads or stores by itself on VM entry and VM exit.
//!
//! An area is a list of 16-byte entries, MSR index, 32 reserved bits, value, aligned to 16 bytes. There are three of
//! them: VM-entry load, VM-exit store, VM-exit load (SDM 24.7.2, 24.8.2). A processor recommends a maximum,
//! [`VmxMisc::msr_area_limit`]; more than that is undefined, up to a machine check.
//!
//! If VM entry cannot load entry `k`, counted from 1, it fails with exit reason 34 and qualification `k` (SDM 26.4,
//! 26.8); [`MsrArea::failed_entry`] turns that back into the entry. A failure on VM exit is a VMX abort, which nobody
//! survives: so entries that no processor loads are refused here.

use core::fmt;

use axerrno::AxErrorKind;
use frame_core::{AllocError, FRAME_SIZE, FrameHal, FrameLayout, LayoutError, PhysAddr, PhysFrames};

use crate::VmxMisc;

/// Bytes in an entry.
const ENTRY: usize = 16;

/// An MSR and its value.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MsrEntry {
    /// The MSR.
    pub msr: u32,
    /// What is loaded, or was stored.
    pub value: u64,
}

impl MsrEntry {
    /// Whether the processor can load this MSR from an area at all (SDM 26.4, 27.6). It may still refuse the value.
    pub const fn is_loadable(self) -> bool {
        // FS.base and GS.base have VMCS fields; 0x800-0x8ff are the x2APIC's; a microcode update cannot be triggered
        // so; the SMM monitor control belongs to SMM.
        !matches!(self.msr, 0xc000_0100 | 0xc000_0101 | 0x800..=0x8ff | 0x79 | 0x9b)
    }
}

impl fmt::Debug for MsrEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} = {:#x}", self.msr, self.value)
    }
}

/// An area of MSRs, in as many contiguous frames as its capacity takes (256 entries each).
///
/// ```
/// # use frame_core::FrameHal;
/// # use vmx_structs::{MsrArea, MsrAreaError, VmxMisc};
/// fn switched<H: FrameHal>(misc: VmxMisc) -> Result<MsrArea<H>, MsrAreaError> {
///     let mut area = MsrArea::with_capacity(32, misc)?;
///     area.set(0xc000_0082, 0xffff_ffff_8100_0000)?; // IA32_LSTAR
///     assert_eq!(area.len(), 1); // area.phys_addr() and area.len() go into the VMCS
///     Ok(area)
/// }
/// ```
pub struct MsrArea<H: FrameHal> {
    /// Invariant: entries `0..len` are valid, and no MSR is in two of them.
    frames: PhysFrames<H>,
    len: usize,
    capacity: usize,
}

impl<H: FrameHal> MsrArea<H> {
    /// An empty area with room for `capacity` entries.
    ///
    /// # Errors
    /// More than the processor recommends, or no frames.
    pub fn with_capacity(capacity: usize, misc: VmxMisc) -> Result<Self, MsrAreaError> {
        let limit = misc.msr_area_limit();
        if capacity > limit {
            return Err(MsrAreaError::TooMany { asked: capacity, limit });
        }
        // At most 4096 entries: 16 frames.
        let layout = FrameLayout::contiguous((capacity * ENTRY).div_ceil(FRAME_SIZE).max(1))?;
        let mut frames = PhysFrames::try_alloc(layout)?;
        frames.fill(0);
        Ok(Self { frames, len: 0, capacity })
    }

    /// The physical address, for the VMCS.
    pub fn phys_addr(&self) -> PhysAddr {
        self.frames.start_paddr()
    }

    /// Entries, for the count field of the VMCS.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Entries that there is room for.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Sets the value of an MSR; adds an entry if it has none. For a store area the value does not matter.
    ///
    /// # Errors
    /// There is no room, or no processor loads this MSR from an area.
    pub fn set(&mut self, msr: u32, value: u64) -> Result<(), MsrAreaError> {
        let entry = MsrEntry { msr, value };
        if !entry.is_loadable() {
            return Err(MsrAreaError::NotLoadable { msr });
        }
        let at = match self.position(msr) {
            Some(at) => at,
            None if self.len < self.capacity => {
                self.len += 1;
                self.len - 1
            }
            None => return Err(MsrAreaError::Full { capacity: self.capacity }),
        };
        self.write(at, entry);
        Ok(())
    }

    /// Takes an MSR out; the last entry takes its place. Returns what it held.
    pub fn remove(&mut self, msr: u32) -> Option<u64> {
        let at = self.position(msr)?;
        let removed = self.entry(at)?;
        let last = self.entry(self.len - 1)?;
        self.write(at, last);
        self.len -= 1;
        Some(removed.value)
    }

    /// The value of an MSR: what was set, or what the processor stored on the last VM exit.
    pub fn get(&self, msr: u32) -> Option<u64> {
        self.entry(self.position(msr)?).map(|entry| entry.value)
    }

    /// The entries in the order in which the processor takes them.
    pub fn entries(&self) -> impl Iterator<Item = MsrEntry> + '_ {
        (0..self.len).filter_map(|at| self.entry(at))
    }

    /// The entry that made VM entry fail, by the qualification of that exit (reason 34): counted from 1.
    pub fn failed_entry(&self, qualification: u64) -> Option<MsrEntry> {
        self.entry(usize::try_from(qualification).ok()?.checked_sub(1)?)
    }

    fn position(&self, msr: u32) -> Option<usize> {
        self.entries().position(|entry| entry.msr == msr)
    }

    fn entry(&self, at: usize) -> Option<MsrEntry> {
        if at >= self.len {
            return None;
        }
        let (msr, rest) =
            self.frames.as_bytes().get(at * ENTRY..(at + 1) * ENTRY)?.split_first_chunk::<4>()?;
        let (_, value) = rest.split_last_chunk::<8>()?;
        Some(MsrEntry { msr: u32::from_le_bytes(*msr), value: u64::from_le_bytes(*value) })
    }

    fn write(&mut self, at: usize, entry: MsrEntry) {
        if let Some(bytes) = self.frames.as_bytes_mut().get_mut(at * ENTRY..(at + 1) * ENTRY) {
            bytes[..4].copy_from_slice(&entry.msr.to_le_bytes());
            bytes[4..8].fill(0);
            bytes[8..].copy_from_slice(&entry.value.to_le_bytes());
        }
    }
}

impl<H: FrameHal> fmt::Debug for MsrArea<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MsrArea({:#x}, room for {}) ", self.phys_addr(), self.capacity)?;
        f.debug_list().entries(self.entries()).finish()
    }
}

/// Why an area does not take an MSR, or cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MsrAreaError {
    /// No frames could be allocated.
    Alloc(AllocError),
    /// More entries than the processor recommends.
    TooMany {
        /// Entries asked for.
        asked: usize,
        /// Entries recommended.
        limit: usize,
    },
    /// There is no room for another entry.
    Full {
        /// Entries that there is room for.
        capacity: usize,
    },
    /// No processor loads this MSR from an area.
    NotLoadable {
        /// The MSR.
        msr: u32,
    },
}

impl fmt::Display for MsrAreaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alloc(error) => error.fmt(f),
            Self::TooMany { asked, limit } => {
                write!(
                    f,
                    "an MSR area of {asked} entries: the processor recommends at most {limit} (IA32_VMX_MISC)"
                )
            }
            Self::Full { capacity } => write!(f, "the MSR area holds {capacity} entries: make a larger one"),
            Self::NotLoadable { msr } => {
                write!(f, "MSR {msr:#x} cannot be loaded from an MSR area: use its VMCS field, or WRMSR")
            }
        }
    }
}

impl core::error::Error for MsrAreaError {}

impl From<AllocError> for MsrAreaError {
    fn from(error: AllocError) -> Self {
        Self::Alloc(error)
    }
}

impl From<LayoutError> for MsrAreaError {
    fn from(_: LayoutError) -> Self {
        Self::Alloc(AllocError::NoMemory)
    }
}

impl From<MsrAreaError> for AxErrorKind {
    fn from(error: MsrAreaError) -> Self {
        match error {
            MsrAreaError::Alloc(error) => error.into(),
            MsrAreaError::TooMany { .. } | MsrAreaError::Full { .. } => Self::OutOfRange,
            MsrAreaError::NotLoadable { .. } => Self::InvalidInput,
        }
    }
}
