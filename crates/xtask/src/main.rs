//! The project's commands: `cargo xtask test` runs everything that can fail, `cargo xtask lint` what can be read.

mod command;
mod counts;
mod debian;
#[cfg(test)]
mod docs;
mod lint;
mod machine;
mod msrv;
mod portable;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's commands")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Every test: unit, integration, documentation, model checking, the freestanding link, kernels on
    /// simulated machines. Ends with the count.
    Test,
    /// Formatting, clippy, documentation, every pair of features: warnings are errors.
    Lint,
    /// The library crates with the oldest compiler that they promise.
    Msrv,
    /// Instructions of an operation and atomic read-modify-writes of a frame, counted and held against their bounds.
    Counts,
    /// Boots the example kernel on a simulated machine.
    Kernel(machine::KernelArgs),
    /// Boots the example hypervisor on a simulated x86 with VMX.
    Hypervisor(machine::HypervisorArgs),
    /// Boots a kernel with a disk driver on our frames, and compares the disk afterwards.
    Virtio(machine::VirtioArgs),
    /// Compares what vmx-structs says with what a processor with VMX does, case by case.
    VmxProof(machine::ProofArgs),
    /// Puts faults into a copy of the sources, one at a time, and demands that the kernels find them.
    SeededFaults(machine::SeededArgs),
    /// Builds the library crates for 64-bit Arm and RISC-V, and boots a kernel on simulated machines of both.
    Portable,
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Test => test::test(),
        Task::Lint => lint::lint(),
        Task::Msrv => msrv::msrv(),
        Task::Counts => counts::all(),
        Task::Kernel(arguments) => machine::kernel(&arguments).and_then(machine::Outcome::told),
        Task::Hypervisor(arguments) => machine::hypervisor(&arguments).and_then(machine::Outcome::told),
        Task::Virtio(arguments) => machine::virtio(&arguments).and_then(machine::Outcome::told),
        Task::VmxProof(arguments) => machine::vmx_proof(&arguments).and_then(machine::Outcome::told),
        Task::Portable => portable::portable().and_then(machine::Outcome::told),
        Task::SeededFaults(arguments) => machine::seeded_faults(&arguments).and_then(machine::Outcome::told),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
