//! What becomes of an access through EPT: the software's walk, and the processor's.
//!
//! The tables here are plain frames, so that an entry can hold anything. One page of guest-physical memory is on trial:
//!
//! ```text
//! root[1] ─► directory pointers[0] ─► directory[i] ─► table[j] ─► page OTHER
//!     level 4             level 3         level 2      level 1
//! ```
//!
//! A trial replaces one of these entries, by one that points to the next table or by one that maps a page: page
//! TARGET, wherever the entry stands (the guest-physical address ends as TARGET's address does). So the marker that the
//! guest finds says which way the processor went. The rest of the guest's memory hangs at `root[0]` and stays as it is.

mod entries;
mod structures;
mod together;
mod ve;

pub use entries::compare as compare_entries;
pub use structures::compare as compare_structures;
pub use together::compare as compare_together;
pub use ve::compare as compare_exceptions;

use alloc::{boxed::Box, format, string::String, vec::Vec};
use core::{
    error::Error,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use frame_allocator::{FrameBox, PhysAddr};
use kernel_example::memory::Kernel;
use vmx_structs::{
    EptAccess, EptConfig, EptFault, EptMemoryType, EptPointer, EptTranslation, GuestPhysAddr,
    InveptDescriptor, VmxCapabilities,
    instructions::{GuestRegisters, invept},
    vmcs::{ExitReason, VmcsBuilder},
    walk_ept,
};

use crate::{
    guest::{LOW_FRAMES, Low, Stub, Vm},
    report::Report,
};

type Words = FrameBox<[AtomicU64; 512], Kernel>;

/// Reads, writes and fetches allowed: what a table on the way allows.
const RWX: u64 = 7;
const WRITE_BACK: u64 = 6 << 3;
const LARGE: u64 = 1 << 7;
const ACCESSED: u64 = 1 << 8;
const DIRTY: u64 = 1 << 9;

/// Where in its page the guest reads, writes or fetches.
const OFFSET: usize = 0x238;
const WRITTEN: u64 = 0x1122_3344_5566_7788;

/// What the page holds there: `mov eax, marker; hlt`.
const fn code(marker: u32) -> u64 {
    0xb8 | (marker as u64) << 8 | 0xf4 << 40
}
const TARGET: u32 = 0x7a96_e701;
const OTHER: u32 = 0x07e3_1002;

/// A page that is to be found at the end of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Target,
    Other,
}

/// What becomes of an access.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// It gets through to a page.
    Through(Page),
    Violation {
        qualification: u64,
        guest: u64,
        linear: u64,
    },
    Misconfiguration {
        guest: u64,
    },
    /// A virtualization exception.
    Exception,
    Unexpected(String),
}

/// The ways to touch a page.
const ACCESSES: [(&str, EptAccess); 3] =
    [("read", EptAccess::READ), ("write", EptAccess::WRITE), ("fetch", EptAccess::FETCH)];

/// The tables, the pages behind them, and a guest that uses them.
struct Bench {
    config: EptConfig,
    pointer: EptPointer,
    /// Of level 1 to 4 (the last is the root): those that the page on trial is reached by.
    tables: [Words; 4],
    /// Those of low memory: levels 3, 2, 1.
    _low_tables: [Words; 3],
    low: Low,
    target: Words,
    other: Words,
    /// Guest-physical and guest-linear address of the access.
    guest: u64,
    linear: u64,
    vm: Option<Vm>,
}

impl Bench {
    fn new(caps: &VmxCapabilities, config: EptConfig) -> Result<Self, Box<dyn Error>> {
        Self::with(caps, config, |_| {})
    }

    /// `more` is what the VMCS shall have besides.
    fn with(
        caps: &VmxCapabilities,
        config: EptConfig,
        more: impl FnOnce(&mut VmcsBuilder<'_>),
    ) -> Result<Self, Box<dyn Error>> {
        let mut unfit = Vec::new();
        let mut table = || loop {
            let table = Words::new_zeroed().map_err(|error| format!("{error}"))?;
            // An entry that points to a table and has bit 7 set by mistake shall never look like a good large page, whatever
            // the allocator gives: each table's address has one of bits 20:13 set.
            if table.start_paddr().as_usize() & 0x1f_e000 != 0 {
                break Ok::<_, String>(table);
            }
            unfit.push(table);
        };
        let tables = [table()?, table()?, table()?, table()?];
        let low_tables = [table()?, table()?, table()?];
        let (target, other) = (table()?, table()?);
        let mut low = Low::new()?;
        let link = |table: &Words| table.start_paddr().as_usize() as u64 | RWX;
        tables[3][0].store(link(&low_tables[0]), SeqCst);
        low_tables[0][0].store(link(&low_tables[1]), SeqCst);
        low_tables[1][0].store(link(&low_tables[2]), SeqCst);
        for (page, entry) in low_tables[2].iter().enumerate().take(LOW_FRAMES) {
            let frame = (low.host() + page * 4096).as_usize() as u64;
            entry.store(frame | RWX | WRITE_BACK, SeqCst);
        }
        // 512 GiB and up, so that the root has an entry of its own for it.
        let guest = 1 << 39 | target.start_paddr().as_usize() as u64 | OFFSET as u64;
        let linear = low.open_window(0, guest);
        let pointer = EptPointer::new(
            tables[3].start_paddr(),
            config.levels(),
            EptMemoryType::WriteBack,
            config.accessed_dirty(),
        )?;
        let vm = Some(Vm::new(caps, pointer, more)?);
        Ok(Self { config, pointer, tables, _low_tables: low_tables, low, target, other, guest, linear, vm })
    }

    fn end(mut self) -> Result<(), Box<dyn Error>> {
        if let Some(vm) = self.vm.take() {
            vm.end()?;
        }
        Ok(())
    }

    /// The entry that translates the page, at a level.
    fn entry(&self, level: usize) -> &AtomicU64 {
        &self.tables[level - 1][(self.guest >> (12 + 9 * (level - 1))) as usize % 512]
    }

    /// An entry of this level that points to the next table (at level 1: to page OTHER).
    fn link(&self, level: usize) -> u64 {
        let (to, more) = match level {
            1 => (&self.other, WRITE_BACK),
            _ => (&self.tables[level - 2], 0),
        };
        to.start_paddr().as_usize() as u64 | more
    }

    /// An entry of this level that maps a page which holds TARGET.
    fn page(&self, level: usize) -> u64 {
        let size = 4096_u64 << (9 * (level - 1));
        let large = if level > 1 { LARGE } else { 0 };
        self.target.start_paddr().as_usize() as u64 & !(size - 1) | WRITE_BACK | large
    }

    /// Puts everything back to where a trial starts from, with these entries in place of the open ones.
    fn reset(&self, entries: &[(usize, u64)]) {
        for level in 1..=4 {
            self.entry(level).store(self.link(level) | RWX, SeqCst);
        }
        for &(level, word) in entries {
            self.entry(level).store(word, SeqCst);
        }
        for (page, marker) in [(&self.target, TARGET), (&self.other, OTHER)] {
            page[OFFSET / 8].store(code(marker), SeqCst);
        }
    }

    /// The words of levels 4 to 1.
    fn path(&self) -> [u64; 4] {
        [4, 3, 2, 1].map(|level| self.entry(level).load(SeqCst))
    }

    /// What the software's walk says. `as_read` gives a word as the processor takes it.
    fn walk(
        &self,
        guest: u64,
        access: EptAccess,
        as_read: impl Fn(usize, u64) -> u64,
    ) -> Result<EptTranslation, EptFault> {
        let read = |table: PhysAddr, index: usize| {
            let level = 1 + self.tables.iter().position(|known| known.start_paddr() == table)?;
            Some(as_read(level, self.tables[level - 1][index].load(SeqCst)))
        };
        let root = self.tables[3].start_paddr();
        walk_ept(&self.config, root, GuestPhysAddr::new(guest), access, read)
    }

    /// The same, in terms of what the guest and we can see.
    fn predict(&self, guest: u64, access: EptAccess, as_read: impl Fn(usize, u64) -> u64) -> Fate {
        match self.walk(guest, access, as_read) {
            Ok(translation) => {
                let page = translation.host.as_usize() & !0xfff;
                match [&self.target, &self.other].map(|page| page.start_paddr().as_usize()) {
                    [target, _] if target == page => Fate::Through(Page::Target),
                    [_, other] if other == page => Fate::Through(Page::Other),
                    _ => Fate::Unexpected(format!("{translation:x?}")),
                }
            }
            Err(EptFault::Violation(violation)) => Fate::Violation {
                qualification: violation.qualification.bits(),
                guest: violation.guest.as_u64(),
                linear: self.linear,
            },
            Err(EptFault::Misconfiguration(fault)) => Fate::Misconfiguration { guest: fault.guest.as_u64() },
            Err(fault) => Fate::Unexpected(format!("{fault}")),
        }
    }

    /// Forgets cached translations: every trial changes entries.
    fn invalidate(&self) -> Result<(), Box<dyn Error>> {
        // SAFETY: in VMX root operation (the bench has a current VMCS), on a processor with EPT and this INVEPT.
        unsafe { invept(self.config.invept_type(), &InveptDescriptor::new(self.pointer))? };
        Ok(())
    }

    /// What the processor says.
    fn ask(&mut self, access: EptAccess) -> Result<Fate, Box<dyn Error>> {
        self.invalidate()?;
        let linear = self.linear;
        let registers = GuestRegisters { rbx: linear, rax: WRITTEN, ..GuestRegisters::default() };
        let vm = self.vm.as_mut().ok_or("the bench has ended")?;
        let stop = match (access.write, access.fetch) {
            (true, _) => vm.run(Stub::Write, registers)?,
            (_, true) => vm.run_at(linear, registers)?,
            _ => vm.run(Stub::Read, registers)?,
        };
        Ok(match stop.reason.reason() {
            ExitReason::Hlt => {
                let found = |page: &Words, marker: u32| match (access.write, access.fetch) {
                    (true, _) => page[OFFSET / 8].load(SeqCst) == WRITTEN,
                    (_, true) => stop.registers.rax == marker.into(),
                    _ => stop.registers.rax == code(marker),
                };
                match [found(&self.target, TARGET), found(&self.other, OTHER)] {
                    [true, false] => Fate::Through(Page::Target),
                    [false, true] => Fate::Through(Page::Other),
                    _ => Fate::Unexpected(format!("went through to nowhere: {stop:x?}")),
                }
            }
            ExitReason::EptViolation => Fate::Violation {
                qualification: stop.qualification,
                guest: stop.guest_physical,
                linear: stop.linear,
            },
            ExitReason::EptMisconfiguration => Fate::Misconfiguration { guest: stop.guest_physical },
            _ if stop.exception == Some(20) => Fate::Exception,
            _ => Fate::Unexpected(format!("{stop:x?}")),
        })
    }

    /// One trial: all ways to touch the page, with these entries. Returns whether it fell into a blind spot.
    fn trial(
        &mut self,
        report: &mut Report,
        name: &str,
        entries: &[(usize, u64)],
    ) -> Result<bool, Box<dyn Error>> {
        let mut blind = false;
        for (what, access) in ACCESSES {
            self.reset(entries);
            let before = self.path();
            let mut software = self.predict(self.guest, access, |_, word| word);
            if matches!(software, Fate::Misconfiguration { .. }) {
                let seen = self.predict(self.guest, access, as_bochs_reads);
                blind |= seen != software;
                software = seen;
            }
            let processor = self.ask(access)?;
            let case = format_args!("{what}, {name}, entries from level 4 down {before:x?}");
            report.compare(case, &software, &processor);
            if let Fate::Through(_) = software {
                report.compare(
                    format_args!("accessed and dirty: {case}"),
                    &self.flags_after(before, access),
                    &self.path(),
                );
            }
        }
        Ok(blind)
    }

    /// The entries after an access that went through (SDM 28.3.5).
    fn flags_after(&self, before: [u64; 4], access: EptAccess) -> [u64; 4] {
        let mut after = before;
        if self.config.accessed_dirty() {
            for (at, word) in after.iter_mut().enumerate() {
                *word |= ACCESSED;
                let is_leaf = at == 3 || *word & LARGE != 0;
                if is_leaf {
                    *word |= if access.write { DIRTY } else { 0 };
                    break;
                }
            }
        }
        after
    }
}

/// The emulator does not look at bit 12 of a leaf of 2 MiB or 1 GiB: it reads it as 0. (On the host:
/// `every_entry_at_every_level_for_every_access` of `vmx-structs`'s test `ept_walk`.)
fn as_bochs_reads(level: usize, word: u64) -> u64 {
    if matches!(level, 2 | 3) && word & LARGE != 0 { word & !(1 << 12) } else { word }
}

/// The configurations to try: with accessed and dirty flags, where there are any, and without.
fn configurations(caps: &VmxCapabilities) -> Result<Vec<EptConfig>, Box<dyn Error>> {
    let config = EptConfig::new(caps)?;
    let mut all = Vec::from([config.with_accessed_dirty(false)?]);
    all.extend(config.with_accessed_dirty(true));
    Ok(all)
}
