//! Counts instead of times: instructions of an operation (callgrind), atomic read-modify-writes of a frame.
//!
//! A time on a shared machine guards nothing; a count is the same every time. `benches/counts.toml` holds the most
//! instructions that each work may take; what the program of the atomics may find is written in it.

use std::{fs, path::PathBuf};

use crate::{
    command::{Failure, cargo, root, run},
    machine::{Outcome, require_valgrind},
};

/// What the counted work is: a name in `counts.toml`, and instructions of an operation.
type Counts = Vec<(String, f64)>;

/// The programs' package, without everybody else's allocators. A target that is named keeps the flags away from what
/// runs while it is built (derive macros), so that this is built once for all.
const PACKAGE: [&str; 8] = [
    "--package",
    "frame-benches",
    "--no-default-features",
    "--target-dir",
    "target",
    "--target",
    TARGET,
    "--bin",
];

/// Where valgrind and its package are to be had.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Counts instructions and compares them with the bounds: as many checks as there are bounds.
pub(crate) fn instructions() -> Result<Outcome, Failure> {
    if let Err(reason) = require_valgrind() {
        return Ok(Outcome::Skipped(reason));
    }
    let directory = scratch()?;
    // As an embedder who cares would build it: optimised across crates.
    let mut build = cargo(&["build", "--quiet", "--profile", "bench"]);
    run(build.args(PACKAGE).arg("count-instructions"))?;
    let program = root().join("target").join(TARGET).join("release/count-instructions");
    let mut valgrind = std::process::Command::new("valgrind");
    valgrind.args(["--quiet", "--tool=callgrind", "--collect-atstart=no"]);
    // Two patterns for the same functions: of two options with one pattern, callgrind heeds the first.
    valgrind.args(["--toggle-collect=*count_work_*", "--dump-after=*_work_*"]);
    valgrind.arg(format!("--callgrind-out-file={}", directory.join("out").display())).arg(program);
    let output = valgrind.output().map_err(|error| format!("valgrind: {error}"))?;
    if !output.status.success() {
        return Err(format!("valgrind: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let counts = counts(&String::from_utf8_lossy(&output.stdout), |call| {
        fs::read_to_string(directory.join(format!("out.{call}"))).ok()
    })?;
    let bounds = fs::read_to_string(root().join("benches/counts.toml")).map_err(|e| e.to_string())?;
    let works = compare(&counts, &parse_bounds(&bounds)?)?;
    Ok(Outcome::Passed { runs: 1, checks: works })
}

/// Counts atomics; the program knows its bounds.
pub(crate) fn atomics() -> Result<Outcome, Failure> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Ok(Outcome::Skipped("atomics are counted in a build for x86-64 Linux".into()));
    }
    let mut command = cargo(&["run", "--quiet"]);
    run(command.args(PACKAGE).arg("count-atomics").env("RUSTFLAGS", "--cfg frame_counted"))?;
    Ok(Outcome::Passed { runs: 1, checks: 1 })
}

/// An empty directory.
fn scratch() -> Result<PathBuf, Failure> {
    let directory = root().join("target/callgrind");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    Ok(directory)
}

/// The counts of the calls that the program names, one line each: work, contender, operations. `file` gives what
/// callgrind wrote after a call, the first of which is 1.
fn counts(told: &str, file: impl Fn(usize) -> Option<String>) -> Result<Counts, Failure> {
    let mut counts = Counts::new();
    for (call, line) in (1..).zip(told.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [work, contender, operations] = words[..] else { return Err(format!("not a count: {line}")) };
        let operations: f64 = operations.parse().map_err(|_| format!("not a count: {line}"))?;
        let text = file(call).ok_or_else(|| format!("callgrind wrote nothing after call {call}: {line}"))?;
        let totals = text.lines().find_map(|line| line.strip_prefix("totals: "));
        let totals = totals.and_then(|count| count.trim().parse::<f64>().ok());
        let totals =
            totals.ok_or_else(|| format!("callgrind's file of call {call} has no totals: {line}"))?;
        if contender != "again" {
            counts.push((format!("{contender}.{work}"), totals / operations));
        }
    }
    if counts.is_empty() { Err("nothing was counted".into()) } else { Ok(counts) }
}

/// The bounds: lines such as `percpu-tree.pair = 40`, and comments.
fn parse_bounds(text: &str) -> Result<Vec<(&str, f64)>, Failure> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('['))
        .map(|line| {
            let (name, bound) = line.split_once('=').ok_or_else(|| format!("counts.toml: {line}"))?;
            let bound = bound.trim().parse().map_err(|_| format!("counts.toml: {line}"))?;
            Ok((name.trim().trim_matches('"'), bound))
        })
        .collect()
}

/// Prints a table, and says which bounds are exceeded, or name nothing. Returns how many hold.
fn compare(counts: &Counts, bounds: &[(&str, f64)]) -> Result<usize, Failure> {
    println!("instructions of an operation (the loop around it is within: see null)");
    let mut wrong = Vec::new();
    for (name, count) in counts {
        let bound = bounds.iter().find(|(bounded, _)| bounded == name).map(|&(_, bound)| bound);
        let shown = bound.map_or(String::new(), |bound| format!("  (at most {bound:.1})"));
        println!("  {name:<24}{count:>8.1}{shown}");
        if bound.is_some_and(|bound| *count > bound) {
            wrong.push(format!("{name} takes {count:.1} instructions{shown}"));
        }
    }
    for (name, _) in bounds.iter().filter(|(name, _)| !counts.iter().any(|(counted, _)| counted == name)) {
        wrong.push(format!("counts.toml bounds {name}, which was not counted"));
    }
    if wrong.is_empty() { Ok(bounds.len()) } else { Err(wrong.join("\n")) }
}

/// The whole command.
pub(crate) fn all() -> Result<(), Failure> {
    for outcome in [atomics()?, instructions()?] {
        match outcome {
            Outcome::Passed { checks, .. } => println!("counts within their bounds: {checks}"),
            skipped => return Err(skipped.to_string()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_meet_their_files() {
        let told = "pair again 100\npair floor 100\nbulk floor 50\n";
        let file =
            |call: usize| Some(format!("version: 1\nevents: Ir\nsummary: 9\n\ntotals: {}\n", call * 1000));
        let found = counts(told, file).unwrap();
        assert_eq!(found, [("floor.pair".to_owned(), 20.0), ("floor.bulk".to_owned(), 60.0)]);
        assert!(counts(told, |call| (call < 3).then(|| "totals: 1".into())).unwrap_err().contains("call 3"));
        assert!(counts("", |_| None).is_err());
    }

    #[test]
    fn a_bound_that_is_exceeded_or_names_nothing_fails() {
        let counted = vec![("floor.pair".to_owned(), 20.0)];
        assert_eq!(compare(&counted, &[("floor.pair", 20.0)]), Ok(1));
        assert!(compare(&counted, &[("floor.pair", 19.9)]).unwrap_err().contains("floor.pair takes 20.0"));
        assert!(compare(&counted, &[("floor.bulk", 99.0)]).unwrap_err().contains("not counted"));
    }

    #[test]
    fn bounds_are_read() {
        let text = "# comment\n[instructions]\n\"percpu-tree.pair\" = 40 # why\nfloor.pair = 12.5\n";
        assert_eq!(parse_bounds(text).unwrap(), [("percpu-tree.pair", 40.0), ("floor.pair", 12.5)]);
        assert!(parse_bounds("floor.pair 3").is_err());
    }
}
