//! VMREAD and VMWRITE of a guest, with a shadow VMCS and its bitmaps (SDM 24.6.15, 25.1.3, 30.3).
//!
//! Which exit says `FieldBitmap::exits`. Those that do not work on the shadow VMCS, of which the twin is a `SoftwareVmcs`.

use alloc::{format, string::String, vec::Vec};

use kernel_example::memory::Kernel;
use vmx_structs::{
    EptConfig, VmcsRegion, VmreadBitmap, VmwriteBitmap, VmxCapabilities,
    instructions::{GuestRegisters, vmclear, vmptrld},
    vmcs::{ExitReason, FieldEncoding, FieldInfo, SoftwareVmcs, VmcsAccess},
};

use super::tables;
use crate::{
    guest::{Low, Stub, Vm},
    random::Random,
    report::{Outcome, Report},
};

/// What comes of an access.
#[derive(Debug, PartialEq)]
enum Answer {
    Exits,
    /// It succeeds; a VMREAD with this value.
    Done(u64),
    /// VMfailValid: there is no such field.
    Fails,
    Other(String),
}

/// Operands that are no field, of 15 bits and of more.
const STRANGE: [u64; 9] =
    [0x0001, 0x1fff, 0x6c1a, 0x7ffe, 0x7fff, 0x8000, 0xffff, 0x1_0000_0800, 0x8000_0000_0000_681e];

pub fn compare(report: &mut Report, caps: &VmxCapabilities) -> Outcome {
    if !caps.has_vmcs_shadowing() {
        report.absent("VMCS shadowing");
        return Ok(());
    }
    let low = Low::new()?;
    let ept = tables(EptConfig::new(caps)?, &low)?;
    let shadow = VmcsRegion::<Kernel>::new_shadow(caps.basic)?;
    let mut reads = VmreadBitmap::<Kernel>::passthrough_all().map_err(|error| format!("{error}"))?;
    let mut writes = VmwriteBitmap::<Kernel>::passthrough_all().map_err(|error| format!("{error}"))?;
    let addresses = [reads.phys_addr(), writes.phys_addr(), shadow.phys_addr()];
    // SAFETY: in VMX root operation; the region is this function's, and no VMCS is in use yet.
    unsafe { vmclear(shadow.phys_addr())? };
    let mut vm = Vm::new(caps, ept.pointer(), |builder| {
        _ = builder.vmcs_shadowing(addresses[0], addresses[1], addresses[2]);
    })?;
    let mut twin = SoftwareVmcs::for_processor(caps);
    let operands: Vec<u64> = FieldInfo::ALL
        .iter()
        .map(|info| u64::from(info.encoding.raw()))
        .flat_map(|raw| [raw, raw | 1]) // the upper half, or none
        .chain(STRANGE)
        .collect();
    let mut random = Random::new(0x7368_6164);
    for round in 0..4 {
        // Nothing exits; everything does; any.
        let mut asked = [Vec::new(), Vec::new()];
        for encoding in 0..0x8000 {
            for (kind, asked) in asked.iter_mut().enumerate() {
                let intercept = [false, true, random.below(2) == 0, random.below(2) == 0][round];
                asked.push(intercept);
                match kind {
                    0 => reads.set_intercept(encoding, intercept)?,
                    _ => writes.set_intercept(encoding, intercept)?,
                }
            }
        }
        for &operand in &operands {
            let field = (operand < 0x8000).then(|| FieldEncoding::from_raw(operand as u32));
            let value = random.next();
            let write = |twin: &mut SoftwareVmcs| match field {
                Some(field) => twin.write_raw(field, value).map(|()| 0),
                None => Ok(0), // exits
            };
            let read = |twin: &SoftwareVmcs| field.map_or(Ok(0), |field| twin.read_raw(field));
            for (stub, exits, asked) in [
                (Stub::Vmwrite, writes.exits(operand), &asked[1]),
                (Stub::Vmread, reads.exits(operand), &asked[0]),
            ] {
                let asked = asked.get(operand as usize).is_none_or(|&asked| asked);
                let software = if exits != asked {
                    Answer::Other("the bitmap holds something else than it was asked to".into())
                } else if exits {
                    Answer::Exits
                } else if stub == Stub::Vmwrite {
                    write(&mut twin).map_or(Answer::Fails, Answer::Done)
                } else {
                    read(&twin).map_or(Answer::Fails, Answer::Done)
                };
                let registers = GuestRegisters { rbx: operand, rax: value, ..GuestRegisters::default() };
                let stop = vm.run(stub, registers)?;
                let processor = match (stop.reason.reason(), stop.registers.rcx & 0xffff) {
                    (ExitReason::Vmread | ExitReason::Vmwrite, _) => Answer::Exits,
                    (ExitReason::Hlt, 0) if stub == Stub::Vmwrite => Answer::Done(0),
                    (ExitReason::Hlt, 0) => Answer::Done(stop.registers.rax),
                    (ExitReason::Hlt, 0x100) => Answer::Fails, // ZF
                    _ => Answer::Other(format!("{stop:x?}")),
                };
                report.compare(
                    format_args!("round {round}: {stub:?} of {operand:#x}"),
                    &software,
                    &processor,
                );
            }
        }
    }
    vm.end()?;

    // What the guest wrote is in the shadow VMCS.
    // SAFETY: in VMX root operation; no other VMCS is in use, and this one is cleared before its region goes.
    unsafe {
        vmptrld(shadow.phys_addr())?;
        for info in FieldInfo::ALL.iter().filter(|info| info.exists(caps)) {
            let processor = vmx_structs::instructions::vmread(info.encoding);
            report.compare(
                format_args!("in the end: {}", info.encoding),
                &twin.read_raw(info.encoding),
                &processor,
            );
        }
        vmclear(shadow.phys_addr())?;
    }
    Ok(())
}
