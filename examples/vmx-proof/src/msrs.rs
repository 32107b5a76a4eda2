//! RDMSR and WRMSR exit exactly for the MSRs that the bitmap names, and for those that have no bit (SDM 24.6.9, 25.1.3).
//!
//! The software is `MsrBitmap::exits`. An instruction that does not exit runs, or gives the guest an exception if there is no
//! such MSR; which of the two is the processor's matter.

use alloc::{format, string::String, vec::Vec};

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

/// The bitmap, and what it was asked to intercept: it says what the processor finds in it, which may be something else.
struct Asked {
    bitmap: MsrBitmap<Kernel>,
    /// By MSR, without its range, and by range and access.
    msrs: Vec<[[bool; 2]; 2]>,
}

impl Asked {
    fn new() -> Result<Self, String> {
        let bitmap = MsrBitmap::passthrough_all().map_err(|error| format!("{error}"))?;
        Ok(Self { bitmap, msrs: alloc::vec![[[false; 2]; 2]; 0x2000] })
    }

    fn set(&mut self, first: u32, count: u32, access: MsrAccess, intercept: bool) -> Outcome {
        self.bitmap.set_intercept_of_range(first, count, access, intercept)?;
        for msr in first..first + count {
            let (number, high) = (msr & 0x1fff, usize::from(msr >> 31 == 1));
            self.msrs[number as usize][high][access as usize] = intercept;
        }
        Ok(())
    }

    /// Whether an access exits, by the bitmap and by what was asked for; where there is no bit it does.
    fn exits(&self, msr: u32, access: MsrAccess) -> [bool; 2] {
        let asked = match msr {
            0..0x2000 => self.msrs[msr as usize][0][access as usize],
            0xc000_0000..0xc000_2000 => self.msrs[msr as usize & 0x1fff][1][access as usize],
            _ => true,
        };
        [self.bitmap.exits(msr, access), asked]
    }
}

pub fn compare(report: &mut Report, caps: &VmxCapabilities) -> Outcome {
    let low = Low::new()?;
    let mut ept = Ept::<Kernel>::new(EptConfig::new(caps)?)?;
    let range = GuestRange::new(GuestPhysAddr::new(0), LOW_FRAMES as u64)?;
    ept.map_range(range, low.host(), EptAttributes::RAM)?;
    let mut bitmap = Asked::new()?;
    let address = bitmap.bitmap.phys_addr();
    let mut vm = Vm::new(caps, ept.pointer(), |builder| _ = builder.msr_bitmap(address))?;

    let accesses = [MsrAccess::Read, MsrAccess::Write];
    for intercept in [false, true] {
        for access in accesses {
            bitmap.set(0, 0x2000, access, intercept)?;
            bitmap.set(0xc000_0000, 0x2000, access, intercept)?;
        }
        probe(report, "all alike", &mut vm, &bitmap, &EDGES)?;
        probe(report, "no bit", &mut vm, &bitmap, &OUTSIDE)?;
        // One bit of one quarter that is otherwise than all others: seen in that quarter alone.
        for pair in EDGES.chunks_exact(2) {
            for (msr, access) in pair.iter().flat_map(|&msr| accesses.map(|access| (msr, access))) {
                bitmap.set(msr, 1, access, !intercept)?;
                let name = format!("{access:?} of {msr:#x} {}", if intercept { "open" } else { "closed" });
                probe(report, &name, &mut vm, &bitmap, pair)?;
                let neighbours = [msr.wrapping_sub(1), msr + 1, msr + 8, msr + 0x400];
                probe(report, &name, &mut vm, &bitmap, &neighbours)?;
                bitmap.set(msr, 1, access, intercept)?;
            }
        }
    }
    let mut random = Random::new(0x006d_7372);
    for _ in 0..16 {
        for _ in 0..1000 {
            let msr = random.below(0x2000) as u32 | [0, 0xc000_0000][random.below(2)];
            bitmap.set(msr, 1, accesses[random.below(2)], random.below(2) == 0)?;
        }
        let msrs = [0; 16].map(|_: u32| random.below(0x2000) as u32 | [0, 0xc000_0000][random.below(2)]);
        probe(report, "random", &mut vm, &bitmap, &msrs)?;
    }
    vm.end()?;
    Ok(())
}

fn probe(report: &mut Report, name: &str, vm: &mut Vm, bitmap: &Asked, msrs: &[u32]) -> Outcome {
    for &msr in msrs {
        for (stub, access) in [(Stub::Rdmsr, MsrAccess::Read), (Stub::Wrmsr, MsrAccess::Write)] {
            let [exits, asked] = bitmap.exits(msr, access);
            let software = match (exits, access) {
                _ if exits != asked => Err("the bitmap holds something else than it was asked to"),
                (false, _) => Ok(None),
                (true, MsrAccess::Read) => Ok(Some(ExitReason::Rdmsr)),
                (true, MsrAccess::Write) => Ok(Some(ExitReason::Wrmsr)),
            };
            if !exits && access == MsrAccess::Write && !is_quiet(msr) {
                continue;
            }
            let registers = GuestRegisters { rcx: msr.into(), ..GuestRegisters::default() };
            let stop = vm.run(stub, registers)?;
            const GENERAL_PROTECTION: Option<u8> = Some(13);
            let ran = stop.is_done() || stop.exception == GENERAL_PROTECTION;
            let processor = Ok((!ran).then_some(stop.reason.reason()));
            report.compare(format_args!("{name}: {stub:?} of {msr:#x}"), &software, &processor);
        }
    }
    Ok(())
}
