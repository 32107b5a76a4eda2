//! Sub-page write permissions (SDM 28.3.4): which writes to a page reach it, by the pieces of 128 bytes that they touch.
//!
//! The software is `SppTable::check`.

use alloc::{format, string::String};

use frame_allocator::PhysFrame;
use kernel_example::memory::Kernel;
use vmx_structs::{
    EptAttributes, EptConfig, EptFlags, GuestPhysAddr, PageSize, SppTable, SppVerdict, VmxCapabilities,
    instructions::GuestRegisters, vmcs::ExitReason,
};

use super::{complete, page, tables};
use crate::{
    guest::{Low, Stub, Vm},
    random::Random,
    report::{Outcome, Report},
};

/// What becomes of a write of 8 bytes.
#[derive(Debug, PartialEq)]
enum Fate {
    Done,
    Violation {
        guest: u64,
    },
    /// A sub-page event, and whether bit 11 of its qualification calls it a miss.
    Event {
        miss: bool,
        guest: u64,
    },
    Other(String),
}

/// Permissions of a page: none, all, one, all but one, every second, any.
const MASKS: [u32; 8] = [0, !0, 1, 1 << 31, !1, 0x5555_5555, 0xaaaa_aaaa, 0x8f3a_6c15];

pub fn compare(report: &mut Report, caps: &VmxCapabilities) -> Outcome {
    if !caps.has_spp() {
        report.absent("sub-page write permissions");
        return Ok(());
    }
    let mut low = Low::new()?;
    let linear = low.open_window(0, page(0).as_u64());
    let mut ept = tables(EptConfig::new(caps)?.with_sub_page_write(true)?, &low)?;
    let mut memory = PhysFrame::<Kernel>::alloc_zero().map_err(|error| format!("{error}"))?;
    let guarded = EptAttributes::RAM.with_flags(EptFlags::READ | EptFlags::SUB_PAGE_WRITE);
    // Two pages, one of which no table knows.
    let unknown = 600;
    ept.map(page(0), memory.start_paddr(), PageSize::Size4K, guarded)?;
    ept.map(page(unknown), memory.start_paddr(), PageSize::Size4K, guarded)?;
    let high = low.open_window(1, page(512).as_u64()) + (unknown as u64 - 512) * 4096;
    let mut table = SppTable::<Kernel>::new()?;
    let address = table.phys_addr();
    let mut vm = Vm::new(caps, ept.pointer(), |builder| _ = builder.sub_page_permissions(address))?;
    let mut random = Random::new(0x0073_7070);
    let mut blind = 0;
    for mask in MASKS {
        complete(table.set(page(0), mask, &ept)?)?;
        // The first and the last word of pieces, words across two, and anywhere.
        let edges = (0..32).flat_map(|piece| [piece * 128, piece * 128 + 120, piece * 128 + 124]);
        let offsets = edges.chain([1, 2, 3, 4].map(|_| random.below(4089))).filter(|&offset| offset <= 4088);
        for (number, linear, offset) in offsets.map(|offset| (0, linear, offset)).chain([(unknown, high, 64)])
        {
            let target = page(number).as_u64() + offset as u64;
            let check = |bytes| table.check(GuestPhysAddr::new(target), bytes);
            // The emulator looks at the first byte alone.
            blind += usize::from(check(8) != check(1));
            let software = match check(1) {
                SppVerdict::Allowed => Fate::Done,
                SppVerdict::Refused => Fate::Violation { guest: target },
                verdict => Fate::Event { miss: verdict == SppVerdict::Miss, guest: target },
            };
            let written = random.next();
            let before = word(&memory, offset);
            let registers =
                GuestRegisters { rbx: linear + offset as u64, rax: written, ..GuestRegisters::default() };
            let stop = vm.run(Stub::Write, registers)?;
            let done = word(&memory, offset) == written;
            let processor = match stop.reason.reason() {
                ExitReason::Hlt if done => Fate::Done,
                _ if word(&memory, offset) != before => Fate::Other("it was written, and it exits".into()),
                ExitReason::EptViolation => Fate::Violation { guest: stop.guest_physical },
                ExitReason::SppEvent => {
                    Fate::Event { miss: stop.qualification >> 11 & 1 == 1, guest: stop.guest_physical }
                }
                _ => Fate::Other(format!("{stop:x?}")),
            };
            let case = format_args!("permissions {mask:#x}, page {number}, write at {offset:#x}");
            // The table says what was asked for: `check` reads what the processor reads.
            let asked = number == 0 && mask >> (offset / 128) & 1 == 1;
            report.compare(case, &(software, asked), &(processor, done));
        }
    }
    vm.end()?;
    report.blind(format_args!(
        "{blind} writes to two sub-pages are judged by the first alone; on the host: structures"
    ));
    report.compare("such writes there are", &true, &(blind > 0));
    memory.fill(0);
    Ok(())
}

fn word(memory: &PhysFrame<Kernel>, offset: usize) -> u64 {
    u64::from_le_bytes(*memory.as_bytes()[offset..].first_chunk().expect("8 bytes"))
}
