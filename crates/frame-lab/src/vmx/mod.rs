//! `frame-lab vmx`: a VM's structures, built on a real allocator and explained field by field.
//!
//! A VMCS that is wrong gets "error 7" from the processor and nothing more. This command builds a VM for a named
//! processor on a backend of choice, shows what lies where and what it means, says what VM entry would say, takes
//! it down again and looks whether every frame came back. `--set` changes a field in between: what would the processor
//! say if ...?
//!
//! | module | concept |
//! |---|---|
//! | [`args`], [`intercepts`], [`set`], [`number`], [`names`] | what a person asks for |
//! | [`ram`], [`state`], [`shadow`], [`machine`], [`notes`] | the VM |
//! | [`structures`], [`dump`], [`fields`], [`controls`], [`meaning`], [`bits`], [`translation`], [`verdict`] | what is told of it |
//! | [`report`], [`text`], [`cpus`] | how |

mod args;
mod bits;
mod controls;
mod cpus;
mod dump;
mod fields;
mod intercepts;
mod machine;
mod meaning;
mod names;
mod notes;
mod number;
mod ram;
mod report;
mod set;
mod shadow;
mod state;
mod structures;
#[cfg(test)]
mod tests;
mod text;
mod translation;
mod verdict;

use std::{
    fmt,
    io::{self, Write as _},
};

use frame_core::{FRAME_SIZE, FrameAllocator, FrameRange, PhysAddr};
use frame_testkit::SimMemory;
use vmx_structs::{CpuModel, EptConfig, EptConfigError, EptLevels, VmxCapabilities};

pub(crate) use args::VmxArgs;

use crate::{
    Outcome,
    backends::{Backend, Job, Setting},
    hal::serve,
    memory::Memory,
};
use machine::{Machine, Plan};
use meaning::Known;
use notes::BuildError;
use report::{CpuSummary, FrameFacts, GuestFacts, HostFacts, Report, VmcsFacts};
use set::{Assignment, SetError};
use verdict::{Regions, VerdictFacts};

/// Names of structures that are spoken of in several places.
const GUEST_MEMORY: &str = "guest memory";
const EPT: &str = "EPT";
const SHADOW_TABLES: &str = "shadow page tables";

pub(crate) fn run(args: &VmxArgs) -> Outcome {
    if args.list_cpus {
        cpus::print(args.json)?;
        return Ok(Vec::new());
    }
    let backend = Backend::by_name(&args.backend)?;
    let (plan, assignments) = plan(args)?;
    let memory = Memory::load(&args.map)?;
    let regions = below(&memory.regions(args.host_memory), reach(&plan.caps));
    let host = HostFacts { map: memory.name, frames: regions.iter().map(|region| region.count()).sum() };
    let setting = Setting { regions, cpus: 1, threads: false };
    let job = Build { plan: &plan, assignments: &assignments, regions: &setting.regions, host: &host };
    let (mut report, frames) = backend.run(&setting, job)??;
    report.backend = backend.name;
    report.frames = frames;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        out.write_all(text::draw(&report).as_bytes())?;
    }
    Ok(complaints(&report))
}

/// What is wrong with the answer, rather than with the question.
fn complaints(report: &Report) -> Vec<String> {
    let mut complaints = Vec::new();
    let frames = &report.frames;
    if !frames.is_sound() {
        complaints.push(format!(
            "{}: {} frames were taken and {} came back ({} frees refused, {} free frames missing)",
            report.backend, frames.taken, frames.given_back, frames.refused_frees, frames.missing
        ));
    }
    let told: usize = report.structures.iter().map(|structure| structure.frames).sum();
    if told != frames.taken {
        complaints.push(format!("{} frames were taken, but the structures have {told}", frames.taken));
    }
    if !report.verdict.enters && report.vmcs.changes.is_empty() {
        complaints.push(format!("a VM that nobody broke is refused: {}", report.verdict.text));
    }
    complaints
}

/// What is to be built, checked against the processor before anything is.
fn plan(args: &VmxArgs) -> Result<(Plan, Vec<Assignment>), Box<dyn std::error::Error>> {
    let model = CpuModel::by_id(&args.cpu).ok_or_else(|| UnknownCpu(args.cpu.clone()))?;
    let caps = model.capabilities();
    let ept = ept_config(&caps, args.ept_levels)?;
    let width = u32::from(caps.cpu.physical_width).min(ept.map_or(64, |config| config.guest_width()));
    let assignments =
        args.sets.iter().map(|text| Assignment::parse(text, &caps)).collect::<Result<_, _>>()?;
    let plan = Plan {
        model,
        caps,
        ept,
        ram: ram::layout(args.memory, width)?,
        ports: intercepts::ports(&args.ports)?,
        msrs: intercepts::msrs(&args.msrs)?,
    };
    Ok((plan, assignments))
}

/// How the EPT is built; `None` on a processor that has none.
fn ept_config(caps: &VmxCapabilities, levels: Option<u32>) -> Result<Option<EptConfig>, LevelsError> {
    let Some(levels) = levels else {
        let config = EptConfig::new(caps).and_then(|config| config.with_ve(caps.has_ve()));
        return Ok(config.ok());
    };
    let error = |why| LevelsError { levels, why };
    let asked = match levels {
        4 => EptLevels::Four,
        5 => EptLevels::Five,
        _ => return Err(error(None)),
    };
    let config = EptConfig::new(caps).and_then(|config| config.with_ve(caps.has_ve())?.with_levels(asked));
    config.map(Some).map_err(|why| error(Some(why)))
}

/// The first address that the processor does not reach, or takes no VMX structure at.
fn reach(caps: &VmxCapabilities) -> u64 {
    let width = if caps.basic.addresses_limited_to_32_bits() { 32 } else { caps.cpu.physical_width };
    1 << width.min(63)
}

/// The part of the host's memory below an address: a machine with this processor has no other.
fn below(regions: &[FrameRange], end: u64) -> Vec<FrameRange> {
    let cut = |region: &FrameRange| {
        let room = end.saturating_sub(region.start().as_usize() as u64) / FRAME_SIZE as u64;
        FrameRange::new(region.start(), region.count().min(usize::try_from(room).ok()?)).ok()
    };
    regions.iter().filter_map(cut).collect()
}

/// Builds the VM, tells of it, and takes it down.
struct Build<'a> {
    plan: &'a Plan,
    assignments: &'a [Assignment],
    regions: &'a [FrameRange],
    host: &'a HostFacts,
}

impl Job for Build<'_> {
    type Out = Result<(Report, FrameFacts), VmError>;

    fn run<A: FrameAllocator>(self, allocator: &A, drain: &dyn Fn()) -> Self::Out {
        let memory = SimMemory::new(self.regions).map_err(VmError::NoAddressSpace)?;
        let before = allocator.stats().free_frames;
        let (told, tally) = serve(allocator, &memory, |tally| {
            let told = Machine::build(self.plan, tally)
                .map_err(|error| VmError::Build { error, host: self.host.clone() });
            // The machine is dropped before the frames are counted.
            (told.and_then(|machine| self.tell(machine, &memory)), tally())
        });
        drain();
        let missing = before as i64 - allocator.stats().free_frames as i64;
        let overhead = |report: &Report| tally.taken - report.guest.memory_frames as usize;
        let frames = FrameFacts::new(tally, missing, told.as_ref().map_or(0, overhead));
        match told {
            Ok(report) => Ok((report, frames)),
            // A VM that does not fit must leave nothing behind either.
            Err(VmError::Build { .. }) if !frames.is_sound() => Err(VmError::Leaked(frames)),
            Err(error) => Err(error),
        }
    }
}

impl Build<'_> {
    fn tell(&self, mut machine: Machine, memory: &SimMemory) -> Result<Report, VmError> {
        let Plan { model, caps, .. } = self.plan;
        let changes = self.assignments.iter().map(|assignment| assignment.apply(&mut machine.fields));
        let changes = changes.collect::<Result<_, _>>().map_err(VmError::Set)?;
        let structures = structures::list(&machine, memory);
        let places: Vec<_> =
            structures.iter().filter_map(|structure| Some((structure.address?.0, structure.name))).collect();
        let known = Known { caps, structures: &places };
        let address = |address: PhysAddr| address.as_usize() as u64;
        let regions =
            Regions { vmcs: address(machine.vmcs.phys_addr()), vmxon: address(machine.vmxon.phys_addr()) };
        let read = |address: u64| dump::word(memory, address);
        let runs = translation::memory(&machine);
        Ok(Report {
            cpu: CpuSummary::of(*model, caps),
            backend: "",
            host: self.host.clone(),
            guest: GuestFacts {
                mode: machine.mode.name(),
                memory_frames: runs.iter().map(|run| run.frames).sum(),
                memory: runs,
            },
            intercepted_ports: report::port_runs(&machine),
            intercepted_msrs: report::msr_runs(&machine.msrs),
            translation: translation::facts(&machine),
            vmcs: VmcsFacts {
                fields: fields::facts(&machine.fields, &machine.wanted, &known),
                missing: fields::missing(caps),
                changes,
            },
            verdict: VerdictFacts::of(&machine.fields, caps, regions, &read),
            frames: FrameFacts::new(Default::default(), 0, 0),
            structures,
        })
    }
}

/// No processor has this name.
#[derive(Debug)]
struct UnknownCpu(String);

impl fmt::Display for UnknownCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--cpu {}: the capabilities of no such processor are known; there are:", self.0)?;
        CpuModel::ALL.iter().try_for_each(|model| write!(f, " {}", model.id()))
    }
}

impl std::error::Error for UnknownCpu {}

/// An EPT of so many levels cannot be.
#[derive(Debug)]
struct LevelsError {
    levels: u32,
    /// `None` where no processor could.
    why: Option<EptConfigError>,
}

impl fmt::Display for LevelsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--ept-levels {}: ", self.levels)?;
        let Some(why) = self.why else {
            return f.write_str("an EPT has 4 or 5 levels");
        };
        write!(f, "{why}; these have them:")?;
        let has = |model: &&CpuModel| model.capabilities().ept_vpid.allows_walk(self.levels);
        CpuModel::ALL.iter().filter(has).try_for_each(|model| write!(f, " {}", model.id()))
    }
}

impl std::error::Error for LevelsError {}

/// Why there is no report.
#[derive(Debug)]
enum VmError {
    NoAddressSpace(io::Error),
    Build { error: BuildError, host: HostFacts },
    Leaked(FrameFacts),
    Set(SetError),
}

impl fmt::Display for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddressSpace(error) => {
                write!(f, "no address space to simulate the host's memory: {error}")
            }
            Self::Build { error, host } => write!(
                f,
                "{error}; the host has {} frames in reach of this processor ({}): give the guest less with --memory, \
                 or the host more with --map or --host-memory",
                host.frames, host.map
            ),
            Self::Leaked(frames) => {
                write!(f, "the VM could not be built, and did not leave all as it was: {frames:?}")
            }
            Self::Set(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for VmError {}
