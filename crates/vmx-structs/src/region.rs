//! The regions that VMXON and VMPTRLD take: memory that the processor uses as it likes.
//!
//! Software writes the first word and nothing else: the revision identifier that the processor gave in
//! `IA32_VMX_BASIC`, and in a VMCS region the shadow-VMCS indicator in bit 31 (SDM 24.2, 24.11.5). The word at
//! offset 4 of a VMCS region is the VMX-abort indicator (SDM 27.7). The rest belongs to the processor; VMREAD and
//! VMWRITE are the only way to it.
//!
//! A region is aligned to 4 KiB and has [`VmxBasic::region_size`] bytes, 4096 at most: a frame each. A VMXON region and
//! a VMCS region are different things that look alike, so they are different types here. The seed's
//! [`VmxRegion`](crate::VmxRegion) is both.

use core::{
    fmt,
    sync::atomic::{AtomicU32, Ordering},
};

use axerrno::AxErrorKind;
use frame_core::{AllocError, FRAME_SIZE, FrameBox, FrameHal, PhysAddr, PhysFrame};

use crate::VmxBasic;

/// Bit 31 of the first word: a shadow VMCS. It must be 0 in a VMXON region (SDM 24.11.5).
const SHADOW: u32 = 1 << 31;

/// A zeroed frame whose first word is `revision`, with bit 31 as told.
pub(crate) fn region_frame<H: FrameHal>(revision: u32, shadow: bool) -> Result<PhysFrame<H>, RegionError> {
    if revision & SHADOW != 0 {
        return Err(RegionError::Revision { revision });
    }
    let mut frame = PhysFrame::try_alloc()?;
    frame.fill(0);
    let word = if shadow { revision | SHADOW } else { revision };
    frame.as_bytes_mut()[..4].copy_from_slice(&word.to_le_bytes());
    Ok(frame)
}

/// What both kinds of region have in common: words that the processor may write, and what `IA32_VMX_BASIC` said.
struct Region<H: FrameHal> {
    words: FrameBox<[AtomicU32; FRAME_SIZE / 4], H>,
    basic: VmxBasic,
}

impl<H: FrameHal> Region<H> {
    fn new(basic: VmxBasic, shadow: bool) -> Result<Self, RegionError> {
        let size = basic.region_size();
        if size == 0 || size > FRAME_SIZE {
            return Err(RegionError::Size { size });
        }
        let frame = region_frame(basic.revision(), shadow)?;
        let address = frame.start_paddr();
        if basic.addresses_limited_to_32_bits() && address.as_usize() as u64 > u64::from(u32::MAX) {
            return Err(RegionError::Above32Bits { address });
        }
        Ok(Self { words: FrameBox::from_frame(frame), basic })
    }

    fn first_word(&self) -> u32 {
        u32::from_le(self.words[0].load(Ordering::Relaxed))
    }

    fn debug(&self, f: &mut fmt::DebugStruct<'_, '_>) {
        f.field("address", &format_args!("{:#x}", self.words.start_paddr()))
            .field("revision", &format_args!("{:#x}", self.first_word() & !SHADOW))
            .field("size", &self.basic.region_size());
    }
}

/// The region that VMXON takes: one for each logical processor, its own as long as it is in VMX operation.
///
/// ```
/// # use frame_core::FrameHal;
/// # use vmx_structs::{RegionError, VmxBasic, VmxonRegion};
/// fn vmxon<H: FrameHal>(ia32_vmx_basic: u64) -> Result<VmxonRegion<H>, RegionError> {
///     let region = VmxonRegion::new(VmxBasic::from_raw(ia32_vmx_basic))?;
///     // region.phys_addr() is the operand of VMXON
///     Ok(region)
/// }
/// ```
pub struct VmxonRegion<H: FrameHal>(Region<H>);

impl<H: FrameHal> VmxonRegion<H> {
    /// A zeroed region with the processor's revision identifier; bit 31 is 0, as VMXON demands.
    ///
    /// # Errors
    /// No frame, one that the processor cannot address, or a size that no processor has.
    pub fn new(basic: VmxBasic) -> Result<Self, RegionError> {
        Ok(Self(Region::new(basic, false)?))
    }

    /// The physical address: the operand of VMXON.
    pub fn phys_addr(&self) -> PhysAddr {
        self.0.words.start_paddr()
    }

    /// The revision identifier.
    pub fn revision(&self) -> u32 {
        self.0.first_word() & !SHADOW
    }

    /// Bytes that the processor uses, 4096 at most.
    pub fn size(&self) -> usize {
        self.0.basic.region_size()
    }

    /// The memory type through which software should map the region: 6 is write-back, 0 uncacheable.
    pub fn memory_type(&self) -> u8 {
        self.0.basic.memory_type()
    }
}

impl<H: FrameHal> fmt::Debug for VmxonRegion<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("VmxonRegion");
        self.0.debug(&mut out);
        out.finish()
    }
}

/// The region of a VMCS, ordinary or shadow: one for each virtual CPU.
pub struct VmcsRegion<H: FrameHal>(Region<H>);

impl<H: FrameHal> VmcsRegion<H> {
    /// A zeroed region of an ordinary VMCS with the processor's revision identifier. VMCLEAR it before VMPTRLD.
    ///
    /// # Errors
    /// No frame, one that the processor cannot address, or a size that no processor has.
    pub fn new(basic: VmxBasic) -> Result<Self, RegionError> {
        Ok(Self(Region::new(basic, false)?))
    }

    /// A zeroed region of a shadow VMCS: what the VMCS link pointer points to (SDM 24.10). VMPTRLD refuses it on a
    /// processor without VMCS shadowing.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_shadow(basic: VmxBasic) -> Result<Self, RegionError> {
        Ok(Self(Region::new(basic, true)?))
    }

    /// The physical address: the operand of VMCLEAR and VMPTRLD, and the VMCS link pointer to a shadow VMCS.
    pub fn phys_addr(&self) -> PhysAddr {
        self.0.words.start_paddr()
    }

    /// The revision identifier.
    pub fn revision(&self) -> u32 {
        self.0.first_word() & !SHADOW
    }

    /// Whether it is a shadow VMCS.
    pub fn is_shadow(&self) -> bool {
        self.0.first_word() & SHADOW != 0
    }

    /// Turns an ordinary VMCS into a shadow VMCS or back. Only while the VMCS is clear (VMCLEAR) on every processor.
    pub fn set_shadow(&mut self, shadow: bool) {
        let word = if shadow { self.revision() | SHADOW } else { self.revision() };
        self.0.words[0].store(word.to_le(), Ordering::Relaxed);
    }

    /// What a VMX abort left: not 0 after one (SDM 27.7).
    pub fn abort_indicator(&self) -> u32 {
        u32::from_le(self.0.words[1].load(Ordering::Relaxed))
    }

    /// Bytes that the processor uses, 4096 at most.
    pub fn size(&self) -> usize {
        self.0.basic.region_size()
    }

    /// The memory type through which software should map the region: 6 is write-back, 0 uncacheable.
    pub fn memory_type(&self) -> u8 {
        self.0.basic.memory_type()
    }
}

impl<H: FrameHal> fmt::Debug for VmcsRegion<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("VmcsRegion");
        self.0.debug(&mut out);
        out.field("shadow", &self.is_shadow()).field("abort_indicator", &self.abort_indicator()).finish()
    }
}

/// Why there is no region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegionError {
    /// No frame could be allocated.
    Alloc(AllocError),
    /// The revision identifier has bit 31 set.
    Revision {
        /// That identifier.
        revision: u32,
    },
    /// `IA32_VMX_BASIC` says that a region has this size: none, or more than a frame.
    Size {
        /// In bytes.
        size: usize,
    },
    /// The frame lies above 4 GiB, and the processor takes VMX structures below only.
    Above32Bits {
        /// The frame.
        address: PhysAddr,
    },
}

impl fmt::Display for RegionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alloc(error) => error.fmt(f),
            Self::Revision { revision } => {
                write!(
                    f,
                    "revision identifier {revision:#x} has more than 31 bits: take it from IA32_VMX_BASIC[30:0]"
                )
            }
            Self::Size { size } => {
                write!(
                    f,
                    "IA32_VMX_BASIC[44:32] says {size} bytes; a region has 1 to {FRAME_SIZE}: was the MSR read?"
                )
            }
            Self::Above32Bits { address } => write!(
                f,
                "the frame {address:#x} lies above 4 GiB, and IA32_VMX_BASIC[48] limits addresses to 32 bits: use an \
                 allocator of low memory"
            ),
        }
    }
}

impl core::error::Error for RegionError {}

impl From<AllocError> for RegionError {
    fn from(error: AllocError) -> Self {
        Self::Alloc(error)
    }
}

impl From<RegionError> for AxErrorKind {
    fn from(error: RegionError) -> Self {
        match error {
            RegionError::Alloc(error) => error.into(),
            RegionError::Revision { .. } | RegionError::Size { .. } => Self::InvalidInput,
            RegionError::Above32Bits { .. } => Self::NoMemory,
        }
    }
}
