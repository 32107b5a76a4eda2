//! `cargo xtask vmx-proof`: boots `examples/vmx-proof` in Bochs, and demands exactly the comparisons that each processor
//! model must make, none of them with a difference.

use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use super::{
    Outcome,
    bochs::{Bochs, LIMIT, MODELS},
    image, packages,
    run::Ended,
    verdict,
};
use crate::command::Failure;

/// Compares what vmx-structs says with what processors with VMX do (in Bochs), case by case.
#[derive(clap::Args, Debug)]
pub(crate) struct ProofArgs {
    /// CPUs: 1 or 4
    #[arg(long, default_value_t = 1)]
    cpus: usize,
    /// The processor: sandy_bridge, haswell, skylake_x or tigerlake
    #[arg(long, default_value = "tigerlake")]
    model: String,
    /// The four processors, each with 1 and with 4 CPUs
    #[arg(long, conflicts_with_all = ["cpus", "model"])]
    all: bool,
}

impl ProofArgs {
    /// What the tests run.
    pub(crate) const ALL: Self = Self { cpus: 1, model: String::new(), all: true };

    /// One CPU of the model that has most.
    pub(super) fn one() -> Self {
        Self { cpus: 1, model: "tigerlake".into(), all: false }
    }
}

/// A group of comparisons, and how many checks it makes on a CPU of each model.
struct Group {
    name: &'static str,
    on: On,
    checks: [usize; 4],
}

/// Who makes it, on every machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    /// Each CPU.
    EachCpu,
    /// One of the CPUs, or all together in the end.
    Once,
}

impl Group {
    fn runs(&self, cpus: usize) -> usize {
        match self.on {
            On::EachCpu => cpus,
            On::Once => 1,
        }
    }
}

const fn group(name: &'static str, on: On, checks: [usize; 4]) -> Group {
    Group { name, on, checks }
}

/// Every group. The numbers differ with what the models have; what is missing the kernel says on the serial line. A case
/// that is added changes a number here.
#[rustfmt::skip]
const GROUPS: &[Group] = &[
    group("capabilities",              On::EachCpu, [   1,    1,    1,    1]),
    group("instructions",              On::EachCpu, [ 102,  102,  102,  102]),
    group("VM entry",                  On::EachCpu, [ 504,  517,  517,  520]),
    group("exits, decoded",            On::EachCpu, [  46,   46,   46,   46]),
    group("EPT, all levels",           On::EachCpu, [1031, 2322, 2322, 2322]),
    group("EPT, guest's tables",       On::EachCpu, [ 112,  224,  224,  224]),
    group("demand paging",             On::EachCpu, [ 295,  295,  295,  295]),
    group("EPT, edits",                On::EachCpu, [1251, 1251, 1251, 1251]),
    group("accessed and dirty",        On::EachCpu, [   0,  504,  504,  504]),
    group("dirty logging",             On::EachCpu, [   0,    0,  266,  266]),
    group("EPTP switching",            On::EachCpu, [   0,   24,   24,   24]),
    group("sub-page writes",           On::EachCpu, [   0,    0,    0,  801]),
    group("MSR areas",                 On::EachCpu, [  76,   76,   76,   76]),
    group("VMCS fields",               On::Once,    [ 513,  557,  571,  587]),
    group("VM entry, two faults",      On::Once,    [ 267,  269,  269,  274]),
    group("VM entry, random",          On::Once,    [ 570,  570,  570,  568]),
    group("shadow VMCS",               On::Once,    [   0, 3579, 3583, 3590]),
    group("I/O bitmaps",               On::Once,    [3321, 3321, 3321, 3321]),
    group("MSR bitmap",                On::Once,    [1227, 1227, 1227, 1227]),
    group("EPT entries",               On::Once,    [4062, 8448, 8448, 8448]),
    group("virtualization exceptions", On::Once,    [   0, 1344, 1344, 1344]),
    group("frames given back",         On::Once,    [   1,    1,    1,    1]),
];

pub(crate) fn vmx_proof(args: &ProofArgs) -> Result<Outcome, Failure> {
    if let Err(why) = packages::require(&packages::BOCHS) {
        return Ok(Outcome::Skipped(why));
    }
    boot(args, &image::build("vmx-proof", "vmx-proof")?)
}

/// Boots the machines that the arguments name, with this kernel.
pub(super) fn boot(args: &ProofArgs, image: &Path) -> Result<Outcome, Failure> {
    let models = 0..MODELS.len();
    let machines: Vec<(usize, usize)> = match args.all {
        true => models.flat_map(|model| [(model, 1), (model, 4)]).collect(),
        false => {
            let known = MODELS.iter().position(|known| known.0 == args.model);
            vec![(known.ok_or(format!("no checks are known for the model {:?}", args.model))?, args.cpus)]
        }
    };
    let ended = run_all(&machines, image);
    let (mut runs, mut failures) = (Vec::new(), Vec::new());
    for (&(model, cpus), ended) in machines.iter().zip(ended) {
        let (name, ended) = (MODELS[model].0, ended?);
        let run = Run::read(&ended.serial);
        let wanted = GROUPS.iter().map(|group| group.checks[model] * group.runs(cpus)).sum();
        let judged = run
            .judge(cpus, model)
            .map_err(|why| verdict::with_complaint(why, &ended.serial))
            .and_then(|()| verdict::last_line(&ended, "vmx-proof", wanted));
        let seconds = ended.took.as_secs_f64();
        match judged {
            Ok(passed) => {
                // What is not compared is said once for each model.
                let notes = ended.serial.lines().filter(|line| cpus == 1 && line.starts_with("    "));
                notes.for_each(|line| println!("{line}"));
                println!("Bochs, {name}, {cpus} CPUs: {passed} checks, no difference, in {seconds:.1} s");
            }
            Err(why) => {
                print!("{}", ended.serial);
                println!("Bochs, {name}, {cpus} CPUs: FAILED after {seconds:.1} s: {why}");
                failures.push(format!("{name}, {cpus} CPUs: {why}"));
            }
        }
        runs.push(run);
    }
    table(&machines, &runs);
    if failures.is_empty() {
        let checks = runs.iter().map(Run::checks).sum();
        Ok(Outcome::Passed { runs: machines.len(), checks })
    } else {
        Err(failures.join("\n"))
    }
}

/// Runs the machines, as many at once as this one has processors. The results come in the order of the machines.
fn run_all(machines: &[(usize, usize)], image: &Path) -> Vec<Result<Ended, Failure>> {
    let run = |&(model, cpus): &(usize, usize)| {
        let command_line = format!("cpus={cpus} model={}", MODELS[model].0);
        let bochs = Bochs { model: MODELS[model].1, cpus, memory_mib: 256, command_line: &command_line };
        bochs.run(image, LIMIT)
    };
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<_>>> = machines.iter().map(|_| Mutex::new(None)).collect();
    let worker = || {
        loop {
            let index = next.fetch_add(1, Relaxed);
            let Some(machine) = machines.get(index) else { break };
            *results[index].lock().expect("nobody panics with it") = Some(run(machine));
        }
    };
    thread::scope(|scope| {
        let workers = thread::available_parallelism().map_or(1, usize::from).min(machines.len());
        (0..workers).for_each(|_| _ = scope.spawn(worker));
    });
    let taken = results.into_iter().map(|result| result.into_inner().expect("nobody panicked"));
    taken.map(|result| result.unwrap_or_else(|| Err("the machine was not run".into()))).collect()
}

/// What a kernel said: the checks of each group of [`GROUPS`], of all CPUs, and the differences.
struct Run {
    groups: Vec<(usize, usize)>,
    lines: usize,
}

impl Run {
    /// From lines such as `group ports [CPU 0]: 812 checks, 0 differences`.
    fn read(serial: &str) -> Self {
        let mut run = Self { groups: vec![(0, 0); GROUPS.len()], lines: 0 };
        for line in serial.lines() {
            let Some((name, counts)) = parse(line) else { continue };
            run.lines += 1;
            if let Some(group) = GROUPS.iter().position(|group| group.name == name) {
                run.groups[group].0 += counts.0;
                run.groups[group].1 += counts.1;
            }
        }
        run
    }

    fn checks(&self) -> usize {
        self.groups.iter().map(|group| group.0).sum()
    }

    /// Whether every CPU made exactly the checks that it must.
    fn judge(&self, cpus: usize, model: usize) -> Result<(), String> {
        let lines = GROUPS.iter().map(|group| group.runs(cpus)).sum();
        if self.lines != lines {
            return Err(format!("{} groups reported, {lines} must", self.lines));
        }
        for (group, (made, differences)) in GROUPS.iter().zip(&self.groups) {
            let (name, wanted) = (group.name, group.checks[model] * group.runs(cpus));
            if *differences != 0 {
                return Err(format!("{name}: {differences} differences"));
            }
            if *made != wanted {
                return Err(format!("{name}: {made} checks were made, {wanted} must be (see proof.rs)"));
            }
        }
        Ok(())
    }
}

fn parse(line: &str) -> Option<(&str, (usize, usize))> {
    let (name, counts) = line.strip_prefix("group ")?.split_once(" [CPU ")?;
    let (checks, differences) = counts.split_once("]: ")?.1.split_once(" checks, ")?;
    Some((name, (checks.parse().ok()?, differences.strip_suffix(" differences")?.parse().ok()?)))
}

/// Checks by group and machine.
fn table(machines: &[(usize, usize)], runs: &[Run]) {
    let heads: Vec<String> =
        machines.iter().map(|&(model, cpus)| format!("{} × {cpus}", MODELS[model].0)).collect();
    println!("\n{:24} {}", "checks, by group", heads.join("  "));
    let cell = |(checks, differences): (usize, usize)| match differences {
        0 => checks.to_string(),
        _ => format!("{checks}, {differences} DIFFER"),
    };
    for (group, name) in GROUPS.iter().map(|group| group.name).enumerate() {
        let cells = runs.iter().zip(&heads).map(|(run, head)| {
            let width = head.chars().count();
            format!("{:>width$}", cell(run.groups[group]))
        });
        println!("{name:24} {}", cells.collect::<Vec<_>>().join("  "));
    }
    println!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_the_serial_line() {
        assert_eq!(parse("group VM entry [CPU 3]: 812 checks, 1 differences"), Some(("VM entry", (812, 1))));
        assert_eq!(parse("    VM entry: blind spot: 3 checks, 0 differences"), None);
    }

    #[test]
    fn a_group_that_is_missing_or_short_fails() {
        let line = |name, checks| format!("group {name} [CPU 0]: {checks} checks, 0 differences\n");
        let good: String = GROUPS.iter().map(|group| line(group.name, group.checks[0])).collect();
        assert_eq!(Run::read(&good).judge(1, 0), Ok(()));
        assert!(Run::read(&good).judge(4, 0).is_err());
        let without_last = good.lines().count() - 1;
        let short: String = good.lines().take(without_last).map(|line| format!("{line}\n")).collect();
        assert!(Run::read(&short).judge(1, 0).is_err());
        let fewer = good.replace(&format!(" {} checks", GROUPS[1].checks[0]), " 1 checks");
        assert!(Run::read(&fewer).judge(1, 0).is_err());
        assert!(Run::read(&good.replace("0 differences", "1 differences")).judge(1, 0).is_err());
    }
}
