//! Everything that is told about a VM: what `--json` prints, and what the text is made of.

use serde::Serialize;
use vmx_structs::{CpuModel, MsrAccess, MsrBitmap, VmxCapabilities};

use super::{
    fields::{FieldFacts, MissingField},
    machine::Machine,
    names,
    number::Hex,
    set::Change,
    structures::Structure,
    translation::{MemoryRun, TranslationFacts},
    verdict::VerdictFacts,
};
use crate::hal::{LabHal, Tally};

/// A VM, told.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) cpu: CpuSummary,
    pub(crate) backend: &'static str,
    pub(crate) host: HostFacts,
    pub(crate) guest: GuestFacts,
    pub(crate) structures: Vec<Structure>,
    pub(crate) intercepted_ports: Vec<PortRun>,
    pub(crate) intercepted_msrs: Vec<MsrRun>,
    pub(crate) translation: TranslationFacts,
    pub(crate) vmcs: VmcsFacts,
    pub(crate) verdict: VerdictFacts,
    pub(crate) frames: FrameFacts,
}

/// A processor.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CpuSummary {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    /// Bits of a physical address (MAXPHYADDR).
    pub(crate) physical_width: u8,
    pub(crate) linear_width: u8,
    pub(crate) revision: Hex,
    /// What it has of that which not every processor has.
    pub(crate) has: Vec<&'static str>,
}

/// Where the frames come from.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HostFacts {
    pub(crate) map: String,
    pub(crate) frames: usize,
}

/// The guest.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GuestFacts {
    /// The mode that it starts in.
    pub(crate) mode: &'static str,
    pub(crate) memory_frames: u64,
    pub(crate) memory: Vec<MemoryRun>,
}

/// Ports that exit.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PortRun {
    pub(crate) first: Hex,
    pub(crate) last: Hex,
}

/// MSRs that exit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct MsrRun {
    pub(crate) first: Hex,
    pub(crate) last: Hex,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    /// Of a single MSR.
    pub(crate) name: Option<&'static str>,
}

/// The VMCS.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct VmcsFacts {
    pub(crate) fields: Vec<FieldFacts>,
    /// Fields that this processor does not have.
    pub(crate) missing: Vec<MissingField>,
    /// What `--set` did.
    pub(crate) changes: Vec<Change>,
}

/// What became of the frames.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct FrameFacts {
    pub(crate) taken: usize,
    pub(crate) given_back: usize,
    pub(crate) refused_frees: usize,
    /// Free frames before, less those after the VM was dropped: 0 unless something leaked.
    pub(crate) missing: i64,
    /// Frames of everything but the guest's memory.
    pub(crate) overhead: usize,
}

impl FrameFacts {
    pub(crate) fn new(tally: Tally, missing: i64, overhead: usize) -> Self {
        Self {
            taken: tally.taken,
            given_back: tally.given_back,
            refused_frees: tally.refused,
            missing,
            overhead,
        }
    }

    /// Whether all came back.
    pub(crate) const fn is_sound(&self) -> bool {
        self.taken == self.given_back && self.refused_frees == 0 && self.missing == 0
    }
}

impl CpuSummary {
    pub(crate) fn of(model: CpuModel, caps: &VmxCapabilities) -> Self {
        let features = [
            (caps.has_ept(), "EPT"),
            (caps.ept_vpid.allows_walk(5), "5-level EPT"),
            (caps.ept_vpid.contains(vmx_structs::EptVpidCap::PAGE_1G), "1 GiB pages"),
            (caps.ept_vpid.contains(vmx_structs::EptVpidCap::ACCESSED_DIRTY), "accessed and dirty flags"),
            (caps.has_vpid(), "VPID"),
            (caps.has_unrestricted_guest(), "unrestricted guest"),
            (caps.has_tpr_shadow(), "TPR shadow"),
            (caps.has_posted_interrupts(), "posted interrupts"),
            (caps.has_vmcs_shadowing(), "VMCS shadowing"),
            (caps.has_vmfunc(), "VM functions"),
            (caps.has_pml(), "PML"),
            (caps.has_ve(), "#VE"),
            (caps.has_spp(), "SPP"),
        ];
        Self {
            id: model.id(),
            name: model.name(),
            physical_width: caps.cpu.physical_width,
            linear_width: caps.cpu.linear_width,
            revision: Hex(caps.basic.revision().into()),
            has: features.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect(),
        }
    }
}

/// The ports whose bit is 1, read back from the bitmaps.
pub(crate) fn port_runs(machine: &Machine) -> Vec<PortRun> {
    let run = |run: std::ops::RangeInclusive<u16>| PortRun {
        first: Hex((*run.start()).into()),
        last: Hex((*run.end()).into()),
    };
    machine.ports.intercepted().map(run).collect()
}

/// The MSRs whose bits are 1, read back from the bitmap.
pub(crate) fn msr_runs(msrs: &MsrBitmap<LabHal>) -> Vec<MsrRun> {
    let runs = |access| msrs.intercepted(access).map(|run| (*run.start(), *run.end()));
    let (reads, writes): (Vec<_>, Vec<_>) =
        (runs(MsrAccess::Read).collect(), runs(MsrAccess::Write).collect());
    let mut all: Vec<_> = reads.iter().chain(&writes).copied().collect();
    all.sort_unstable();
    all.dedup();
    let run = |(first, last): (u32, u32)| MsrRun {
        first: Hex(first.into()),
        last: Hex(last.into()),
        reads: reads.contains(&(first, last)),
        writes: writes.contains(&(first, last)),
        name: if first == last { names::of_msr(first) } else { None },
    };
    all.into_iter().map(run).collect()
}

impl std::fmt::Display for MsrRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match (self.reads, self.writes) {
            (true, true) => "RDMSR and WRMSR exit",
            (true, false) => "RDMSR exits",
            _ => "WRMSR exits",
        };
        match (self.first == self.last, self.name) {
            (true, Some(name)) => write!(f, "{what}: {name} [{}]", self.first),
            (true, None) => write!(f, "{what}: {}", self.first),
            (false, _) => write!(f, "{what}: {}-{}", self.first, self.last),
        }
    }
}
