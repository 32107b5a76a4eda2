//! `frame-lab compare`: a trace, a memory map, the backends; a table, JSON, a report.

use std::{
    fs,
    io::{self, Write},
};

use serde::Serialize;

use crate::{
    Outcome,
    backends::{ALL, Backend, Setting},
    cli::CompareArgs,
    ledger::whole_blocks,
    machine::Machine,
    measure::{Measured, Passes, measure},
    memory::Memory,
    progress::Bar,
    report, table,
    trace::{self, ORDERS, Source, Trace},
};

/// Everything that a comparison found: what the JSON holds, and what the table and the report are drawn from.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) trace: TraceFacts,
    pub(crate) memory: MemoryFacts,
    pub(crate) machine: Machine,
    /// Where Linux itself had placed the same frames.
    pub(crate) recorded: Recorded,
    #[serde(flatten)]
    pub(crate) measured: Measured,
    #[serde(skip)]
    pub(crate) input: Trace,
}

/// What the trace holds.
#[derive(Debug, Serialize)]
pub(crate) struct TraceFacts {
    pub(crate) source: String,
    pub(crate) lines: u64,
    pub(crate) lines_not_understood: u64,
    pub(crate) first_lines_not_understood: Vec<String>,
    /// Comments, empty lines, events of other kinds.
    pub(crate) lines_passed_over: u64,
    pub(crate) events: u64,
    pub(crate) allocations: u64,
    pub(crate) frees: u64,
    /// By order: 0 (4 KiB) to 18 (1 GiB).
    pub(crate) allocations_by_order: [u64; ORDERS],
    /// Frees of frames that were allocated before the recording.
    pub(crate) skipped_frees: u64,
    /// Allocations of a frame whose free was not seen: it is freed first.
    pub(crate) reallocated: u64,
    pub(crate) frees_of_another_order: u64,
    pub(crate) failed_when_recorded: u64,
    pub(crate) events_out_of_order: u64,
    pub(crate) cpus: usize,
    pub(crate) seconds: f64,
    pub(crate) peak_live_frames: u64,
    pub(crate) live_frames_end: u64,
}

/// The memory that every backend was given.
#[derive(Debug, Serialize)]
pub(crate) struct MemoryFacts {
    pub(crate) map: String,
    pub(crate) regions: usize,
    pub(crate) frames: usize,
    /// Whole 2 MiB frames in it.
    pub(crate) frames_2m: usize,
    /// Whether --memory cut it.
    pub(crate) cut: bool,
}

/// 2 MiB blocks in which the recorded machine had placed the live frames of the trace.
#[derive(Debug, Serialize)]
pub(crate) struct Recorded {
    pub(crate) blocks_2m_most: usize,
    pub(crate) blocks_2m_end: usize,
}

pub(crate) fn run(args: &CompareArgs) -> Outcome {
    let backends = match &args.backends {
        Some(names) => Backend::list(names)?,
        None => ALL.to_vec(),
    };
    let memory = Memory::load(&args.map)?;
    let input = read(Source::from_arg(args.trace.as_deref()))?;
    let setting =
        Setting { regions: memory.regions(args.memory), cpus: input.program.cpus.len(), threads: false };
    let facts = MemoryFacts {
        map: memory.name.clone(),
        regions: setting.regions.len(),
        frames: setting.frames(),
        frames_2m: whole_blocks(&setting.regions),
        cut: setting.frames() < memory.map().frame_count(),
    };

    let passes = usize::from(args.passes);
    let bar = Bar::replaying(
        (backends.len() * (passes * if args.threads { 2 } else { 1 } + 1) * input.program.ops.len()) as u64,
    );
    let measured =
        measure(&input.program, &setting, &backends, Passes { timed: passes, threads: args.threads }, &bar);
    bar.finish();
    let comparison = Comparison::new(input, facts, measured?);

    if args.json {
        // As one string: a reader that has gone away is then an `io::Error`.
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&comparison)?)?;
    } else {
        write!(io::stdout().lock(), "{}", table::draw(&comparison))?;
    }
    if let Some(path) = args.report_path() {
        let written = fs::write(&path, report::html(&comparison));
        written.map_err(|error| format!("the report {}: {error}", path.display()))?;
        let path = fs::canonicalize(&path).unwrap_or(path);
        // With --json, standard output is the JSON's alone.
        if args.json {
            eprintln!("report: {}", path.display());
        } else {
            writeln!(io::stdout(), "\nPictures of it, in a browser: {}", path.display())?;
        }
    }
    Ok(comparison.measured.complaints())
}

fn read(source: Source) -> Result<Trace, trace::TraceError> {
    let bar = Bar::reading(&source.to_string());
    let trace = trace::read(source, |lines| bar.at(lines));
    bar.finish();
    trace
}

impl Comparison {
    fn new(input: Trace, memory: MemoryFacts, measured: Measured) -> Self {
        let (program, counts) = (&input.program, &input.counts);
        let trace = TraceFacts {
            source: input.source.to_string(),
            lines: counts.lines,
            lines_not_understood: counts.unknown,
            first_lines_not_understood: counts.first_unknown.iter().map(ToString::to_string).collect(),
            lines_passed_over: counts.other,
            events: program.event_count(),
            allocations: program.alloc_count(),
            frees: program.frees,
            allocations_by_order: program.allocs,
            skipped_frees: program.skipped_frees,
            reallocated: program.reallocated,
            frees_of_another_order: program.other_order,
            failed_when_recorded: counts.failed,
            events_out_of_order: program.out_of_order,
            cpus: program.cpus.len(),
            seconds: program.duration() as f64 / 1e9,
            peak_live_frames: program.peak_frames,
            live_frames_end: program.samples.last().map_or(0, |sample| sample.live_frames),
        };
        let (blocks_2m_most, blocks_2m_end) = program.recorded_blocks;
        let recorded = Recorded { blocks_2m_most, blocks_2m_end };
        Self { trace, memory, machine: Machine::this(), recorded, measured, input }
    }
}
