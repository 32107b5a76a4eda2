//! Where the guest's memory is, and how the processor gets there.

use frame_core::FRAME_SIZE;
use serde::Serialize;
use vmx_structs::EptAttributes;

use super::{
    machine::{Machine, Memory},
    meaning,
    number::Hex,
    shadow::Page,
};

/// The tables that lead to the guest's memory.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TranslationFacts {
    /// `EPT`, or `shadow paging`.
    pub(crate) kind: &'static str,
    pub(crate) levels: u32,
    pub(crate) table_frames: usize,
    /// The EPT pointer; of shadow paging, what the guest's CR3 holds.
    pub(crate) pointer: Hex,
    pub(crate) pointer_means: String,
    /// Leaves by size.
    pub(crate) pages_4k: u64,
    pub(crate) pages_2m: u64,
    pub(crate) pages_1g: u64,
    /// Runs of pages that follow each other and look alike.
    pub(crate) mapped: Vec<MappedRun>,
}

/// Pages that follow each other in the guest and in the host.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MappedRun {
    pub(crate) guest: Hex,
    pub(crate) host: Hex,
    /// Bytes of each page.
    pub(crate) page_bytes: u64,
    pub(crate) pages: u64,
    /// Permissions (`r`, `w`, `x`).
    pub(crate) access: String,
    pub(crate) memory_type: &'static str,
}

/// A part of the guest's memory that is contiguous in the guest and in the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct MemoryRun {
    pub(crate) guest: Hex,
    pub(crate) host: Hex,
    pub(crate) frames: u64,
}

pub(crate) fn facts(machine: &Machine) -> TranslationFacts {
    match &machine.memory {
        Memory::Ept { ept, .. } => {
            let mut pages = [0; 3];
            for leaf in ept.leaves() {
                pages[leaf.size().level() as usize - 1] += 1;
            }
            let mapped = ept.runs().map(|run| MappedRun {
                guest: Hex(run.guest().as_u64()),
                host: Hex(run.host().as_usize() as u64),
                page_bytes: run.page_size().bytes(),
                pages: run.pages(),
                access: access(run.attributes()),
                memory_type: memory_type(run.attributes()),
            });
            TranslationFacts {
                kind: "EPT",
                levels: ept.config().levels().count(),
                table_frames: ept.table_frames(),
                pointer: Hex(ept.pointer().bits()),
                pointer_means: meaning::ept_pointer(ept.pointer().bits()),
                pages_4k: pages[0],
                pages_2m: pages[1],
                pages_1g: pages[2],
                mapped: mapped.collect(),
            }
        }
        Memory::Shadow(shadow) => {
            let mut mapped: Vec<MappedRun> = Vec::new();
            let mut pages = [0; 2];
            for &Page { guest, host, bytes } in &shadow.pages {
                pages[usize::from(bytes > FRAME_SIZE as u64)] += 1;
                let follows = |run: &&mut MappedRun| {
                    let all = run.pages * run.page_bytes;
                    run.page_bytes == bytes && (run.guest.0 + all, run.host.0 + all) == (guest, host)
                };
                match mapped.last_mut().filter(follows) {
                    Some(run) => run.pages += 1,
                    None => mapped.push(MappedRun {
                        guest: Hex(guest),
                        host: Hex(host),
                        page_bytes: bytes,
                        pages: 1,
                        access: "rwx".to_owned(),
                        memory_type: "write-back",
                    }),
                }
            }
            TranslationFacts {
                kind: "shadow paging",
                levels: shadow.walk.levels,
                table_frames: shadow.table_frames(),
                pointer: Hex(shadow.root()),
                pointer_means: "the guest's CR3: linear addresses are the guest's physical ones".to_owned(),
                pages_4k: pages[0],
                pages_2m: pages[1],
                pages_1g: 0,
                mapped,
            }
        }
    }
}

fn access(attributes: Option<EptAttributes>) -> String {
    use vmx_structs::EptFlags as Flags;
    let flags = attributes.map_or(Flags::empty(), |attributes| attributes.flags);
    let letters = [(Flags::READ, 'r'), (Flags::WRITE, 'w'), (Flags::EXECUTE, 'x')];
    letters.into_iter().map(|(flag, letter)| if flags.contains(flag) { letter } else { '-' }).collect()
}

fn memory_type(attributes: Option<EptAttributes>) -> &'static str {
    match attributes.map(|attributes| attributes.memory_type as u8) {
        Some(0) => "uncacheable",
        Some(1) => "write-combining",
        Some(4) => "write-through",
        Some(5) => "write-protected",
        Some(6) => "write-back",
        _ => "reserved",
    }
}

/// The guest's memory; what adjoins in the guest and in the host is one run.
pub(crate) fn memory(machine: &Machine) -> Vec<MemoryRun> {
    let mut runs: Vec<MemoryRun> = Vec::new();
    let mut add = |guest: u64, host: usize, frames: u64| {
        let host = host as u64;
        match runs.last_mut() {
            Some(run) if (run.guest.0 + run.bytes(), run.host.0 + run.bytes()) == (guest, host) => {
                run.frames += frames;
            }
            _ => runs.push(MemoryRun { guest: Hex(guest), host: Hex(host), frames }),
        }
    };
    match &machine.memory {
        Memory::Ept { ram, .. } => {
            for run in ram.runs() {
                add(run.guest.start().as_u64(), run.host.start().as_usize(), run.guest.count());
            }
        }
        Memory::Shadow(shadow) => {
            for run in &shadow.runs {
                let frames = run.host.as_bytes().len() / FRAME_SIZE;
                add(run.guest, run.host.start_paddr().as_usize(), frames as u64);
            }
        }
    }
    runs
}

impl MemoryRun {
    pub(crate) const fn bytes(&self) -> u64 {
        self.frames * FRAME_SIZE as u64
    }
}
