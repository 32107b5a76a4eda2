//! Memory on demand: a frame when a page is first read, permission when it is first written, and gone again.
//!
//! Every violation is predicted by `Ept::translate`; the guest's sum and its pages tell whether it saw the right memory.

use alloc::{format, vec::Vec};

use frame_allocator::{FrameAllocator, PhysFrame};
use kernel_example::memory::{FRAMES, Kernel};
use vmx_structs::{
    Ept, EptAccess, EptAttributes, EptConfig, EptFault, EptFlags, GuestPhysAddr, GuestRange, VmxCapabilities,
    instructions::GuestRegisters,
    vmcs::{ExitReason, VmcsAccess, guest},
};

use super::{complete, map, page, tables};
use crate::{
    guest::{Low, Stop, Stub, Vm},
    report::{Outcome, Report},
};

const COUNT: usize = 48;

/// What is in a page before the guest comes.
fn word(number: usize) -> u64 {
    number as u64 * 0x1_0001 + 5
}

pub fn compare(report: &mut Report, caps: &VmxCapabilities) -> Outcome {
    let mut low = Low::new()?;
    let linear = low.open_window(0, page(0).as_u64());
    let mut ept = tables(EptConfig::new(caps)?, &low)?;
    let mut vm = Vm::new(caps, ept.pointer(), |_| {})?;
    let mut memory: Vec<PhysFrame<Kernel>> = Vec::new();
    // Twice: what was unmapped is asked for again.
    for round in 0..2 {
        let mut registers = GuestRegisters { rbx: linear, rcx: COUNT as u64, ..GuestRegisters::default() };
        let mut stop = vm.run(Stub::Touch, registers)?;
        let (mut reads, mut writes) = (0, 0);
        while stop.reason.reason() == ExitReason::EptViolation && reads + writes < 4 * COUNT {
            let number = reads.max(1) - 1;
            let first_touch = reads == writes;
            let (number, access) =
                if first_touch { (reads, EptAccess::READ) } else { (number, EptAccess::WRITE) };
            let address = linear + number as u64 * 4096;
            violation(report, &ept, page(number), access, address, &stop);
            if first_touch {
                let mut frame = PhysFrame::alloc_zero().map_err(|error| format!("{error}"))?;
                frame.as_bytes_mut()[..8].copy_from_slice(&word(number).to_le_bytes());
                let read_only = EptAttributes::RAM.with_flags(EptFlags::READ);
                map(&mut ept, number, frame.start_paddr(), read_only)?;
                memory.push(frame);
                reads += 1;
            } else {
                complete(ept.protect(GuestRange::new(page(number), 1)?, EptAttributes::RAM)?)?;
                writes += 1;
            }
            registers = stop.registers;
            let rip = vm.vmcs.read(guest::RIP)?;
            stop = vm.run_at(rip, registers)?;
        }
        report.compare(
            format_args!("round {round}: read and write violations"),
            &(COUNT, COUNT),
            &(reads, writes),
        );
        report.compare(format_args!("round {round}: the guest ends by HLT"), &true, &stop.is_done());
        let sum: u64 = (0..COUNT).map(word).sum();
        report.compare(format_args!("round {round}: the sum of what it read"), &sum, &stop.registers.rax);
        for (number, frame) in memory.iter().enumerate() {
            let written = u64::from_le_bytes(*frame.as_bytes().first_chunk().expect("8 bytes"));
            report.compare(format_args!("round {round}: page {number}"), &(word(number) + 1), &written);
        }
        complete(ept.unmap_range(GuestRange::new(page(0), COUNT as u64)?)?)?;
        memory.clear();
    }
    vm.end()?;
    drop((ept, low));
    report.compare("the allocator still has frames", &true, &(FRAMES.stats().free_frames > 0));
    Ok(())
}

/// Compares a violation with what the walk in software says.
fn violation(
    report: &mut Report,
    ept: &Ept<Kernel>,
    guest: GuestPhysAddr,
    access: EptAccess,
    linear: u64,
    stop: &Stop,
) {
    let software = match ept.translate(guest, access) {
        Err(EptFault::Violation(violation)) => {
            Ok((violation.guest.as_u64(), violation.qualification.bits(), linear))
        }
        other => Err(format!("{other:x?}")),
    };
    let processor = Ok((stop.guest_physical, stop.qualification, stop.linear));
    report.compare(format_args!("{access:?} at {guest:#x}"), &software, &processor);
}
