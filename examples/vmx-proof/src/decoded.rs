//! Exits that say what the instruction was: exit qualifications of I/O instructions and of control registers, and the events
//! that exceptions are (SDM 27.2.1, 27.2.2), as `IoQualification`, `CrAccess` and `EventInfo` read them.
//!
//! Each instruction is known, so its row in the table says what must be read.

use alloc::{format, string::String};

use vmx_structs::{
    EptConfig, VmxCapabilities,
    instructions::GuestRegisters,
    vmcs::{
        CrAccess, EventInfo, EventKind, ExitReason, Gpr, IoQualification, PrimaryControls, VmcsAccess,
        control, exit, guest,
    },
};

use crate::{
    features::tables,
    guest::{Low, STUB_PAGE, Stub, Vm},
    report::{Outcome, Report},
};

const fn to(register: u8, source: u8) -> CrAccess {
    CrAccess::MovTo { register, source: Gpr::from_number(source) }
}

const fn from(register: u8, destination: u8) -> CrAccess {
    CrAccess::MovFrom { register, destination: Gpr::from_number(destination) }
}

/// RAX is what is written; the length is the instruction's.
const CONTROL_REGISTERS: [(Stub, u32, CrAccess); 10] = [
    (Stub::ToCr0, 3, to(0, 0)),
    (Stub::ToCr3, 4, to(3, 9)),
    (Stub::ToCr4, 3, to(4, 3)),
    (Stub::ToCr8, 4, to(8, 0)),
    (Stub::FromCr3, 3, from(3, 6)),
    (Stub::FromCr8, 4, from(8, 15)),
    (Stub::Clts, 2, CrAccess::Clts),
    (Stub::Lmsw, 3, CrAccess::Lmsw { value: 0xbeef, from_memory: false }),
    (Stub::LmswMemory, 3, CrAccess::Lmsw { value: 0, from_memory: true }),
    (Stub::ToCr3, 4, to(3, 9)),
];

/// Port, bytes, IN, string, REP, immediate.
type Io = (u16, u32, bool, bool, bool, bool);

/// DX is 0x80. The length is the instruction's, with its prefixes.
const IO: [(Stub, u32, Io); 9] = [
    (Stub::In8, 1, (0x80, 1, true, false, false, false)),
    (Stub::Out16, 2, (0x80, 2, false, false, false, false)),
    (Stub::Out32, 1, (0x80, 4, false, false, false, false)),
    (Stub::InImmediate, 2, (0x81, 1, true, false, false, true)),
    (Stub::OutImmediate, 2, (0xfe, 4, false, false, false, true)),
    (Stub::Ins, 1, (0x80, 1, true, true, false, false)),
    (Stub::RepIns, 2, (0x80, 4, true, true, true, false)),
    (Stub::Outs, 1, (0x80, 1, false, true, false, false)),
    (Stub::RepOuts, 3, (0x80, 2, false, true, true, false)),
];

/// Kind, vector, error code.
const EVENTS: [(Stub, EventKind, u8, Option<u32>); 6] = [
    (Stub::Int3, EventKind::SoftwareException, 3, None),
    (Stub::Ud2, EventKind::HardwareException, 6, None),
    (Stub::Int1, EventKind::PrivilegedSoftwareException, 1, None),
    (Stub::Divide, EventKind::HardwareException, 0, None),
    // To an address that is not canonical; to one that is not mapped: a write, to a page that is not present.
    (Stub::WriteNowhere, EventKind::HardwareException, 13, Some(0)),
    (Stub::WriteUnmapped, EventKind::HardwareException, 14, Some(2)),
];

pub fn compare(report: &mut Report, caps: &VmxCapabilities) -> Outcome {
    let low = Low::new()?;
    let ept = tables(EptConfig::new(caps)?, &low)?;
    let mut vm = Vm::new(caps, ept.pointer(), |builder| {
        let cr8 = PrimaryControls::CR8_LOAD_EXITING | PrimaryControls::CR8_STORE_EXITING;
        let cr3 = PrimaryControls::CR3_LOAD_EXITING | PrimaryControls::CR3_STORE_EXITING;
        builder.want(cr8 | cr3 | PrimaryControls::UNCONDITIONAL_IO_EXITING);
        // The host owns every bit, and shows the guest zeroes, but TS.
        builder.set(control::CR0_GUEST_HOST_MASK, u64::MAX).set(control::CR4_GUEST_HOST_MASK, u64::MAX);
        builder.set(control::CR0_READ_SHADOW, 8);
    })?;
    let registers = GuestRegisters {
        rax: 0xbeef,
        rbx: 0xbeef,
        rcx: 1,
        rdx: 0x80,
        rsi: STUB_PAGE,
        rdi: STUB_PAGE + 0xf00,
        r9: 0xbeef,
        ..GuestRegisters::default()
    };
    for (stub, length, access) in CONTROL_REGISTERS {
        let stop = vm.run(stub, registers)?;
        let read = match stop.reason.reason() {
            ExitReason::ControlRegisterAccess => Ok(CrAccess::from_raw(stop.qualification)),
            _ => Err(format!("{stop:x?}")),
        };
        let value = |access: CrAccess| match access {
            // What stands in memory there is not the point.
            CrAccess::Lmsw { from_memory: true, .. } => CrAccess::Lmsw { value: 0, from_memory: true },
            access => access,
        };
        report.compare(format_args!("{stub:?}"), &Ok(access), &read.map(value));
        length_of(report, stub, length, &vm)?;
    }
    for (stub, length, expected) in IO {
        let stop = vm.run(stub, registers)?;
        let io = IoQualification::from_raw(stop.qualification);
        let read = match stop.reason.reason() {
            ExitReason::IoInstruction => {
                let string = (io.is_string(), io.is_repeated(), io.is_immediate());
                Ok((io.port(), io.size(), io.is_in(), string.0, string.1, string.2))
            }
            _ => Err(format!("{stop:x?}")),
        };
        report.compare(format_args!("{stub:?}"), &Ok::<_, String>(expected), &read);
        length_of(report, stub, length, &vm)?;
    }
    for (stub, kind, vector, code) in EVENTS {
        let stop = vm.run(stub, registers)?;
        let event = EventInfo::from_raw(vm.vmcs.read(exit::EXIT_INTERRUPTION_INFO)?);
        let expected = EventInfo::new(kind, vector);
        let expected = if code.is_some() { expected.with_error_code() } else { expected };
        report.compare(
            format_args!("{stub:?}"),
            &(ExitReason::ExceptionOrNmi, expected),
            &(stop.reason.reason(), event),
        );
        if let Some(code) = code {
            let read = vm.vmcs.read(exit::EXIT_INTERRUPTION_ERROR_CODE)?;
            report.compare(format_args!("{stub:?}: the error code"), &code, &read);
        }
    }
    vm.end()?;
    Ok(())
}

/// An exit leaves RIP at the instruction, and says how long it is.
fn length_of(report: &mut Report, stub: Stub, length: u32, vm: &Vm) -> Outcome {
    let read = (vm.vmcs.read(guest::RIP)?, vm.vmcs.read(exit::EXIT_INSTRUCTION_LENGTH)?);
    report.compare(format_args!("{stub:?}: RIP and length"), &(stub.address(), length), &read);
    Ok(())
}
