//! I/O instructions exit exactly for the ports that the bitmaps name (SDM 24.6.4, 25.1.3).
//!
//! The software is `IoBitmap::exits`. Ports that are not intercepted reach the machine, so only quiet ones are written, and
//! those with side effects are not read.

use alloc::{format, vec::Vec};

use kernel_example::memory::Kernel;
use vmx_structs::{
    Ept, EptAttributes, EptConfig, GuestPhysAddr, GuestRange, IoBitmap, IoWidth, VmxCapabilities,
    instructions::GuestRegisters,
    vmcs::{ExitReason, IoQualification},
};

use crate::{
    guest::{LOW_FRAMES, Low, Stub, Vm},
    random::Random,
    report::{Outcome, Report},
};

/// What comes of an I/O instruction.
#[derive(Debug, PartialEq)]
enum Answer {
    Runs,
    Exits { port: u16, bytes: u32, is_in: bool },
    Other(alloc::string::String),
}

/// The bitmap, and what it was asked to intercept: it says what the processor finds in it, which may be something else.
struct Asked {
    bitmap: IoBitmap<Kernel>,
    ports: Vec<bool>,
}

impl Asked {
    fn new() -> Result<Self, alloc::string::String> {
        let bitmap = IoBitmap::passthrough_all().map_err(|error| format!("{error}"))?;
        Ok(Self { bitmap, ports: alloc::vec![false; 0x1_0000] })
    }

    fn set(&mut self, first: u32, count: u32, intercept: bool) -> Outcome {
        self.bitmap.set_intercept_of_range(first, count, intercept)?;
        self.ports[first as usize..][..count as usize].fill(intercept);
        Ok(())
    }

    /// Whether an access exits, by the bitmap and by what was asked for; past the last port it does (SDM 25.1.3).
    fn exits(&self, port: u16, width: IoWidth) -> [bool; 2] {
        let all = usize::from(port)..usize::from(port) + width.bytes() as usize;
        [
            self.bitmap.exits(port, width),
            all.into_iter().any(|port| self.ports.get(port).is_none_or(|&port| port)),
        ]
    }
}

/// Where bits, bytes and bitmaps end.
const EDGES: [u32; 14] =
    [0, 3, 7, 8, 0x80, 0x3ff, 0x1fff, 0x2000, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff];

const STUBS: [(Stub, IoWidth, bool); 6] = [
    (Stub::In8, IoWidth::Byte, true),
    (Stub::In16, IoWidth::Word, true),
    (Stub::In32, IoWidth::Dword, true),
    (Stub::Out8, IoWidth::Byte, false),
    (Stub::Out16, IoWidth::Word, false),
    (Stub::Out32, IoWidth::Dword, false),
];

/// Writing these does nothing in a PC: page registers of a DMA that is not used, and ports of nobody.
fn is_quiet(port: u16) -> bool {
    matches!(port, 0x80..=0x8f | 0x1000..=0x2fff | 0x7f00..=0x80ff | 0xff00..=0xffff)
}

/// Reading these takes something away from somebody, or the emulator minds: keyboard, disk, serial line.
fn is_delicate(port: u16) -> bool {
    matches!(port, 0x5d..=0x64 | 0x16d..=0x177 | 0x1ed..=0x1f7 | 0x3ed..=0x3ff | 0x8900)
}

pub fn compare(report: &mut Report, caps: &VmxCapabilities) -> Outcome {
    let low = Low::new()?;
    let mut ept = Ept::<Kernel>::new(EptConfig::new(caps)?)?;
    let range = GuestRange::new(GuestPhysAddr::new(0), LOW_FRAMES as u64)?;
    ept.map_range(range, low.host(), EptAttributes::RAM)?;
    let mut bitmap = Asked::new()?;
    let (a, b) = bitmap.bitmap.phys_addr();
    let mut vm = Vm::new(caps, ept.pointer(), |builder| _ = builder.io_bitmaps(a, b))?;

    let around = |port: u32| (port.saturating_sub(4)..=(port + 4).min(0xffff)).collect::<Vec<_>>();
    for intercept in [false, true] {
        bitmap.set(0, 0x1_0000, intercept)?;
        for port in EDGES {
            probe(report, "all alike", &mut vm, &bitmap, &[port])?;
        }
        // One port, or a run that crosses from bitmap A into B, that is otherwise than all others.
        for (first, count) in EDGES.map(|port| (port, 1)).into_iter().chain([(0x7ff9, 14), (0x2f8, 8)]) {
            let count = count.min(0x1_0000 - first);
            bitmap.set(first, count, !intercept)?;
            let name = format!("{count} from {first:#x} on {}", if intercept { "open" } else { "closed" });
            probe(report, &name, &mut vm, &bitmap, &around(first))?;
            if count > 1 {
                probe(report, &name, &mut vm, &bitmap, &around(first + count))?;
            }
            bitmap.set(first, count, intercept)?;
        }
    }
    // Any bits, any ports.
    let mut random = Random::new(0x706f_7274);
    for _ in 0..16 {
        for _ in 0..1000 {
            bitmap.set(random.below(0x1_0000) as u32, 1, random.below(2) == 0)?;
        }
        let ports: Vec<u32> = (0..16).map(|_| random.below(0x1_0000) as u32).collect();
        probe(report, "random", &mut vm, &bitmap, &ports)?;
    }
    vm.end()?;
    Ok(())
}

fn probe(report: &mut Report, name: &str, vm: &mut Vm, bitmap: &Asked, ports: &[u32]) -> Outcome {
    for (&port, (stub, width, is_in)) in ports.iter().flat_map(|port| STUBS.map(|stub| (port, stub))) {
        let port = port as u16;
        let software = match bitmap.exits(port, width) {
            [true, true] => Answer::Exits { port, bytes: width.bytes().into(), is_in },
            [false, false] => Answer::Runs,
            _ => Answer::Other("the bitmap holds something else than it was asked to".into()),
        };
        let harmless = if is_in { !is_delicate(port) } else { is_quiet(port) };
        if software == Answer::Runs && !harmless {
            continue;
        }
        let stop = vm.run(stub, GuestRegisters { rdx: port.into(), ..GuestRegisters::default() })?;
        let processor = match stop.reason.reason() {
            ExitReason::Hlt => Answer::Runs,
            ExitReason::IoInstruction => {
                let io = IoQualification::from_raw(stop.qualification);
                Answer::Exits { port: io.port(), bytes: io.size(), is_in: io.is_in() }
            }
            _ => Answer::Other(format!("{stop:x?}")),
        };
        report.compare(format_args!("{name}: {stub:?} at port {port:#x}"), &software, &processor);
    }
    Ok(())
}
