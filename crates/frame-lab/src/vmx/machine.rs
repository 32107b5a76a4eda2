//! A VM's structures, as many as its processor has a use for, and the VMCS that names them.

use std::{fmt, ops::RangeInclusive};

use frame_core::{AxError, PhysAddr};
use vmx_structs::{vmcs::*, *};

use super::{
    intercepts::Msrs,
    names,
    notes::{BuildError, Notes},
    ram,
    shadow::{Shadow, Walk},
    state::{self, Mode},
};
use crate::hal::{LabHal, Tally};

/// What a VM is built from.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) model: CpuModel,
    pub(crate) caps: VmxCapabilities,
    /// `None` on a processor without EPT.
    pub(crate) ept: Option<EptConfig>,
    pub(crate) ram: Vec<GuestRange>,
    pub(crate) ports: Vec<RangeInclusive<u16>>,
    pub(crate) msrs: Vec<Msrs>,
}

/// The guest's memory, and what leads the processor to it.
#[derive(Debug)]
pub(crate) enum Memory {
    // In this order of fields, the tables are dropped before the memory.
    Ept { ept: Box<Ept<LabHal>>, ram: GuestMemory<LabHal> },
    Shadow(Shadow),
}

/// A shadow VMCS, and which of its fields the guest reads and writes without a VM exit.
#[derive(Debug)]
pub(crate) struct Shadowing {
    pub(crate) vmread: VmreadBitmap<LabHal>,
    pub(crate) vmwrite: VmwriteBitmap<LabHal>,
    pub(crate) vmcs: VmcsRegion<LabHal>,
}

/// A VM. What its processor has no use for is `None`.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) vmxon: VmxonRegion<LabHal>,
    pub(crate) vmcs: VmcsRegion<LabHal>,
    pub(crate) ports: IoBitmap<LabHal>,
    pub(crate) msrs: MsrBitmap<LabHal>,
    /// Stored by VM exits and loaded by VM entries.
    pub(crate) guest_msrs: MsrArea<LabHal>,
    /// Loaded by VM exits.
    pub(crate) host_msrs: MsrArea<LabHal>,
    pub(crate) apic: Option<VirtualApicPage<LabHal>>,
    pub(crate) apic_access: Option<ApicAccessPage<LabHal>>,
    pub(crate) posted: Option<PostedInterruptPage<LabHal>>,
    pub(crate) pml: Option<PmlBuffer<LabHal>>,
    pub(crate) eptp_list: Option<EptpList<LabHal>>,
    pub(crate) ve: Option<VeArea<LabHal>>,
    pub(crate) spp: Option<SppTable<LabHal>>,
    pub(crate) shadowing: Option<Shadowing>,
    pub(crate) memory: Memory,
    /// Frames that each structure took, in the order in which they were built.
    pub(crate) frames: Vec<(&'static str, usize)>,
    pub(crate) mode: Mode,
    /// The controls that were asked for, before they were adjusted.
    pub(crate) wanted: Controls,
    /// The VMCS.
    pub(crate) fields: SoftwareVmcs,
}

/// The vector of the notification of posted interrupts.
const NOTIFICATION: u8 = 0xf2;
/// Where a guest finds its local APIC.
const LOCAL_APIC: u64 = 0xfee0_0000;

impl Machine {
    /// Builds it from the frames that [`LabHal`] has.
    pub(crate) fn build(plan: &Plan, tally: &dyn Fn() -> Tally) -> Result<Self, BuildError> {
        let caps = &plan.caps;
        let has = |control: SecondaryControls| control.is_available(caps);
        let with_ept = plan.ept.is_some();
        let mut notes = Notes::new(tally);
        let vmxon = notes.take("VMXON region", || VmxonRegion::new(caps.basic))?;
        let vmcs = notes.take("VMCS region", || VmcsRegion::new(caps.basic))?;
        let ports = notes.take("I/O bitmaps", || port_bitmaps(&plan.ports))?;
        let msrs = notes.take("MSR bitmap", || msr_bitmap(&plan.msrs))?;
        let guest_msrs = notes.take("guest MSR area", || msr_area(caps))?;
        let host_msrs = notes.take("host MSR area", || msr_area(caps))?;
        let apic = notes.take_if(caps.has_tpr_shadow(), "virtual-APIC page", VirtualApicPage::new)?;
        let accesses = has(SecondaryControls::VIRTUALIZE_APIC_ACCESSES);
        let apic_access = notes.take_if(accesses, "APIC-access page", ApicAccessPage::new)?;
        let posted = notes.take_if(
            caps.has_posted_interrupts(),
            "posted-interrupt descriptor",
            PostedInterruptPage::new,
        )?;
        let pml = notes.take_if(caps.has_pml(), "PML buffer", PmlBuffer::new)?;
        let mut eptp_list =
            notes.take_if(with_ept && caps.vmfunc & 1 == 1, "EPTP list", EptpList::<LabHal>::new)?;
        let ve = notes.take_if(caps.has_ve(), "#VE information area", VeArea::new)?;
        let spp = notes.take_if(caps.has_spp(), "SPP table", SppTable::new)?;
        let shadowing = notes.take_if(caps.has_vmcs_shadowing(), "VMCS shadowing", || shadowing(caps))?;
        let access = apic_access.as_ref().map(ApicAccessPage::phys_addr);
        let memory = match plan.ept {
            Some(config) => ept_memory(&mut notes, config, plan, access)?,
            None => shadow_memory(&mut notes, caps, &plan.ram, access)?,
        };
        if let (Some(list), Memory::Ept { ept, .. }) = (&mut eptp_list, &memory) {
            let _ = list.set(0, Some(ept.pointer())); // index 0 is there
        }
        let mut machine = Self {
            vmxon,
            vmcs,
            ports,
            msrs,
            guest_msrs,
            host_msrs,
            apic,
            apic_access,
            posted,
            pml,
            eptp_list,
            ve,
            spp,
            shadowing,
            memory,
            frames: notes.frames,
            mode: Mode::of(caps),
            wanted: Controls::NONE,
            fields: SoftwareVmcs::new(),
        };
        let failed =
            |why: &dyn fmt::Display| BuildError { what: "VMCS", why: why.to_string(), taken: tally().taken };
        let cr3 = machine.load_guest().map_err(|error| failed(&error))?;
        let (wanted, image) = machine.vmcs(caps, cr3).map_err(|error| failed(&error))?;
        machine.wanted = wanted;
        machine.fields = image.as_vmcs().clone();
        Ok(machine)
    }

    /// Writes the first instructions, and page tables if the guest needs them. Gives the guest's CR3.
    fn load_guest(&mut self) -> Result<u64, GuestMemoryError> {
        match &mut self.memory {
            Memory::Ept { ram: memory, .. } => {
                memory.write(GuestPhysAddr::new(ram::ENTRY), state::CODE)?;
                if self.mode == Mode::Real {
                    return Ok(0);
                }
                let (root, entries) = state::guest_page_tables();
                for (address, entry) in entries {
                    memory.write(GuestPhysAddr::new(address), &entry.to_le_bytes())?;
                }
                Ok(root)
            }
            Memory::Shadow(shadow) => {
                shadow.write_low(ram::ENTRY, state::CODE);
                Ok(shadow.root())
            }
        }
    }

    fn vmcs(&self, caps: &VmxCapabilities, cr3: u64) -> Result<(Controls, VmcsImage), BuildErrorOfVmcs> {
        let mut builder = VmcsBuilder::new(caps);
        state::want_controls(&mut builder, caps);
        let (a, b) = self.ports.phys_addr();
        builder.io_bitmaps(a, b).msr_bitmap(self.msrs.phys_addr());
        let (guest_msrs, host_msrs) = (&self.guest_msrs, &self.host_msrs);
        builder
            .exit_msr_store(guest_msrs.phys_addr(), guest_msrs.len() as u32)
            .entry_msr_load(guest_msrs.phys_addr(), guest_msrs.len() as u32)
            .exit_msr_load(host_msrs.phys_addr(), host_msrs.len() as u32);
        if let Some(apic) = &self.apic {
            builder.virtual_apic(apic.phys_addr(), 0);
            let registers = SecondaryControls::APIC_REGISTER_VIRTUALIZATION
                | SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY;
            builder.want(registers & SecondaryControls::allowed(caps).1);
        }
        if let Some(page) = &self.apic_access {
            builder.apic_access(page.phys_addr());
        }
        if let Some(address) = self.posted.as_ref().and_then(|posted| posted.phys_addr(0)) {
            builder.posted_interrupts(NOTIFICATION, address);
        }
        if let Memory::Ept { ept, .. } = &self.memory {
            builder.ept(ept.pointer());
        }
        if self.mode == Mode::Real {
            builder.want(SecondaryControls::UNRESTRICTED_GUEST);
        }
        if caps.has_vpid() {
            builder.vpid(1);
        }
        if let Some(pml) = &self.pml {
            builder.pml(pml.phys_addr());
        }
        if let Some(list) = &self.eptp_list {
            builder.eptp_list(list.phys_addr());
        }
        if let Some(area) = &self.ve {
            builder.ve_information(area.phys_addr());
        }
        if let Some(spp) = &self.spp {
            builder.sub_page_permissions(spp.phys_addr());
        }
        if let Some(Shadowing { vmread, vmwrite, vmcs }) = &self.shadowing {
            builder.vmcs_shadowing(vmread.phys_addr(), vmwrite.phys_addr(), vmcs.phys_addr());
        }
        // The host's page tables are not ours: any frame stands for them.
        let host = state::host(caps, 0x1000);
        builder.guest(&state::guest(caps, self.mode, cr3)).host(&host);
        Ok((*builder.controls(), builder.build()?))
    }
}

/// Why the fields could not be set: what `vmx-structs` says.
type BuildErrorOfVmcs = vmx_structs::vmcs::BuildError;

fn port_bitmaps(intercepted: &[RangeInclusive<u16>]) -> Result<IoBitmap<LabHal>, String> {
    let mut ports = IoBitmap::passthrough_all().map_err(text)?;
    for range in intercepted {
        let (first, last) = (u32::from(*range.start()), u32::from(*range.end()));
        ports.set_intercept_of_range(first, last - first + 1, true).map_err(|error| error.to_string())?;
    }
    Ok(ports)
}

fn msr_bitmap(intercepted: &[Msrs]) -> Result<MsrBitmap<LabHal>, String> {
    let mut msrs = MsrBitmap::passthrough_all().map_err(text)?;
    for Msrs { range, reads, writes } in intercepted {
        for (asked, access) in [(reads, MsrAccess::Read), (writes, MsrAccess::Write)] {
            if *asked {
                let count = range.end() - range.start() + 1;
                let set = msrs.set_intercept_of_range(*range.start(), count, access, true);
                set.map_err(|error| error.to_string())?;
            }
        }
    }
    Ok(msrs)
}

/// The MSRs that SYSCALL and SWAPGS use, which VM entries and exits do not switch by themselves. A 32-bit processor has
/// none of those: there stands IA32_PAT.
fn msr_area(caps: &VmxCapabilities) -> Result<MsrArea<LabHal>, MsrAreaError> {
    let syscall = ["IA32_STAR", "IA32_LSTAR", "IA32_FMASK", "IA32_KERNEL_GS_BASE"];
    let switched: &[&str] = if state::is_64_bit(caps) { &syscall } else { &["IA32_PAT"] };
    let mut area = MsrArea::with_capacity(32, caps.misc)?;
    for msr in switched.iter().filter_map(|name| names::msr(name)) {
        area.set(msr, if msr == 0x277 { 0x0007_0406_0007_0406 } else { 0 })?;
    }
    Ok(area)
}

/// All fields exit.
fn shadowing(caps: &VmxCapabilities) -> Result<Shadowing, String> {
    Ok(Shadowing {
        vmread: VmreadBitmap::intercept_all().map_err(text)?,
        vmwrite: VmwriteBitmap::intercept_all().map_err(text)?,
        vmcs: VmcsRegion::new_shadow(caps.basic).map_err(|error| error.to_string())?,
    })
}

fn ept_memory(
    notes: &mut Notes<'_>,
    config: EptConfig,
    plan: &Plan,
    apic_access: Option<PhysAddr>,
) -> Result<Memory, BuildError> {
    let ram = notes.take(super::GUEST_MEMORY, || {
        let mut ram = GuestMemory::<LabHal>::new(&config)?;
        for range in &plan.ram {
            // The frames of the simulated memory are zero until somebody writes to them: clearing them would only
            // make them real.
            ram.add(*range, Contents::Leftover)?;
        }
        Ok::<_, GuestMemoryError>(ram)
    })?;
    // The memory is told apart from the books about it.
    let books = ram.table_frames();
    if let Some(noted) = notes.frames.last_mut() {
        noted.1 -= books;
    }
    notes.frames.push(("books of guest memory", books));
    let ept = notes.take(super::EPT, || {
        let mut ept = Ept::<LabHal>::new(config)?;
        // With #VE, only pages without this flag give the exception: none does.
        let more = if plan.caps.has_ve() { EptFlags::SUPPRESS_VE } else { EptFlags::empty() };
        let with = |attributes: EptAttributes| attributes.with_flags(attributes.flags | more);
        ept.map_memory(&ram, with(EptAttributes::RAM))?;
        if let Some(page) = apic_access {
            ept.map(GuestPhysAddr::new(LOCAL_APIC), page, PageSize::Size4K, with(EptAttributes::DEVICE))?;
        }
        Ok::<_, EptError>(ept)
    })?;
    Ok(Memory::Ept { ept: Box::new(ept), ram })
}

fn shadow_memory(
    notes: &mut Notes<'_>,
    caps: &VmxCapabilities,
    ranges: &[GuestRange],
    apic_access: Option<PhysAddr>,
) -> Result<Memory, BuildError> {
    let runs = notes.take(super::GUEST_MEMORY, || Shadow::ram(ranges))?;
    let walk = if state::is_64_bit(caps) { Walk::LONG } else { Walk::LEGACY };
    let shadow = notes.take(super::SHADOW_TABLES, || {
        let mut shadow = Shadow::new(walk, runs)?;
        if let Some(page) = apic_access {
            shadow.map_page(LOCAL_APIC, page.as_usize() as u64)?;
        }
        Ok::<_, frame_core::AllocError>(shadow)
    })?;
    Ok(Memory::Shadow(shadow))
}

/// The seed's error has a text but is no error to the standard library.
fn text(error: AxError) -> String {
    error.to_string()
}
