//! Filling in a VMCS: structures, guest and host in, VMWRITEs out.
//!
//! Each method of [`VmcsBuilder`] that takes a structure also asks for the control that makes the processor use it, so a
//! bitmap cannot be forgotten, nor its control. [`build`](VmcsBuilder::build) adjusts the control words to the
//! processor and says what it lacks. Whether VM entry accepts the result is for [the checks](crate::checks).

use core::fmt;

use frame_core::PhysAddr;

use super::{
    ControlWord, Controls, EventInfo, ExitControls, Field, FieldWidth, GuestState, HostState, PinControls,
    PrimaryControls, SecondaryControls, Unavailable, VmcsImage, WritableGroup, WriteError, control, guest,
};
use crate::{EptPointer, VmxCapabilities};

/// Collects what a VMCS is to hold.
///
/// ```
/// use vmx_structs::{CpuModel, vmcs::*};
/// # use frame_core::PhysAddr;
///
/// let caps = CpuModel::by_id("haswell").unwrap().capabilities();
/// let mut builder = VmcsBuilder::new(&caps);
/// builder
///     .want(PrimaryControls::HLT_EXITING)
///     .io_bitmaps(PhysAddr::from(0x10000), PhysAddr::from(0x11000))
///     .vpid(1)
///     .guest(&GuestState::long_mode(&caps, 0x1000, 0x10_0000, 0x20_0000))
///     .host(&HostState { long_mode: true, ..HostState::default() });
/// let image = builder.build()?;
/// let mut vmcs = SoftwareVmcs::for_processor(&caps); // or the processor's current VMCS
/// image.write_to(&mut vmcs)?;
/// assert_eq!(vmcs.read(control::IO_BITMAP_B)?, 0x11000);
/// let primary = PrimaryControls::from_bits_retain(vmcs.read(control::PRIMARY_CONTROLS)?);
/// assert!(primary.contains(PrimaryControls::USE_IO_BITMAPS | PrimaryControls::ACTIVATE_SECONDARY_CONTROLS));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
///
/// What a processor lacks is named:
/// ```
/// # use vmx_structs::{CpuModel, vmcs::*};
/// let caps = CpuModel::by_id("sandy_bridge").unwrap().capabilities();
/// let error = VmcsBuilder::new(&caps).want(SecondaryControls::ENABLE_PML).build().unwrap_err();
/// assert!(error.to_string().contains("bit 17 of the secondary processor-based"));
/// ```
#[derive(Clone, Debug)]
pub struct VmcsBuilder<'c> {
    caps: &'c VmxCapabilities,
    controls: Controls,
    image: VmcsImage,
    /// The first field that could not be set.
    refused: Option<WriteError>,
}

impl<'c> VmcsBuilder<'c> {
    /// A builder for a processor. Nothing is wanted yet; every field is 0, but for the VMCS link pointer (none).
    pub fn new(caps: &'c VmxCapabilities) -> Self {
        let mut builder = Self { caps, controls: Controls::NONE, image: VmcsImage::new(caps), refused: None };
        builder.set(guest::VMCS_LINK_POINTER, u64::MAX);
        builder
    }

    /// Asks for control bits, in addition to those already wanted.
    pub fn want<W: ControlWord>(&mut self, bits: W) -> &mut Self {
        let word = W::of(&mut self.controls);
        *word = word.union(bits);
        self
    }

    /// What is wanted so far, before it is adjusted.
    pub fn controls(&self) -> &Controls {
        &self.controls
    }

    /// Sets a field. The control words are set by [`build`](Self::build); use [`want`](Self::want).
    pub fn set<W: FieldWidth, G: WritableGroup>(&mut self, field: Field<W, G>, value: W::Value) -> &mut Self {
        let done = WriteError::at(field, value, self.image.as_vmcs_mut());
        self.refused = self.refused.or(done.err());
        self
    }

    /// I/O bitmaps A and B.
    pub fn io_bitmaps(&mut self, a: PhysAddr, b: PhysAddr) -> &mut Self {
        self.want(PrimaryControls::USE_IO_BITMAPS)
            .set(control::IO_BITMAP_A, address(a))
            .set(control::IO_BITMAP_B, address(b))
    }

    /// The MSR bitmap.
    pub fn msr_bitmap(&mut self, bitmap: PhysAddr) -> &mut Self {
        self.want(PrimaryControls::USE_MSR_BITMAPS).set(control::MSR_BITMAPS, address(bitmap))
    }

    /// Extended page tables.
    pub fn ept(&mut self, pointer: EptPointer) -> &mut Self {
        self.want(SecondaryControls::ENABLE_EPT).set(control::EPT_POINTER, pointer.bits())
    }

    /// A virtual-processor identifier, not 0.
    pub fn vpid(&mut self, vpid: u16) -> &mut Self {
        self.want(SecondaryControls::ENABLE_VPID).set(control::VPID, vpid)
    }

    /// The virtual-APIC page and the TPR threshold (0-15).
    pub fn virtual_apic(&mut self, page: PhysAddr, tpr_threshold: u32) -> &mut Self {
        self.want(PrimaryControls::USE_TPR_SHADOW)
            .set(control::VIRTUAL_APIC_ADDRESS, address(page))
            .set(control::TPR_THRESHOLD, tpr_threshold)
    }

    /// The APIC-access page.
    pub fn apic_access(&mut self, page: PhysAddr) -> &mut Self {
        self.want(SecondaryControls::VIRTUALIZE_APIC_ACCESSES)
            .set(control::APIC_ACCESS_ADDRESS, address(page))
    }

    /// Posted interrupts: the notification vector and the descriptor. With them come virtual-interrupt delivery,
    /// external-interrupt exiting and acknowledgement on exit, which they need (SDM 26.2.1.1).
    pub fn posted_interrupts(&mut self, vector: u8, descriptor: PhysAddr) -> &mut Self {
        self.want(PinControls::PROCESS_POSTED_INTERRUPTS | PinControls::EXTERNAL_INTERRUPT_EXITING)
            .want(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY)
            .want(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT)
            .set(control::POSTED_INTERRUPT_NOTIFICATION_VECTOR, vector.into())
            .set(control::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, address(descriptor))
    }

    /// The page-modification log, empty: its index starts at 511.
    pub fn pml(&mut self, buffer: PhysAddr) -> &mut Self {
        self.want(SecondaryControls::ENABLE_PML)
            .set(control::PML_ADDRESS, address(buffer))
            .set(guest::PML_INDEX, 511)
    }

    /// The EPTP list, with VM function 0 (EPTP switching).
    pub fn eptp_list(&mut self, list: PhysAddr) -> &mut Self {
        self.want(SecondaryControls::ENABLE_VM_FUNCTIONS)
            .set(control::VM_FUNCTION_CONTROLS, 1)
            .set(control::EPTP_LIST_ADDRESS, address(list))
    }

    /// VMCS shadowing: the VMREAD bitmap, the VMWRITE bitmap and the shadow VMCS.
    pub fn vmcs_shadowing(&mut self, vmread: PhysAddr, vmwrite: PhysAddr, shadow: PhysAddr) -> &mut Self {
        self.want(SecondaryControls::VMCS_SHADOWING)
            .set(control::VMREAD_BITMAP_ADDRESS, address(vmread))
            .set(control::VMWRITE_BITMAP_ADDRESS, address(vmwrite))
            .set(guest::VMCS_LINK_POINTER, address(shadow))
    }

    /// The virtualization-exception information area, and with it #VE.
    pub fn ve_information(&mut self, area: PhysAddr) -> &mut Self {
        self.want(SecondaryControls::EPT_VIOLATION_VE).set(control::VE_INFORMATION_ADDRESS, address(area))
    }

    /// The sub-page-permission table.
    pub fn sub_page_permissions(&mut self, table: PhysAddr) -> &mut Self {
        self.want(SecondaryControls::SUB_PAGE_WRITE_PERMISSIONS)
            .set(control::SPP_TABLE_POINTER, address(table))
    }

    /// MSRs stored at VM exits: the area and its number of entries.
    pub fn exit_msr_store(&mut self, area: PhysAddr, count: u32) -> &mut Self {
        self.set(control::EXIT_MSR_STORE_ADDRESS, address(area)).set(control::EXIT_MSR_STORE_COUNT, count)
    }

    /// MSRs loaded at VM exits: the area and its number of entries.
    pub fn exit_msr_load(&mut self, area: PhysAddr, count: u32) -> &mut Self {
        self.set(control::EXIT_MSR_LOAD_ADDRESS, address(area)).set(control::EXIT_MSR_LOAD_COUNT, count)
    }

    /// MSRs loaded at VM entries: the area and its number of entries.
    pub fn entry_msr_load(&mut self, area: PhysAddr, count: u32) -> &mut Self {
        self.set(control::ENTRY_MSR_LOAD_ADDRESS, address(area)).set(control::ENTRY_MSR_LOAD_COUNT, count)
    }

    /// An event that the VM entry injects, its error code (if it has one) and instruction length (if it needs one).
    pub fn inject(&mut self, event: EventInfo, error_code: u32, instruction_length: u32) -> &mut Self {
        self.set(control::ENTRY_INTERRUPTION_INFO, event.raw())
            .set(control::ENTRY_EXCEPTION_ERROR_CODE, error_code)
            .set(control::ENTRY_INSTRUCTION_LENGTH, instruction_length)
    }

    /// The guest's state, and the VM-entry controls that it needs.
    pub fn guest(&mut self, state: &GuestState) -> &mut Self {
        let link = self.image.as_vmcs().get(guest::VMCS_LINK_POINTER);
        let done = state.write_to(self.image.as_vmcs_mut());
        self.refused = self.refused.or(done.err());
        // A shadow VMCS given before stays: a state knows none unless told.
        if state.vmcs_link_pointer == u64::MAX {
            self.set(guest::VMCS_LINK_POINTER, link);
        }
        self.want(state.entry_controls())
    }

    /// The host's state, and the VM-exit controls that it needs.
    pub fn host(&mut self, state: &HostState) -> &mut Self {
        let done = state.write_to(self.image.as_vmcs_mut());
        self.refused = self.refused.or(done.err());
        self.want(state.exit_controls())
    }

    /// Adjusts the control words and gives the result.
    ///
    /// # Errors
    /// [`BuildError::Unavailable`] when the processor lacks a control that is wanted, [`BuildError::Field`] when it lacks
    /// a field that was set.
    pub fn build(&self) -> Result<VmcsImage, BuildError> {
        let controls = self.controls.adjust(self.caps).map_err(BuildError::Unavailable)?;
        if let Some(refused) = self.refused {
            return Err(BuildError::Field(refused));
        }
        let mut image = self.image.clone();
        let vmcs = image.as_vmcs_mut();
        vmcs.set(control::PIN_CONTROLS, controls.pin.bits());
        vmcs.set(control::PRIMARY_CONTROLS, controls.primary.bits());
        vmcs.set(control::SECONDARY_CONTROLS, controls.secondary.bits());
        vmcs.set(control::TERTIARY_CONTROLS, controls.tertiary.bits());
        vmcs.set(control::EXIT_CONTROLS, controls.exit.bits());
        vmcs.set(control::SECONDARY_EXIT_CONTROLS, controls.secondary_exit.bits());
        vmcs.set(control::ENTRY_CONTROLS, controls.entry.bits());
        Ok(image)
    }
}

/// `usize` is at most 64 bits wide.
fn address(address: PhysAddr) -> u64 {
    address.as_usize() as u64
}

/// Why there is no such VMCS for a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// A control that is wanted is not available.
    Unavailable(Unavailable),
    /// A field that was set does not exist.
    Field(WriteError),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(error) => error.fmt(f),
            Self::Field(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for BuildError {}
