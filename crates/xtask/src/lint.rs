//! What can be judged without running the code: warnings are errors.

use crate::command::{Failure, cargo, run};

pub(crate) fn lint() -> Result<(), Failure> {
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    run(&mut cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "--deny",
        "warnings",
    ]))?;
    run(cargo(&["doc", "--workspace", "--no-deps", "--all-features"]).env("RUSTDOCFLAGS", "--deny warnings"))?;
    powerset()
}

/// Features only add: every combination of them builds, each library on its own.
fn powerset() -> Result<(), Failure> {
    if !cargo(&["hack", "--version"]).output().is_ok_and(|output| output.status.success()) {
        return Err("cargo-hack is missing: cargo install --locked --debug cargo-hack".into());
    }
    run(cargo(&["hack", "check", "--lib", "--workspace", "--feature-powerset"])
        .args(["--exclude", "xtask", "--exclude", "frame-lab"])
        .env("RUSTFLAGS", "--deny warnings"))
}
