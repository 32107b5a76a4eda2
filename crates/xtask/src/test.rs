//! Every test there is, and how many ran.
//!
//! Three kinds of steps: `cargo test` runs, whose own summaries are added up; checks that pass or fail as a whole
//! (a program that must link, counts within their bounds); and runs on simulated machines. A step that cannot run here
//! counts as skipped, never as passed, and says why.

use std::fmt;

use crate::{
    command::{Failure, cargo, root, run, run_lines},
    counts,
    machine::{self, HypervisorArgs, KernelArgs, Outcome, ProofArgs, VirtioArgs},
};

/// What ran.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Tally {
    /// One check that passed or failed as a whole.
    fn check(&mut self, result: Result<(), Failure>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(message) => {
                println!("FAILED: {message}");
                self.failed += 1;
            }
        }
    }

    /// Runs that cannot be made everywhere: where they cannot, they are skipped, which fails where tests are all there is
    /// to do.
    fn outcome(&mut self, outcome: Result<Outcome, Failure>) {
        self.outcome_where(outcome, is_ci(std::env::var("CI").ok().as_deref()));
    }

    fn outcome_where(&mut self, outcome: Result<Outcome, Failure>, ci: bool) {
        match outcome {
            Ok(Outcome::Passed { runs, .. }) => self.passed += runs,
            Ok(skipped) if !ci => {
                println!("{skipped}");
                self.skipped += 1;
            }
            Ok(skipped) => self.check(Err(skipped.to_string())),
            Err(failure) => self.check(Err(failure)),
        }
    }

    /// Adds the counts of a line such as `test result: ok. 6 passed; 0 failed; 1 ignored; ...`.
    fn add_summary(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ") else { return };
        for part in counts.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(Ok(count)), Some(what)) = (words.next().map(str::parse::<usize>), words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.skipped += count,
                _ => {}
            }
        }
    }
}

/// Whether this machine was made for testing, by the variable `CI`.
fn is_ci(value: Option<&str>) -> bool {
    !matches!(value, None | Some("" | "0" | "false"))
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

pub(crate) fn test() -> Result<(), Failure> {
    let mut tally = Tally::default();
    cargo_test(&mut tally, cargo(&["test", "--workspace", "--no-fail-fast"]))?;
    // The adapters, each behind the feature of its crate's name.
    cargo_test(&mut tally, cargo(&["test", "--package", "frame-allocator", "--all-features"]))?;
    model_check(&mut tally)?;
    tally.outcome(counts::atomics());
    tally.outcome(counts::instructions());
    freestanding(&mut tally);
    machines(&mut tally);
    println!("{tally}");
    if tally.failed == 0 { Ok(()) } else { Err(format!("{} tests failed", tally.failed)) }
}

/// Runs `cargo test` and adds what it counted. A run that counts nothing, or fails without a failed test (it did not
/// build), counts as a failure.
fn cargo_test(tally: &mut Tally, mut command: std::process::Command) -> Result<(), Failure> {
    let before = *tally;
    let succeeded = run_lines(&mut command, |line| tally.add_summary(line))?;
    if tally.passed == before.passed || (!succeeded && tally.failed == before.failed) {
        tally.check(Err("this run of cargo test ran no test, or did not build".into()));
    }
    Ok(())
}

/// The lock-free parts under every interleaving that loom finds.
fn model_check(tally: &mut Tally) -> Result<(), Failure> {
    let mut command = cargo(&["test", "--release", "--package", "frame-tree", "--test", "loom"]);
    command.args(["--target-dir", "target/loom"]).env("RUSTFLAGS", "--cfg loom");
    cargo_test(tally, command)
}

/// The libraries need neither `std` nor, but for the buddy, a heap: a program with its own panic handler, for no
/// operating system, links.
fn freestanding(tally: &mut Tally) {
    let manifest = root().join("examples/no-std/Cargo.toml");
    let manifest = manifest.to_str().expect("the workspace's path is UTF-8");
    for features in ["", "buddy"] {
        let mut command = cargo(&["build", "--quiet", "--manifest-path", manifest, "--features", features]);
        tally.check(run(command.args(["--target-dir", "target/no-std"])));
    }
}

/// The kernels that embed the toolkit, on machines of several processors; a disk driver on our frames; and the hypervisor,
/// on machines with VMX. Where they cannot run, they count as skipped; on a machine that was made for testing (`CI`), a
/// skip is a failure.
fn machines(tally: &mut Tally) {
    let outcomes = [
        machine::kernel(&KernelArgs::ALL),
        machine::virtio(&VirtioArgs::ALL),
        machine::hypervisor(&HypervisorArgs::ALL),
        machine::vmx_proof(&ProofArgs::ALL),
    ];
    outcomes.into_iter().for_each(|outcome| tally.outcome(outcome));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_never_passes_and_fails_where_tests_are_all_there_is_to_do() {
        let tally = |outcome, ci| {
            let mut tally = Tally::default();
            tally.outcome_where(outcome, ci);
            tally.to_string()
        };
        let skipped = || Ok(Outcome::Skipped("no emulator".into()));
        assert_eq!(tally(skipped(), false), "0 passed, 0 failed, 1 skipped");
        assert_eq!(tally(skipped(), true), "0 passed, 1 failed, 0 skipped");
        assert_eq!(tally(Ok(Outcome::Passed { runs: 3, checks: 99 }), true), "3 passed, 0 failed, 0 skipped");
        assert_eq!(tally(Err("broken".into()), false), "0 passed, 1 failed, 0 skipped");
        assert!(is_ci(Some("true")) && is_ci(Some("1")) && !is_ci(Some("false")) && !is_ci(None));
    }

    #[test]
    fn summaries_are_added() {
        let mut tally = Tally::default();
        tally.add_summary("test result: FAILED. 6 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.00s");
        tally.add_summary(
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s",
        );
        tally.add_summary("running 6 tests");
        assert_eq!(tally.to_string(), "7 passed, 2 failed, 1 skipped");
    }
}
