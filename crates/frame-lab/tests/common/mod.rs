//! Runs the program as a user does.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// Every backend's name, in the order of the table.
pub(crate) const BACKENDS: [&str; 6] =
    ["buddy", "bitmap", "tree", "percpu-buddy", "percpu-bitmap", "percpu-tree"];

/// A directory of this test's own, removed at its end.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("frame-lab-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file; returns its path as an argument.
    pub(crate) fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn command(dir: &Dir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_frame-lab"));
    command.args(args).current_dir(dir.path()).stdin(Stdio::null());
    command
}

pub(crate) fn run(dir: &Dir, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

/// Runs it with a file as standard input.
pub(crate) fn run_with_stdin(dir: &Dir, args: &[&str], file: &str) -> Output {
    command(dir, args).stdin(fs::File::open(file).unwrap()).output().unwrap()
}

/// What it printed, which must be JSON and nothing else, from a run that must succeed.
pub(crate) fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The message of a run that must fail because of its input.
pub(crate) fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{}{}", stdout(output), stderr(output));
    assert!(output.stdout.is_empty(), "{}", stdout(output));
    stderr(output)
}

/// A count in the JSON, by the names on the way to it.
pub(crate) fn count(value: &Value, path: &str) -> u64 {
    let found = value.pointer(path).unwrap_or_else(|| panic!("no {path} in {value}"));
    found.as_u64().unwrap_or_else(|| panic!("{path} is {found}"))
}
