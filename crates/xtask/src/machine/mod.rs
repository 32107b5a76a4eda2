//! The machines that boot the project's kernels: QEMU for many CPUs and much memory, Bochs for an x86 with VMX.
//!
//! A run is passed when three things hold together: the emulator ended with the status of success, the serial line
//! holds the kernel's last line, and the number of checks in it is exactly the number that must have been made. A kernel
//! that hangs, or ends early, or skips a check, fails. A machine on which no emulator can be had is *skipped*, with the
//! reason, and never counts as passed.

mod bochs;
mod firmware;
mod hypervisor;
mod image;
mod kernel;
mod packages;
mod proof;
mod qemu;
mod run;
mod seeded;
mod verdict;
mod virt;
mod virtio;

pub(crate) use hypervisor::{HypervisorArgs, hypervisor};
pub(crate) use kernel::{KernelArgs, kernel};
pub(crate) use proof::{ProofArgs, vmx_proof};
pub(crate) use seeded::{SeededArgs, seeded_faults};
pub(crate) use virt::virt;
pub(crate) use virtio::{VirtioArgs, virtio};

/// The simulated processor that counts instructions, installed where that is allowed.
pub(crate) fn require_valgrind() -> Result<(), String> {
    packages::require(&[packages::VALGRIND])
}

/// What came of a command that boots machines, when nothing failed.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All runs ended as they must.
    Passed {
        /// Machines booted.
        runs: usize,
        /// Checks that the kernels made.
        checks: usize,
    },
    /// It cannot be done here, and why.
    Skipped(String),
}

impl Outcome {
    /// Says what came of a command that was asked for by name: for that, a skip is a failure.
    pub(crate) fn told(self) -> Result<(), crate::command::Failure> {
        match self {
            Self::Passed { .. } => {
                println!("{self}");
                Ok(())
            }
            Self::Skipped(_) => Err(self.to_string()),
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Passed { runs, checks } => write!(f, "{runs} machines booted, {checks} checks passed"),
            Self::Skipped(why) => write!(f, "SKIPPED, not passed: {why}"),
        }
    }
}
