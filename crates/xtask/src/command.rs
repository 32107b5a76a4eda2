//! Running other programs from the workspace's root, with what they print in view.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Why a task failed, for a person.
pub(crate) type Failure = String;

/// The workspace's root: where every command runs.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("crates/xtask lies two levels down")
        .to_path_buf()
}

/// The cargo that runs this program, from the workspace's root.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    // The flags of the xtask's own build are not those of what it builds.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_MANIFEST_DIR");
    command
}

/// Runs a command and says which; its failure is an error.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    announce(command);
    let status = command.status().map_err(|error| format!("{}: {error}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", shown(command))) }
}

/// Runs a command, passes each line of its standard output on, and to `line`. Returns whether it succeeded.
pub(crate) fn run_lines(command: &mut Command, mut line: impl FnMut(&str)) -> Result<bool, Failure> {
    announce(command);
    let failed = |error: std::io::Error| format!("cannot run: {error}");
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(failed)?;
    for text in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let text = text.map_err(failed)?;
        println!("{text}");
        line(&text);
    }
    Ok(child.wait().map_err(failed)?.success())
}

fn announce(command: &Command) {
    println!("==> {}", shown(command));
}

/// A command as one would type it.
fn shown(command: &Command) -> String {
    let program =
        Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut text = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            text += &format!("{}={:?} ", name.to_string_lossy(), value.to_string_lossy());
        }
    }
    text += &program;
    for argument in command.get_args() {
        text += " ";
        text += &argument.to_string_lossy();
    }
    text
}
