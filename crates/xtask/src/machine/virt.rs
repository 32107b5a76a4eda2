//! Machines that are no x86: QEMU's `virt` of 64-bit Arm and of RISC-V, which boot `examples/virt`.

use std::{fs, path::Path, process::Command, time::Duration};

use frame_testkit::conformance;

use super::{
    Outcome, image, packages,
    run::{self, Ended},
    verdict,
};
use crate::command::{Failure, run as run_command};

/// Much longer than a run takes.
const LIMIT: Duration = Duration::from_secs(300);

/// The kernel's own checks, and the suite on five allocators.
const CHECKS: usize = 9 + 5 * conformance::CASES.len();

struct Machine {
    target: &'static str,
    qemu: &'static str,
    arguments: &'static [&'static str],
}

const MACHINES: [Machine; 2] = [
    Machine {
        target: "aarch64-unknown-none",
        qemu: "qemu-system-aarch64",
        arguments: &["-cpu", "cortex-a72", "-semihosting-config", "enable=on,target=native"],
    },
    Machine {
        target: "riscv64gc-unknown-none-elf",
        qemu: "qemu-system-riscv64",
        arguments: &["-bios", "none"],
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

        let ended = machine.boot(&target.join(machine.target).join("debug/virt"))?;
        print!("{}", ended.serial);
        let passed =
            verdict::last_line(&ended, "virt", CHECKS).map_err(|why| format!("{}: {why}", machine.qemu))?;
        println!("{}: {passed} checks passed in {:.1} s", machine.qemu, ended.took.as_secs_f64());
        checks += passed;
    }
    Ok(Outcome::Passed { runs: MACHINES.len(), checks })
}

impl Machine {
    fn boot(&self, kernel: &Path) -> Result<Ended, Failure> {
        let scratch = image::scratch()?;
        let serial = scratch.join("serial");
        let mut command = Command::new(self.qemu);
        command
            .args(["-M", "virt", "-m", "256", "-nodefaults", "-no-reboot", "-display", "none"])
            .args(["-monitor", "none", "-serial", "file:serial"])
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
