//! RDMSR and WRMSR exit exactly for the MSRs that the bitmap names, and for those that have no bit (SDM 24.6.9, 25.1.3).
//!
//! The software is `MsrBitmap::exits`. An instruction that does not exit runs, or gives the guest an exception if there is no
//! such MSR; which of the two is the processor's matter.

use alloc::format;

use kernel_example::memory::Kernel;
use vmx_structs::{
    Ept, EptAttributes, EptConfig, GuestPhysAddr, GuestRange, MsrAccess, MsrBitmap, VmxCapabilities,
    instructions::GuestRegisters, vmcs::ExitReason,
};

use crate::{
    guest::{LOW_FRAMES, Low, Stub, Vm},
    random::Random,
    report::{Outcome, Report},
};

/// Edges of the two ranges and of bytes, in pairs: an MSR and the one of the same bit in the other range.
const EDGES: [u32; 16] = [
    0,
    0xc000_0000,
    7,
    0xc000_0007,
    0x80,
    0xc000_0080,
    0x100,
    0xc000_0100,
    0x174,
    0xc000_0174,
    0xfff,
    0xc000_0fff,
    0x1ffe,
    0xc000_1ffe,
    0x1fff,
    0xc000_1fff,
];
/// MSRs without a bit.
const OUTSIDE: [u32; 9] =
    [0x2000, 0x2001, 0x3fff, 0x4000_0000, 0x8000_0000, 0xbfff_ffff, 0xc000_2000, 0xc001_0000, 0xffff_ffff];

/// May be set to 0 by a guest: there is no such MSR, or it is the guest's own.
fn is_quiet(msr: u32) -> bool {
    matches!(msr, 0x174..=0x176 | 0xfff | 0x1f00..=0x1fff | 0xc000_0081..=0xc000_0084
        | 0xc000_0100 | 0xc000_0102 | 0xc000_0174 | 0xc000_0fff | 0xc000_1f00..=0xc000_1fff)
}

pub fn compare(report: &mut Report, caps: &VmxCapabilities) -> Outcome {
    let low = Low::new()?;
    let mut ept = Ept::<Kernel>::new(EptConfig::new(caps)?)?;
    let range = GuestRange::new(GuestPhysAddr::new(0), LOW_FRAMES as u64)?;
    ept.map_range(range, low.host(), EptAttributes::RAM)?;
    let mut bitmap = MsrBitmap::<Kernel>::passthrough_all().map_err(|error| format!("{error}"))?;
    let address = bitmap.phys_addr();
    let mut vm = Vm::new(caps, ept.pointer(), |builder| _ = builder.msr_bitmap(address))?;

    let accesses = [MsrAccess::Read, MsrAccess::Write];
    for intercept in [false, true] {
        for access in accesses {
            bitmap.set_intercept_of_range(0, 0x2000, access, intercept)?;
            bitmap.set_intercept_of_range(0xc000_0000, 0x2000, access, intercept)?;
        }
        probe(report, "all alike", &mut vm, &bitmap, &EDGES)?;
        probe(report, "no bit", &mut vm, &bitmap, &OUTSIDE)?;
        // One bit of one quarter that is otherwise than all others: seen in that quarter alone.
        for pair in EDGES.chunks_exact(2) {
            for (msr, access) in pair.iter().flat_map(|&msr| accesses.map(|access| (msr, access))) {
                bitmap.set_intercept(msr, access, !intercept)?;
                let name = format!("{access:?} of {msr:#x} {}", if intercept { "open" } else { "closed" });
                probe(report, &name, &mut vm, &bitmap, pair)?;
                let neighbours = [msr.wrapping_sub(1), msr + 1, msr + 8, msr + 0x400];
                probe(report, &name, &mut vm, &bitmap, &neighbours)?;
                bitmap.set_intercept(msr, access, intercept)?;
            }
        }
    }
    let mut random = Random::new(0x006d_7372);
    for _ in 0..16 {
        for _ in 0..1000 {
            let msr = random.below(0x2000) as u32 | [0, 0xc000_0000][random.below(2)];
            bitmap.set_intercept(msr, accesses[random.below(2)], random.below(2) == 0)?;
        }
        let msrs = [0; 16].map(|_: u32| random.below(0x2000) as u32 | [0, 0xc000_0000][random.below(2)]);
        probe(report, "random", &mut vm, &bitmap, &msrs)?;
    }
    vm.end()?;
    Ok(())
}

fn probe(report: &mut Report, name: &str, vm: &mut Vm, bitmap: &MsrBitmap<Kernel>, msrs: &[u32]) -> Outcome {
    for &msr in msrs {
        for (stub, access) in [(Stub::Rdmsr, MsrAccess::Read), (Stub::Wrmsr, MsrAccess::Write)] {
            let exits = bitmap.exits(msr, access);
            let software = match (exits, access) {
                (false, _) => None,
                (true, MsrAccess::Read) => Some(ExitReason::Rdmsr),
                (true, MsrAccess::Write) => Some(ExitReason::Wrmsr),
            };
            if !exits && access == MsrAccess::Write && !is_quiet(msr) {
                continue;
            }
            let registers = GuestRegisters { rcx: msr.into(), ..GuestRegisters::default() };
            let stop = vm.run(stub, registers)?;
            const GENERAL_PROTECTION: Option<u8> = Some(13);
            let ran = stop.is_done() || stop.exception == GENERAL_PROTECTION;
            let processor = (!ran).then_some(stop.reason.reason());
            report.compare(format_args!("{name}: {stub:?} of {msr:#x}"), &software, &processor);
        }
    }
    Ok(())
}
