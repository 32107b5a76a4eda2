//! EPTP switching: VMFUNC 0 takes a pointer from the list, if VM entry would take it (SDM 25.5.6.3).
//!
//! The software is `EptpList::choose`. Each pointer leads to tables with another page at the same address, so the guest
//! sees which tables are in use.

use alloc::{format, string::String, vec::Vec};

use kernel_example::memory::Kernel;
use vmx_structs::{
    EptAttributes, EptConfig, EptPointer, EptpList, VmxCapabilities,
    instructions::GuestRegisters,
    vmcs::{ExitReason, VmcsAccess, control},
};

use super::{frames, map, page, tables};
use crate::{
    guest::{Low, Stub, Vm},
    report::{Outcome, Report},
};

/// What comes of a VMFUNC.
#[derive(Debug, PartialEq)]
enum Answer {
    /// The guest reads this then, and this is the pointer in the VMCS.
    Switches {
        marker: u64,
        pointer: u64,
    },
    Exits,
    InvalidOpcode,
    Other(String),
}

/// Tables to choose from.
const COUNT: usize = 4;

fn marker(number: usize) -> u64 {
    0x0eb7_0000 + number as u64
}

pub fn compare(report: &mut Report, caps: &VmxCapabilities) -> Outcome {
    if !caps.has_vmfunc() || caps.vmfunc & 1 == 0 {
        report.absent("VM functions, and so EPTP switching");
        return Ok(());
    }
    let mut low = Low::new()?;
    let linear = low.open_window(0, page(0).as_u64());
    let config = EptConfig::new(caps)?;
    let mut memory = frames(COUNT)?;
    let mut views = Vec::new();
    let mut list = EptpList::<Kernel>::new().map_err(|error| format!("{error}"))?;
    for (number, frame) in memory.iter_mut().enumerate() {
        frame.as_bytes_mut()[..8].copy_from_slice(&marker(number).to_le_bytes());
        let mut ept = tables(config, &low)?;
        map(&mut ept, 0, frame.start_paddr(), EptAttributes::RAM)?;
        list.set([0, 1, 2, 511][number], Some(ept.pointer()))?;
        views.push(ept);
    }
    // Pointers that cannot be chosen, each for a reason of its own.
    let good = views[1].pointer().bits();
    let width = u32::from(caps.cpu.physical_width);
    let bad = [good & !7 | 4, good & !(7 << 3) | 2 << 3, good | 1 << 8, good | 1 << 11, good | 1 << width, 0];
    for (index, bits) in (10..).zip(bad) {
        list.set(index, Some(EptPointer::from_bits(bits)))?;
    }
    let address = list.phys_addr();
    let mut vm = Vm::new(caps, views[0].pointer(), |builder| _ = builder.eptp_list(address))?;
    let indices =
        [0, 1, 2, 3, 9, 10, 11, 12, 13, 14, 15, 510, 511, 512, 513, 0x1_0000, 0x8000_0000, u32::MAX];
    for (function, ecx) in
        indices.map(|ecx| (0, ecx)).into_iter().chain([(1, 0), (2, 1), (63, 0), (64, 0), (u32::MAX, 0)])
    {
        vm.vmcs.write(control::EPT_POINTER, views[0].pointer().bits())?;
        let chosen = match function {
            0 => list.choose(ecx, caps.ept_vpid, caps.cpu.physical_width).ok(),
            _ => None, // not enabled
        };
        let software = match chosen {
            _ if function > 63 => Answer::InvalidOpcode,
            None => Answer::Exits,
            Some(pointer) => {
                let number = views.iter().position(|ept| ept.pointer() == pointer);
                Answer::Switches { marker: number.map_or(0, marker), pointer: pointer.bits() }
            }
        };
        let registers = GuestRegisters {
            rax: function.into(),
            rcx: ecx.into(),
            rbx: linear,
            ..GuestRegisters::default()
        };
        let stop = vm.run(Stub::Vmfunc, registers)?;
        let processor = match stop.reason.reason() {
            ExitReason::Hlt => {
                let pointer = vm.vmcs.read(control::EPT_POINTER)?;
                Answer::Switches { marker: stop.registers.rdx, pointer }
            }
            ExitReason::Vmfunc => Answer::Exits,
            _ if stop.exception == Some(6) => Answer::InvalidOpcode,
            _ => Answer::Other(format!("{stop:x?}")),
        };
        report.compare(format_args!("VMFUNC {function:#x}, index {ecx:#x}"), &software, &processor);
    }
    vm.end()?;

    // Without the function enabled the instruction exits as well.
    let mut vm = Vm::new(caps, views[0].pointer(), |builder| {
        _ = builder.eptp_list(address).set(control::VM_FUNCTION_CONTROLS, 0);
    })?;
    let stop = vm.run(Stub::Vmfunc, GuestRegisters { rbx: linear, ..GuestRegisters::default() })?;
    report.compare("VMFUNC 0, not enabled", &ExitReason::Vmfunc, &stop.reason.reason());
    vm.end()?;
    Ok(())
}
