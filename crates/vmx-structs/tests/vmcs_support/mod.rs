//! VMCSs that VM entry accepts, for processors old and new.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use frame_core::PhysAddr;
use vmx_structs::{
    CpuFeatures, CpuModel, EptPointer, EptVpidCap, VmxCapabilities,
    checks::{self, EntryContext, Verdict, Violation},
    vmcs::*,
};

pub fn caps(id: &str) -> VmxCapabilities {
    CpuModel::by_id(id).unwrap_or_else(|| panic!("no model {id}")).capabilities()
}

pub fn has_intel_64(caps: &VmxCapabilities) -> bool {
    caps.cpu.features.contains(CpuFeatures::LONG_MODE)
}

/// All violations, and the verdict.
pub fn violations(vmcs: &SoftwareVmcs, context: &EntryContext<'_>) -> (Vec<Violation>, Verdict) {
    let mut found = Vec::new();
    let verdict = checks::check(vmcs, context, &mut |violation| found.push(violation));
    (found, verdict)
}

/// A 64-bit host, or a 32-bit one on a processor without Intel 64.
pub fn host(caps: &VmxCapabilities) -> HostState {
    let long = has_intel_64(caps);
    let top = if long { 0xffff_8000_0000_0000 } else { 0x8000_0000 };
    HostState {
        cr0: caps.cr0.adjust(0x8005_0033),
        cr3: 0x1000,
        cr4: caps.cr4.adjust(0x20),
        rsp: top + 0x8000,
        rip: if long { top + 0x10_0000 } else { 0x10_0000 },
        cs_selector: 0x08,
        ss_selector: 0x10,
        ds_selector: 0x10,
        es_selector: 0x10,
        tr_selector: 0x18,
        fs_base: top,
        gs_base: top,
        tr_base: top,
        gdtr_base: top,
        idtr_base: top,
        sysenter_esp: top,
        sysenter_eip: top,
        long_mode: long,
        ..HostState::default()
    }
}

/// A guest in 64-bit mode.
pub fn long(caps: &VmxCapabilities) -> SoftwareVmcs {
    let guest = GuestState::long_mode(caps, 0x2000, 0x10_0000, 0x20_0000);
    finish(VmcsBuilder::new(caps).guest(&guest).host(&host(caps)))
}

/// A guest in real mode, with EPT and "unrestricted guest".
pub fn real(caps: &VmxCapabilities) -> SoftwareVmcs {
    let guest = GuestState::real_mode(caps, 0x7c0, 0x10);
    let mut builder = VmcsBuilder::new(caps);
    builder.ept(EptPointer::from_bits(0x3000 | 3 << 3 | 6)).want(SecondaryControls::UNRESTRICTED_GUEST);
    finish(builder.guest(&guest).host(&host(caps)))
}

/// A guest in 32-bit protected mode without paging, with EPT and "unrestricted guest".
pub fn protected(caps: &VmxCapabilities) -> SoftwareVmcs {
    let guest = GuestState::protected_mode(caps, 0x10_0000, 0x20_0000);
    let mut builder = VmcsBuilder::new(caps);
    builder.ept(EptPointer::from_bits(0x3000 | 3 << 3 | 6)).want(SecondaryControls::UNRESTRICTED_GUEST);
    finish(builder.guest(&guest).host(&host(caps)))
}

/// A guest in 32-bit protected mode with 32-bit paging: what every processor can do.
pub fn legacy(caps: &VmxCapabilities) -> SoftwareVmcs {
    finish(VmcsBuilder::new(caps).guest(&legacy_guest(caps)).host(&host(caps)))
}

fn legacy_guest(caps: &VmxCapabilities) -> GuestState {
    let flat = GuestState::protected_mode(caps, 0x10_0000, 0x20_0000);
    GuestState { cr0: caps.cr0.adjust(0x8000_0031), cr3: 0x2000, ..flat }
}

/// As `legacy`, with PAE paging and PDPTEs under EPT.
pub fn pae(caps: &VmxCapabilities) -> SoftwareVmcs {
    let guest = legacy_guest(caps);
    let guest =
        GuestState { cr4: guest.cr4 | 0x20, pdptes: [0x5001, 0, 0x6001, 0xfff0_0000_0000_0000], ..guest };
    let mut builder = VmcsBuilder::new(caps);
    builder.ept(EptPointer::from_bits(0x3000 | 3 << 3 | 6));
    finish(builder.guest(&guest).host(&host(caps)))
}

/// A guest in virtual-8086 mode.
pub fn virtual_8086(caps: &VmxCapabilities) -> SoftwareVmcs {
    let segment = |selector| Segment::real_mode(selector, AccessRights::VIRTUAL_8086);
    let guest = GuestState {
        rflags: 1 << 17 | 2,
        rip: 0x100,
        cs: segment(0x123),
        ss: segment(0x234),
        ds: segment(0x345),
        es: segment(0),
        fs: segment(0xffff),
        gs: segment(1),
        ..legacy_guest(caps)
    };
    finish(VmcsBuilder::new(caps).guest(&guest).host(&host(caps)))
}

/// A guest in 64-bit mode with all that the processor has, as far as it goes together.
pub fn rich(caps: &VmxCapabilities) -> SoftwareVmcs {
    let guest = GuestState::long_mode(caps, 0x2000, 0x10_0000, 0x20_0000);
    let mut builder = VmcsBuilder::new(caps);
    builder.guest(&guest).host(&host(caps));
    everything(caps, &mut builder);
    finish(&mut builder)
}

fn everything(caps: &VmxCapabilities, builder: &mut VmcsBuilder<'_>) {
    let page = |number: usize| PhysAddr::from(0x10_0000 + number * 0x1000);
    let can = |bit: SecondaryControls| bit.is_available(caps);
    builder.want(PinControls::allowed(caps).1);
    builder.want(PrimaryControls::allowed(caps).1);
    builder.want(SecondaryControls::allowed(caps).1 - SecondaryControls::VIRTUALIZE_X2APIC_MODE);
    builder.want(TertiaryControls::allowed(caps).1);
    builder.want(ExitControls::allowed(caps).1);
    builder.want(SecondaryExitControls::allowed(caps).1);
    let smm = EntryControls::ENTRY_TO_SMM | EntryControls::DEACTIVATE_DUAL_MONITOR;
    builder.want(EntryControls::allowed(caps).1 - smm);
    builder.io_bitmaps(page(0), page(1)).msr_bitmap(page(2));
    builder.exit_msr_store(page(3), 3).exit_msr_load(page(4), 4).entry_msr_load(page(5), 512);
    if PrimaryControls::USE_TPR_SHADOW.is_available(caps) {
        builder.virtual_apic(page(6), 15);
    }
    if can(SecondaryControls::VIRTUALIZE_APIC_ACCESSES) {
        builder.apic_access(page(7));
    }
    if can(SecondaryControls::ENABLE_EPT) {
        let accessed_dirty = u64::from(caps.ept_vpid.contains(EptVpidCap::ACCESSED_DIRTY)) << 6;
        let shadow_stack = u64::from(caps.ept_vpid.contains(EptVpidCap::SUPERVISOR_SHADOW_STACK)) << 7;
        builder.ept(EptPointer::from_bits(0x10_8000 | 3 << 3 | 6 | accessed_dirty | shadow_stack));
    }
    if can(SecondaryControls::ENABLE_VPID) {
        builder.vpid(0xffff);
    }
    if caps.has_vmfunc() {
        builder.eptp_list(page(9));
    }
    if caps.has_vmcs_shadowing() {
        builder.vmcs_shadowing(page(10), page(11), page(12));
    }
    if caps.has_ve() {
        builder.ve_information(page(13));
    }
    if caps.has_pml() {
        builder.pml(page(14));
    }
    if caps.has_spp() {
        builder.sub_page_permissions(page(15));
    }
    if caps.has_posted_interrupts() {
        builder.posted_interrupts(0xf2, PhysAddr::from(0x11_0040));
    }
    if can(SecondaryControls::USE_TSC_SCALING) {
        builder.set(control::TSC_MULTIPLIER, 1 << 48);
    }
    if TertiaryControls::ENABLE_HLAT.is_available(caps) {
        builder.set(control::HLAT_POINTER, 0x11_1000 | 0x18).set(control::HLAT_PREFIX_SIZE, 52);
    }
    if TertiaryControls::IPI_VIRTUALIZATION.is_available(caps) {
        builder.set(control::PID_POINTER_TABLE_ADDRESS, 0x11_2008).set(control::LAST_PID_POINTER_INDEX, 63);
    }
    if has_intel_64(caps) && EntryControls::LOAD_IA32_EFER.is_available(caps) {
        builder.set(guest::IA32_EFER, 0xd01).set(host::IA32_EFER, 0xd01);
    }
    if EntryControls::LOAD_IA32_PAT.is_available(caps) {
        builder.set(guest::IA32_PAT, 0x0007_0406_0007_0406).set(host::IA32_PAT, 0x0007_0406_0007_0106);
    }
    builder.set(control::CR3_TARGET_COUNT, caps.misc.cr3_target_count());
    // An injected page fault with an error code.
    builder.set(control::ENTRY_INTERRUPTION_INFO, 1 << 31 | 1 << 11 | 3 << 8 | 14);
    builder.set(control::ENTRY_EXCEPTION_ERROR_CODE, 0xffff);
}

/// Builds, without debug controls where the processor cannot leave them alone, and checks that nothing was dropped.
fn finish(builder: &mut VmcsBuilder<'_>) -> SoftwareVmcs {
    builder.build().unwrap_or_else(|error| panic!("{error}")).as_vmcs().clone()
}
