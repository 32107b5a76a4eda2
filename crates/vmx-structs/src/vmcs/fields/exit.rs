//! VM-exit information: fields that the processor writes (SDM 24.9). Most processors let software write them too
//! (see [`VmxMisc::writes_read_only_fields`](crate::VmxMisc::writes_read_only_fields)); the types here do not.

use super::*;

fields! { ReadOnly:
    Bits64 {
        0x2400 GUEST_PHYSICAL_ADDRESS "Guest-physical address" Secondary(SecondaryControls::ENABLE_EPT);
        0x2402 MSR_DATA "MSR data" Tertiary(TertiaryControls::ENABLE_MSR_LIST_INSTRUCTIONS);
        0x2404 ORIGINAL_EVENT_DATA "Original-event data" NestedExceptions;
        0x2406 EXTENDED_INSTRUCTION_INFO "Extended instruction information" Unknown;
    }
    Bits32 {
        0x4400 VM_INSTRUCTION_ERROR "VM-instruction error" Always;
        0x4402 EXIT_REASON "Exit reason" Always;
        0x4404 EXIT_INTERRUPTION_INFO "VM-exit interruption information" Always;
        0x4406 EXIT_INTERRUPTION_ERROR_CODE "VM-exit interruption error code" Always;
        0x4408 IDT_VECTORING_INFO "IDT-vectoring information field" Always;
        0x440a IDT_VECTORING_ERROR_CODE "IDT-vectoring error code" Always;
        0x440c EXIT_INSTRUCTION_LENGTH "VM-exit instruction length" Always;
        0x440e EXIT_INSTRUCTION_INFO "VM-exit instruction information" Always;
    }
    Natural {
        0x6400 EXIT_QUALIFICATION "Exit qualification" Always;
        0x6402 IO_RCX "I/O RCX" Always;
        0x6404 IO_RSI "I/O RSI" Always;
        0x6406 IO_RDI "I/O RDI" Always;
        0x6408 IO_RIP "I/O RIP" Always;
        0x640a GUEST_LINEAR_ADDRESS "Guest-linear address" Always;
    }
}
