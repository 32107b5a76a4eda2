//! `cargo xtask kernel`: boots `examples/kernel` and demands exactly the checks that it must make.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use frame_testkit::conformance;

use super::{Outcome, bochs::Bochs, firmware, image, packages, qemu::Qemu, run::Ended, verdict};
use crate::command::Failure;

/// Boots the example kernel.
#[derive(clap::Args, Debug)]
pub(crate) struct KernelArgs {
    /// CPUs, 1 to 16
    #[arg(long, default_value_t = 4)]
    cpus: usize,
    /// The allocator under test: tree, bitmap or buddy; percpu- in front of it for a cache, -checked behind that for one
    /// that checks
    #[arg(long, default_value = "percpu-tree")]
    backend: String,
    /// Memory in MiB
    #[arg(long, default_value_t = 1024)]
    memory: usize,
    /// Look like the machine with this firmware map (a text file; `fragmented` is built in)
    #[arg(long)]
    map: Option<PathBuf>,
    /// Boot in Bochs instead of QEMU
    #[arg(long)]
    bochs: bool,
    /// Every backend, every number of CPUs, every kind of memory
    #[arg(long, conflicts_with_all = ["cpus", "backend", "memory", "map", "bochs"])]
    all: bool,
    /// Seconds after which a machine that has not ended is taken to hang: many times what a run takes
    #[arg(long, default_value_t = LIMIT)]
    limit: u64,
}

impl KernelArgs {
    /// What `--all` on the command line asks for.
    pub(crate) const ALL: Self =
        Self { cpus: 0, backend: String::new(), memory: 0, map: None, bochs: false, all: true, limit: LIMIT };

    /// A machine in QEMU with little memory, which a run is soon through with.
    pub(super) fn small(cpus: usize, backend: &str) -> Self {
        Self { cpus, backend: backend.into(), memory: 128, all: false, limit: 60, ..Self::ALL }
    }

    /// The machine whose firmware map is full of holes.
    pub(super) fn holes(backend: &str) -> Self {
        Self { memory: 1024, map: Some("fragmented".into()), ..Self::small(2, backend) }
    }
}

/// Allocators that the kernel can be booted with.
pub(super) const BACKENDS: [&str; 9] = [
    "percpu-tree",
    "percpu-tree-checked",
    "tree",
    "bitmap",
    "percpu-bitmap",
    "percpu-bitmap-checked",
    "buddy",
    "percpu-buddy",
    "percpu-buddy-checked",
];

/// Seconds, much longer than any run takes: a machine that needs it hangs.
const LIMIT: u64 = 600;

/// One machine.
struct Machine {
    backend: String,
    cpus: usize,
    memory_mib: usize,
    /// Another machine's firmware map: its name and its text.
    map: Option<(String, String)>,
    bochs: bool,
}

pub(crate) fn kernel(args: &KernelArgs) -> Result<Outcome, Failure> {
    let machines = if args.all { all() } else { vec![one(args)?] };
    if machines.iter().any(|machine| !machine.bochs)
        && let Err(why) = packages::require(&[packages::QEMU])
    {
        return Ok(Outcome::Skipped(why));
    }
    if machines.iter().any(|machine| machine.bochs)
        && let Err(why) = packages::require(&packages::BOCHS)
    {
        return Ok(Outcome::Skipped(why));
    }
    boot_all(args, &machines, &image::build("kernel", "kernel")?)
}

/// Boots the one machine that the arguments name, with this kernel.
pub(super) fn boot(args: &KernelArgs, image: &Path) -> Result<Outcome, Failure> {
    boot_all(args, &[one(args)?], image)
}

fn boot_all(args: &KernelArgs, machines: &[Machine], image: &Path) -> Result<Outcome, Failure> {
    let (mut checks, mut failures) = (0, Vec::new());
    for machine in machines {
        let ended = machine.run(image, Duration::from_secs(args.limit))?;
        let verdict = machine.verdict(&ended);
        if !args.all || verdict.is_err() {
            print!("{}", ended.serial);
        }
        let seconds = ended.took.as_secs_f64();
        match verdict {
            Ok(passed) => {
                println!("{machine}: {passed} checks passed in {seconds:.1} s");
                checks += passed;
            }
            Err(why) => {
                println!("{machine}: FAILED after {seconds:.1} s: {why}");
                failures.push(format!("{machine}: {why}"));
            }
        }
    }
    if failures.is_empty() {
        Ok(Outcome::Passed { runs: machines.len(), checks })
    } else {
        Err(failures.join("\n"))
    }
}

fn one(args: &KernelArgs) -> Result<Machine, Failure> {
    let map = match &args.map {
        None => None,
        Some(path) if path.as_os_str() == "fragmented" => Some(("fragmented".into(), firmware::fragmented())),
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Some((path.display().to_string(), text))
        }
    };
    if args.bochs && map.is_some() {
        return Err("the boot loader for Bochs has no modules: --map needs QEMU".into());
    }
    if !BACKENDS.contains(&args.backend.as_str()) {
        return Err(format!("no backend is called {}: take one of {}", args.backend, BACKENDS.join(", ")));
    }
    Ok(Machine {
        backend: args.backend.clone(),
        cpus: args.cpus,
        memory_mib: args.memory,
        map,
        bochs: args.bochs,
    })
}

/// Every backend on 1, 2, 4 and 8 CPUs; on much memory; and on a map full of holes. Not in Bochs, where one such machine
/// takes as long as ten.
fn all() -> Vec<Machine> {
    let machine = |backend: &str, cpus, memory_mib| Machine {
        backend: backend.into(),
        cpus,
        memory_mib,
        map: None,
        bochs: false,
    };
    let mut machines = Vec::new();
    for backend in BACKENDS {
        machines.extend([1, 2, 4, 8].map(|cpus| machine(backend, cpus, 1024)));
        machines.push(machine(backend, 2, 8192));
        let map = Some(("fragmented".into(), firmware::fragmented()));
        machines.push(Machine { map, ..machine(backend, 2, 1024) });
    }
    machines
}

impl Machine {
    fn run(&self, image: &Path, limit: Duration) -> Result<Ended, Failure> {
        let Self { backend, cpus, memory_mib, .. } = self;
        // Bochs is some fifty times slower than QEMU.
        let operations = if self.bochs { " ops=1000" } else { "" };
        let command_line = format!("cpus={cpus} backend={backend}{operations}");
        let (cpus, memory_mib, command_line) = (*cpus, *memory_mib, command_line.as_str());
        if self.bochs {
            return Bochs { model: "corei7_haswell_4770", cpus, memory_mib, command_line }.run(image, limit);
        }
        let module = self.map.as_ref().map(|(_, text)| text.as_str());
        Qemu { cpus, memory_mib, command_line, module, disk: None }.run(image, limit)
    }

    fn verdict(&self, ended: &Ended) -> Result<usize, String> {
        let map = self.map.as_ref().map(|(_, text)| text.as_str());
        verdict(ended, map, &cases(&self.backend, self.cpus))
    }
}

/// How many checks passed, if all did that must have.
pub(super) fn verdict(ended: &Ended, map: Option<&str>, cases: &[Case]) -> Result<usize, String> {
    let mut lines = ended.serial.lines();
    let frames = firmware::frames(&ended.serial, map)?;
    let memory = format!("memory: {frames} frames in ");
    if !lines.clone().any(|line| line.starts_with(&memory)) {
        return Err(format!("the kernel's map is wrong: there are {frames} free frames"));
    }
    for (name, checks) in cases {
        let line = format!("case {name}: {checks} passed, 0 failed");
        if !lines.by_ref().any(|found| found == line) {
            let missing = format!(
                "the line {line:?} is missing, or out of order; the emulator ended with {}",
                ended.how
            );
            return Err(verdict::with_complaint(missing, &ended.serial));
        }
    }
    let checks = cases.iter().map(|(_, checks)| checks).sum();
    verdict::last_line(ended, "kernel", checks)
}

/// A case, and the checks that it makes.
pub(super) type Case = (&'static str, usize);

/// What the kernel calls the case that only a PC can make.
pub(super) const INTERRUPTS: &str = "interrupts";

/// The kernel's cases in order, and the checks that each makes: its own, and three behind each case.
pub(super) fn cases(backend: &str, cpus: usize) -> Vec<Case> {
    let is_cached = backend.starts_with("percpu-");
    let mut cases = vec![
        ("map", 10),
        ("refusals", 15),
        ("layouts", 69),
        ("places", 11),
        ("bulk", 18),
        ("raii", 15),
        ("heap", 10),
        ("exhaustion", 12),
        ("stress", 4),
        ("cross-CPU frees", 4),
        ("exhaustion by all CPUs", 7),
        (INTERRUPTS, 3 + (4 + usize::from(is_cached)) * cpus),
    ];
    if is_cached {
        cases.push(("frames in idle CPUs' caches", 6 + cpus));
    }
    if backend.contains("tree") {
        cases.push(("offlining", 11));
    }
    cases.push(("a region added in use", 7));
    cases.push(("conformance suite", 3 + conformance::CASES.len()));
    cases
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { backend, cpus, memory_mib, .. } = self;
        let emulator = if self.bochs { "Bochs" } else { "QEMU" };
        write!(f, "{emulator}, {backend}, {cpus} CPUs, {memory_mib} MiB")?;
        match &self.map {
            Some((name, _)) => write!(f, ", map {name}"),
            None => Ok(()),
        }
    }
}
