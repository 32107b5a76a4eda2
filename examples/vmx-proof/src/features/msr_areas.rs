//! MSRs that VM entry loads and VM exit stores and loads (SDM 24.7.2, 24.8.2, 26.4, 27.4, 27.6).
//!
//! The software is `MsrArea`, and for an entry that cannot be loaded `MsrEntry::is_loadable`.

use alloc::{boxed::Box, format, vec::Vec};
use core::error::Error;

use frame_allocator::FrameBox;
use kernel_example::memory::Kernel;
use machine::cpu::{read_msr, write_msr};
use vmx_structs::{
    EptConfig, MsrArea, MsrBitmap, MsrEntry, VmxCapabilities,
    instructions::GuestRegisters,
    vmcs::{ExitReason, VmcsAccess, control},
};

use super::tables;
use crate::{
    guest::{Low, Stub, Vm},
    report::{Outcome, Report},
};

const IA32_STAR: u32 = 0xc000_0081;
const IA32_LSTAR: u32 = 0xc000_0082;
const IA32_CSTAR: u32 = 0xc000_0083;
const IA32_FMASK: u32 = 0xc000_0084;
const IA32_KERNEL_GS_BASE: u32 = 0xc000_0102;
/// MSRs that this kernel does not use, so that they may hold anything.
const FREE: [u32; 5] = [IA32_STAR, IA32_LSTAR, IA32_CSTAR, IA32_FMASK, IA32_KERNEL_GS_BASE];

fn value(msr: u32, turn: u64) -> u64 {
    (u64::from(msr & 0xff) << 8 | turn) & 0xffff
}

pub fn compare(report: &mut Report, caps: &VmxCapabilities) -> Outcome {
    let low = Low::new()?;
    let ept = tables(EptConfig::new(caps)?, &low)?;
    let bitmap = MsrBitmap::<Kernel>::passthrough_all().map_err(|error| format!("{error}"))?;
    let mut load = MsrArea::<Kernel>::with_capacity(8, caps.misc)?;
    let mut store = MsrArea::<Kernel>::with_capacity(8, caps.misc)?;
    let mut back = MsrArea::<Kernel>::with_capacity(8, caps.misc)?;
    for msr in FREE {
        load.set(msr, value(msr, 1))?;
        store.set(msr, 0)?;
        back.set(msr, value(msr, 2))?;
    }
    let count = FREE.len() as u32;
    let mut vm = Vm::new(caps, ept.pointer(), |builder| {
        builder.msr_bitmap(bitmap.phys_addr()).entry_msr_load(load.phys_addr(), count);
        builder.exit_msr_store(store.phys_addr(), count).exit_msr_load(back.phys_addr(), count);
    })?;
    for msr in FREE {
        // SAFETY: nothing here uses these MSRs.
        unsafe { write_msr(msr, value(msr, 3)) };
    }
    for (turn, msr) in FREE.into_iter().enumerate() {
        let registers = GuestRegisters { rcx: msr.into(), ..GuestRegisters::default() };
        let stop = vm.run(Stub::Rdmsr, registers)?;
        let read = stop.registers.rdx << 32 | stop.registers.rax & 0xffff_ffff;
        report.compare(format_args!("{msr:#x} in the guest"), &load.get(msr), &Some(read));
        let wanted = value(msr, 0x10 + turn as u64);
        vm.run(Stub::Wrmsr, GuestRegisters { rax: wanted, ..registers })?;
        for other in FREE {
            let expected = if other == msr { Some(wanted) } else { load.get(other) };
            report.compare(format_args!("{other:#x} as stored"), &expected, &store.get(other));
            // SAFETY: every processor with Intel 64 has these MSRs.
            let host = unsafe { read_msr(other) };
            report.compare(format_args!("{other:#x} in the host"), &back.get(other), &Some(host));
        }
    }
    vm.end()?;
    refused(report, caps, &low)
}

fn cpuid_1_ecx() -> u32 {
    // Newer compilers know that this is safe.
    #[allow(unused_unsafe)]
    // SAFETY: every processor with Intel 64 has CPUID, and it has no effect that a program could see.
    unsafe { core::arch::x86_64::__cpuid(1) }.ecx
}

/// Entries that VM entry cannot load: by their MSR, by a value that the MSR does not take, by a reserved bit. Each stands at
/// any place among good ones; the qualification must name it.
fn refused(report: &mut Report, caps: &VmxCapabilities, low: &Low) -> Result<(), Box<dyn Error>> {
    const BAD: [(u32, u32, u64); 7] = [
        (0xc000_0100, 0, 0), // FS base
        (0xc000_0101, 0, 0), // GS base
        (0x800, 0, 0),       // x2APIC
        (0x83f, 0, 0),
        (0x8ff, 0, 0),
        (IA32_LSTAR, 1, 0),       // a reserved bit of the entry
        (IA32_LSTAR, 0, 1 << 47), // not canonical
    ];
    const GOOD: (u32, u32, u64) = (IA32_STAR, 0, 0x1234);
    let ept = tables(EptConfig::new(caps)?, low)?;
    let mut area = FrameBox::<[[u64; 2]; 256], Kernel>::new_zeroed().map_err(|error| format!("{error}"))?;
    let address = area.start_paddr();
    let mut vm = Vm::new(caps, ept.pointer(), |builder| _ = builder.entry_msr_load(address, 0))?;
    let has_x2apic = cpuid_1_ecx() >> 21 & 1 == 1;
    for (bad, place) in BAD.into_iter().flat_map(|bad| [1, 2, 5].map(|place| (bad, place))) {
        let entries: Vec<_> = (1..=5).map(|at| if at == place { bad } else { GOOD }).collect();
        for (slot, &(msr, reserved, value)) in area.iter_mut().zip(&entries) {
            *slot = [u64::from(msr) | u64::from(reserved) << 32, value];
        }
        vm.vmcs.write(control::ENTRY_MSR_LOAD_COUNT, entries.len() as u32)?;
        let canonical =
            |(msr, _, value): &(u32, u32, u64)| *msr != IA32_LSTAR || caps.cpu.is_canonical(*value);
        let fails = |entry: &(u32, u32, u64)| {
            let loadable = MsrEntry { msr: entry.0, value: entry.2 }.is_loadable();
            !loadable || entry.1 != 0 || !canonical(entry)
        };
        let ignored = !has_x2apic && (0x800..=0x8ff).contains(&bad.0);
        let software = if ignored { None } else { entries.iter().position(fails).map(|at| at as u64 + 1) };
        let registers = GuestRegisters::default();
        let stop = vm.run(Stub::Read, GuestRegisters { rbx: 0x1000, ..registers })?;
        let failed =
            stop.reason.reason() == ExitReason::EntryFailureMsrLoading && stop.reason.is_entry_failure();
        let processor = failed.then_some(stop.qualification);
        report.compare(format_args!("entry {bad:x?} at place {place}"), &software, &processor);
    }
    vm.end()?;
    if !has_x2apic {
        report.blind(
            "without x2APIC the emulator ignores MSRs 0x800 to 0x8ff in an area; on the host: structures",
        );
    }
    report.blind("IA32_BIOS_UPDT_TRIG (0x79) and IA32_SMM_MONITOR_CTL (0x9b) in an area are not tried; on the host: structures");
    Ok(())
}
