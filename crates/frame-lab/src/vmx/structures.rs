//! The structures in memory: where each is, what the processor does with it, and what it holds.

use frame_core::{FRAME_SIZE, PhysAddr};
use frame_testkit::SimMemory;
use serde::Serialize;
use vmx_structs::MsrArea;

use super::{
    dump::{Words, words},
    machine::{Machine, Memory, Shadowing},
    names,
    number::Hex,
};
use crate::hal::LabHal;

/// A structure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Structure {
    pub(crate) name: &'static str,
    /// Its physical address; of several frames, that of the first. `None` for books that no processor sees.
    pub(crate) address: Option<Hex>,
    /// Bytes that the processor uses.
    pub(crate) bytes: u64,
    pub(crate) frames: usize,
    /// The section of the SDM, Vol. 3.
    pub(crate) section: &'static str,
    /// What the processor uses it for.
    pub(crate) purpose: &'static str,
    pub(crate) details: Vec<String>,
    /// What memory holds there, as words of 8 bytes; those that are 0 are left out.
    pub(crate) words: Vec<Words>,
}

/// A list under construction. What was noted for a group of structures is shared by them.
struct List<'a> {
    machine: &'a Machine,
    memory: &'a SimMemory,
    structures: Vec<Structure>,
}

/// The structures of a VM, in the order in which a reader meets them. Their frames add up to what was taken.
pub(crate) fn list(machine: &Machine, memory: &SimMemory) -> Vec<Structure> {
    let mut list = List { machine, memory, structures: Vec::new() };
    list.regions();
    list.bitmaps();
    list.areas();
    list.apic();
    list.optional();
    list.memory();
    list.structures
}

const PAGE: u64 = FRAME_SIZE as u64;

impl List<'_> {
    /// Frames that were noted under this name.
    fn noted(&self, name: &str) -> usize {
        self.machine.frames.iter().filter(|noted| noted.0 == name).map(|noted| noted.1).sum()
    }

    fn add(
        &mut self,
        name: &'static str,
        address: PhysAddr,
        (bytes, frames): (u64, usize),
        section: &'static str,
        purpose: &'static str,
        details: Vec<String>,
    ) {
        let start = address.as_usize() as u64;
        let words = words(self.memory, start, bytes);
        let address = Some(Hex(start));
        self.structures.push(Structure { name, address, bytes, frames, section, purpose, details, words });
    }

    fn regions(&mut self) {
        let (vmxon, vmcs) = (&self.machine.vmxon, &self.machine.vmcs);
        let details = |revision: u32, size: usize, memory_type: u8| {
            let memory_type = if memory_type == 6 { "write-back" } else { "uncacheable" };
            vec![format!("revision identifier {revision:#x}; the processor uses {size} bytes, {memory_type}")]
        };
        let (revision, size) = (vmxon.revision(), vmxon.size());
        self.add(
            "VMXON region",
            vmxon.phys_addr(),
            (size as u64, self.noted("VMXON region")),
            "24.11.5",
            "the operand of VMXON: the processor's own, for as long as it is in VMX operation",
            details(revision, size, vmxon.memory_type()),
        );
        let (revision, size) = (vmcs.revision(), vmcs.size());
        self.add(
            "VMCS region",
            vmcs.phys_addr(),
            (size as u64, self.noted("VMCS region")),
            "24.2",
            "the operand of VMCLEAR and VMPTRLD: holds the fields below, in a layout that only the processor knows",
            details(revision, size, vmcs.memory_type()),
        );
    }

    fn bitmaps(&mut self) {
        let (a, b) = self.machine.ports.phys_addr();
        let frames = self.noted("I/O bitmaps") / 2;
        let ports: Vec<String> =
            self.machine.ports.intercepted().map(|run| ports(*run.start(), *run.end())).collect();
        let purpose = "a bit for each of the ports 0 to 0x7fff: where it is 1, IN and OUT exit";
        self.add("I/O bitmap A", a, (PAGE, frames), "24.6.4", purpose, ports);
        let purpose = "the same for the ports 0x8000 to 0xffff";
        self.add("I/O bitmap B", b, (PAGE, frames), "24.6.4", purpose, Vec::new());
        let msrs = &self.machine.msrs;
        let runs = super::report::msr_runs(msrs);
        let outside = "an MSR outside 0-0x1fff and 0xc0000000-0xc0001fff always exits".to_owned();
        let details = runs.iter().map(ToString::to_string).chain([outside]);
        self.add(
            "MSR bitmap",
            msrs.phys_addr(),
            (PAGE, self.noted("MSR bitmap")),
            "24.6.9",
            "a bit for each MSR and direction: where it is 1, RDMSR or WRMSR exits",
            details.collect(),
        );
    }

    fn areas(&mut self) {
        let Machine { guest_msrs, host_msrs, .. } = self.machine;
        let purpose = "MSRs that VM exits store and VM entries load: the guest's";
        let frames = self.noted("guest MSR area");
        let details = entries(guest_msrs);
        self.add(
            "guest MSR area",
            guest_msrs.phys_addr(),
            (area_bytes(guest_msrs), frames),
            "24.7.2",
            purpose,
            details,
        );
        let purpose = "MSRs that VM exits load: the host's";
        let frames = self.noted("host MSR area");
        let details = entries(host_msrs);
        self.add(
            "host MSR area",
            host_msrs.phys_addr(),
            (area_bytes(host_msrs), frames),
            "24.7.2",
            purpose,
            details,
        );
    }

    fn apic(&mut self) {
        if let Some(page) = &self.machine.apic {
            let purpose =
                "the registers of the guest's local APIC, which the processor reads and writes itself";
            let frames = self.noted("virtual-APIC page");
            self.add("virtual-APIC page", page.phys_addr(), (PAGE, frames), "29.1", purpose, Vec::new());
        }
        if let Some(page) = &self.machine.apic_access {
            let purpose =
                "only an address: what the guest's APIC page is mapped to, so that accesses are noticed";
            let frames = self.noted("APIC-access page");
            self.add("APIC-access page", page.phys_addr(), (PAGE, frames), "29.4", purpose, Vec::new());
        }
        if let Some((page, address)) =
            self.machine.posted.as_ref().and_then(|page| Some((page, page.phys_addr(0)?)))
        {
            let purpose = "interrupts that others post for the guest while it runs";
            let frames = self.noted("posted-interrupt descriptor");
            let suppressed = page.get(0).is_some_and(|descriptor| descriptor.is_suppressed());
            let details = vec![
                "64 bytes of a frame that has room for 64 virtual CPUs".to_owned(),
                format!(
                    "nothing is posted; notifications are {}",
                    if suppressed { "suppressed" } else { "sent" }
                ),
            ];
            self.add("posted-interrupt descriptor", address, (64, frames), "29.6", purpose, details);
        }
    }

    fn optional(&mut self) {
        let machine = self.machine;
        if let Some(pml) = &machine.pml {
            let purpose = "the processor lists here the guest pages that it marks dirty, from entry 511 down";
            self.add(
                "PML buffer",
                pml.phys_addr(),
                (PAGE, self.noted("PML buffer")),
                "28.3.6",
                purpose,
                Vec::new(),
            );
        }
        if let Some(list) = &machine.eptp_list {
            let purpose = "512 EPT pointers between which the guest may switch by VMFUNC";
            let details =
                list.iter().map(|(index, pointer)| format!("entry {index}: {:#x}", pointer.bits())).collect();
            self.add(
                "EPTP list",
                list.phys_addr(),
                (PAGE, self.noted("EPTP list")),
                "24.6.14",
                purpose,
                details,
            );
        }
        if let Some(area) = &machine.ve {
            let purpose = "where the processor describes an EPT violation that the guest handles itself";
            let frames = self.noted("#VE information area");
            let details =
                vec![format!("ready for a violation: {}", if area.is_busy() { "no" } else { "yes" })];
            self.add("#VE information area", area.phys_addr(), (PAGE, frames), "24.6.18", purpose, details);
        }
        if let Some(spp) = &machine.spp {
            let purpose = "which 128-byte pieces of write-protected pages may be written";
            let details = vec!["the highest of 4 levels, and books; no page has sub-pages yet".to_owned()];
            self.add(
                "SPP table",
                spp.phys_addr(),
                (PAGE, self.noted("SPP table")),
                "28.3.4",
                purpose,
                details,
            );
        }
        if let Some(Shadowing { vmread, vmwrite, vmcs }) = &machine.shadowing {
            let frames = self.noted("VMCS shadowing") / 3;
            let purpose = "a bit for each field: where it is 1, the guest's VMREAD exits";
            self.add("VMREAD bitmap", vmread.phys_addr(), (PAGE, frames), "24.6.15", purpose, Vec::new());
            let purpose = "a bit for each field: where it is 1, the guest's VMWRITE exits";
            self.add("VMWRITE bitmap", vmwrite.phys_addr(), (PAGE, frames), "24.6.15", purpose, Vec::new());
            let purpose =
                "what VMREAD and VMWRITE of a guest hypervisor access; the VMCS link pointer names it";
            let details =
                vec![format!("revision identifier {:#x}, shadow-VMCS indicator 1", vmcs.revision())];
            self.add(
                "shadow VMCS",
                vmcs.phys_addr(),
                (vmcs.size() as u64, frames),
                "24.10",
                purpose,
                details,
            );
        }
    }

    fn memory(&mut self) {
        match &self.machine.memory {
            Memory::Ept { ept, ram } => {
                let tables = self.noted(super::EPT);
                let purpose =
                    "what the guest takes for physical memory: guest-physical to host-physical addresses";
                let details = vec!["the highest table is here; see TRANSLATION for the rest".to_owned()];
                self.tables(super::EPT, ept.pointer().root(), tables, "28.3", purpose, details);
                let first = ram.runs().next().map(|run| run.host.start());
                self.guest_memory(first);
                let frames = self.noted("books of guest memory");
                self.structures.push(Structure {
                    name: "books of guest memory",
                    address: None,
                    bytes: frames as u64 * PAGE,
                    frames,
                    section: "",
                    purpose: "which frames are the guest's: the hypervisor's own, no processor looks at it",
                    details: Vec::new(),
                    words: Vec::new(),
                });
            }
            Memory::Shadow(shadow) => {
                let tables = self.noted(super::SHADOW_TABLES);
                let purpose =
                    "page tables of the hypervisor, to which the guest's CR3 points: there is no EPT";
                let root = PhysAddr::from(shadow.root() as usize);
                self.tables(super::SHADOW_TABLES, root, tables, "4.3, 4.5", purpose, Vec::new());
                self.guest_memory(shadow.runs.first().map(|run| run.host.start_paddr()));
            }
        }
    }

    /// Tables of many frames: their words are told as translations.
    fn tables(
        &mut self,
        name: &'static str,
        root: PhysAddr,
        frames: usize,
        section: &'static str,
        purpose: &'static str,
        details: Vec<String>,
    ) {
        let address = Some(Hex(root.as_usize() as u64));
        let bytes = frames as u64 * PAGE;
        let words = Vec::new();
        self.structures.push(Structure { name, address, bytes, frames, section, purpose, details, words });
    }

    fn guest_memory(&mut self, first: Option<PhysAddr>) {
        let frames = self.noted(super::GUEST_MEMORY);
        self.structures.push(Structure {
            name: super::GUEST_MEMORY,
            address: first.map(|first| Hex(first.as_usize() as u64)),
            bytes: frames as u64 * PAGE,
            frames,
            section: "",
            purpose: "the guest's RAM, in runs as large as the allocator has",
            details: vec![format!("the first is here; the guest starts in {}", self.machine.mode.name())],
            words: Vec::new(),
        });
    }
}

fn ports(first: u16, last: u16) -> String {
    let whose = names::of_ports(first, last);
    let whose = match whose[..] {
        [] => String::new(),
        [..] if whose.len() > 3 => String::new(),
        _ => format!(" ({})", whose.join("; ")),
    };
    if first == last {
        format!("exits: port {first:#x}{whose}")
    } else {
        format!("exit: ports {first:#x}-{last:#x}{whose}")
    }
}

fn area_bytes(area: &MsrArea<LabHal>) -> u64 {
    area.len() as u64 * 16
}

fn entries(area: &MsrArea<LabHal>) -> Vec<String> {
    let entry = |(index, entry): (usize, vmx_structs::MsrEntry)| {
        let name = names::of_msr(entry.msr).unwrap_or("an MSR");
        format!("entry {}: {name} [{:#x}] = {:#x}", index + 1, entry.msr, entry.value)
    };
    area.entries().enumerate().map(entry).collect()
}
