//! `cargo xtask vmx-proof`: boots `examples/vmx-proof` in Bochs, and demands exactly the comparisons that each processor
//! model must make, none of them with a difference.

use std::{path::Path, time::Duration};

use super::{Outcome, bochs::Bochs, image, packages, verdict};
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
}

/// Much longer than any run takes.
const LIMIT: Duration = Duration::from_secs(300);

/// Short names and Bochs's names.
const MODELS: [(&str, &str); 4] = [
    ("sandy_bridge", "corei7_sandy_bridge_2600k"),
    ("haswell", "corei7_haswell_4770"),
    ("skylake_x", "corei7_skylake_x"),
    ("tigerlake", "tigerlake"),
];

/// A group of comparisons, and how many checks it makes on a CPU of each model.
struct Group {
    name: &'static str,
    /// Whether each CPU makes it, or the first alone.
    on: On,
    checks: [usize; 4],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    EachCpu,
    FirstCpu,
}

impl Group {
    fn runs(&self, cpus: usize) -> usize {
        if self.on == On::EachCpu { cpus } else { 1 }
    }
}

const fn group(name: &'static str, on: On, checks: [usize; 4]) -> Group {
    Group { name, on, checks }
}

/// Every group. The numbers differ with what the models have; what is missing the kernel says on the serial line. A case
/// that is added changes a number here.
#[rustfmt::skip]
const GROUPS: &[Group] = &[
    group("instructions",          On::EachCpu,  [102, 102, 102, 102]),
    group("VMCS fields",           On::FirstCpu, [513, 557, 571, 587]),
    group("VM entry",              On::EachCpu,  [504, 517, 517, 520]),
    group("VM entry, two faults",  On::FirstCpu, [267, 269, 269, 274]),
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
    let (mut runs, mut failures) = (Vec::new(), Vec::new());
    for &(model, cpus) in &machines {
        let (name, bochs_model) = MODELS[model];
        let command_line = format!("cpus={cpus}");
        let bochs = Bochs { model: bochs_model, cpus, memory_mib: 256, command_line: &command_line };
        let ended = bochs.run(image, LIMIT)?;
        let run = Run::read(&ended.serial);
        let wanted = GROUPS.iter().map(|group| group.checks[model] * group.runs(cpus)).sum();
        let judged = run.judge(cpus, model).and_then(|()| verdict::last_line(&ended, "vmx-proof", wanted));
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
        let fewer = good.replace(&format!(" {} checks", GROUPS[0].checks[0]), " 1 checks");
        assert!(Run::read(&fewer).judge(1, 0).is_err());
        assert!(Run::read(&good.replace("0 differences", "1 differences")).judge(1, 0).is_err());
    }
}
