//! The guest's own paging structures lie behind EPT too: an access to one of them, on the way to a translation, says so
//! in the qualification, and with accessed and dirty flags counts as a write.

use alloc::format;
use core::sync::atomic::Ordering::SeqCst;

use vmx_structs::{EptAccess, VmxCapabilities, instructions::GuestRegisters, vmcs::ExitReason};

use super::{Bench, Fate, OFFSET, Page, configurations};
use crate::{
    guest::{LARGE_PAGE, STRUCTURE, Stub},
    report::{Outcome, Report},
};

/// A word of the guest's low memory that is not 0: the first of its PML4.
const PLACE: u64 = 0x2000;

pub fn compare(report: &mut Report, caps: &VmxCapabilities) -> Outcome {
    for config in configurations(caps)? {
        let mut bench = Bench::new(caps, config)?;
        // The page on trial is a page directory of the guest, whose first entry leads to low memory.
        let directory = bench.guest - OFFSET as u64;
        bench.low.place_structure(directory);
        bench.target[0].store(LARGE_PAGE, SeqCst);
        bench.other[0].store(LARGE_PAGE, SeqCst);
        bench.linear = STRUCTURE + PLACE;
        for level in 1..=4 {
            for (is_page, permissions) in (0..8).flat_map(|bits| [(false, bits), (true, bits)]) {
                if is_page && level == 4 {
                    continue;
                }
                let word = if is_page { bench.page(level) } else { bench.link(level) };
                for stub in [Stub::Read, Stub::Write] {
                    bench.reset(&[(level, word | permissions)]);
                    let access = EptAccess::READ.of_paging_structure();
                    let software = bench.predict(directory, access, |_, word| word);
                    let case = format!("{stub:?}, level {level}, page {is_page}, permissions {permissions}");
                    let processor = ask(&mut bench, stub)?;
                    let software = match software {
                        // Which page the directory was in does not show: both say the same.
                        Fate::Through(_) => Fate::Through(Page::Target),
                        // The emulator's: with accessed and dirty flags it counts the access as a write alone.
                        Fate::Violation { qualification, guest, linear } if config.accessed_dirty() => {
                            Fate::Violation { qualification: qualification & !1, guest, linear }
                        }
                        other => other,
                    };
                    report.compare(case, &software, &processor);
                }
            }
        }
        bench.end()?;
        if config.accessed_dirty() {
            report.blind(
                "with accessed and dirty flags the qualification's bit 0 is 0, where the SDM (Table 27-7) has bits 0 and 1 set; \
                 on the host: ept_walk",
            );
        }
    }
    Ok(())
}

fn ask(bench: &mut Bench, stub: Stub) -> Result<Fate, alloc::boxed::Box<dyn core::error::Error>> {
    bench.invalidate()?;
    let vm = bench.vm.as_mut().ok_or("the bench has ended")?;
    // The write leaves the guest's PML4 as it is: the value is what stands there.
    let value = 0x3000 | 0x23;
    let registers = GuestRegisters { rbx: STRUCTURE + PLACE, rax: value, ..GuestRegisters::default() };
    let stop = vm.run(stub, registers)?;
    Ok(match stop.reason.reason() {
        ExitReason::Hlt if stop.registers.rax == value => Fate::Through(Page::Target),
        ExitReason::EptViolation => Fate::Violation {
            qualification: stop.qualification,
            guest: stop.guest_physical,
            linear: stop.linear,
        },
        ExitReason::EptMisconfiguration => Fate::Misconfiguration { guest: stop.guest_physical },
        _ => Fate::Unexpected(format!("{stop:x?}")),
    })
}
