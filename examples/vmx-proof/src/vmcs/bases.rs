//! VMCSs that VM entry takes: what the cases start from. `None` where the processor lacks what one needs.
//!
//! None of these guests gets far: its page tables, or its EPT, are empty, and every exception exits.

use vmx_structs::{
    EptPointer, EptVpidCap,
    vmcs::{
        AccessRights, ControlWord, EntryControls, ExitControls, GuestState, PinControls, PrimaryControls,
        SecondaryControls, Segment, SoftwareVmcs, VmcsBuilder, control, guest, host,
    },
};

use super::trial::{MSR_ENTRIES, Setup, page};

fn cr3(setup: &Setup) -> u64 {
    setup.page(page::GUEST_CR3).as_usize() as u64
}

/// A guest in 64-bit mode.
pub fn long(setup: &Setup) -> Option<SoftwareVmcs> {
    let guest = GuestState::long_mode(setup.caps, cr3(setup), 0x10_0000, 0x20_0000);
    finish(VmcsBuilder::new(setup.caps).guest(&guest), setup)
}

/// A guest in real mode, with EPT and "unrestricted guest".
pub fn real(setup: &Setup) -> Option<SoftwareVmcs> {
    unrestricted(GuestState::real_mode(setup.caps, 0x7c0, 0x10), setup)
}

/// A guest in 32-bit protected mode without paging, with EPT and "unrestricted guest".
pub fn protected(setup: &Setup) -> Option<SoftwareVmcs> {
    unrestricted(GuestState::protected_mode(setup.caps, 0x10_0000, 0x20_0000), setup)
}

fn unrestricted(guest: GuestState, setup: &Setup) -> Option<SoftwareVmcs> {
    let mut builder = VmcsBuilder::new(setup.caps);
    builder.ept(ept_pointer(setup, 0)).want(SecondaryControls::UNRESTRICTED_GUEST);
    finish(builder.guest(&guest), setup)
}

/// A guest in 32-bit protected mode with 32-bit paging: what every processor can do.
pub fn legacy(setup: &Setup) -> Option<SoftwareVmcs> {
    finish(VmcsBuilder::new(setup.caps).guest(&legacy_guest(setup)), setup)
}

fn legacy_guest(setup: &Setup) -> GuestState {
    let flat = GuestState::protected_mode(setup.caps, 0x10_0000, 0x20_0000);
    GuestState { cr0: setup.caps.cr0.adjust(0x8000_0031), cr3: cr3(setup), ..flat }
}

/// As `legacy`, with PAE paging and PDPTEs under EPT.
pub fn pae(setup: &Setup) -> Option<SoftwareVmcs> {
    let guest = legacy_guest(setup);
    let pdptes = [0x5001, 0, 0x6001, 0xfff0_0000_0000_0000];
    let guest = GuestState { cr4: guest.cr4 | 0x20, pdptes, ..guest };
    finish(VmcsBuilder::new(setup.caps).ept(ept_pointer(setup, 0)).guest(&guest), setup)
}

/// A guest in virtual-8086 mode.
pub fn virtual_8086(setup: &Setup) -> Option<SoftwareVmcs> {
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
        ..legacy_guest(setup)
    };
    finish(VmcsBuilder::new(setup.caps).guest(&guest), setup)
}

/// A guest in 64-bit mode with all that the processor has, as far as it goes together.
pub fn rich(setup: &Setup) -> Option<SoftwareVmcs> {
    let caps = setup.caps;
    let page = |number| setup.page(number);
    let mut builder = VmcsBuilder::new(caps);
    builder.guest(&GuestState::long_mode(caps, cr3(setup), 0x10_0000, 0x20_0000));
    builder.want(PinControls::allowed(caps).1);
    builder.want(PrimaryControls::allowed(caps).1);
    builder.want(SecondaryControls::allowed(caps).1 - SecondaryControls::VIRTUALIZE_X2APIC_MODE);
    builder.want(ExitControls::allowed(caps).1);
    let smm = EntryControls::ENTRY_TO_SMM | EntryControls::DEACTIVATE_DUAL_MONITOR;
    builder.want(EntryControls::allowed(caps).1 - smm);
    builder.io_bitmaps(page(page::IO_A), page(page::IO_B)).msr_bitmap(page(page::MSR_BITMAP));
    builder.exit_msr_store(page(page::EXIT_STORE), MSR_ENTRIES);
    builder.exit_msr_load(page(page::EXIT_LOAD), MSR_ENTRIES);
    builder.entry_msr_load(page(page::ENTRY_LOAD), MSR_ENTRIES);
    builder.virtual_apic(page(page::VIRTUAL_APIC), 15).apic_access(page(page::APIC_ACCESS));
    let cap = caps.ept_vpid;
    let flags = u64::from(cap.contains(EptVpidCap::ACCESSED_DIRTY)) << 6
        | u64::from(cap.contains(EptVpidCap::SUPERVISOR_SHADOW_STACK)) << 7;
    builder.ept(ept_pointer(setup, flags)).vpid(0xffff);
    if caps.has_vmfunc() {
        builder.eptp_list(page(page::EPTP_LIST));
    }
    if caps.has_vmcs_shadowing() {
        let bitmaps = [page(page::VMREAD_BITMAP), page(page::VMWRITE_BITMAP)];
        builder.vmcs_shadowing(bitmaps[0], bitmaps[1], page(page::SHADOW));
    }
    if caps.has_ve() {
        builder.ve_information(page(page::VE));
    }
    if caps.has_pml() {
        builder.pml(page(page::PML));
    }
    if caps.has_spp() {
        builder.sub_page_permissions(page(page::SPP));
    }
    if SecondaryControls::USE_TSC_SCALING.is_available(caps) {
        builder.set(control::TSC_MULTIPLIER, 1 << 48);
    }
    builder.set(guest::IA32_EFER, 0xd01).set(host::IA32_EFER, 0xd01);
    builder.set(guest::IA32_PAT, 0x0007_0406_0007_0406).set(host::IA32_PAT, 0x0007_0406_0007_0406);
    builder.set(control::CR3_TARGET_COUNT, caps.misc.cr3_target_count());
    // An injected page fault with an error code.
    builder.set(control::ENTRY_INTERRUPTION_INFO, 1 << 31 | 1 << 11 | 3 << 8 | 14);
    builder.set(control::ENTRY_EXCEPTION_ERROR_CODE, 0xffff);
    finish(&mut builder, setup)
}

fn ept_pointer(setup: &Setup, flags: u64) -> EptPointer {
    EptPointer::from_bits(setup.page(page::EPT).as_usize() as u64 | 3 << 3 | 6 | flags)
}

fn finish(builder: &mut VmcsBuilder<'_>, setup: &Setup) -> Option<SoftwareVmcs> {
    builder.host(&setup.host).set(control::EXCEPTION_BITMAP, u32::MAX);
    builder.build().ok().map(|image| image.as_vmcs().clone())
}
