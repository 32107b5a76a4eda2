//! Building the freestanding examples.

use std::path::{Path, PathBuf};

use crate::command::{Failure, cargo, root, run};

/// Builds the example of that name and returns its ELF file.
pub(super) fn build(example: &str, binary: &str) -> Result<PathBuf, Failure> {
    build_as(&root(), example, binary, &["--release"], "release")
}

/// As [`build`], of other sources than ours, soon rather than well: a change builds again in seconds. What the code
/// asserts in debug builds alone is left out, as in ours.
pub(super) fn build_quickly(sources: &Path, example: &str, binary: &str) -> Result<PathBuf, Failure> {
    const OFF: [&str; 2] = ["profile.dev.debug-assertions=false", "profile.dev.overflow-checks=false"];
    build_as(sources, example, binary, &["--config", OFF[0], "--config", OFF[1]], "debug")
}

fn build_as(
    sources: &Path,
    example: &str,
    binary: &str,
    options: &[&str],
    folder: &str,
) -> Result<PathBuf, Failure> {
    let target = sources.join("target/bare-metal");
    let manifest = sources.join("examples").join(example).join("Cargo.toml");
    let mut command = cargo(&["build", "--quiet"]);
    command.args(options).arg("--manifest-path").arg(manifest).arg("--target-dir").arg(&target);
    run(&mut command)?;
    Ok(target.join(folder).join(binary))
}

/// A fresh directory for the files of one run.
pub(super) fn scratch() -> Result<PathBuf, Failure> {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let name = format!("{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
    let path = root().join("target/machine").join(name);
    std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}
