//! The seed's region type, which is a VMXON region and a VMCS region in one.
//!
//! The only unsafe code of the crate beside the instructions: x86_vcpu's `uninit`, an unsafe function, is part of the
//! API that moves over unchanged.

use frame_core::{AxResult, FrameHal, PhysAddr, PhysFrame};

use crate::region::region_frame;

/// A VMXON or VMCS region in a frame of 4 KiB, as x86_vcpu has it.
///
/// New code takes [`VmxonRegion`](crate::VmxonRegion) and [`VmcsRegion`](crate::VmcsRegion), which cannot be mixed up
/// and look at all that `IA32_VMX_BASIC` says.
#[derive(Debug)]
pub struct VmxRegion<H: FrameHal> {
    frame: PhysFrame<H>,
}

impl<H: FrameHal> VmxRegion<H> {
    /// A value without memory, to be overwritten later.
    ///
    /// # Safety
    /// It must be overwritten before it is used: [`phys_addr`](Self::phys_addr) panics until then. (Nothing worse
    /// happens; the function is unsafe because the seed's is.)
    pub const unsafe fn uninit() -> Self {
        // SAFETY: the caller promises what `PhysFrame::uninit` asks.
        Self { frame: unsafe { PhysFrame::uninit() } }
    }

    /// A zeroed region with the revision identifier in bits 30:0 of its first word, and the shadow-VMCS indicator in
    /// bit 31.
    ///
    /// # Errors
    /// [`AxError::NoMemory`](frame_core::AxError::NoMemory) without a frame;
    /// [`AxError::InvalidInput`](frame_core::AxError::InvalidInput) for an identifier of more than 31 bits.
    pub fn new(revision_id: u32, shadow_indicator: bool) -> AxResult<Self> {
        Ok(Self { frame: region_frame(revision_id, shadow_indicator)? })
    }

    /// The physical address: the operand of VMXON, VMCLEAR and VMPTRLD.
    ///
    /// # Panics
    /// "uninitialized PhysFrame" on a value from [`uninit`](Self::uninit).
    pub fn phys_addr(&self) -> PhysAddr {
        self.frame.start_paddr()
    }
}
