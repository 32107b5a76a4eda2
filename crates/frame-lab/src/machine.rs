//! The machine and the build behind a figure: a number without them says nothing.

use std::{fs, thread};

use serde::Serialize;

/// Where a comparison ran, and what it was built from.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// The processor's name.
    pub(crate) cpu: String,
    /// Processors that this process may use.
    pub(crate) cores: usize,
    /// The kernel.
    pub(crate) system: String,
    pub(crate) rustc: &'static str,
    /// `release` or `debug`.
    pub(crate) profile: &'static str,
    /// This workspace's version.
    pub(crate) version: &'static str,
    /// Packages that the backends stand on.
    pub(crate) packages: &'static str,
}

impl Machine {
    /// What can be found out about this one.
    pub(crate) fn this() -> Self {
        Self {
            cpu: cpu_model().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: thread::available_parallelism().map_or(1, usize::from),
            system: system(),
            rustc: env!("LAB_RUSTC"),
            profile: env!("LAB_PROFILE"),
            version: env!("CARGO_PKG_VERSION"),
            packages: env!("LAB_PACKAGES"),
        }
    }

    /// Whether the timings are those of optimised code.
    pub(crate) fn is_optimised(&self) -> bool {
        self.profile == "release"
    }
}

fn cpu_model() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name") || line.starts_with("Model"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn system() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let name = match std::env::consts::OS {
        "linux" => "Linux",
        other => other,
    };
    format!("{name} {} {}", release.trim(), std::env::consts::ARCH)
}
