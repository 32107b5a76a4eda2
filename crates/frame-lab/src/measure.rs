//! The comparison: every backend watched once, then timed in turns.
//!
//! Timed passes are interleaved (each backend once, then each again), so that whatever else the machine does meets
//! all alike, and the median of the passes is the figure. Each pass builds its allocator anew, outside of the timing.

use std::time::Duration;

use serde::Serialize;

use crate::{
    backends::{Backend, BuildError, Setting},
    replay::{Timed, Verdict, Watched, time_of_harness},
    threads::{Outcome, Streams, Threaded},
    trace::Program,
    vm::Vm,
};

/// What became of one backend. The units are in the names; frames are 4 KiB.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) backend: &'static str,
    pub(crate) about: &'static str,
    /// Calls a second, from the median pass.
    pub(crate) ops_per_second: f64,
    pub(crate) ns_per_op: Spread,
    /// Allocations that were refused.
    pub(crate) failures: u64,
    pub(crate) lost_frames: u64,
    pub(crate) doubled_frames: u64,
    /// Frees of owned frames that were refused.
    pub(crate) refused_frees: u64,
    pub(crate) total_frames: usize,
    pub(crate) free_frames_end: usize,
    pub(crate) free_2m_end: usize,
    pub(crate) free_2m_lowest: usize,
    /// Share of the free memory that lies outside of free 2 MiB frames, 0 to 1.
    pub(crate) fragmentation_end: f64,
    pub(crate) fragmentation_worst: f64,
    pub(crate) metadata_bytes: usize,
    pub(crate) longest_free_run_frames: usize,
    /// As /proc/buddyinfo: free runs at the end, by order from 0 (4 KiB) to 18 (1 GiB).
    pub(crate) free_runs_by_order: [usize; 19],
    /// Where --threads asked for it.
    pub(crate) with_threads: Option<WithThreads>,
    /// A VM's structures, built beside the live memory at the end and taken down again.
    pub(crate) vm: Vm,
    #[serde(skip)]
    pub(crate) verdict: Verdict,
}

/// A replay with a thread for each CPU.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct WithThreads {
    pub(crate) threads: usize,
    /// Calls a second of all threads together, on the wall, from the median pass.
    pub(crate) ops_per_second: f64,
    /// On the wall, for one call of any thread.
    pub(crate) ns_per_op: Spread,
    pub(crate) failures: u64,
    pub(crate) refused_frees: u64,
    /// Frames that nobody holds and that are not free, or the other way round, in any pass.
    pub(crate) miscounted_frames: u64,
}

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passes {
    pub(crate) timed: usize,
    /// As many again with a thread for each CPU.
    pub(crate) threads: bool,
}

/// Nanoseconds for one call, over the passes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

impl Row {
    /// Whether every frame is accounted for and every free was taken.
    pub(crate) fn is_sound(&self) -> bool {
        self.lost_frames == 0
            && self.doubled_frames == 0
            && self.refused_frees == 0
            && self.vm.is_sound()
            && self.with_threads.is_none_or(|with| with.refused_frees == 0 && with.miscounted_frames == 0)
    }
}

/// All backends, and what the replay itself costs.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    /// Calls of one pass: every allocation, and every free that is not skipped.
    pub(crate) operations: usize,
    pub(crate) passes: usize,
    /// The replay loop without an allocator: part of every figure.
    pub(crate) harness_ns_per_op: f64,
    /// Every backend ended with the same number of free frames.
    pub(crate) free_frames_agree: bool,
    #[serde(rename = "backends")]
    pub(crate) rows: Vec<Row>,
}

impl Measured {
    /// What is wrong, in sentences; nothing if every backend told the truth.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for row in self.rows.iter().filter(|row| !row.is_sound()) {
            complaints.push(format!(
                "{}: {} frames lost, {} given twice or wrongly, {} good frees refused; of the VM's {} frames, {} came back",
                row.backend,
                row.lost_frames,
                row.doubled_frames,
                row.refused_frees,
                row.vm.frames_taken,
                row.vm.frames_given_back,
            ));
            if let Some(with) = row.with_threads
                && with.refused_frees + with.miscounted_frames > 0
            {
                complaints.push(format!(
                    "{} with {} threads: {} frames miscounted, {} good frees refused",
                    row.backend, with.threads, with.miscounted_frames, with.refused_frees
                ));
            }
        }
        if !self.free_frames_agree {
            let counts: Vec<_> =
                self.rows.iter().map(|row| format!("{} {}", row.backend, row.free_frames_end)).collect();
            complaints.push(format!("the backends disagree on the free frames: {}", counts.join(", ")));
        }
        complaints
    }
}

/// Runs the comparison. `progress` is told what is going on, and how many operations were done.
pub(crate) fn measure(
    program: &Program,
    setting: &Setting,
    backends: &[Backend],
    passes: Passes,
    progress: &dyn Progress,
) -> Result<Measured, BuildError> {
    let operations = program.ops.len();
    let mut verdicts = Vec::new();
    for backend in backends {
        progress.doing(backend.name, "watched");
        let job = Watched { program, setting, progress: &|ops| progress.done(ops) };
        verdicts.push(backend.run(setting, job)?);
    }
    let mut times = vec![Vec::new(); backends.len()];
    let mut harness = Vec::new();
    for _ in 0..passes.timed {
        harness.push(time_of_harness(program));
        for (backend, times) in backends.iter().zip(&mut times) {
            progress.doing(backend.name, "timed");
            times.push(backend.run(setting, Timed { program })?);
            progress.done(operations as u64);
        }
    }
    let mut rows: Vec<Row> = backends
        .iter()
        .zip(verdicts)
        .zip(times)
        .map(|((backend, verdict), times)| row(backend, verdict, Spread::of(times, operations)))
        .collect();
    if passes.threads {
        measure_threads(program, setting, backends, passes.timed, progress, &mut rows)?;
    }
    // Where allocations fail, backends may hold different things at the end.
    let agree = rows.windows(2).all(|pair| {
        pair[0].free_frames_end == pair[1].free_frames_end || pair[0].failures + pair[1].failures > 0
    });
    Ok(Measured {
        operations,
        passes: passes.timed,
        harness_ns_per_op: Spread::of(harness, operations).median,
        free_frames_agree: agree,
        rows,
    })
}

fn measure_threads(
    program: &Program,
    setting: &Setting,
    backends: &[Backend],
    passes: usize,
    progress: &dyn Progress,
    rows: &mut [Row],
) -> Result<(), BuildError> {
    let streams = Streams::of(program);
    let setting = Setting { threads: true, ..setting.clone() };
    let mut outcomes = vec![Vec::new(); backends.len()];
    for _ in 0..passes {
        for (backend, outcomes) in backends.iter().zip(&mut outcomes) {
            progress.doing(backend.name, "threads");
            outcomes.push(backend.run(&setting, Threaded { streams: &streams })?);
            progress.done(program.ops.len() as u64);
        }
    }
    for (row, outcomes) in rows.iter_mut().zip(outcomes) {
        let times = outcomes.iter().map(|outcome| outcome.time).collect();
        let ns_per_op = Spread::of(times, program.ops.len());
        let most = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).max().unwrap_or(0);
        row.with_threads = Some(WithThreads {
            threads: program.cpus.len(),
            ops_per_second: 1e9 / ns_per_op.median,
            ns_per_op,
            failures: most(|outcome| outcome.failures),
            refused_frees: most(|outcome| outcome.refused),
            miscounted_frames: most(|outcome| outcome.miscounted),
        });
    }
    Ok(())
}

/// Told of the work as it goes on.
pub(crate) trait Progress {
    fn doing(&self, backend: &str, what: &str);
    fn done(&self, operations: u64);
}

fn row(backend: &Backend, mut verdict: Verdict, ns_per_op: Spread) -> Row {
    Row {
        backend: backend.name,
        about: backend.about,
        ops_per_second: 1e9 / ns_per_op.median,
        ns_per_op,
        failures: verdict.failures,
        lost_frames: verdict.lost,
        doubled_frames: verdict.doubled,
        refused_frees: verdict.refused,
        total_frames: verdict.total_frames,
        free_frames_end: verdict.free_frames,
        free_2m_end: verdict.free_2m,
        free_2m_lowest: verdict.free_2m_lowest,
        fragmentation_end: verdict.fragmentation,
        fragmentation_worst: verdict.fragmentation_worst,
        metadata_bytes: verdict.metadata_bytes,
        longest_free_run_frames: verdict.runs.longest(),
        free_runs_by_order: *verdict.runs.by_order(),
        with_threads: None,
        vm: std::mem::take(&mut verdict.vm),
        verdict,
    }
}

impl Spread {
    fn of(mut times: Vec<Duration>, operations: usize) -> Self {
        times.sort_unstable();
        let per_op = |time: Duration| (time.as_nanos().max(1)) as f64 / operations.max(1) as f64;
        Self {
            median: per_op(times[times.len() / 2]),
            lowest: per_op(times[0]),
            highest: per_op(times[times.len() - 1]),
        }
    }
}
