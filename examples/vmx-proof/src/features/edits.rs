//! Tables that are changed while a guest uses them: every way to change them, in any order, and the guest sees each change.
//!
//! What the guest sees is predicted by `Ept::translate`, which must say what a plain table of the pages says. Frames carry marks, so a page that leads to a wrong frame is seen, and
//! a change that reaches a page too many or too few. The INVEPT that a change says it owes is executed; whether one is
//! forgotten this emulator does not show, which forgets everything at each VM exit, VPID or not.

use alloc::{boxed::Box, format, string::String, vec::Vec};
use core::{error::Error, ops::Range};

use frame_allocator::{FRAME_SIZE, FrameLayout, PhysAddr, PhysFrames};
use kernel_example::memory::Kernel;
use vmx_structs::{
    Ept, EptAccess, EptAttributes, EptConfig, EptError, EptFault, EptFlags, EptLeaf, GuestPhysAddr,
    GuestRange, Invalidation, PageSize, VmxCapabilities,
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

/// What was asked for: for each page its frame and what may be done with it.
type Asked = Vec<Option<(usize, EptFlags)>>;

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
    let mut asked: Asked = alloc::vec![None; COUNT];
    let (mut made, mut owed) = (0, 0);
    for round in 0..ROUNDS {
        let Change { what, fits, result } = change(&mut ept, &mut asked, &memory, &mut random);
        report.compare(format_args!("round {round}, {what}: whether it is made"), &fits, &result.is_ok());
        made += usize::from(result.is_ok());
        if let Ok(Some(invalidation)) = result {
            owed += usize::from(invalidation.is_needed());
            complete(invalidation)?;
        }
        for _ in 0..LOOKS {
            let number = random.below(COUNT);
            let access = [EptAccess::READ, EptAccess::WRITE, EptAccess::FETCH][random.below(3)];
            let (guest, linear) = (page(number), linear + (number * FRAME_SIZE) as u64);
            let software = predict(&ept, asked[number], &memory, guest, linear, access);
            let processor = ask(&mut vm, &mut memory, linear, access)?;
            let case = format_args!("round {round}, {what}: {access:?} of page {number}");
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

/// A change, after it was tried.
struct Change {
    what: String,
    /// Whether it must be made, as far as that can be told without the tables.
    fits: bool,
    /// What it says is owed.
    result: Result<Option<Invalidation<Kernel>>, EptError>,
}

/// Any change to any pages, of the tables and of what was asked for.
fn change(ept: &mut Ept<Kernel>, asked: &mut Asked, memory: &Memory, random: &mut Random) -> Change {
    let start = random.below(COUNT);
    let longest = [1, 8, 512][random.below(3)];
    let count = 1 + random.below(longest).min(COUNT - 1 - start);
    let pages = start..start + count;
    let range =
        |first: usize, count: usize| GuestRange::new(page(first), count as u64).expect("the guest's pages");
    // Half of the pages lead where they lie: only such can be large, or become so.
    let frame = [start, random.below(COUNT - count)][random.below(2)].min(COUNT - count);
    let flags = [
        EptFlags::READ,
        EptFlags::READ | EptFlags::WRITE,
        EptFlags::READ | EptFlags::EXECUTE,
        EptFlags::READ | EptFlags::WRITE | EptFlags::EXECUTE,
    ][random.below(6).min(3)];
    let attributes = EptAttributes::RAM.with_flags(flags);
    let is_free = |asked: &Asked, mut pages: Range<usize>| pages.all(|number| asked[number].is_none());
    // Pages of a leaf, wherever it leads.
    let leaf = |leaf: EptLeaf| start..start + (leaf.size().bytes() / 4096) as usize;
    match random.below(10) {
        0 | 1 => {
            let fits = is_free(asked, pages.clone());
            let result = ept.map_range(range(start, count), memory.frame(frame), attributes);
            if result.is_ok() {
                pages.for_each(|number| asked[number] = Some((frame + number - start, flags)));
            }
            let what = format!("map_range {start} + {count} to {frame}");
            Change { what, fits, result: result.map(|()| None) }
        }
        2 => {
            let first = start / 512 * 512;
            let fits = is_free(asked, first..first + 512);
            let result = ept.map(page(first), memory.frame(first), PageSize::Size2M, attributes);
            if result.is_ok() {
                (first..first + 512).for_each(|number| asked[number] = Some((number, flags)));
            }
            Change { what: format!("map 2 MiB at {first}"), fits, result: result.map(|()| None) }
        }
        3 => {
            let result = ept.unmap(page(start)).map(|(old, owed)| {
                leaf(old).for_each(|number| asked[number] = None);
                Some(owed)
            });
            Change { what: format!("unmap {start}"), fits: result.is_ok(), result }
        }
        4 => {
            asked[pages].fill(None);
            let what = format!("unmap_range {start} + {count}");
            Change { what, fits: true, result: ept.unmap_range(range(start, count)).map(Some) }
        }
        5 | 6 => {
            let fits = asked[pages.clone()].iter().all(Option::is_some);
            let result = ept.protect(range(start, count), attributes).map(Some);
            if result.is_ok() {
                asked[pages].iter_mut().flatten().for_each(|page| page.1 = flags);
            }
            Change { what: format!("protect {start} + {count}, {flags:?}"), fits, result }
        }
        7 => {
            let result = ept.split(range(start, count), PageSize::Size4K).map(Some);
            Change { what: format!("split {start} + {count}"), fits: true, result }
        }
        8 => Change { what: "merge".into(), fits: true, result: ept.merge(range(0, COUNT)).map(Some) },
        _ => {
            let result = ept.remap(page(start), memory.frame(frame), attributes).map(|(old, owed)| {
                leaf(old).for_each(|number| asked[number] = Some((frame + number - start, flags)));
                Some(owed)
            });
            Change { what: format!("remap {start} to {frame}"), fits: result.is_ok(), result }
        }
    }
}

/// What the tables say, if it is what was asked for.
fn predict(
    ept: &Ept<Kernel>,
    asked: Option<(usize, EptFlags)>,
    memory: &Memory,
    guest: GuestPhysAddr,
    linear: u64,
    access: EptAccess,
) -> Fate {
    let needed = match (access.write, access.fetch) {
        (true, _) => EptFlags::WRITE,
        (_, true) => EptFlags::EXECUTE,
        _ => EptFlags::READ,
    };
    let reached = asked.and_then(|(frame, flags)| flags.contains(needed).then_some(frame));
    match (ept.translate(guest, access), reached) {
        (Ok(translation), Some(frame)) if memory.number(translation.host) == frame => Fate::Reaches(frame),
        (Err(EptFault::Violation(violation)), None) => Fate::Violation {
            qualification: violation.qualification.bits(),
            guest: violation.guest.as_u64(),
            linear,
        },
        (found, _) => Fate::Other(format!("asked for {asked:?}, the tables hold {found:?}")),
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
