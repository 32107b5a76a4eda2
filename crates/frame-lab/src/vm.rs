//! A virtual machine's structures, built from an allocator's frames and given back.
//!
//! What a hypervisor asks of an allocator is not what a kernel does: single zeroed frames for the processor's structures,
//! and the largest runs that there are for the guest's memory. [`Vm::build`] does that on an allocator that holds the
//! live memory of a replay, reads back through the EPT what it wrote into the guest, and takes it all down.

use std::{error::Error, ops::Range};

use frame_core::{AxError, FRAME_SIZE, FrameAllocator, FrameRange};
use frame_testkit::SimMemory;
use serde::Serialize;
use vmx_structs::{
    Contents, CpuModel, Ept, EptAccess, EptAttributes, EptConfig, GuestMemory, GuestPhysAddr, GuestRange,
    IoBitmap, IoWidth, MsrAccess, MsrBitmap, PageSize, VirtualApicPage, VmcsRegion, VmxonRegion,
};

use crate::hal::{LabHal, Tally, serve};

/// The processor whose capabilities the structures follow.
const CPU: &str = "skylake_x";
/// The guest's memory, as a PC has it: 640 KiB, a hole, and the rest up to 64 MiB. In bytes.
const RAM: [Range<u64>; 2] = [0..640 << 10, 1 << 20..64 << 20];
const SERIAL: u16 = 0x3f8;
const EFER: u32 = 0xc000_0080;

/// Names of structures.
pub(crate) const GUEST_RAM: &str = "guest RAM";
pub(crate) const EPT_TABLES: &str = "EPT tables";

/// What building a VM took.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Vm {
    /// Why it could not be built; what had been taken was given back.
    pub(crate) error: Option<String>,
    pub(crate) cpu: &'static str,
    /// The structures, in the order in which they were built.
    pub(crate) structures: Vec<Structure>,
    /// Pages of each size in the EPT.
    pub(crate) pages_4k: u64,
    pub(crate) pages_2m: u64,
    pub(crate) pages_1g: u64,
    pub(crate) frames_taken: usize,
    pub(crate) frames_given_back: usize,
    /// Frees that the allocator refused.
    pub(crate) refused_frees: usize,
    /// Free frames before, less those after: 0 unless something leaked.
    pub(crate) frames_missing: i64,
}

/// A structure and the frames that it took.
#[derive(Debug, Serialize)]
pub(crate) struct Structure {
    pub(crate) name: &'static str,
    pub(crate) frames: usize,
}

impl Vm {
    /// Builds a VM on an allocator over these regions and takes it down again. `drain` as in [`crate::backends::Job`].
    pub(crate) fn build<A: FrameAllocator>(allocator: &A, regions: &[FrameRange], drain: &dyn Fn()) -> Self {
        let mut vm = Self { cpu: CPU, ..Self::default() };
        let memory = match SimMemory::new(regions) {
            Ok(memory) => memory,
            Err(error) => {
                vm.error = Some(format!("no address space for {} regions of memory: {error}", regions.len()));
                return vm;
            }
        };
        let before = allocator.stats().free_frames;
        let tally = serve(allocator, &memory, |tally| {
            vm.error = vm.build_here(tally).err().map(|error| error.to_string());
            tally()
        });
        drain();
        (vm.frames_taken, vm.frames_given_back, vm.refused_frees) =
            (tally.taken, tally.given_back, tally.refused);
        vm.frames_missing = before as i64 - allocator.stats().free_frames as i64;
        vm
    }

    /// Whether all that was taken came back.
    pub(crate) fn is_sound(&self) -> bool {
        self.frames_taken == self.frames_given_back && self.refused_frees == 0 && self.frames_missing == 0
    }

    /// Whether a reader would be told the same of both.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let told = |vm: &Self| (vm.frames_taken, vm.frames_given_back, vm.pages_2m, vm.pages_1g);
        self.error == other.error && (self.error.is_some() || told(self) == told(other))
    }

    /// The frames of a structure.
    pub(crate) fn frames_of(&self, name: &str) -> usize {
        self.structures
            .iter()
            .filter(|structure| structure.name == name)
            .map(|structure| structure.frames)
            .sum()
    }

    fn build_here(&mut self, tally: &dyn Fn() -> Tally) -> Result<(), Box<dyn Error>> {
        let model = CpuModel::by_id(CPU).ok_or("the processor is not known")?;
        let caps = model.capabilities();
        let mut seen = 0;
        let structures = &mut self.structures;
        let mut note = |name| {
            let taken = tally().taken;
            structures.push(Structure { name, frames: taken - seen });
            seen = taken;
        };
        let _vmxon = VmxonRegion::<LabHal>::new(caps.basic)?;
        note("VMXON region");
        let _vmcs = VmcsRegion::<LabHal>::new(caps.basic)?;
        note("VMCS");
        let mut ports = IoBitmap::<LabHal>::passthrough_all().map_err(ax)?;
        ports.set_intercept_of_range(SERIAL.into(), 8, true)?;
        note("I/O bitmaps");
        let mut msrs = MsrBitmap::<LabHal>::passthrough_all().map_err(ax)?;
        msrs.set_write_intercept(EFER, true)?;
        note("MSR bitmap");
        let _apic = VirtualApicPage::<LabHal>::new().map_err(ax)?;
        note("virtual-APIC page");

        let config = EptConfig::new(&caps)?;
        let mut ram = GuestMemory::<LabHal>::new(&config)?;
        let mut ram_frames = 0;
        for part in RAM {
            let frames = (part.end - part.start) / FRAME_SIZE as u64;
            ram.add(GuestRange::new(GuestPhysAddr::new(part.start), frames)?, Contents::Zeroed)?;
            ram_frames += frames as usize;
        }
        note(GUEST_RAM);
        let mut ept = Ept::<LabHal>::new(config)?;
        ept.map_memory(&ram, EptAttributes::RAM)?;
        note(EPT_TABLES);
        // The books are told apart from the memory that they are about.
        if let Some(of_ram) = self.structures.iter_mut().find(|structure| structure.name == GUEST_RAM) {
            let books = of_ram.frames - ram_frames;
            of_ram.frames = ram_frames;
            self.structures.push(Structure { name: "books of guest RAM", frames: books });
        }
        for leaf in ept.leaves() {
            *match leaf.size() {
                PageSize::Size4K => &mut self.pages_4k,
                PageSize::Size2M => &mut self.pages_2m,
                PageSize::Size1G => &mut self.pages_1g,
            } += 1;
        }
        check(&ports, &msrs, &ram, &ept)
    }
}

/// The seed's error has a text but is no [`Error`].
fn ax(error: AxError) -> String {
    error.to_string()
}

/// Does what was built do what it is for? One look at each; the structures' own tests look at everything.
fn check(
    ports: &IoBitmap<LabHal>,
    msrs: &MsrBitmap<LabHal>,
    ram: &GuestMemory<LabHal>,
    ept: &Ept<LabHal>,
) -> Result<(), Box<dyn Error>> {
    if !ports.exits(SERIAL, IoWidth::Byte) || ports.exits(SERIAL - 1, IoWidth::Byte) {
        return Err("the I/O bitmap intercepts other ports than it was told".into());
    }
    if !msrs.exits(EFER, MsrAccess::Write) || msrs.exits(EFER, MsrAccess::Read) {
        return Err("the MSR bitmap intercepts other MSRs than it was told".into());
    }
    for guest in RAM.into_iter().flat_map(|part| [part.start, part.end - 8]) {
        let guest = GuestPhysAddr::new(guest);
        let seen = ept.translate(guest, EptAccess::WRITE);
        let seen = seen.map_err(|fault| format!("guest RAM at {guest} is not mapped: {fault:?}"))?;
        if Some(seen.host) != ram.translate(guest) {
            return Err(format!("the EPT sends {guest} to {:#x}, which is not its memory", seen.host).into());
        }
        ram.write(guest, &guest.as_u64().to_le_bytes())?;
    }
    let hole = GuestPhysAddr::new(RAM[0].end);
    if ept.translate(hole, EptAccess::READ).is_ok() {
        return Err(format!("{hole} lies in the hole and is mapped").into());
    }
    // Written everywhere before anything is read: no two addresses may share a frame.
    for guest in RAM.into_iter().flat_map(|part| [part.start, part.end - 8]) {
        let mut bytes = [0; 8];
        ram.read(GuestPhysAddr::new(guest), &mut bytes)?;
        if u64::from_le_bytes(bytes) != guest {
            return Err(format!("guest RAM at {guest:#x} does not hold what was written").into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use frame_core::PhysAddr;
    use frame_testkit::Oracle;

    fn build(frames: usize) -> Vm {
        let range = FrameRange::new(PhysAddr::from(32 << 20), frames).unwrap();
        let oracle = Oracle::new();
        oracle.add_region(range).unwrap();
        Vm::build(&oracle, &[range], &|| ())
    }

    #[test]
    fn a_vm_takes_what_its_structures_need() {
        let vm = build(20_000);
        assert_eq!(vm.error, None);
        assert!(vm.is_sound(), "{vm:?}");
        let frames: Vec<_> = vm.structures.iter().map(|s| (s.name, s.frames)).collect();
        let ram = 160 + 63 * 256;
        assert_eq!(
            frames[..6],
            [
                ("VMXON region", 1),
                ("VMCS", 1),
                ("I/O bitmaps", 2),
                ("MSR bitmap", 1),
                ("virtual-APIC page", 1),
                (GUEST_RAM, ram)
            ]
        );
        // Levels 4, 3, 2, and one table of level 1: the first 2 MiB have a hole.
        assert_eq!(vm.frames_of(EPT_TABLES), 4);
        assert_eq!((vm.pages_4k, vm.pages_2m, vm.pages_1g), (160 + 256, 31, 0));
        assert_eq!(vm.frames_taken, vm.structures.iter().map(|s| s.frames).sum::<usize>());
    }

    #[test]
    fn a_vm_that_does_not_fit_leaves_nothing_behind() {
        for frames in [1, 2, 3, 5, 6, 7, 100, 10_000, 16_294] {
            let vm = build(frames);
            assert!(vm.error.is_some() && vm.is_sound(), "{frames}: {vm:?}");
        }
    }
}
