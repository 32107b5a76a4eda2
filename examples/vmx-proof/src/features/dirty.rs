//! Accessed and dirty flags, and the log of pages that became dirty (SDM 28.3.5, 28.3.6).
//!
//! A second EPT with the same pages is the twin: `Ept::access` sets in it the flags that the processor sets in the first, and
//! each dirty flag that this sets is logged into a second log. The guest's own fetches and page walks count.

use alloc::{boxed::Box, format, vec::Vec};
use core::error::Error;

use frame_allocator::PhysFrame;
use kernel_example::memory::Kernel;
use vmx_structs::{
    Ept, EptAccess, EptAttributes, EptConfig, EptVpidCap, GuestPhysAddr, GuestRange, PmlBuffer,
    VmxCapabilities,
    instructions::GuestRegisters,
    vmcs::{ExitReason, VmcsAccess, guest},
};

use super::{complete, frames, map, page, tables};
use crate::{
    guest::{DATA_WALK, FETCH_WALK, LOW_FRAMES, Low, STUB_PAGE, Stub, Vm},
    random::Random,
    report::{Outcome, Report},
};

const COUNT: usize = 40;
/// Bit 8 of an entry.
const ACCESSED: u64 = 1 << 8;

/// What the guest works on, the same twice.
struct Pair {
    processor: Ept<Kernel>,
    software: Ept<Kernel>,
    linear: u64,
    _memory: Vec<PhysFrame<Kernel>>,
    _low: Low,
}

impl Pair {
    fn new(config: EptConfig) -> Result<Self, Box<dyn Error>> {
        let mut low = Low::new()?;
        let linear = low.open_window(0, page(0).as_u64());
        let memory = frames(COUNT)?;
        let build = || -> Result<_, Box<dyn Error>> {
            let mut ept = tables(config, &low)?;
            for (number, frame) in memory.iter().enumerate() {
                map(&mut ept, number, frame.start_paddr(), EptAttributes::RAM)?;
            }
            Ok(ept)
        };
        Ok(Self { processor: build()?, software: build()?, linear, _memory: memory, _low: low })
    }

    /// The accesses by which a stub reads or writes a page, in order: with a TLB that is empty, as it is after VM entry.
    fn accesses(number: usize, access: EptAccess) -> Vec<(GuestPhysAddr, EptAccess)> {
        let walk = |places: &[u64]| {
            let of = |&place: &u64| (GuestPhysAddr::new(place), EptAccess::READ.of_paging_structure());
            places.iter().map(of).collect::<Vec<_>>()
        };
        let mut all = walk(&FETCH_WALK);
        all.push((GuestPhysAddr::new(STUB_PAGE), EptAccess::FETCH));
        all.extend(walk(&DATA_WALK));
        all.push((page(number), access));
        all
    }

    /// The twin's part.
    fn touch(&self, number: usize, access: EptAccess) -> Result<(), Box<dyn Error>> {
        for (guest, access) in Self::accesses(number, access) {
            self.software.access(guest, access)?;
        }
        Ok(())
    }

    /// Every page with its flags.
    fn compare(&self, report: &mut Report, when: &str) {
        let flags = |ept: &Ept<Kernel>| {
            ept.leaves().map(|leaf| (leaf.guest(), leaf.accessed(), leaf.dirty())).collect::<Vec<_>>()
        };
        let (software, processor) = (flags(&self.software), flags(&self.processor));
        report.compare(format_args!("{when}: number of pages"), &software.len(), &processor.len());
        for (software, processor) in software.iter().zip(&processor) {
            report.compare(format_args!("{when}: flags of {:#x}", software.0), software, processor);
        }
    }
}

fn run(vm: &mut Vm, linear: u64, number: usize, access: EptAccess) -> Result<ExitReason, Box<dyn Error>> {
    let stub = if access.write { Stub::Write } else { Stub::Read };
    let registers =
        GuestRegisters { rbx: linear + number as u64 * 4096, rax: 1, ..GuestRegisters::default() };
    Ok(vm.run(stub, registers)?.reason.reason())
}

pub fn compare(report: &mut Report, caps: &VmxCapabilities) -> Outcome {
    if !caps.ept_vpid.contains(EptVpidCap::ACCESSED_DIRTY) {
        report.absent(
            "accessed and dirty flags of EPT; the pointer with bit 6 is refused, see INVEPT and VM entry",
        );
        return Ok(());
    }
    let mut random = Random::new(0x6164);
    for on in [true, false] {
        let mut pair = Pair::new(EptConfig::new(caps)?.with_accessed_dirty(on)?)?;
        let mut vm = Vm::new(caps, pair.processor.pointer(), |_| {})?;
        for round in 0..3 {
            for _ in 0..COUNT / 3 {
                let number = random.below(COUNT);
                let access = [EptAccess::READ, EptAccess::WRITE][random.below(2)];
                pair.touch(number, access)?;
                let end = run(&mut vm, pair.linear, number, access)?;
                report.compare(format_args!("flags {on}, page {number}"), &ExitReason::Hlt, &end);
            }
            pair.compare(report, &format!("flags {on}, round {round}"));
            if !on {
                continue;
            }
            // As a migration does: which pages were written since?
            let range = GuestRange::new(page(0), COUNT as u64)?;
            let mut taken = [Vec::new(), Vec::new()];
            complete(pair.software.take_dirty(range, |leaf| taken[0].push(leaf.guest()))?)?;
            complete(pair.processor.take_dirty(range, |leaf| taken[1].push(leaf.guest()))?)?;
            report.compare(
                format_args!("flags {on}, round {round}: pages that were dirty"),
                &taken[0],
                &taken[1],
            );
            pair.compare(report, &format!("flags {on}, round {round}, taken"));
        }
        vm.end()?;
    }
    Ok(())
}

/// Whether an access sets any flag, and whether it sets a dirty flag.
fn flags_to_set(ept: &Ept<Kernel>, guest: GuestPhysAddr, access: EptAccess) -> (bool, bool) {
    let dirty = ept.query(guest).is_some_and(|leaf| leaf.dirty());
    let sets_dirty = (access.write || access.paging_structure) && !dirty;
    let unused = (1..=4).filter_map(|level| ept.entry(guest, level)).any(|word| word & ACCESSED == 0);
    (unused || sets_dirty, sets_dirty)
}

pub fn compare_log(report: &mut Report, caps: &VmxCapabilities) -> Outcome {
    if !caps.has_pml() {
        report.absent("page-modification logging");
        return Ok(());
    }
    let mut pair = Pair::new(EptConfig::new(caps)?)?;
    let logs =
        [PmlBuffer::<Kernel>::new(), PmlBuffer::new()].map(|log| log.map_err(|error| format!("{error}")));
    let [software, processor] = logs;
    let (software, processor) = (software?, processor?);
    let mut vm = Vm::new(caps, pair.processor.pointer(), |builder| _ = builder.pml(processor.phys_addr()))?;
    let mut random = Random::new(0x0070_6d6c);
    // From the start of the log; then from near its end, so that it fills up.
    for start in [PmlBuffer::<Kernel>::START, 6] {
        let mut index = start;
        vm.vmcs.write(guest::PML_INDEX, start)?;
        for _ in 0..2 * COUNT {
            let number = random.below(COUNT);
            let access = [EptAccess::READ, EptAccess::WRITE][random.below(2)];
            // The twin logs each page whose dirty flag it sets. With a full log nothing that sets a flag gets through.
            let mut expected = ExitReason::Hlt;
            for (address, access) in Pair::accesses(number, access) {
                let (sets_any, sets_dirty) = flags_to_set(&pair.software, address, access);
                if sets_any && PmlBuffer::<Kernel>::is_full(index) {
                    expected = ExitReason::PageModificationLogFull;
                    break;
                }
                pair.software.access(address, access)?;
                if sets_dirty {
                    index = software.log(index, address)?;
                }
            }
            let end = run(&mut vm, pair.linear, number, access)?;
            let case = format!("log from {start}: {access:?} of page {number}");
            report.compare(&case, &expected, &end);
            let now = vm.vmcs.read(guest::PML_INDEX)?;
            report.compare(format_args!("{case}: the index"), &index, &now);
            if expected != ExitReason::Hlt || now != index {
                break;
            }
        }
        let logged: Vec<_> = software.logged(index).collect();
        let by_processor: Vec<_> = processor.logged(vm.vmcs.read(guest::PML_INDEX)?).collect();
        report.compare(format_args!("log from {start}: pages, in order"), &logged, &by_processor);
        report.compare(
            format_args!("log from {start}: something was logged"),
            &false,
            &by_processor.is_empty(),
        );
        pair.compare(report, &format!("log from {start}"));
        // What was logged is clean again, on both sides.
        for ept in [&mut pair.software, &mut pair.processor] {
            for (start, count) in [(0, LOW_FRAMES), (page(0).as_u64(), COUNT)] {
                let range = GuestRange::new(GuestPhysAddr::new(start), count as u64)?;
                complete(ept.take_dirty(range, |_| {})?)?;
            }
        }
    }
    vm.end()?;
    Ok(())
}
