//! VMCSs that VM entry takes although something looks wrong with them.

use vmx_structs::vmcs::{SoftwareVmcs, control, guest, host};

use super::{
    bases::{legacy, long, pae, protected, real, rich, virtual_8086},
    trial::{Setup, Trial},
};

/// A name, a base, a change.
type Good = (&'static str, fn(&Setup) -> Option<SoftwareVmcs>, fn(&mut Trial));

#[rustfmt::skip]
pub const GOOD: &[Good] = &[
    ("64-bit mode", long, |_| {}),
    ("32-bit protected mode", legacy, |_| {}),
    ("PAE paging", pae, |_| {}),
    ("real mode", real, |_| {}),
    ("protected mode without paging", protected, |_| {}),
    ("virtual-8086 mode", virtual_8086, |_| {}),
    ("all that the processor has", rich, |_| {}),
    ("RIP is not canonical: bit 47 differs from those above", long, |t| t.set(guest::RIP, 1 << 47)),
    ("RSP is not canonical", long, |t| t.set(guest::RSP, 1 << 63 | 1)),
    ("words that are not activated hold anything", long, |t| t.set(control::SECONDARY_CONTROLS, u32::MAX)),
    ("SS is unusable", long, |t| t.set(guest::SS_ACCESS_RIGHTS, 1 << 16)),
    ("an unusable DS holds anything", legacy, |t| { t.set(guest::DS_ACCESS_RIGHTS, 0x1_0f00); t.set(guest::DS_BASE, 1 << 63) }),
    ("an unusable LDTR holds anything", legacy, |t| { t.set(guest::LDTR_SELECTOR, 4); t.set(guest::LDTR_BASE, 1 << 62) }),
    ("the address of a bitmap that is not used", long, |t| t.set(control::IO_BITMAP_A, 1)),
    ("the address of an MSR area without entries", long, |t| t.set(control::EXIT_MSR_LOAD_ADDRESS, 1)),
    ("MSRs that are not loaded", legacy, |t| { t.set(guest::IA32_PAT, 2); t.set(host::IA32_EFER, u64::MAX) }),
    ("an interrupt wakes HLT", long, |t| { t.set(guest::ACTIVITY_STATE, 1); t.set(guest::RFLAGS, 0x202); t.inject(0, 0x20, 0) }),
    ("#DB wakes HLT", long, |t| { t.set(guest::ACTIVITY_STATE, 1); t.inject(3, 1, 0) }),
    ("HLT alone", long, |t| t.set(guest::ACTIVITY_STATE, 1)),
    ("BS pending with TF, behind MOV SS", long, |t| { t.set(guest::INTERRUPTIBILITY_STATE, 2); t.set(guest::RFLAGS, 0x102); t.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 14) }),
    ("#GP with an error code", long, |t| t.inject(3, 13, 1 << 11)),
    ("a software interrupt of 2 bytes", long, |t| { t.inject(4, 0x80, 0); t.set(control::ENTRY_INSTRUCTION_LENGTH, 2) }),
    ("an NMI", long, |t| t.inject(2, 2, 0)),
    ("no VPID needed where there is none", long, |t| t.set(control::VPID, 0)),
];
