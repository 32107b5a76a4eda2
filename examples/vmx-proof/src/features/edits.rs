//! Tables that are changed while a guest uses them: every way to change them, in any order, and the guest sees each change.
//!
//! What the guest sees is predicted by `Ept::translate`. Frames carry marks, so a page that leads to a wrong frame is seen, and
//! a change that reaches a page too many or too few. The INVEPT that a change says it owes is executed; whether one is
//! forgotten this emulator does not show, which forgets everything at each VM exit, VPID or not.

use alloc::{boxed::Box, format, string::String};
use core::error::Error;

use frame_allocator::{FRAME_SIZE, FrameLayout, PhysAddr, PhysFrames};
use kernel_example::memory::Kernel;
use vmx_structs::{
    Ept, EptAccess, EptAttributes, EptConfig, EptError, EptFault, EptFlags, GuestPhysAddr, GuestRange,
    Invalidation, PageSize, VmxCapabilities,
    instructions::GuestRegisters,
    vmcs::{ExitReason, VmcsAccess, exit},
};

use super::{complete, page, tables};
use crate::{
    guest::{Low, Stub, Vm},
    random::Random,
    report::{Outcome, Report},
};

/// Changes, and accesses to look at after each.
const ROUNDS: usize = 250;
const LOOKS: usize = 4;
/// Pages of the guest, and frames behind them: two large pages.
const COUNT: usize = 1024;
/// What the guest writes and reads lies here in a page, and a piece of code here.
const WORD: usize = 0x10;
const CODE: usize = 0x20;

/// What becomes of an access.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It reaches this frame.
    Reaches(usize),
    Violation {
        qualification: u64,
        guest: u64,
        linear: u64,
    },
    Other(String),
}

/// The frames behind the guest's pages: contiguous, aligned to a large page.
struct Memory(PhysFrames<Kernel>);

impl Memory {
    /// Each frame holds its number, and `mov eax, number; hlt`.
    fn new() -> Result<Self, Box<dyn Error>> {
        let mut memory = Self(PhysFrames::try_alloc(FrameLayout::new(COUNT, 2 << 20)?)?);
        for number in 0..COUNT {
            memory.set(number, WORD, number as u64);
            memory.set(number, CODE, 0xb8 | (number as u64) << 8 | 0xf4 << 40);
        }
        Ok(memory)
    }

    fn frame(&self, number: usize) -> PhysAddr {
        self.0.start_paddr() + number * FRAME_SIZE
    }

    fn number(&self, address: PhysAddr) -> usize {
        (address.as_usize() - self.0.start_paddr().as_usize()) / FRAME_SIZE
    }

    fn set(&mut self, number: usize, offset: usize, word: u64) {
        self.0.as_bytes_mut()[number * FRAME_SIZE + offset..][..8].copy_from_slice(&word.to_le_bytes());
    }

    /// The frame whose word is this, if there is one and no other.
    fn find(&self, word: u64) -> Option<usize> {
        let words = self.0.as_bytes().chunks_exact(FRAME_SIZE);
        let mut found = words.enumerate().filter(|(_, frame)| frame[WORD..WORD + 8] == word.to_le_bytes());
        found.next().map(|(number, _)| number).filter(|_| found.next().is_none())
    }
}

pub fn compare(report: &mut Report, caps: &VmxCapabilities) -> Outcome {
    if !caps.has_vpid() {
        report.absent("VPIDs");
        return Ok(());
    }
    let mut low = Low::new()?;
    let linear = low.open_window(0, page(0).as_u64());
    low.open_window(1, page(COUNT / 2).as_u64());
    let mut memory = Memory::new()?;
    let mut ept = tables(EptConfig::new(caps)?, &low)?;
    let mut vm = Vm::new(caps, ept.pointer(), |builder| _ = builder.vpid(1))?;
    let mut random = Random::new(0x6564_6974);
    let (mut made, mut owed) = (0, 0);
    for round in 0..ROUNDS {
        let (change, result) = change(&mut ept, &memory, &mut random);
        made += usize::from(result.is_ok());
        if let Ok(Some(invalidation)) = result {
            owed += usize::from(invalidation.is_needed());
            complete(invalidation)?;
        }
        for _ in 0..LOOKS {
            let number = random.below(COUNT);
            let access = [EptAccess::READ, EptAccess::WRITE, EptAccess::FETCH][random.below(3)];
            let (guest, linear) = (page(number), linear + (number * FRAME_SIZE) as u64);
            let software = predict(&ept, &memory, guest, linear, access);
            let processor = ask(&mut vm, &mut memory, linear, access)?;
            let case = format_args!("round {round}, {change}: {access:?} of page {number}");
            report.compare(case, &software, &processor);
        }
    }
    vm.end()?;
    report.note(format_args!("{made} changes were made, {owed} owed an INVEPT"));
    // Or the comparisons above say little.
    report.compare(
        "many changes are made, and many of them owe an INVEPT",
        &true,
        &(made > 100 && owed > 30),
    );
    Ok(())
}

/// Any change to any pages: what it was, and what it says is owed. Now and then it is refused.
fn change(
    ept: &mut Ept<Kernel>,
    memory: &Memory,
    random: &mut Random,
) -> (String, Result<Option<Invalidation<Kernel>>, EptError>) {
    let start = random.below(COUNT);
    let longest = [1, 8, 512][random.below(3)];
    let count = 1 + random.below(longest).min(COUNT - 1 - start);
    let frame = random.below(COUNT - count);
    let range = match GuestRange::new(page(start), count as u64) {
        Ok(range) => range,
        Err(error) => unreachable!("{error}"),
    };
    let flags = [EptFlags::READ, EptFlags::READ | EptFlags::WRITE, EptFlags::READ | EptFlags::EXECUTE];
    let attributes = match random.below(6) {
        kind @ 0..3 => EptAttributes::RAM.with_flags(flags[kind]),
        _ => EptAttributes::RAM,
    };
    // Half of the pages lead where they lie: only such can be large, or become so.
    let frame = if random.below(2) == 0 { start } else { frame };
    let (what, result) = match random.below(10) {
        0 | 1 => {
            let result = ept.map_range(range, memory.frame(frame.min(COUNT - count)), attributes);
            return (format!("map_range {start} + {count}"), result.map(|()| None));
        }
        2 => {
            let half = start / 512;
            let result =
                ept.map(page(half * 512), memory.frame(half * 512), PageSize::Size2M, EptAttributes::RAM);
            return (format!("map 2 MiB {half}"), result.map(|()| None));
        }
        3 => (format!("unmap {start}"), ept.unmap(page(start)).map(|(_, owed)| owed)),
        4 => (format!("unmap_range {start} + {count}"), ept.unmap_range(range)),
        5 | 6 => (format!("protect {start} + {count}, {attributes:?}"), ept.protect(range, attributes)),
        7 => (format!("split {start} + {count}"), ept.split(range, PageSize::Size4K)),
        8 => (
            String::from("merge"),
            ept.merge(GuestRange::new(page(0), COUNT as u64).expect("two large pages")),
        ),
        _ => {
            let result = ept.remap(page(start), memory.frame(frame), attributes);
            (format!("remap {start}"), result.map(|(_, owed)| owed))
        }
    };
    (what, result.map(Some))
}

fn predict(ept: &Ept<Kernel>, memory: &Memory, guest: GuestPhysAddr, linear: u64, access: EptAccess) -> Fate {
    match ept.translate(guest, access) {
        Ok(translation) => Fate::Reaches(memory.number(translation.host)),
        Err(EptFault::Violation(violation)) => Fate::Violation {
            qualification: violation.qualification.bits(),
            guest: violation.guest.as_u64(),
            linear,
        },
        Err(fault) => Fate::Other(format!("{fault}")),
    }
}

/// What the processor does. A frame that the guest wrote to gets its word back.
fn ask(vm: &mut Vm, memory: &mut Memory, linear: u64, access: EptAccess) -> Result<Fate, Box<dyn Error>> {
    const WRITTEN: u64 = 0x5ca1_ab1e_0ddb_a115;
    let registers = GuestRegisters { rbx: linear + WORD as u64, rax: WRITTEN, ..GuestRegisters::default() };
    let stop = match (access.write, access.fetch) {
        (true, _) => vm.run(Stub::Write, registers)?,
        (_, true) => vm.run_at(linear + CODE as u64, registers)?,
        _ => vm.run(Stub::Read, registers)?,
    };
    Ok(match stop.reason.reason() {
        ExitReason::Hlt if access.write => match memory.find(WRITTEN) {
            Some(number) => {
                memory.set(number, WORD, number as u64);
                Fate::Reaches(number)
            }
            None => Fate::Other("it was written to no frame of ours".into()),
        },
        ExitReason::Hlt => Fate::Reaches(stop.registers.rax as usize),
        ExitReason::EptViolation => Fate::Violation {
            qualification: stop.qualification,
            guest: stop.guest_physical & !0xfff,
            linear: vm.vmcs.read(exit::GUEST_LINEAR_ADDRESS)? & !0xfff,
        },
        _ => Fate::Other(format!("{stop:x?}")),
    })
}
