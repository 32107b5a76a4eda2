//! Every rule of VM entry: a VMCS that keeps all, and for each rule one that breaks exactly it.

mod vmcs_support;

use std::collections::BTreeSet;

use vmcs_support::{caps, has_intel_64, legacy, long, pae, protected, real, rich, violations, virtual_8086};
use vmx_structs::{
    CpuModel, VmxCapabilities,
    checks::{EntryContext, Rule, Stage, Verdict},
    vmcs::*,
};

const SHUT: u32 = 2;
const SIPI: u32 = 3;

#[test]
fn good_vmcss_pass_on_every_model() {
    let mut entered = 0;
    for model in CpuModel::ALL {
        let caps = model.capabilities();
        let context = EntryContext::new(&caps);
        let mut bases = vec![("legacy", legacy(&caps)), ("virtual-8086", virtual_8086(&caps))];
        if has_intel_64(&caps) {
            bases.extend([("long", long(&caps)), ("rich", rich(&caps))]);
        }
        if caps.has_ept() {
            bases.push(("pae", pae(&caps)));
        }
        if caps.has_unrestricted_guest() {
            bases.extend([("real", real(&caps)), ("protected", protected(&caps))]);
        }
        for (name, vmcs) in bases {
            let (found, verdict) = violations(&vmcs, &context);
            assert_eq!(found, [], "{name} on {}: {:#?}", model.id(), found);
            assert_eq!(verdict, Verdict::Enters);
            entered += 1;
        }
    }
    assert_eq!(entered, 13 * 2 + 12 * 2 + 11 + 10 * 2);
}

type Base = fn(&VmxCapabilities) -> SoftwareVmcs;
/// What is changed to break a rule: the VMCS, and the processor around it.
type Break = fn(&mut SoftwareVmcs, &mut EntryContext<'_>);

struct Case {
    rule: Rule,
    model: &'static str,
    base: Base,
    fault: Break,
}

fn case(rule: Rule, model: &'static str, base: Base, fault: Break) -> Case {
    Case { rule, model, base, fault }
}

/// Sets bits of a control word that may be set.
fn or<G: WritableGroup>(vmcs: &mut SoftwareVmcs, field: Field<Bits32, G>, bits: u32) {
    vmcs.set(field, vmcs.get(field) | bits);
}

/// Clears bits.
fn clear<G: WritableGroup>(vmcs: &mut SoftwareVmcs, field: Field<Bits32, G>, bits: u32) {
    vmcs.set(field, vmcs.get(field) & !bits);
}

/// Adds secondary controls, and activates them.
fn secondary(vmcs: &mut SoftwareVmcs, bits: SecondaryControls) {
    or(vmcs, control::PRIMARY_CONTROLS, 1 << 31);
    or(vmcs, control::SECONDARY_CONTROLS, bits.bits());
}

/// Injects an event: type, vector, other bits.
fn inject(vmcs: &mut SoftwareVmcs, event_type: u32, vector: u32, more: u32) {
    vmcs.set(control::ENTRY_INTERRUPTION_INFO, 1 << 31 | event_type << 8 | vector | more);
}

/// Memory of 8-byte words that says the same everywhere.
fn memory_of(context: &mut EntryContext<'_>, read: &'static dyn Fn(u64) -> Option<u64>) {
    context.read_memory = Some(read);
}

#[rustfmt::skip]
fn control_cases() -> Vec<Case> {
    vec![
        case(Rule::PinControls, "haswell", long, |v, _| clear(v, control::PIN_CONTROLS, 1 << 1)),
        case(Rule::PinControls, "haswell", long, |v, _| or(v, control::PIN_CONTROLS, 1 << 8)),
        case(Rule::PinControls, "first_generation", legacy, |v, _| or(v, control::PIN_CONTROLS, 1 << 5 | 1 << 3)),
        case(Rule::PrimaryControls, "haswell", long, |v, _| clear(v, control::PRIMARY_CONTROLS, 1 << 26)),
        case(Rule::PrimaryControls, "haswell", long, |v, _| or(v, control::PRIMARY_CONTROLS, 1 << 18)),
        // CR3-load exiting must be 1 where there are no TRUE MSRs.
        case(Rule::PrimaryControls, "first_generation", legacy, |v, _| clear(v, control::PRIMARY_CONTROLS, 1 << 15)),
        case(Rule::SecondaryControls, "haswell", long, |v, _| secondary(v, SecondaryControls::RDSEED_EXITING)),
        case(Rule::SecondaryControls, "everything", long, |v, _| secondary(v, SecondaryControls::from_bits_retain(1 << 29))),
        case(Rule::TertiaryControls, "everything", rich, |v, _| v.set(control::TERTIARY_CONTROLS, 1 << 63)),
        case(Rule::Cr3TargetCount, "haswell", long, |v, _| v.set(control::CR3_TARGET_COUNT, 5)),
        case(Rule::IoBitmapAddress, "sandy_bridge", rich, |v, _| v.set(control::IO_BITMAP_A, 0x1001)),
        case(Rule::IoBitmapAddress, "sandy_bridge", rich, |v, _| v.set(control::IO_BITMAP_B, 1 << 40)),
        case(Rule::IoBitmapAddress, "first_generation", legacy, |v, _| { or(v, control::PRIMARY_CONTROLS, 1 << 25); v.set(control::IO_BITMAP_A, 1 << 32) }),
        case(Rule::MsrBitmapAddress, "sandy_bridge", rich, |v, _| v.set(control::MSR_BITMAPS, 0x1800)),
        case(Rule::MsrBitmapAddress, "sandy_bridge", rich, |v, _| v.set(control::MSR_BITMAPS, 1 << 63)),
        case(Rule::VirtualApicAddress, "everything", rich, |v, _| v.set(control::VIRTUAL_APIC_ADDRESS, 0x10)),
        case(Rule::VirtualApicAddress, "everything", rich, |v, _| v.set(control::VIRTUAL_APIC_ADDRESS, 1 << 52)),
        case(Rule::TprThresholdReserved, "sandy_bridge", rich, |v, _| v.set(control::TPR_THRESHOLD, 0x10)),
        case(Rule::TprThresholdAboveVtpr, "arrandale", rich, |v, c| {
            clear(v, control::SECONDARY_CONTROLS, 1);
            v.set(control::TPR_THRESHOLD, 6);
            memory_of(c, &|address| if address % 4096 == 0x80 { Some(0x5f) } else { Some(0x8000_002b) });
        }),
        case(Rule::VirtualNmisNeedNmiExiting, "haswell", long, |v, _| or(v, control::PIN_CONTROLS, 1 << 5)),
        case(Rule::NmiWindowNeedsVirtualNmis, "haswell", long, |v, _| or(v, control::PRIMARY_CONTROLS, 1 << 22)),
        case(Rule::ApicAccessAddress, "sandy_bridge", rich, |v, _| v.set(control::APIC_ACCESS_ADDRESS, 8)),
        case(Rule::ApicAccessAddress, "sandy_bridge", rich, |v, _| v.set(control::APIC_ACCESS_ADDRESS, 1 << 41)),
        case(Rule::ApicVirtualizationNeedsTprShadow, "haswell", long, |v, _| secondary(v, SecondaryControls::VIRTUALIZE_X2APIC_MODE)),
        case(Rule::ApicVirtualizationNeedsTprShadow, "haswell", long, |v, _| secondary(v, SecondaryControls::APIC_REGISTER_VIRTUALIZATION)),
        case(Rule::ApicVirtualizationNeedsTprShadow, "haswell", long, |v, _| { secondary(v, SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY); or(v, control::PIN_CONTROLS, 1) }),
        case(Rule::ApicVirtualizationNeedsTprShadow, "everything", long, |v, _| { or(v, control::PRIMARY_CONTROLS, 1 << 17); v.set(control::TERTIARY_CONTROLS, 1 << 4) }),
        case(Rule::X2ApicExcludesApicAccesses, "haswell", rich, |v, _| secondary(v, SecondaryControls::VIRTUALIZE_X2APIC_MODE)),
        case(Rule::VirtualInterruptsNeedExternalInterruptExiting, "haswell", rich, |v, _| clear(v, control::PIN_CONTROLS, 1)),
        case(Rule::PostedInterruptsNeedVirtualInterrupts, "everything", rich, |v, _| clear(v, control::SECONDARY_CONTROLS, 1 << 9)),
        case(Rule::PostedInterruptsNeedAcknowledge, "everything", rich, |v, _| clear(v, control::EXIT_CONTROLS, 1 << 15)),
        case(Rule::PostedInterruptVector, "everything", rich, |v, _| v.set(control::POSTED_INTERRUPT_NOTIFICATION_VECTOR, 0x100)),
        case(Rule::PostedInterruptDescriptorAddress, "everything", rich, |v, _| v.set(control::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, 0x20)),
        case(Rule::PostedInterruptDescriptorAddress, "everything", rich, |v, _| v.set(control::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, 1 << 52)),
        case(Rule::VpidNotZero, "haswell", rich, |v, _| v.set(control::VPID, 0)),
        case(Rule::EptpMemoryType, "haswell", real, |v, _| v.set(control::EPT_POINTER, 0x3000 | 3 << 3 | 4)),
        case(Rule::EptpWalkLength, "haswell", real, |v, _| v.set(control::EPT_POINTER, 0x3000 | 4 << 3 | 6)),
        case(Rule::EptpWalkLength, "everything", real, |v, _| v.set(control::EPT_POINTER, 0x3000 | 2 << 3 | 6)),
        case(Rule::EptpAccessedDirty, "sandy_bridge", real, |v, _| v.set(control::EPT_POINTER, 0x3000 | 3 << 3 | 6 | 1 << 6)),
        case(Rule::EptpShadowStack, "haswell", real, |v, _| v.set(control::EPT_POINTER, 0x3000 | 3 << 3 | 6 | 1 << 7)),
        case(Rule::EptpReserved, "haswell", real, |v, _| v.set(control::EPT_POINTER, 0x3000 | 3 << 3 | 6 | 1 << 8)),
        case(Rule::EptpReserved, "haswell", real, |v, _| v.set(control::EPT_POINTER, 0x3000 | 3 << 3 | 6 | 1 << 11)),
        case(Rule::EptpReserved, "haswell", real, |v, _| v.set(control::EPT_POINTER, 1 << 40 | 3 << 3 | 6)),
        case(Rule::PmlNeedsEpt, "skylake_x", long, |v, _| secondary(v, SecondaryControls::ENABLE_PML)),
        case(Rule::PmlAddress, "skylake_x", rich, |v, _| v.set(control::PML_ADDRESS, 0xff8)),
        case(Rule::PmlAddress, "skylake_x", rich, |v, _| v.set(control::PML_ADDRESS, 1 << 40)),
        case(Rule::UnrestrictedGuestNeedsEpt, "sandy_bridge", long, |v, _| secondary(v, SecondaryControls::UNRESTRICTED_GUEST)),
        case(Rule::ModeBasedExecuteNeedsEpt, "everything", long, |v, _| secondary(v, SecondaryControls::MODE_BASED_EXECUTE_CONTROL)),
        case(Rule::SubPageNeedsEpt, "tigerlake", long, |v, _| secondary(v, SecondaryControls::SUB_PAGE_WRITE_PERMISSIONS)),
        case(Rule::SubPageTableAddress, "tigerlake", rich, |v, _| v.set(control::SPP_TABLE_POINTER, 0x1800)),
        case(Rule::VmFunctionControls, "haswell", rich, |v, _| v.set(control::VM_FUNCTION_CONTROLS, 3)),
        case(Rule::EptpSwitchingNeedsEpt, "haswell", long, |v, _| { secondary(v, SecondaryControls::ENABLE_VM_FUNCTIONS); v.set(control::VM_FUNCTION_CONTROLS, 1) }),
        case(Rule::EptpListAddress, "haswell", rich, |v, _| v.set(control::EPTP_LIST_ADDRESS, 0x1008)),
        case(Rule::VmreadBitmapAddress, "haswell", rich, |v, _| v.set(control::VMREAD_BITMAP_ADDRESS, 4)),
        case(Rule::VmwriteBitmapAddress, "haswell", rich, |v, _| v.set(control::VMWRITE_BITMAP_ADDRESS, 1 << 40)),
        case(Rule::VeInformationAddress, "haswell", rich, |v, _| v.set(control::VE_INFORMATION_ADDRESS, 64)),
        case(Rule::TracingExcludesLoadRtitCtl, "everything", rich, |_, c| c.tracing = true),
        case(Rule::GuestPhysicalTraceNeedsEpt, "everything", long, |v, _| {
            secondary(v, SecondaryControls::PT_USES_GUEST_PHYSICAL_ADDRESSES);
            or(v, control::ENTRY_CONTROLS, EntryControls::LOAD_IA32_RTIT_CTL.bits());
            or(v, control::EXIT_CONTROLS, ExitControls::CLEAR_IA32_RTIT_CTL.bits());
        }),
        case(Rule::GuestPhysicalTraceNeedsLoad, "everything", rich, |v, _| clear(v, control::ENTRY_CONTROLS, 1 << 18)),
        case(Rule::GuestPhysicalTraceNeedsClear, "everything", rich, |v, _| clear(v, control::EXIT_CONTROLS, 1 << 25)),
        case(Rule::TscMultiplierNotZero, "skylake_x", rich, |v, _| v.set(control::TSC_MULTIPLIER, 0)),
        case(Rule::HlatNeedsEpt, "everything", long, |v, _| { or(v, control::PRIMARY_CONTROLS, 1 << 17); v.set(control::TERTIARY_CONTROLS, 1 << 2) }),
        case(Rule::HlatPointer, "everything", rich, |v, _| v.set(control::HLAT_POINTER, 0x1001)),
        case(Rule::HlatPointer, "everything", rich, |v, _| v.set(control::HLAT_POINTER, 0x1020)),
        case(Rule::HlatPrefixSize, "everything", rich, |v, _| v.set(control::HLAT_PREFIX_SIZE, 53)),
        case(Rule::PidPointerTableAddress, "everything", rich, |v, _| v.set(control::PID_POINTER_TABLE_ADDRESS, 0x1004)),
        case(Rule::PidPointerTableAddress, "everything", rich, |v, _| v.set(control::PID_POINTER_TABLE_ADDRESS, (1 << 52) - 64 * 8 + 8)),
        case(Rule::PasidDirectoryAddress, "everything", rich, |v, _| v.set(control::LOW_PASID_DIRECTORY_ADDRESS, 1)),
        case(Rule::PasidDirectoryAddress, "everything", rich, |v, _| v.set(control::HIGH_PASID_DIRECTORY_ADDRESS, 1 << 60)),
        case(Rule::ExitControls, "haswell", long, |v, _| clear(v, control::EXIT_CONTROLS, 1 << 3)),
        case(Rule::ExitControls, "haswell", long, |v, _| or(v, control::EXIT_CONTROLS, 1 << 28)),
        case(Rule::SecondaryExitControls, "everything", rich, |v, _| v.set(control::SECONDARY_EXIT_CONTROLS, 1 << 4)),
        case(Rule::SaveTimerNeedsTimer, "haswell", long, |v, _| or(v, control::EXIT_CONTROLS, 1 << 22)),
        case(Rule::ExitMsrStoreArea, "haswell", rich, |v, _| v.set(control::EXIT_MSR_STORE_ADDRESS, 0x1008)),
        case(Rule::ExitMsrStoreArea, "haswell", rich, |v, _| v.set(control::EXIT_MSR_STORE_ADDRESS, (1 << 40) - 32)),
        case(Rule::ExitMsrLoadArea, "haswell", rich, |v, _| v.set(control::EXIT_MSR_LOAD_ADDRESS, 1)),
        case(Rule::ExitMsrLoadArea, "haswell", rich, |v, _| v.set(control::EXIT_MSR_LOAD_ADDRESS, u64::MAX - 0xf)),
        case(Rule::EntryControls, "haswell", long, |v, _| clear(v, control::ENTRY_CONTROLS, 1 << 12)),
        case(Rule::EntryControls, "haswell", long, |v, _| or(v, control::ENTRY_CONTROLS, 1 << 20)),
        case(Rule::EntryMsrLoadArea, "haswell", rich, |v, _| v.set(control::ENTRY_MSR_LOAD_ADDRESS, 1 << 40)),
        case(Rule::EntryMsrLoadArea, "haswell", rich, |v, _| { v.set(control::ENTRY_MSR_LOAD_COUNT, u32::MAX); v.set(control::ENTRY_MSR_LOAD_ADDRESS, (1 << 40) - 0x1000) }),
        case(Rule::SmmControlsOutsideSmm, "haswell", long, |v, _| or(v, control::ENTRY_CONTROLS, 1 << 10)),
        case(Rule::SmmControlsOutsideSmm, "haswell", long, |v, _| or(v, control::ENTRY_CONTROLS, 1 << 11)),
        case(Rule::SmmControlsExclusive, "haswell", long, |v, c| { or(v, control::ENTRY_CONTROLS, 3 << 10); v.set(guest::INTERRUPTIBILITY_STATE, 4); c.in_smm = true }),
    ]
}

#[rustfmt::skip]
fn event_cases() -> Vec<Case> {
    vec![
        case(Rule::InjectionType, "haswell", long, |v, _| inject(v, 1, 0, 0)),
        case(Rule::InjectionType, "haswell", long, |v, _| inject(v, 7, 0, 0)), // no monitor trap flag
        case(Rule::InjectionVector, "haswell", long, |v, _| inject(v, 2, 3, 0)),
        case(Rule::InjectionVector, "haswell", long, |v, _| inject(v, 3, 32, 0)),
        case(Rule::InjectionVector, "tigerlake", long, |v, _| inject(v, 7, 1, 0)),
        case(Rule::InjectionDeliversErrorCode, "haswell", long, |v, _| inject(v, 3, 13, 0)),
        case(Rule::InjectionDeliversErrorCode, "haswell", long, |v, _| inject(v, 3, 8, 0)),
        case(Rule::InjectionDeliversErrorCode, "haswell", long, |v, _| inject(v, 3, 17, 0)),
        case(Rule::InjectionDeliversErrorCode, "haswell", long, |v, _| inject(v, 3, 6, 1 << 11)),
        case(Rule::InjectionDeliversErrorCode, "haswell", long, |v, _| inject(v, 3, 21, 1 << 11)),
        case(Rule::InjectionDeliversErrorCode, "haswell", long, |v, _| inject(v, 2, 2, 1 << 11)),
        case(Rule::InjectionDeliversErrorCode, "haswell", real, |v, _| inject(v, 3, 13, 1 << 11)),
        // Even where any vector may have one, only exceptions do, in protected mode.
        case(Rule::InjectionDeliversErrorCode, "tigerlake", long, |v, _| inject(v, 2, 2, 1 << 11)),
        case(Rule::InjectionDeliversErrorCode, "tigerlake", real, |v, _| inject(v, 3, 13, 1 << 11)),
        case(Rule::InjectionReserved, "haswell", long, |v, _| inject(v, 3, 6, 1 << 12)),
        case(Rule::InjectionReserved, "haswell", long, |v, _| inject(v, 3, 6, 1 << 13)),
        case(Rule::InjectionReserved, "everything", long, |v, _| inject(v, 3, 6, 1 << 14)),
        case(Rule::InjectionReserved, "haswell", long, |v, _| inject(v, 3, 6, 1 << 30)),
        case(Rule::InjectionErrorCode, "haswell", long, |v, _| { inject(v, 3, 14, 1 << 11); v.set(control::ENTRY_EXCEPTION_ERROR_CODE, 0x1_0000) }),
        case(Rule::InjectionLength, "haswell", long, |v, _| inject(v, 4, 0x80, 0)),
        case(Rule::InjectionLength, "haswell", long, |v, _| { inject(v, 5, 1, 0); v.set(control::ENTRY_INSTRUCTION_LENGTH, 16) }),
        case(Rule::InjectionLength, "skylake_x", long, |v, _| { inject(v, 6, 3, 0); v.set(control::ENTRY_INSTRUCTION_LENGTH, 16) }),
    ]
}

#[rustfmt::skip]
fn host_cases() -> Vec<Case> {
    vec![
        case(Rule::HostCr0, "haswell", long, |v, _| v.set(host::CR0, 0x8005_0013)), // no NE
        case(Rule::HostCr0, "haswell", long, |v, _| v.set(host::CR0, 0x1_8005_0033)),
        case(Rule::HostCr4, "haswell", long, |v, _| v.set(host::CR4, 0x20)), // no VMXE
        case(Rule::HostCr4, "sandy_bridge", long, |v, _| v.set(host::CR4, 0x2020 | 1 << 20)),
        case(Rule::HostCetNeedsWriteProtect, "tigerlake", long, |v, _| { v.set(host::CR4, 0x2020 | 1 << 23); v.set(host::CR0, 0x8000_0031) }),
        case(Rule::HostCr3, "haswell", long, |v, _| v.set(host::CR3, 1 << 40)),
        case(Rule::HostSysenterCanonical, "haswell", long, |v, _| v.set(host::IA32_SYSENTER_ESP, 1 << 47)),
        case(Rule::HostSysenterCanonical, "haswell", long, |v, _| v.set(host::IA32_SYSENTER_EIP, 1 << 63)),
        case(Rule::HostPerfGlobalCtrl, "haswell", rich, |v, _| v.set(host::IA32_PERF_GLOBAL_CTRL, 1 << 4)),
        case(Rule::HostPat, "haswell", rich, |v, _| v.set(host::IA32_PAT, 0x0200)),
        case(Rule::HostPat, "haswell", rich, |v, _| v.set(host::IA32_PAT, 8 << 56)),
        case(Rule::HostEferReserved, "haswell", rich, |v, _| v.set(host::IA32_EFER, 0xd01 | 2)),
        case(Rule::HostEferMode, "haswell", rich, |v, _| v.set(host::IA32_EFER, 0x901)),
        case(Rule::HostEferMode, "haswell", rich, |v, _| v.set(host::IA32_EFER, 0xc01)),
        case(Rule::HostSCet, "tigerlake", rich, |v, _| v.set(host::IA32_S_CET, 1 << 6)),
        case(Rule::HostSCet, "tigerlake", rich, |v, _| v.set(host::IA32_S_CET, 3 << 10)),
        case(Rule::HostSCet, "tigerlake", rich, |v, _| v.set(host::IA32_S_CET, 1 << 47)),
        case(Rule::HostSsp, "tigerlake", rich, |v, _| v.set(host::SSP, 2)),
        case(Rule::HostSsp, "tigerlake", rich, |v, _| v.set(host::SSP, 1 << 47)),
        case(Rule::HostSspTable, "tigerlake", rich, |v, _| v.set(host::IA32_INTERRUPT_SSP_TABLE_ADDR, 1 << 62)),
        case(Rule::HostPkrs, "everything", rich, |v, _| v.set(host::IA32_PKRS, 1 << 32)),
        case(Rule::HostFred, "everything", rich, |v, _| v.set(host::IA32_FRED_CONFIG, 1 << 2)),
        case(Rule::HostFred, "everything", rich, |v, _| v.set(host::IA32_FRED_RSP1, 0x20)),
        case(Rule::HostFred, "everything", rich, |v, _| v.set(host::IA32_FRED_SSP3, 1 << 62)),
        case(Rule::HostSelectorRplTi, "haswell", long, |v, _| v.set(host::DS_SELECTOR, 3)),
        case(Rule::HostSelectorRplTi, "haswell", long, |v, _| v.set(host::ES_SELECTOR, 4)),
        case(Rule::HostSelectorRplTi, "haswell", long, |v, _| v.set(host::TR_SELECTOR, 0x1c)),
        case(Rule::HostSelectorRplTi, "haswell", long, |v, _| v.set(host::FS_SELECTOR, 1)),
        case(Rule::HostSelectorRplTi, "haswell", long, |v, _| v.set(host::GS_SELECTOR, 1)),
        case(Rule::HostSelectorRplTi, "haswell", long, |v, _| v.set(host::CS_SELECTOR, 0xa)),
        case(Rule::HostSelectorRplTi, "haswell", long, |v, _| v.set(host::SS_SELECTOR, 0x12)),
        case(Rule::HostSelectorNull, "haswell", long, |v, _| v.set(host::CS_SELECTOR, 0)),
        case(Rule::HostSelectorNull, "haswell", long, |v, _| v.set(host::TR_SELECTOR, 0)),
        case(Rule::HostSsNull, "first_generation", legacy, |v, _| v.set(host::SS_SELECTOR, 0)),
        case(Rule::HostBaseCanonical, "haswell", long, |v, _| v.set(host::FS_BASE, 1 << 47)),
        case(Rule::HostBaseCanonical, "haswell", long, |v, _| v.set(host::GS_BASE, 1 << 48)),
        case(Rule::HostBaseCanonical, "haswell", long, |v, _| v.set(host::TR_BASE, 1 << 63)),
        case(Rule::HostBaseCanonical, "haswell", long, |v, _| v.set(host::GDTR_BASE, 1 << 47)),
        case(Rule::HostBaseCanonical, "everything", long, |v, _| v.set(host::IDTR_BASE, 1 << 56)),
        case(Rule::LegacyModeEntersNo64Bit, "haswell", legacy, |_, c| c.ia32e_mode = false),
        case(Rule::LongModeNeeds64BitHost, "haswell", legacy, |v, _| { clear(v, control::EXIT_CONTROLS, 1 << 9); v.set(host::RIP, 0x1000) }),
        case(Rule::Host32ExcludesPcid, "haswell", legacy, |v, c| {
            clear(v, control::EXIT_CONTROLS, 1 << 9);
            v.set(host::RIP, 0x1000);
            v.set(host::CR4, 0x2000 | 1 << 17);
            c.ia32e_mode = false;
        }),
        case(Rule::Host32Rip, "haswell", legacy, |v, c| {
            clear(v, control::EXIT_CONTROLS, 1 << 9);
            v.set(host::RIP, 1 << 32);
            c.ia32e_mode = false;
        }),
        case(Rule::Host32Cet, "tigerlake", legacy, |v, c| {
            clear(v, control::EXIT_CONTROLS, 1 << 9);
            or(v, control::EXIT_CONTROLS, 1 << 28);
            v.set(host::RIP, 0x1000);
            v.set(host::SSP, 1 << 32);
            c.ia32e_mode = false;
        }),
        case(Rule::Host64NeedsPae, "haswell", long, |v, _| v.set(host::CR4, 0x2000)),
        case(Rule::Host64Rip, "haswell", long, |v, _| v.set(host::RIP, 1 << 47)),
    ]
}

#[rustfmt::skip]
fn guest_register_cases() -> Vec<Case> {
    vec![
        case(Rule::GuestCr0, "haswell", long, |v, _| v.set(guest::CR0, 0x8000_0011)), // no NE
        case(Rule::GuestCr0, "haswell", legacy, |v, _| v.set(guest::CR0, 0x31)), // no PG
        case(Rule::GuestCr0, "haswell", real, |v, _| v.set(guest::CR0, 0x10)), // NE is not exempt
        case(Rule::GuestCr0, "haswell", real, |v, _| v.set(guest::CR0, 1 << 32 | 0x30)),
        case(Rule::GuestPagingNeedsProtection, "haswell", real, |v, _| v.set(guest::CR0, 0x8000_0030)),
        case(Rule::GuestCr4, "haswell", long, |v, _| v.set(guest::CR4, 0x20)),
        case(Rule::GuestCr4, "sandy_bridge", long, |v, _| v.set(guest::CR4, 0x2020 | 1 << 21)),
        case(Rule::GuestCetNeedsWriteProtect, "tigerlake", long, |v, _| v.set(guest::CR4, 0x2020 | 1 << 23)),
        case(Rule::GuestDebugctl, "haswell", long, |v, _| v.set(guest::IA32_DEBUGCTL, 1 << 3)),
        case(Rule::Ia32eGuestNeedsPaging, "haswell", long, |v, _| {
            secondary(v, SecondaryControls::UNRESTRICTED_GUEST | SecondaryControls::ENABLE_EPT);
            v.set(control::EPT_POINTER, 0x3000 | 3 << 3 | 6);
            v.set(guest::CR0, 0x31);
        }),
        case(Rule::Ia32eGuestNeedsPae, "haswell", long, |v, _| v.set(guest::CR4, 0x2000)),
        case(Rule::LegacyGuestExcludesPcid, "haswell", legacy, |v, _| v.set(guest::CR4, 0x2000 | 1 << 17)),
        case(Rule::GuestCr3, "haswell", long, |v, _| v.set(guest::CR3, 1 << 40)),
        case(Rule::GuestDr7, "haswell", long, |v, _| v.set(guest::DR7, 1 << 32)),
        case(Rule::GuestSysenterCanonical, "haswell", long, |v, _| v.set(guest::IA32_SYSENTER_ESP, 1 << 47)),
        case(Rule::GuestSysenterCanonical, "haswell", long, |v, _| v.set(guest::IA32_SYSENTER_EIP, 1 << 47)),
        case(Rule::GuestSCet, "tigerlake", rich, |v, _| v.set(guest::IA32_S_CET, 1 << 9)),
        case(Rule::GuestSCet, "tigerlake", legacy, |v, _| { or(v, control::ENTRY_CONTROLS, 1 << 20); v.set(guest::IA32_S_CET, 1 << 32) }),
        case(Rule::GuestSspTable, "tigerlake", rich, |v, _| v.set(guest::IA32_INTERRUPT_SSP_TABLE_ADDR, 1 << 47)),
        case(Rule::GuestPerfGlobalCtrl, "haswell", rich, |v, _| v.set(guest::IA32_PERF_GLOBAL_CTRL, 1 << 35)),
        case(Rule::GuestPat, "haswell", rich, |v, _| v.set(guest::IA32_PAT, 3)),
        case(Rule::GuestEferReserved, "haswell", rich, |v, _| v.set(guest::IA32_EFER, 0xd01 | 1 << 63)),
        case(Rule::GuestEferLma, "haswell", legacy, |v, _| { or(v, control::ENTRY_CONTROLS, 1 << 15); v.set(guest::IA32_EFER, 0x500) }),
        case(Rule::GuestEferLme, "haswell", legacy, |v, _| { or(v, control::ENTRY_CONTROLS, 1 << 15); v.set(guest::IA32_EFER, 0x100) }),
        case(Rule::GuestBndcfgs, "everything", rich, |v, _| v.set(guest::IA32_BNDCFGS, 4)),
        case(Rule::GuestBndcfgs, "everything", rich, |v, _| v.set(guest::IA32_BNDCFGS, 1 << 56)),
        case(Rule::GuestRtitCtl, "everything", rich, |v, _| v.set(guest::IA32_RTIT_CTL, 1 << 63)),
        case(Rule::GuestPkrs, "everything", rich, |v, _| v.set(guest::IA32_PKRS, 1 << 32)),
        case(Rule::GuestUinv, "everything", rich, |v, _| v.set(guest::UINV, 0x100)),
        case(Rule::GuestLbrCtl, "everything", rich, |v, _| v.set(guest::IA32_LBR_CTL, 1 << 4)),
        case(Rule::GuestFred, "everything", rich, |v, _| v.set(guest::IA32_FRED_CONFIG, 1 << 11)),
        case(Rule::GuestFred, "everything", rich, |v, _| v.set(guest::IA32_FRED_SSP1, 4)),
        case(Rule::GuestFred, "everything", rich, |v, _| v.set(guest::IA32_FRED_RSP3, 1 << 56)),
        case(Rule::RipUpperHalf, "haswell", legacy, |v, _| v.set(guest::RIP, 1 << 32)),
        case(Rule::RipUpperHalf, "haswell", long, |v, _| { v.set(guest::CS_ACCESS_RIGHTS, 0xc09b); v.set(guest::RIP, 1 << 32) }),
        case(Rule::RipLinearWidth, "haswell", long, |v, _| v.set(guest::RIP, 1 << 48)),
        case(Rule::RflagsReserved, "haswell", long, |v, _| v.set(guest::RFLAGS, 0)),
        case(Rule::RflagsReserved, "haswell", long, |v, _| v.set(guest::RFLAGS, 2 | 1 << 3)),
        case(Rule::RflagsReserved, "haswell", long, |v, _| v.set(guest::RFLAGS, 2 | 1 << 5)),
        case(Rule::RflagsReserved, "haswell", long, |v, _| v.set(guest::RFLAGS, 2 | 1 << 15)),
        case(Rule::RflagsReserved, "haswell", long, |v, _| v.set(guest::RFLAGS, 2 | 1 << 22)),
        case(Rule::RflagsReserved, "haswell", long, |v, _| v.set(guest::RFLAGS, 2 | 1 << 63)),
        case(Rule::RflagsVirtual8086, "haswell", virtual_8086, |v, _| {
            or(v, control::ENTRY_CONTROLS, 1 << 9);
            v.set(guest::CR4, 0x2020);
        }),
        case(Rule::RflagsVirtual8086, "haswell", virtual_8086, |v, _| {
            secondary(v, SecondaryControls::UNRESTRICTED_GUEST | SecondaryControls::ENABLE_EPT);
            v.set(control::EPT_POINTER, 0x3000 | 3 << 3 | 6);
            v.set(guest::CR0, 0x30);
        }),
        case(Rule::RflagsInterruptInjection, "haswell", long, |v, _| inject(v, 0, 0x20, 0)),
        case(Rule::GuestSsp, "tigerlake", rich, |v, _| v.set(guest::SSP, 1)),
        case(Rule::GuestSsp, "tigerlake", rich, |v, _| v.set(guest::SSP, 1 << 48)),
        case(Rule::GuestSsp, "tigerlake", legacy, |v, _| { or(v, control::ENTRY_CONTROLS, 1 << 20); v.set(guest::SSP, 1 << 32) }),
    ]
}

#[rustfmt::skip]
fn segment_cases() -> Vec<Case> {
    vec![
        case(Rule::SelectorTi, "haswell", long, |v, _| v.set(guest::TR_SELECTOR, 4)),
        case(Rule::SelectorTi, "haswell", long, |v, _| { v.set(guest::LDTR_ACCESS_RIGHTS, 0x82); v.set(guest::LDTR_SELECTOR, 4) }),
        case(Rule::SsRpl, "haswell", legacy, |v, _| v.set(guest::CS_SELECTOR, 0xb)),
        case(Rule::Base8086, "haswell", virtual_8086, |v, _| v.set(guest::CS_BASE, 0x1231)),
        case(Rule::Base8086, "haswell", virtual_8086, |v, _| v.set(guest::GS_BASE, 0)),
        case(Rule::BaseCanonical, "haswell", long, |v, _| v.set(guest::TR_BASE, 1 << 47)),
        case(Rule::BaseCanonical, "haswell", long, |v, _| v.set(guest::FS_BASE, 1 << 47)),
        case(Rule::BaseCanonical, "haswell", long, |v, _| v.set(guest::GS_BASE, 1 << 63)),
        case(Rule::BaseCanonical, "haswell", long, |v, _| { v.set(guest::LDTR_ACCESS_RIGHTS, 0x82); v.set(guest::LDTR_BASE, 1 << 47) }),
        // FS is checked even when it is unusable.
        case(Rule::BaseCanonical, "haswell", long, |v, _| { v.set(guest::FS_ACCESS_RIGHTS, 1 << 16); v.set(guest::FS_BASE, 1 << 47) }),
        case(Rule::BaseUpperHalf, "haswell", long, |v, _| v.set(guest::CS_BASE, 1 << 32)),
        case(Rule::BaseUpperHalf, "haswell", long, |v, _| v.set(guest::SS_BASE, 1 << 32)),
        case(Rule::BaseUpperHalf, "haswell", long, |v, _| v.set(guest::DS_BASE, 1 << 63)),
        case(Rule::BaseUpperHalf, "haswell", long, |v, _| v.set(guest::ES_BASE, 1 << 32)),
        case(Rule::Limit8086, "haswell", virtual_8086, |v, _| v.set(guest::SS_LIMIT, 0xfffff)),
        case(Rule::Access8086, "haswell", virtual_8086, |v, _| v.set(guest::DS_ACCESS_RIGHTS, 0x93)),
        case(Rule::Access8086, "haswell", virtual_8086, |v, _| v.set(guest::FS_ACCESS_RIGHTS, 0x1_00f3)),
        case(Rule::CsType, "haswell", legacy, |v, _| v.set(guest::CS_ACCESS_RIGHTS, 0xc09a)), // not accessed
        case(Rule::CsType, "haswell", real, |v, _| v.set(guest::CS_ACCESS_RIGHTS, 0x97)),
        case(Rule::SsType, "haswell", legacy, |v, _| v.set(guest::SS_ACCESS_RIGHTS, 0xc091)), // read-only
        case(Rule::SsType, "haswell", legacy, |v, _| v.set(guest::SS_ACCESS_RIGHTS, 0xc09b)),
        case(Rule::DataSegmentAccessed, "haswell", legacy, |v, _| v.set(guest::DS_ACCESS_RIGHTS, 0xc092)),
        case(Rule::DataSegmentAccessed, "haswell", legacy, |v, _| v.set(guest::GS_ACCESS_RIGHTS, 0xc092)),
        case(Rule::DataSegmentReadable, "haswell", legacy, |v, _| v.set(guest::ES_ACCESS_RIGHTS, 0xc099)),
        case(Rule::NotSystem, "haswell", legacy, |v, _| v.set(guest::CS_ACCESS_RIGHTS, 0xc08b)),
        case(Rule::NotSystem, "haswell", legacy, |v, _| v.set(guest::SS_ACCESS_RIGHTS, 0xc083)),
        case(Rule::NotSystem, "haswell", legacy, |v, _| v.set(guest::FS_ACCESS_RIGHTS, 0xc083)),
        case(Rule::CsDplOfData, "haswell", real, |v, _| v.set(guest::CS_ACCESS_RIGHTS, 0xb3)),
        case(Rule::CsDplOfCode, "haswell", legacy, |v, _| v.set(guest::CS_ACCESS_RIGHTS, 0xc0fb)),
        case(Rule::CsDplOfConforming, "haswell", legacy, |v, _| v.set(guest::CS_ACCESS_RIGHTS, 0xc0bf)),
        case(Rule::SsDplEqualsRpl, "haswell", legacy, |v, _| { v.set(guest::SS_ACCESS_RIGHTS, 0xc0f3); v.set(guest::CS_ACCESS_RIGHTS, 0xc0fb) }),
        case(Rule::SsDplZero, "haswell", real, |v, _| { v.set(guest::SS_ACCESS_RIGHTS, 0xf3); v.set(guest::CS_ACCESS_RIGHTS, 0xfb) }),
        case(Rule::SsDplZero, "haswell", protected, |v, _| { v.set(guest::SS_ACCESS_RIGHTS, 0xc0f3); v.set(guest::CS_ACCESS_RIGHTS, 0xc093) }),
        case(Rule::DataSegmentDpl, "haswell", legacy, |v, _| v.set(guest::DS_SELECTOR, 0x13)),
        case(Rule::DataSegmentDpl, "haswell", legacy, |v, _| { v.set(guest::ES_SELECTOR, 0x13); v.set(guest::ES_ACCESS_RIGHTS, 0xc0bb) }),
        case(Rule::Present, "haswell", legacy, |v, _| v.set(guest::CS_ACCESS_RIGHTS, 0xc01b)),
        case(Rule::Present, "haswell", legacy, |v, _| v.set(guest::SS_ACCESS_RIGHTS, 0xc013)),
        case(Rule::Present, "haswell", legacy, |v, _| v.set(guest::GS_ACCESS_RIGHTS, 0xc013)),
        case(Rule::Present, "haswell", legacy, |v, _| v.set(guest::TR_ACCESS_RIGHTS, 0x0b)),
        case(Rule::Present, "haswell", legacy, |v, _| v.set(guest::LDTR_ACCESS_RIGHTS, 0x02)),
        case(Rule::AccessReserved, "haswell", legacy, |v, _| v.set(guest::CS_ACCESS_RIGHTS, 0xc19b)),
        case(Rule::AccessReserved, "haswell", legacy, |v, _| v.set(guest::DS_ACCESS_RIGHTS, 0x8000_c093)),
        case(Rule::AccessReserved, "haswell", legacy, |v, _| v.set(guest::TR_ACCESS_RIGHTS, 0x2_008b)),
        case(Rule::AccessReserved, "haswell", legacy, |v, _| v.set(guest::LDTR_ACCESS_RIGHTS, 0x882)),
        case(Rule::CsDefaultSize, "haswell", long, |v, _| v.set(guest::CS_ACCESS_RIGHTS, 0xe09b)),
        case(Rule::Granularity, "haswell", legacy, |v, _| v.set(guest::CS_LIMIT, 0xffff_fffe)),
        case(Rule::Granularity, "haswell", legacy, |v, _| v.set(guest::SS_LIMIT, 0xffff_fffe)),
        case(Rule::Granularity, "haswell", legacy, |v, _| v.set(guest::DS_ACCESS_RIGHTS, 0x4093)),
        case(Rule::Granularity, "haswell", legacy, |v, _| v.set(guest::TR_LIMIT, 0x10_0000)),
        case(Rule::Granularity, "haswell", legacy, |v, _| { v.set(guest::LDTR_ACCESS_RIGHTS, 0x8082); v.set(guest::LDTR_LIMIT, 0xffe) }),
        case(Rule::TrType, "haswell", legacy, |v, _| v.set(guest::TR_ACCESS_RIGHTS, 0x89)), // available, not busy
        case(Rule::TrType, "haswell", long, |v, _| v.set(guest::TR_ACCESS_RIGHTS, 0x83)), // 16-bit in IA-32e mode
        case(Rule::TrUsable, "haswell", legacy, |v, _| v.set(guest::TR_ACCESS_RIGHTS, 0x1_008b)),
        case(Rule::LdtrType, "haswell", legacy, |v, _| v.set(guest::LDTR_ACCESS_RIGHTS, 0x8b)),
        case(Rule::System, "haswell", legacy, |v, _| v.set(guest::TR_ACCESS_RIGHTS, 0x9b)),
        case(Rule::System, "haswell", legacy, |v, _| v.set(guest::LDTR_ACCESS_RIGHTS, 0x92)),
        case(Rule::TableBaseCanonical, "haswell", long, |v, _| v.set(guest::GDTR_BASE, 1 << 47)),
        case(Rule::TableBaseCanonical, "haswell", long, |v, _| v.set(guest::IDTR_BASE, 1 << 60)),
        case(Rule::TableLimit, "haswell", long, |v, _| v.set(guest::GDTR_LIMIT, 0x1_0000)),
        case(Rule::TableLimit, "haswell", long, |v, _| v.set(guest::IDTR_LIMIT, 0x8000_0000)),
    ]
}

#[rustfmt::skip]
fn state_cases() -> Vec<Case> {
    vec![
        case(Rule::LinkPointerAddress, "haswell", long, |v, _| v.set(guest::VMCS_LINK_POINTER, 0x10_0800)),
        case(Rule::LinkPointerAddress, "haswell", long, |v, _| v.set(guest::VMCS_LINK_POINTER, 1 << 40)),
        case(Rule::LinkPointerRevision, "haswell", rich, |_, c| memory_of(c, &|_| Some(0x8000_002c))),
        case(Rule::LinkPointerShadow, "haswell", rich, |_, c| memory_of(c, &|_| Some(0x2b))),
        case(Rule::LinkPointerShadow, "haswell", long, |v, c| { v.set(guest::VMCS_LINK_POINTER, 0x1000); memory_of(c, &|_| Some(0x8000_002b)) }),
        case(Rule::LinkPointerCurrent, "haswell", rich, |v, c| c.current_vmcs = Some(v.get(guest::VMCS_LINK_POINTER))),
        case(Rule::LinkPointerCurrent, "haswell", rich, |v, c| {
            (c.vmxon_region, c.current_vmcs, c.in_smm) = (Some(v.get(guest::VMCS_LINK_POINTER)), Some(v.get(guest::VMCS_LINK_POINTER)), true);
        }),
        case(Rule::PendingDebugReserved, "haswell", long, |v, _| v.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 4)),
        case(Rule::PendingDebugReserved, "haswell", long, |v, _| v.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 11)),
        case(Rule::PendingDebugReserved, "haswell", long, |v, _| v.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 13)),
        case(Rule::PendingDebugReserved, "haswell", long, |v, _| v.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 15)),
        case(Rule::PendingDebugReserved, "haswell", long, |v, _| v.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 63)),
        // Blocking with TF and no BTF: BS is wanted. Blocking without TF, or in HLT: it is not.
        case(Rule::PendingDebugSingleStep, "haswell", long, |v, _| { v.set(guest::INTERRUPTIBILITY_STATE, 2); v.set(guest::RFLAGS, 0x102) }),
        case(Rule::PendingDebugSingleStep, "haswell", long, |v, _| { v.set(guest::INTERRUPTIBILITY_STATE, 1); v.set(guest::RFLAGS, 0x202); v.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 14) }),
        case(Rule::PendingDebugSingleStep, "haswell", long, |v, _| { v.set(guest::ACTIVITY_STATE, 1); v.set(guest::RFLAGS, 0x102); v.set(guest::IA32_DEBUGCTL, 2); v.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 14) }),
        case(Rule::PendingDebugRtm, "haswell", long, |v, _| v.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 16 | 1 << 12)), // no RTM
        case(Rule::PendingDebugRtm, "everything", long, |v, _| v.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 16)),
        case(Rule::PendingDebugRtm, "everything", long, |v, _| v.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 16 | 1 << 12 | 1)),
        case(Rule::PendingDebugRtm, "everything", long, |v, _| { v.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 16 | 1 << 12); v.set(guest::INTERRUPTIBILITY_STATE, 2) }),
        case(Rule::ActivityState, "haswell", long, |v, _| v.set(guest::ACTIVITY_STATE, 4)),
        case(Rule::ActivityState, "haswell", long, |v, _| v.set(guest::ACTIVITY_STATE, 0x1_0001)),
        case(Rule::HltNeedsDplZero, "haswell", legacy, |v, _| {
            v.set(guest::ACTIVITY_STATE, 1);
            for (selector, access, rights) in [(guest::CS_SELECTOR, guest::CS_ACCESS_RIGHTS, 0xc0fb), (guest::SS_SELECTOR, guest::SS_ACCESS_RIGHTS, 0xc0f3)] {
                v.set(selector, 0x1b);
                v.set(access, rights);
            }
        }),
        case(Rule::BlockingNeedsActive, "haswell", long, |v, _| { v.set(guest::ACTIVITY_STATE, SHUT); v.set(guest::INTERRUPTIBILITY_STATE, 2) }),
        case(Rule::ActivityInjection, "haswell", long, |v, _| { v.set(guest::ACTIVITY_STATE, 1); inject(v, 3, 6, 0) }),
        case(Rule::ActivityInjection, "haswell", long, |v, _| { v.set(guest::ACTIVITY_STATE, 1); v.set(control::ENTRY_INSTRUCTION_LENGTH, 1); inject(v, 6, 3, 0) }),
        case(Rule::ActivityInjection, "haswell", long, |v, _| { v.set(guest::ACTIVITY_STATE, SHUT); v.set(guest::RFLAGS, 0x202); inject(v, 0, 0x20, 0) }),
        case(Rule::ActivityInjection, "haswell", long, |v, _| { v.set(guest::ACTIVITY_STATE, SIPI); inject(v, 2, 2, 0) }),
        case(Rule::SmmExcludesWaitForSipi, "haswell", long, |v, c| { v.set(guest::ACTIVITY_STATE, SIPI); or(v, control::ENTRY_CONTROLS, 1 << 10); v.set(guest::INTERRUPTIBILITY_STATE, 4); c.in_smm = true }),
        case(Rule::InterruptibilityReserved, "haswell", long, |v, _| v.set(guest::INTERRUPTIBILITY_STATE, 1 << 5)),
        case(Rule::InterruptibilityReserved, "haswell", long, |v, _| v.set(guest::INTERRUPTIBILITY_STATE, 1 << 31)),
        case(Rule::BlockingExclusive, "haswell", long, |v, _| { v.set(guest::INTERRUPTIBILITY_STATE, 3); v.set(guest::RFLAGS, 0x202) }),
        case(Rule::StiBlockingNeedsIf, "haswell", long, |v, _| v.set(guest::INTERRUPTIBILITY_STATE, 1)),
        case(Rule::BlockingExcludesInterrupt, "haswell", long, |v, _| { v.set(guest::INTERRUPTIBILITY_STATE, 1); v.set(guest::RFLAGS, 0x202); inject(v, 0, 0x20, 0) }),
        case(Rule::BlockingExcludesInterrupt, "haswell", long, |v, _| { v.set(guest::INTERRUPTIBILITY_STATE, 2); v.set(guest::RFLAGS, 0x202); inject(v, 0, 0x20, 0) }),
        case(Rule::MovSsExcludesNmi, "haswell", long, |v, _| { v.set(guest::INTERRUPTIBILITY_STATE, 2); inject(v, 2, 2, 0) }),
        case(Rule::StiExcludesNmi, "haswell", long, |v, _| { v.set(guest::INTERRUPTIBILITY_STATE, 1); v.set(guest::RFLAGS, 0x202); inject(v, 2, 2, 0) }),
        case(Rule::SmiBlockingNeedsSmm, "haswell", long, |v, _| v.set(guest::INTERRUPTIBILITY_STATE, 4)),
        case(Rule::SmmEntryNeedsSmiBlocking, "haswell", long, |v, c| { or(v, control::ENTRY_CONTROLS, 1 << 10); c.in_smm = true }),
        case(Rule::NmiBlockingExcludesNmi, "haswell", long, |v, _| { or(v, control::PIN_CONTROLS, 1 << 5 | 1 << 3); v.set(guest::INTERRUPTIBILITY_STATE, 8); inject(v, 2, 2, 0) }),
        case(Rule::EnclaveInterruption, "haswell", long, |v, _| v.set(guest::INTERRUPTIBILITY_STATE, 1 << 4)),
        case(Rule::EnclaveInterruption, "everything", long, |v, _| v.set(guest::INTERRUPTIBILITY_STATE, 1 << 4 | 1 << 1)),
        case(Rule::Pdptes, "haswell", pae, |v, _| v.set(guest::PDPTE0, 0x5003)),
        case(Rule::Pdptes, "haswell", pae, |v, _| v.set(guest::PDPTE1, 0x5021)),
        case(Rule::Pdptes, "haswell", pae, |v, _| v.set(guest::PDPTE3, 1 << 40 | 1)),
        case(Rule::Pdptes, "core2_penryn", legacy, |v, c| { v.set(guest::CR4, 0x2020); memory_of(c, &|address| Some(if address == 0x2018 { 0x101 } else { 0x1001 })) }),
    ]
}

fn all_cases() -> Vec<Case> {
    let mut cases = control_cases();
    cases.extend(event_cases());
    cases.extend(host_cases());
    cases.extend(guest_register_cases());
    cases.extend(segment_cases());
    cases.extend(state_cases());
    cases
}

#[test]
fn each_fault_breaks_exactly_its_rule() {
    let cases = all_cases();
    let mut covered = BTreeSet::new();
    for (number, case) in cases.iter().enumerate() {
        let caps = caps(case.model);
        let mut vmcs = (case.base)(&caps);
        let mut context = EntryContext::new(&caps);
        (case.fault)(&mut vmcs, &mut context);
        let (found, verdict) = violations(&vmcs, &context);
        let rules: Vec<Rule> = found.iter().map(|violation| violation.rule).collect();
        assert_eq!(rules, [case.rule], "case {number} on {}:\n{found:#?}", case.model);
        let expected = match case.rule.stage() {
            Stage::Controls => Verdict::Fails(VmInstructionError::from_number(7)),
            Stage::HostState => Verdict::Fails(VmInstructionError::from_number(8)),
            Stage::GuestState => Verdict::Exits {
                reason: 0x8000_0021,
                qualification: match case.rule {
                    Rule::Pdptes => 2,
                    Rule::StiExcludesNmi => 3,
                    Rule::LinkPointerAddress | Rule::LinkPointerRevision => 4,
                    Rule::LinkPointerShadow | Rule::LinkPointerCurrent => 4,
                    _ => 0,
                },
            },
        };
        assert_eq!(verdict, expected, "case {number}: {}", case.rule);
        // The violation shows what is in the field that was changed.
        let shown = vmcs.read_raw(found[0].field).unwrap_or(0);
        assert_eq!(found[0].value, shown);
        assert!(found[0].to_string().contains(case.rule.section()));
        covered.insert(case.rule);
    }
    // In IA-32e mode a host that is not in 64-bit mode breaks LongModeNeeds64BitHost, outside it a 64-bit guest breaks
    // LegacyModeEntersNo64Bit: this rule cannot be broken alone, see the next test.
    covered.insert(Rule::Host32ExcludesIa32eGuest);
    let missing: Vec<&Rule> = Rule::ALL.iter().filter(|rule| !covered.contains(rule)).collect();
    assert_eq!(missing, Vec::<&Rule>::new(), "rules without a case");
}

#[test]
fn a_64_bit_guest_of_a_32_bit_host() {
    let caps = caps("haswell");
    let mut vmcs = long(&caps);
    clear(&mut vmcs, control::EXIT_CONTROLS, 1 << 9);
    vmcs.set(host::RIP, 0x1000);
    let (found, verdict) = violations(&vmcs, &EntryContext::new(&caps));
    let rules: Vec<Rule> = found.iter().map(|violation| violation.rule).collect();
    assert_eq!(rules, [Rule::LongModeNeeds64BitHost, Rule::Host32ExcludesIa32eGuest]);
    assert_eq!(verdict, Verdict::Fails(VmInstructionError::EntryInvalidHostState));
}

/// What looks wrong and is not.
#[test]
#[rustfmt::skip]
fn what_vm_entry_accepts() {
    let accepted: [(&str, Base, Break); 21] = [
        // RIP need not be canonical: bit 47 may differ from those above.
        ("haswell", long, |v, _| v.set(guest::RIP, 1 << 47)),
        ("haswell", long, |v, _| v.set(guest::RSP, 1 << 63 | 1)),
        // Words that are not activated count as 0, whatever they hold.
        ("haswell", long, |v, _| v.set(control::SECONDARY_CONTROLS, u32::MAX)),
        ("everything", long, |v, _| v.set(control::TERTIARY_CONTROLS, u64::MAX)),
        // Unusable segments are not looked at.
        ("haswell", long, |v, _| v.set(guest::SS_ACCESS_RIGHTS, 1 << 16)),
        ("haswell", legacy, |v, _| { v.set(guest::DS_ACCESS_RIGHTS, 0x1_0f00); v.set(guest::DS_BASE, 1 << 63) }),
        ("haswell", legacy, |v, _| { v.set(guest::LDTR_SELECTOR, 4); v.set(guest::LDTR_BASE, 1 << 62) }),
        // Addresses of structures that are not used, counts of 0.
        ("haswell", long, |v, _| v.set(control::IO_BITMAP_A, 1)),
        ("haswell", long, |v, _| v.set(control::EXIT_MSR_LOAD_ADDRESS, 1)),
        // The last MSR of an area may end at the last byte.
        ("haswell", rich, |v, _| v.set(control::EXIT_MSR_STORE_ADDRESS, (1 << 40) - 48)),
        // MSRs that are not loaded.
        ("haswell", legacy, |v, _| { v.set(guest::IA32_PAT, 2); v.set(host::IA32_EFER, u64::MAX) }),
        // HLT takes interrupts, NMIs, #DB, #MC; shutdown takes NMIs and #MC.
        ("haswell", long, |v, _| { v.set(guest::ACTIVITY_STATE, 1); v.set(guest::RFLAGS, 0x202); inject(v, 0, 0x20, 0) }),
        ("haswell", long, |v, _| { v.set(guest::ACTIVITY_STATE, 1); inject(v, 3, 1, 0) }),
        ("haswell", long, |v, _| { v.set(guest::ACTIVITY_STATE, SHUT); inject(v, 3, 18, 0) }),
        ("haswell", long, |v, _| { v.set(guest::ACTIVITY_STATE, SHUT); inject(v, 2, 2, 0) }),
        ("tigerlake", long, |v, _| { v.set(guest::ACTIVITY_STATE, 1); inject(v, 7, 0, 0) }),
        // An error code for any vector, or none for #GP, where BASIC[56] says so.
        ("tigerlake", long, |v, _| inject(v, 3, 13, 0)),
        ("tigerlake", long, |v, _| inject(v, 3, 21, 1 << 11)),
        // A software interrupt of length 0, with MISC[30].
        ("skylake_x", long, |v, _| inject(v, 4, 0x80, 0)),
        // NMI with blocking by STI, where the processor does not mind.
        ("haswell", long, |v, c| {
            v.set(guest::INTERRUPTIBILITY_STATE, 1);
            v.set(guest::RFLAGS, 0x202);
            inject(v, 2, 2, 0);
            c.sti_blocks_nmi_injection = false;
        }),
        // BS pending while TF is 1 and MOV SS blocks.
        ("haswell", long, |v, _| { v.set(guest::INTERRUPTIBILITY_STATE, 2); v.set(guest::RFLAGS, 0x102); v.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 14) }),
    ];
    for (number, (model, base, change)) in accepted.into_iter().enumerate() {
        let caps = caps(model);
        let mut vmcs = base(&caps);
        let mut context = EntryContext::new(&caps);
        change(&mut vmcs, &mut context);
        let (found, verdict) = violations(&vmcs, &context);
        assert_eq!((found, verdict), (vec![], Verdict::Enters), "case {number} on {model}");
    }
}

/// Error 7 hides error 8, which hides the guest state.
#[test]
fn the_first_group_with_a_failure_decides() {
    let caps = caps("haswell");
    let context = EntryContext::new(&caps);
    let mut vmcs = long(&caps);
    vmcs.set(guest::RFLAGS, 0);
    vmcs.set(guest::VMCS_LINK_POINTER, 1);
    // RFLAGS comes before the link pointer, so its qualification counts.
    let expected = Verdict::Exits { reason: 0x8000_0021, qualification: 0 };
    assert_eq!(violations(&vmcs, &context).1, expected);
    vmcs.set(host::CS_SELECTOR, 0);
    assert_eq!(violations(&vmcs, &context).1, Verdict::Fails(VmInstructionError::EntryInvalidHostState));
    vmcs.set(control::CR3_TARGET_COUNT, 5);
    let (found, verdict) = violations(&vmcs, &context);
    assert_eq!(verdict, Verdict::Fails(VmInstructionError::EntryInvalidControls));
    let rules: Vec<Rule> = found.iter().map(|violation| violation.rule).collect();
    let all = [Rule::Cr3TargetCount, Rule::HostSelectorNull, Rule::RflagsReserved, Rule::LinkPointerAddress];
    assert_eq!(rules, all, "all violations are reported");
}

/// Numbers that look random (xorshift), the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A value as they occur in VMCSs: small, an address, a single bit, all ones, anything.
    fn value(&mut self) -> u64 {
        let value = self.next();
        match self.next() % 6 {
            0 => value % 16,
            1 => value & 0xf_ffff_f000,
            2 => 1 << (value % 64),
            3 => u64::MAX >> (value % 64),
            4 => u64::MAX << (value % 64),
            _ => value,
        }
    }
}

#[test]
fn nothing_in_a_vmcs_or_in_memory_makes_the_checks_panic() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for model in CpuModel::ALL {
        let mut caps = model.capabilities();
        for round in 0..300 {
            // Wild capabilities too.
            if round % 3 == 2 {
                caps.cpu.physical_width = random.value() as u8;
                caps.cpu.linear_width = random.value() as u8;
            }
            let mut vmcs =
                if has_intel_64(&caps) && round % 2 == 0 { long(&caps) } else { SoftwareVmcs::new() };
            let changes = if round % 2 == 0 { 3 } else { FIELD_COUNT };
            for change in 0..changes {
                let slot = if changes == 3 { random.next() as usize % FIELD_COUNT } else { change };
                let field = FieldInfo::ALL[slot].encoding;
                let _ = vmcs.write_raw(field, random.value());
            }
            let word = random.value();
            let read = |address: u64| {
                assert_eq!(address % 8, 0, "aligned");
                if address % 3 == 0 { None } else { Some(word.rotate_left(address as u32)) }
            };
            let context = EntryContext {
                ia32e_mode: random.next() % 2 == 0,
                in_smm: random.next() % 2 == 0,
                tracing: random.next() % 2 == 0,
                current_vmcs: Some(random.value()),
                read_memory: Some(&read),
                ..EntryContext::new(&caps)
            };
            let (found, verdict) = violations(&vmcs, &context);
            // The verdict is that of the first stage among the violations, which come in order.
            assert!(found.windows(2).all(|pair| pair[0].rule.stage() <= pair[1].rule.stage()));
            let expected = match found.first().map(|violation| violation.rule.stage()) {
                None => Verdict::Enters,
                Some(Stage::Controls) => Verdict::Fails(VmInstructionError::EntryInvalidControls),
                Some(Stage::HostState) => Verdict::Fails(VmInstructionError::EntryInvalidHostState),
                Some(Stage::GuestState) => verdict,
            };
            assert_eq!(verdict, expected);
            assert_eq!(verdict, vmx_structs::checks::verdict(&vmcs, &context));
            for violation in found {
                assert!(!violation.to_string().is_empty());
            }
        }
    }
}
