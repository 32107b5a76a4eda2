//! The field constants against the encoding rules of the SDM, the counts, and the `x86` crate's table.

use vmx_structs::{
    CpuModel,
    vmcs::{FIELD_COUNT, FieldEncoding, FieldInfo, Group, Requires, SoftwareVmcs, VmFail, VmcsAccess, Width},
    vmcs::{control, exit, guest, host},
};
use x86::vmx::vmcs as theirs;

const UNSUPPORTED: VmFail = VmFail::from_number(12);
const READ_ONLY: VmFail = VmFail::from_number(13);

#[test]
fn the_counts_by_width_and_group() {
    let count = |width: Width, group: Group| {
        FieldInfo::ALL.iter().filter(|i| i.encoding.width() == width && i.encoding.group() == group).count()
    };
    let table = [Width::Bits16, Width::Bits64, Width::Bits32, Width::Natural]
        .map(|w| [Group::Control, Group::ReadOnly, Group::Guest, Group::Host].map(|g| count(w, g)));
    assert_eq!(table, [[6, 0, 11, 7], [39, 4, 25, 14], [20, 8, 23, 1], [8, 6, 23, 15]]);
    assert_eq!(FIELD_COUNT, 210);
}

/// The bits of SDM Table 24-21, read independently of the crate's accessors.
#[test]
fn every_encoding_keeps_the_rules() {
    for info in FieldInfo::ALL {
        let raw = info.encoding.raw();
        assert_eq!(raw & 1, 0, "{info:?}: full access");
        assert_eq!(raw & 0xffff_9000, 0, "{info:?}: reserved bits");
        assert_eq!(info.encoding.index(), (raw & 0x3fe) / 2);
        let width = [Width::Bits16, Width::Bits64, Width::Bits32, Width::Natural][(raw >> 13) as usize & 3];
        let group = [Group::Control, Group::ReadOnly, Group::Guest, Group::Host][(raw >> 10) as usize & 3];
        assert_eq!((info.encoding.width(), info.encoding.group()), (width, group));
    }
    assert!(FieldInfo::ALL.windows(2).all(|pair| pair[0].encoding < pair[1].encoding), "sorted, no doubles");
}

#[test]
fn names_are_distinct() {
    for (at, a) in FieldInfo::ALL.iter().enumerate() {
        for b in &FieldInfo::ALL[..at] {
            assert_ne!(a.name, b.name);
            assert!(a.ident != b.ident || a.encoding.group() != b.encoding.group());
        }
    }
}

macro_rules! same {
    ($($module:ident::$name:ident => $ours:ident::$field:ident;)*) => {
        [$((stringify!($module::$name), theirs::$module::$name, $ours::$field.encoding())),*]
    };
}

#[test]
fn the_x86_crate_agrees() {
    let pairs = same![
    control::VPID => control::VPID;
    control::POSTED_INTERRUPT_NOTIFICATION_VECTOR => control::POSTED_INTERRUPT_NOTIFICATION_VECTOR;
    control::EPTP_INDEX => control::EPTP_INDEX;
    control::IO_BITMAP_A_ADDR_FULL => control::IO_BITMAP_A;
    control::IO_BITMAP_B_ADDR_FULL => control::IO_BITMAP_B;
    control::MSR_BITMAPS_ADDR_FULL => control::MSR_BITMAPS;
    control::VMEXIT_MSR_STORE_ADDR_FULL => control::EXIT_MSR_STORE_ADDRESS;
    control::VMEXIT_MSR_LOAD_ADDR_FULL => control::EXIT_MSR_LOAD_ADDRESS;
    control::VMENTRY_MSR_LOAD_ADDR_FULL => control::ENTRY_MSR_LOAD_ADDRESS;
    control::EXECUTIVE_VMCS_PTR_FULL => control::EXECUTIVE_VMCS_POINTER;
    control::PML_ADDR_FULL => control::PML_ADDRESS;
    control::TSC_OFFSET_FULL => control::TSC_OFFSET;
    control::VIRT_APIC_ADDR_FULL => control::VIRTUAL_APIC_ADDRESS;
    control::APIC_ACCESS_ADDR_FULL => control::APIC_ACCESS_ADDRESS;
    control::POSTED_INTERRUPT_DESC_ADDR_FULL => control::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS;
    control::VM_FUNCTION_CONTROLS_FULL => control::VM_FUNCTION_CONTROLS;
    control::EPTP_FULL => control::EPT_POINTER;
    control::EOI_EXIT0_FULL => control::EOI_EXIT_BITMAP_0;
    control::EOI_EXIT1_FULL => control::EOI_EXIT_BITMAP_1;
    control::EOI_EXIT2_FULL => control::EOI_EXIT_BITMAP_2;
    control::EOI_EXIT3_FULL => control::EOI_EXIT_BITMAP_3;
    control::EPTP_LIST_ADDR_FULL => control::EPTP_LIST_ADDRESS;
    control::VMREAD_BITMAP_ADDR_FULL => control::VMREAD_BITMAP_ADDRESS;
    control::VMWRITE_BITMAP_ADDR_FULL => control::VMWRITE_BITMAP_ADDRESS;
    control::VIRT_EXCEPTION_INFO_ADDR_FULL => control::VE_INFORMATION_ADDRESS;
    control::XSS_EXITING_BITMAP_FULL => control::XSS_EXITING_BITMAP;
    control::ENCLS_EXITING_BITMAP_FULL => control::ENCLS_EXITING_BITMAP;
    control::SUBPAGE_PERM_TABLE_PTR_FULL => control::SPP_TABLE_POINTER;
    control::TSC_MULTIPLIER_FULL => control::TSC_MULTIPLIER;
    control::PINBASED_EXEC_CONTROLS => control::PIN_CONTROLS;
    control::PRIMARY_PROCBASED_EXEC_CONTROLS => control::PRIMARY_CONTROLS;
    control::EXCEPTION_BITMAP => control::EXCEPTION_BITMAP;
    control::PAGE_FAULT_ERR_CODE_MASK => control::PAGE_FAULT_ERROR_CODE_MASK;
    control::PAGE_FAULT_ERR_CODE_MATCH => control::PAGE_FAULT_ERROR_CODE_MATCH;
    control::CR3_TARGET_COUNT => control::CR3_TARGET_COUNT;
    control::VMEXIT_CONTROLS => control::EXIT_CONTROLS;
    control::VMEXIT_MSR_STORE_COUNT => control::EXIT_MSR_STORE_COUNT;
    control::VMEXIT_MSR_LOAD_COUNT => control::EXIT_MSR_LOAD_COUNT;
    control::VMENTRY_CONTROLS => control::ENTRY_CONTROLS;
    control::VMENTRY_MSR_LOAD_COUNT => control::ENTRY_MSR_LOAD_COUNT;
    control::VMENTRY_INTERRUPTION_INFO_FIELD => control::ENTRY_INTERRUPTION_INFO;
    control::VMENTRY_EXCEPTION_ERR_CODE => control::ENTRY_EXCEPTION_ERROR_CODE;
    control::VMENTRY_INSTRUCTION_LEN => control::ENTRY_INSTRUCTION_LENGTH;
    control::TPR_THRESHOLD => control::TPR_THRESHOLD;
    control::SECONDARY_PROCBASED_EXEC_CONTROLS => control::SECONDARY_CONTROLS;
    control::PLE_GAP => control::PLE_GAP;
    control::PLE_WINDOW => control::PLE_WINDOW;
    control::CR0_GUEST_HOST_MASK => control::CR0_GUEST_HOST_MASK;
    control::CR4_GUEST_HOST_MASK => control::CR4_GUEST_HOST_MASK;
    control::CR0_READ_SHADOW => control::CR0_READ_SHADOW;
    control::CR4_READ_SHADOW => control::CR4_READ_SHADOW;
    control::CR3_TARGET_VALUE0 => control::CR3_TARGET_VALUE_0;
    control::CR3_TARGET_VALUE1 => control::CR3_TARGET_VALUE_1;
    control::CR3_TARGET_VALUE2 => control::CR3_TARGET_VALUE_2;
    control::CR3_TARGET_VALUE3 => control::CR3_TARGET_VALUE_3;
    guest::ES_SELECTOR => guest::ES_SELECTOR;
    guest::CS_SELECTOR => guest::CS_SELECTOR;
    guest::SS_SELECTOR => guest::SS_SELECTOR;
    guest::DS_SELECTOR => guest::DS_SELECTOR;
    guest::FS_SELECTOR => guest::FS_SELECTOR;
    guest::GS_SELECTOR => guest::GS_SELECTOR;
    guest::LDTR_SELECTOR => guest::LDTR_SELECTOR;
    guest::TR_SELECTOR => guest::TR_SELECTOR;
    guest::INTERRUPT_STATUS => guest::INTERRUPT_STATUS;
    guest::PML_INDEX => guest::PML_INDEX;
    guest::LINK_PTR_FULL => guest::VMCS_LINK_POINTER;
    guest::IA32_DEBUGCTL_FULL => guest::IA32_DEBUGCTL;
    guest::IA32_PAT_FULL => guest::IA32_PAT;
    guest::IA32_EFER_FULL => guest::IA32_EFER;
    guest::IA32_PERF_GLOBAL_CTRL_FULL => guest::IA32_PERF_GLOBAL_CTRL;
    guest::PDPTE0_FULL => guest::PDPTE0;
    guest::PDPTE1_FULL => guest::PDPTE1;
    guest::PDPTE2_FULL => guest::PDPTE2;
    guest::PDPTE3_FULL => guest::PDPTE3;
    guest::IA32_BNDCFGS_FULL => guest::IA32_BNDCFGS;
    guest::IA32_RTIT_CTL_FULL => guest::IA32_RTIT_CTL;
    guest::ES_LIMIT => guest::ES_LIMIT;
    guest::CS_LIMIT => guest::CS_LIMIT;
    guest::SS_LIMIT => guest::SS_LIMIT;
    guest::DS_LIMIT => guest::DS_LIMIT;
    guest::FS_LIMIT => guest::FS_LIMIT;
    guest::GS_LIMIT => guest::GS_LIMIT;
    guest::LDTR_LIMIT => guest::LDTR_LIMIT;
    guest::TR_LIMIT => guest::TR_LIMIT;
    guest::GDTR_LIMIT => guest::GDTR_LIMIT;
    guest::IDTR_LIMIT => guest::IDTR_LIMIT;
    guest::ES_ACCESS_RIGHTS => guest::ES_ACCESS_RIGHTS;
    guest::CS_ACCESS_RIGHTS => guest::CS_ACCESS_RIGHTS;
    guest::SS_ACCESS_RIGHTS => guest::SS_ACCESS_RIGHTS;
    guest::DS_ACCESS_RIGHTS => guest::DS_ACCESS_RIGHTS;
    guest::FS_ACCESS_RIGHTS => guest::FS_ACCESS_RIGHTS;
    guest::GS_ACCESS_RIGHTS => guest::GS_ACCESS_RIGHTS;
    guest::LDTR_ACCESS_RIGHTS => guest::LDTR_ACCESS_RIGHTS;
    guest::TR_ACCESS_RIGHTS => guest::TR_ACCESS_RIGHTS;
    guest::INTERRUPTIBILITY_STATE => guest::INTERRUPTIBILITY_STATE;
    guest::ACTIVITY_STATE => guest::ACTIVITY_STATE;
    guest::SMBASE => guest::SMBASE;
    guest::IA32_SYSENTER_CS => guest::IA32_SYSENTER_CS;
    guest::VMX_PREEMPTION_TIMER_VALUE => guest::VMX_PREEMPTION_TIMER_VALUE;
    guest::CR0 => guest::CR0;
    guest::CR3 => guest::CR3;
    guest::CR4 => guest::CR4;
    guest::ES_BASE => guest::ES_BASE;
    guest::CS_BASE => guest::CS_BASE;
    guest::SS_BASE => guest::SS_BASE;
    guest::DS_BASE => guest::DS_BASE;
    guest::FS_BASE => guest::FS_BASE;
    guest::GS_BASE => guest::GS_BASE;
    guest::LDTR_BASE => guest::LDTR_BASE;
    guest::TR_BASE => guest::TR_BASE;
    guest::GDTR_BASE => guest::GDTR_BASE;
    guest::IDTR_BASE => guest::IDTR_BASE;
    guest::DR7 => guest::DR7;
    guest::RSP => guest::RSP;
    guest::RIP => guest::RIP;
    guest::RFLAGS => guest::RFLAGS;
    guest::PENDING_DBG_EXCEPTIONS => guest::PENDING_DEBUG_EXCEPTIONS;
    guest::IA32_SYSENTER_ESP => guest::IA32_SYSENTER_ESP;
    guest::IA32_SYSENTER_EIP => guest::IA32_SYSENTER_EIP;
    host::ES_SELECTOR => host::ES_SELECTOR;
    host::CS_SELECTOR => host::CS_SELECTOR;
    host::SS_SELECTOR => host::SS_SELECTOR;
    host::DS_SELECTOR => host::DS_SELECTOR;
    host::FS_SELECTOR => host::FS_SELECTOR;
    host::GS_SELECTOR => host::GS_SELECTOR;
    host::TR_SELECTOR => host::TR_SELECTOR;
    host::IA32_PAT_FULL => host::IA32_PAT;
    host::IA32_EFER_FULL => host::IA32_EFER;
    host::IA32_PERF_GLOBAL_CTRL_FULL => host::IA32_PERF_GLOBAL_CTRL;
    host::IA32_SYSENTER_CS => host::IA32_SYSENTER_CS;
    host::CR0 => host::CR0;
    host::CR3 => host::CR3;
    host::CR4 => host::CR4;
    host::FS_BASE => host::FS_BASE;
    host::GS_BASE => host::GS_BASE;
    host::TR_BASE => host::TR_BASE;
    host::GDTR_BASE => host::GDTR_BASE;
    host::IDTR_BASE => host::IDTR_BASE;
    host::IA32_SYSENTER_ESP => host::IA32_SYSENTER_ESP;
    host::IA32_SYSENTER_EIP => host::IA32_SYSENTER_EIP;
    host::RSP => host::RSP;
    host::RIP => host::RIP;
    ro::GUEST_PHYSICAL_ADDR_FULL => exit::GUEST_PHYSICAL_ADDRESS;
    ro::VM_INSTRUCTION_ERROR => exit::VM_INSTRUCTION_ERROR;
    ro::EXIT_REASON => exit::EXIT_REASON;
    ro::VMEXIT_INTERRUPTION_INFO => exit::EXIT_INTERRUPTION_INFO;
    ro::VMEXIT_INTERRUPTION_ERR_CODE => exit::EXIT_INTERRUPTION_ERROR_CODE;
    ro::IDT_VECTORING_INFO => exit::IDT_VECTORING_INFO;
    ro::IDT_VECTORING_ERR_CODE => exit::IDT_VECTORING_ERROR_CODE;
    ro::VMEXIT_INSTRUCTION_LEN => exit::EXIT_INSTRUCTION_LENGTH;
    ro::VMEXIT_INSTRUCTION_INFO => exit::EXIT_INSTRUCTION_INFO;
    ro::EXIT_QUALIFICATION => exit::EXIT_QUALIFICATION;
    ro::IO_RCX => exit::IO_RCX;
    ro::IO_RSI => exit::IO_RSI;
    ro::IO_RDI => exit::IO_RDI;
    ro::IO_RIP => exit::IO_RIP;
    ro::GUEST_LINEAR_ADDR => exit::GUEST_LINEAR_ADDRESS;
    ];
    assert_eq!(pairs.len(), 157);
    for (name, theirs, ours) in pairs {
        assert_eq!(theirs, ours.raw(), "{name}");
    }
}

/// Every 32-bit encoding: the fields, the upper halves of 64-bit fields, and nothing else.
#[test]
fn a_software_vmcs_knows_its_fields_and_no_others() {
    let mut vmcs = SoftwareVmcs::new();
    let (mut full, mut high) = (0, 0);
    // All of the lower 16 bits, and each higher bit alone: the rest is a combination of refused bits.
    let beyond = (16..32).flat_map(|bit| [1_u32 << bit, 1 << bit | 0x681e]);
    for raw in (0..=0xffff).chain(beyond) {
        let field = FieldEncoding::from_raw(raw);
        let known = FieldInfo::ALL.iter().find(|info| info.encoding.raw() == raw & !1);
        let known = known.filter(|_| raw & 1 == 0 || raw >> 13 == 1);
        let Some(info) = known else {
            assert_eq!(vmcs.read_raw(field), Err(UNSUPPORTED), "{raw:#x}");
            assert_eq!(vmcs.write_raw(field, 1), Err(UNSUPPORTED), "{raw:#x}");
            continue;
        };
        *(if raw & 1 == 0 { &mut full } else { &mut high }) += 1;
        let read_only = info.encoding.group() == Group::ReadOnly;
        let expected = if read_only { Err(READ_ONLY) } else { Ok(()) };
        assert_eq!(vmcs.write_raw(field, 0x1122_3344_5566_7788), expected, "{raw:#x}");
        let value = match (info.encoding.width(), raw & 1) {
            _ if read_only => 0,
            (Width::Bits16, _) => 0x7788,
            (Width::Bits32, _) | (Width::Bits64, 1) => 0x5566_7788,
            _ => 0x1122_3344_5566_7788,
        };
        assert_eq!(vmcs.read_raw(field), Ok(value), "{raw:#x}");
    }
    assert_eq!((full, high), (210, 82));
    // The upper half was written last, and left the lower half alone.
    assert_eq!(vmcs.read(control::TSC_OFFSET), Ok(0x5566_7788_5566_7788));
}

#[test]
fn a_processor_has_the_fields_that_its_features_need() {
    let count = |id: &str| {
        let vmcs = SoftwareVmcs::for_processor(&CpuModel::by_id(id).unwrap().capabilities());
        vmcs.fields().count()
    };
    // By width: 16 bits 8 + 7; 64 bits 7 + 2; 32 bits 14 + 8 + 22 + 1; natural 8 + 6 + 20 + 12.
    let unconditional = FieldInfo::ALL.iter().filter(|info| info.requires == Requires::Always).count();
    assert_eq!(unconditional, 15 + 9 + 45 + 46);
    assert_eq!(count("first_generation"), unconditional + 1, "and the MSR bitmaps' address");
    // Lacks only what no capability tells.
    assert_eq!(count("everything"), 210 - 6);
    let has = |id: &str, field: FieldEncoding| {
        SoftwareVmcs::for_processor(&CpuModel::by_id(id).unwrap().capabilities()).read_raw(field).is_ok()
    };
    for (field, lacking, having) in [
        (control::VPID.encoding(), "first_generation", "sandy_bridge"),
        (control::EPT_POINTER.encoding(), "core2_penryn", "lynnfield"),
        (guest::PDPTE0.encoding(), "core2_penryn", "lynnfield"),
        (control::SECONDARY_CONTROLS.encoding(), "first_generation", "core2_penryn"),
        (control::EPTP_LIST_ADDRESS.encoding(), "sandy_bridge", "haswell"),
        (control::PML_ADDRESS.encoding(), "haswell", "skylake_x"),
        (guest::PML_INDEX.encoding(), "haswell", "skylake_x"),
        (guest::SSP.encoding(), "skylake_x", "tigerlake"),
        (host::IA32_S_CET.encoding(), "icelake", "tigerlake"),
        (control::TERTIARY_CONTROLS.encoding(), "tigerlake", "everything"),
        (control::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS.encoding(), "tigerlake", "everything"),
        (exit::GUEST_PHYSICAL_ADDRESS.encoding(), "core2_penryn", "sandy_bridge"),
    ] {
        assert!(!has(lacking, field) && has(having, field), "{field}");
    }
}

#[test]
fn read_only_fields_can_be_written_where_misc_bit_29_says_so() {
    let of = |id: &str| SoftwareVmcs::for_processor(&CpuModel::by_id(id).unwrap().capabilities());
    assert_eq!(of("sandy_bridge").write_raw(exit::EXIT_REASON.encoding(), 12), Err(READ_ONLY));
    let mut new = of("haswell");
    assert_eq!(new.write_raw(exit::EXIT_REASON.encoding(), 12), Ok(()));
    assert_eq!(new.read(exit::EXIT_REASON), Ok(12));
}

#[test]
fn the_processor_can_set_what_software_cannot_write() {
    let mut vmcs = SoftwareVmcs::new();
    vmcs.set(exit::EXIT_QUALIFICATION, 0x81);
    assert_eq!(vmcs.read(exit::EXIT_QUALIFICATION), Ok(0x81));
    assert_eq!(vmcs.get(exit::EXIT_QUALIFICATION), 0x81);
    let text = format!("{vmcs:?}");
    assert!(text.contains("Exit qualification") && text.contains("0x81"), "{text}");
    assert!(!text.contains("Guest RIP"), "only what is not 0: {text}");
}

/// A trait object serves too.
#[test]
fn access_through_a_trait_object() {
    let mut vmcs = SoftwareVmcs::new();
    let mut access: &mut dyn VmcsAccess = &mut vmcs;
    VmcsAccess::write(&mut access, guest::RIP, 0x7c00).unwrap();
    assert_eq!(VmcsAccess::read(&access, guest::RIP), Ok(0x7c00));
}
