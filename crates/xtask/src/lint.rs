//! What can be judged without running the code: warnings are errors.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::command::{Failure, cargo, root, run};

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
    bare_metal()?;
    powerset()
}

/// The examples for bare machines, which are workspaces of their own.
fn bare_metal() -> Result<(), Failure> {
    let mut manifests = own_workspaces(&root().join("examples"))?;
    manifests.sort();
    for manifest in manifests {
        let with_manifest = |mut command: Command| {
            command.arg("--manifest-path").arg(&manifest);
            command
        };
        run(with_manifest(cargo(&["fmt"])).arg("--check"))?;
        if manifest.ends_with("virt/Cargo.toml") {
            continue; // for other processors than this one: `cargo xtask portable` builds it
        }
        run(with_manifest(cargo(&["clippy", "--all-features", "--target-dir", "target/lint"]))
            .args(["--", "--deny", "warnings"]))?;
    }
    Ok(())
}

/// The manifests in `folder/*/` that say `[workspace]`.
fn own_workspaces(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let manifests = entries.flatten().map(|entry| entry.path().join("Cargo.toml"));
    Ok(manifests
        .filter(|path| {
            fs::read_to_string(path).is_ok_and(|text| text.lines().any(|line| line.trim() == "[workspace]"))
        })
        .collect())
}

/// Features only add: each library builds with none of them, with each, and with each pair. All of them at once are
/// built above. Every combination would be 512 of the facade's alone.
fn powerset() -> Result<(), Failure> {
    if !cargo(&["hack", "--version"]).output().is_ok_and(|output| output.status.success()) {
        return Err("cargo-hack is missing: cargo install --locked --debug cargo-hack".into());
    }
    run(cargo(&["hack", "check", "--lib", "--workspace", "--feature-powerset", "--depth", "2"])
        .args(["--exclude", "xtask", "--exclude", "frame-lab"])
        .env("RUSTFLAGS", "--deny warnings"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_a_workspace_of_its_own_and_the_host_examples_are_not() {
        let found = own_workspaces(&root().join("examples")).unwrap();
        let has = |name: &str| found.contains(&root().join("examples").join(name).join("Cargo.toml"));
        assert!(has("kernel") && has("hypervisor") && has("virtio") && !has("host"), "{found:?}");
    }
}
