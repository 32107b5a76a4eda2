//! What the value of a VMCS field means.

use vmx_structs::{EptPointer, VmxCapabilities, vmcs::*};

use super::bits::{self, Names};

/// What is known beside the field.
#[derive(Debug)]
pub(crate) struct Known<'a> {
    pub(crate) caps: &'a VmxCapabilities,
    /// Structures by their addresses.
    pub(crate) structures: &'a [(u64, &'static str)],
}

/// How a value is read.
enum Reading {
    /// The address of a structure.
    Address,
    /// Bits with names; what it means when there is none.
    Bits(Names, &'static str),
    Selector,
    Rights,
    Limit,
    /// A number with a unit or a role.
    Number(&'static str),
    With(fn(u64) -> String),
    /// The value says nothing by itself: what the field is for.
    For(&'static str),
}

use Reading::*;

/// The meaning of `value` in `field`: a few words; empty where the number says all.
pub(crate) fn of(field: FieldEncoding, value: u64, known: &Known<'_>) -> String {
    if field.group() == Group::ReadOnly {
        return "written by VM exits".to_owned();
    }
    match READINGS.iter().find(|(known, _)| *known == field).map(|(_, reading)| reading) {
        None => String::new(),
        Some(Address) => address(value, known),
        Some(Bits(names, none)) if value == 0 || bits::list(value, names).is_empty() => (*none).to_owned(),
        Some(Bits(names, _)) => bits::list(value, names),
        Some(Selector) => selector(value),
        Some(Rights) => rights(AccessRights::from_raw(value as u32)),
        Some(Limit) if value == 0 => "1 byte".to_owned(),
        Some(Limit) => format!("{} bytes", value + 1),
        Some(Number(what)) => format!("{value} {what}"),
        Some(With(read)) => read(value),
        Some(For(what)) => (*what).to_owned(),
    }
}

macro_rules! readings {
    ($($($field:path),* => $reading:expr;)*) => {
        &[$($(($field.encoding(), $reading),)*)*]
    };
}

const READINGS: &[(FieldEncoding, Reading)] = readings! {
    control::VPID => For("tags this guest's cached translations; 0 is the hypervisor's");
    control::POSTED_INTERRUPT_NOTIFICATION_VECTOR => With(|v| format!("an interrupt with vector {v} says: look into the descriptor"));
    control::EPTP_INDEX => For("where in the EPTP list the current EPT pointer stands");
    control::IO_BITMAP_A, control::IO_BITMAP_B, control::MSR_BITMAPS, control::EXIT_MSR_STORE_ADDRESS => Address;
    control::EXIT_MSR_LOAD_ADDRESS, control::ENTRY_MSR_LOAD_ADDRESS, control::PML_ADDRESS => Address;
    control::VIRTUAL_APIC_ADDRESS, control::APIC_ACCESS_ADDRESS => Address;
    control::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, control::EPTP_LIST_ADDRESS => Address;
    control::VMREAD_BITMAP_ADDRESS, control::VMWRITE_BITMAP_ADDRESS => Address;
    control::VE_INFORMATION_ADDRESS, control::SPP_TABLE_POINTER => Address;
    control::EXECUTIVE_VMCS_POINTER => For("for VM exits to the SMM monitor");
    control::TSC_OFFSET => With(|v| format!("{:+} is added to what RDTSC reads", v as i64));
    control::VM_FUNCTION_CONTROLS => Bits(bits::VM_FUNCTIONS, "no VM function");
    control::EPT_POINTER => With(ept_pointer);
    control::EOI_EXIT_BITMAP_0, control::EOI_EXIT_BITMAP_1 => With(vectors);
    control::EOI_EXIT_BITMAP_2, control::EOI_EXIT_BITMAP_3 => With(vectors);
    control::XSS_EXITING_BITMAP => For("XSAVES and XRSTORS of these components exit");
    control::ENCLS_EXITING_BITMAP => For("ENCLS of these leaves exits");
    control::ENCLV_EXITING_BITMAP => For("ENCLV of these leaves exits");
    control::PCONFIG_EXITING_BITMAP => For("PCONFIG of these leaves exits");
    control::TSC_MULTIPLIER => With(tsc_multiplier);
    control::EXCEPTION_BITMAP => Bits(bits::EXCEPTIONS, "no exception exits");
    control::PAGE_FAULT_ERROR_CODE_MASK => For("selects bits of a page fault's error code");
    control::PAGE_FAULT_ERROR_CODE_MATCH => For("a page fault whose selected bits are these does as bit 14 of the exception bitmap says");
    control::CR3_TARGET_COUNT => Number("values that MOV to CR3 may load without a VM exit");
    control::EXIT_MSR_STORE_COUNT, control::EXIT_MSR_LOAD_COUNT, control::ENTRY_MSR_LOAD_COUNT => With(entries);
    control::ENTRY_INTERRUPTION_INFO => With(event);
    control::ENTRY_EXCEPTION_ERROR_CODE => For("the error code of the event to inject");
    control::ENTRY_INSTRUCTION_LENGTH => Number("bytes of the instruction that caused the event");
    control::TPR_THRESHOLD => For("a virtual task priority below this exits");
    control::PLE_GAP => Number("ticks at most between two PAUSEs of a loop");
    control::PLE_WINDOW => Number("ticks that such a loop may take");
    control::CR0_GUEST_HOST_MASK => Bits(bits::CR0, "the guest owns all bits");
    control::CR4_GUEST_HOST_MASK => Bits(bits::CR4, "the guest owns all bits");
    control::CR0_READ_SHADOW, control::CR4_READ_SHADOW => For("what the guest reads in bits that the host owns");
    guest::ES_SELECTOR, guest::CS_SELECTOR, guest::SS_SELECTOR, guest::DS_SELECTOR => Selector;
    guest::FS_SELECTOR, guest::GS_SELECTOR, guest::LDTR_SELECTOR, guest::TR_SELECTOR => Selector;
    guest::INTERRUPT_STATUS => With(|v| format!("requesting vector {}, servicing vector {}", v & 0xff, v >> 8));
    guest::PML_INDEX => With(pml_index);
    guest::VMCS_LINK_POINTER => With(link_pointer);
    guest::IA32_DEBUGCTL => Bits(bits::DEBUGCTL, "");
    guest::IA32_PAT, host::IA32_PAT => With(pat);
    guest::IA32_EFER, host::IA32_EFER => Bits(bits::EFER, "no long mode");
    guest::ES_LIMIT, guest::CS_LIMIT, guest::SS_LIMIT, guest::DS_LIMIT, guest::FS_LIMIT, guest::GS_LIMIT => Limit;
    guest::LDTR_LIMIT, guest::TR_LIMIT, guest::GDTR_LIMIT, guest::IDTR_LIMIT => Limit;
    guest::ES_ACCESS_RIGHTS, guest::CS_ACCESS_RIGHTS, guest::SS_ACCESS_RIGHTS, guest::DS_ACCESS_RIGHTS => Rights;
    guest::FS_ACCESS_RIGHTS, guest::GS_ACCESS_RIGHTS, guest::LDTR_ACCESS_RIGHTS, guest::TR_ACCESS_RIGHTS => Rights;
    guest::INTERRUPTIBILITY_STATE => Bits(bits::INTERRUPTIBILITY, "nothing is blocked");
    guest::ACTIVITY_STATE => With(activity);
    guest::SMBASE => For("SMBASE; VM entry outside SMM does not load it");
    guest::VMX_PREEMPTION_TIMER_VALUE => For("counts down in the guest if the timer is activated");
    guest::CR0, host::CR0 => Bits(bits::CR0, "");
    guest::CR3 => For("the guest's page tables, if CR0.PG is 1");
    host::CR3 => For("the host's page tables");
    guest::CR4, host::CR4 => Bits(bits::CR4, "");
    guest::RIP => For("the guest's first instruction");
    guest::RFLAGS => Bits(bits::RFLAGS, "");
    guest::PENDING_DEBUG_EXCEPTIONS => Bits(bits::PENDING_DEBUG, "none pending");
    guest::IA32_S_CET, host::IA32_S_CET => Bits(bits::S_CET, "");
    host::ES_SELECTOR, host::CS_SELECTOR, host::SS_SELECTOR, host::DS_SELECTOR => Selector;
    host::FS_SELECTOR, host::GS_SELECTOR, host::TR_SELECTOR => Selector;
    host::RSP => For("the hypervisor's stack at a VM exit");
    host::RIP => For("where the hypervisor goes on after a VM exit");
};

fn address(value: u64, known: &Known<'_>) -> String {
    match known.structures.iter().find(|(start, _)| *start == value) {
        Some((_, name)) => format!("the {name}"),
        None if value == 0 => "none".to_owned(),
        None if !known.caps.is_physical(value) => "beyond the physical-address width".to_owned(),
        None => "no structure of this VM".to_owned(),
    }
}

fn selector(value: u64) -> String {
    if value & !3 == 0 {
        return "null, or segment 0 of real mode".to_owned();
    }
    let table = if value & 4 == 0 { "GDT" } else { "LDT" };
    format!("entry {} of the {table}, RPL {}", value >> 3, value & 3)
}

fn rights(rights: AccessRights) -> String {
    let text = format!("{rights:?}");
    // As `AccessRights(0x9b: code, DPL 0)`.
    text.split_once(": ").map_or(String::new(), |(_, rest)| rest.trim_end_matches(')').to_owned())
}

/// The parts of an EPT pointer (SDM Table 24-9).
pub(crate) fn ept_pointer(value: u64) -> String {
    let pointer = EptPointer::from_bits(value);
    let memory_type = match pointer.memory_type() {
        0 => "uncacheable",
        6 => "write-back",
        _ => "of a reserved type",
    };
    let on = |on| if on { "on" } else { "off" };
    let levels = (value >> 3 & 7) + 1;
    format!(
        "{levels} levels, {memory_type} tables, accessed and dirty flags {}, supervisor shadow stacks {}, root at {:#x}",
        on(pointer.accessed_dirty()),
        on(pointer.shadow_stack_control()),
        pointer.root().as_usize()
    )
}

fn entries(value: u64) -> String {
    if value == 1 { "1 entry".to_owned() } else { format!("{value} entries") }
}

fn tsc_multiplier(value: u64) -> String {
    match value {
        0 => "none; with TSC scaling it must not be 0".to_owned(),
        _ => format!("the guest's TSC runs at {} times the processor's", value as f64 / (1_u64 << 48) as f64),
    }
}

fn vectors(bitmap: u64) -> String {
    format!("{} of these 64 vectors exit at EOI", bitmap.count_ones())
}

fn event(value: u64) -> String {
    let event = EventInfo::from_raw(value as u32);
    if !event.is_valid() {
        return "no event is injected".to_owned();
    }
    let with = if event.has_error_code() { ", with an error code" } else { "" };
    format!("inject {:?}, vector {}{with}", event.kind(), event.vector())
}

fn pml_index(value: u64) -> String {
    match value {
        0..=511 => format!("{} pages are logged, room for {}", 511 - value, value + 1),
        _ => "the log is full: the next page exits".to_owned(),
    }
}

fn link_pointer(value: u64) -> String {
    if value == u64::MAX { "no VMCS is linked".to_owned() } else { "the shadow VMCS".to_owned() }
}

fn activity(value: u64) -> String {
    let states = ["active", "HLT", "shutdown", "wait-for-SIPI"];
    states.get(value as usize).map_or("no such state", |state| state).to_owned()
}

fn pat(value: u64) -> String {
    let name = |memory_type: u8| match memory_type {
        0 => "UC",
        1 => "WC",
        4 => "WT",
        5 => "WP",
        6 => "WB",
        7 => "UC-",
        _ => "reserved",
    };
    value.to_le_bytes().map(name).join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmx_structs::CpuModel;

    #[test]
    fn values_are_read() {
        let caps = CpuModel::by_id("skylake_x").unwrap().capabilities();
        let known = Known { caps: &caps, structures: &[(0x5000, "MSR bitmap")] };
        for (field, value, meaning) in [
            (control::MSR_BITMAPS.encoding(), 0x5000, "the MSR bitmap"),
            (control::MSR_BITMAPS.encoding(), 0x6000, "no structure of this VM"),
            (control::MSR_BITMAPS.encoding(), 1 << 40, "beyond the physical-address width"),
            (control::TSC_OFFSET.encoding(), u64::MAX, "-1 is added to what RDTSC reads"),
            (control::EXCEPTION_BITMAP.encoding(), 1 << 14 | 1 << 6, "#UD #PF"),
            (control::EXCEPTION_BITMAP.encoding(), 0, "no exception exits"),
            (
                control::ENTRY_INTERRUPTION_INFO.encoding(),
                0x8000_0b0d,
                "inject HardwareException, vector 13, with an error code",
            ),
            (guest::CS_SELECTOR.encoding(), 0x0b, "entry 1 of the GDT, RPL 3"),
            (guest::CS_ACCESS_RIGHTS.encoding(), 0xa09b, "code, DPL 0, 64-bit, pages"),
            (guest::TR_ACCESS_RIGHTS.encoding(), 1 << 16, "unusable"),
            (guest::CS_LIMIT.encoding(), 0xffff_ffff, "4294967296 bytes"),
            (guest::IA32_PAT.encoding(), 0x0007_0406_0007_0406, "WB WT UC- UC WB WT UC- UC"),
            (guest::CR0.encoding(), 0x8000_0031, "PE ET NE PG"),
            (guest::ACTIVITY_STATE.encoding(), 3, "wait-for-SIPI"),
            (guest::ACTIVITY_STATE.encoding(), 4, "no such state"),
            (guest::PML_INDEX.encoding(), 511, "0 pages are logged, room for 512"),
            (control::EXIT_MSR_LOAD_COUNT.encoding(), 1, "1 entry"),
            (
                control::TSC_MULTIPLIER.encoding(),
                3 << 47,
                "the guest's TSC runs at 1.5 times the processor's",
            ),
            (guest::VMCS_LINK_POINTER.encoding(), u64::MAX, "no VMCS is linked"),
            (exit::EXIT_REASON.encoding(), 0, "written by VM exits"),
        ] {
            assert_eq!(of(field, value, &known), meaning, "{field}");
        }
        let pointer = of(control::EPT_POINTER.encoding(), 0x1234_505e, &known);
        assert!(pointer.starts_with("4 levels, write-back tables, accessed and dirty flags on"), "{pointer}");
    }

    #[test]
    fn no_field_is_read_twice() {
        let mut fields: Vec<_> = READINGS.iter().map(|(field, _)| *field).collect();
        let all = fields.len();
        fields.sort_unstable();
        fields.dedup();
        assert_eq!(fields.len(), all);
    }
}
