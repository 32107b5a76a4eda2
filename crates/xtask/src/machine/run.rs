//! An emulator's process: started, watched, and ended when its time is up.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::command::Failure;

/// How a machine ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// What the emulator says: the status that means success differs (33 in QEMU, 0 in Bochs).
    pub(super) succeeded: bool,
    /// The emulator's status in words, or that its time was up.
    pub(super) how: String,
    /// What came over the serial line.
    pub(super) serial: String,
    pub(super) took: Duration,
}

/// Waits for the process, and kills it when it takes longer than `limit`: some emulators spin and hear no other signal.
pub(super) fn watch(mut command: Command, success: i32, limit: Duration) -> Result<Ended, Failure> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{}: {error}", command.get_program().to_string_lossy()))?;
    let status = wait(&mut child, start + limit)?;
    let (succeeded, how) = match status {
        Some(status) => (status.code() == Some(success), status.to_string()),
        None => (false, format!("no end after {} s: killed", limit.as_secs())),
    };
    Ok(Ended { succeeded, how, serial: String::new(), took: start.elapsed() })
}

fn wait(child: &mut Child, until: Instant) -> Result<Option<std::process::ExitStatus>, Failure> {
    loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Ok(Some(status));
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
