//! Machines that are no x86: QEMU's `virt` of 64-bit Arm and of RISC-V, which boot the example kernel (`examples/virt`) with
//! every allocator.

use std::{fs, path::Path, process::Command, time::Duration};

use super::{
    Outcome, image, kernel, packages,
    run::{self, Ended},
};
use crate::command::{Failure, run as run_command};

/// Much longer than a run takes.
const LIMIT: Duration = Duration::from_secs(300);

/// As many as the kernel has room for, each a thread of the host.
const CPUS: usize = 4;

struct Machine {
    target: &'static str,
    qemu: &'static str,
    arguments: &'static [&'static str],
    /// Where the kernel finds its command line: the last frame of 256 MiB.
    command_line: usize,
}

const MACHINES: [Machine; 2] = [
    Machine {
        target: "aarch64-unknown-none",
        qemu: "qemu-system-aarch64",
        arguments: &["-cpu", "cortex-a72", "-semihosting-config", "enable=on,target=native"],
        command_line: 0x4000_0000 + (256 << 20) - 4096,
    },
    Machine {
        target: "riscv64gc-unknown-none-elf",
        qemu: "qemu-system-riscv64",
        arguments: &["-bios", "none"],
        command_line: 0x8000_0000 + (256 << 20) - 4096,
    },
];

/// Builds the kernel for both with this cargo, which builds `core` too, and boots it.
pub(crate) fn virt(cargo: impl Fn(&[&str]) -> Command, sources: &Path) -> Result<Outcome, Failure> {
    if let Err(why) = packages::require(&packages::QEMU_VIRT) {
        return Ok(Outcome::Skipped(why));
    }
    let linker = linker()?;
    let target = sources.join("target/portable/virt");
    let mut checks = 0;
    for machine in &MACHINES {
        let mut build = cargo(&["build", "--quiet", "--target", machine.target, "-Zbuild-std=core,alloc"]);
        build.arg("-Zbuild-std-features=compiler-builtins-mem");
        build.arg("--manifest-path").arg(sources.join("examples/virt/Cargo.toml"));
        build.arg("--target-dir").arg(&target).env("CARGO_PROFILE_DEV_DEBUG", "0");
        let variable = machine.target.to_uppercase().replace('-', "_");
        build.env(format!("CARGO_TARGET_{variable}_LINKER"), &linker);
        run_command(&mut build)?;

        let kernel = target.join(machine.target).join("debug/virt");
        for backend in kernel::BACKENDS {
            let ended = machine.boot(&kernel, backend)?;
            let name = format!("{}, {backend}, {CPUS} CPUs", machine.qemu);
            let mut cases = kernel::cases(backend, CPUS);
            cases.retain(|case| case.0 != kernel::INTERRUPTS);
            let passed = kernel::verdict(&ended, None, &cases).map_err(|why| {
                print!("{}", ended.serial);
                format!("{name}: {why}")
            })?;
            println!("{name}: {passed} checks passed in {:.1} s", ended.took.as_secs_f64());
            checks += passed;
        }
    }
    Ok(Outcome::Passed { runs: MACHINES.len() * kernel::BACKENDS.len(), checks })
}

impl Machine {
    fn boot(&self, kernel: &Path, backend: &str) -> Result<Ended, Failure> {
        let scratch = image::scratch()?;
        let serial = scratch.join("serial");
        let command_line = format!("cpus={CPUS} backend={backend}");
        fs::write(scratch.join("command-line"), command_line).map_err(|error| error.to_string())?;
        let mut command = Command::new(self.qemu);
        command
            .args(["-M", "virt", "-m", "256", "-nodefaults", "-no-reboot", "-display", "none"])
            .args(["-monitor", "none", "-serial", "file:serial"])
            .args(["-accel", "tcg,thread=multi", "-smp", &CPUS.to_string()])
            .args([
                "-device",
                &format!("loader,file=command-line,addr={:#x},force-raw=on", self.command_line),
            ])
            .args(self.arguments)
            .arg("-kernel")
            .arg(kernel)
            .current_dir(&scratch);
        let mut ended = run::watch(command, 0, LIMIT)?;
        ended.serial = String::from_utf8_lossy(&fs::read(serial).unwrap_or_default()).into_owned();
        let _ = fs::remove_dir_all(&scratch);
        Ok(ended)
    }
}

/// The linker for all processors that comes with rustup's compiler.
fn linker() -> Result<std::path::PathBuf, Failure> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output();
    let sysroot = output.map_err(|error| format!("rustc: {error}"))?.stdout;
    let sysroot = String::from_utf8_lossy(&sysroot).trim().to_owned();
    let linker = Path::new(&sysroot).join("lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld");
    if linker.exists() { Ok(linker) } else { Err(format!("{} is missing", linker.display())) }
}
