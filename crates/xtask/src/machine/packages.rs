//! The Debian packages behind the emulators: found, installed where that is allowed, or named.

use std::{path::Path, process::Command};

/// A program, and the packages that bring it and what it needs.
pub(super) struct Program {
    /// A file that is there when the packages are: a program's name, to be found in `PATH`, or a path.
    pub(super) file: &'static str,
    pub(super) packages: &'static [&'static str],
}

pub(super) const QEMU: Program = Program { file: "qemu-system-x86_64", packages: &["qemu-system-x86"] };

pub(super) const VALGRIND: Program = Program { file: "valgrind", packages: &["valgrind"] };

/// Machines that are no x86.
pub(super) const QEMU_VIRT: [Program; 2] = [
    Program { file: "qemu-system-aarch64", packages: &["qemu-system-arm"] },
    Program { file: "qemu-system-riscv64", packages: &["qemu-system-misc"] },
];

/// The emulator, its BIOS, a display that needs no screen, and the tools that make its boot files.
pub(super) const BOCHS: [Program; 5] = [
    Program { file: "bochs", packages: &["bochs", "bochs-term"] },
    Program { file: "/usr/share/bochs/BIOS-bochs-latest", packages: &["bochsbios"] },
    Program { file: "/usr/share/bochs/VGABIOS-lgpl-latest", packages: &["vgabios"] },
    Program { file: "nasm", packages: &["nasm"] },
    Program { file: "objcopy", packages: &["binutils"] },
];

/// Installs what is missing. `Err` says why that cannot be done here, and what to type.
pub(super) fn require(programs: &[Program]) -> Result<(), String> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Err(
            "the kernels are built for x86-64 by the host's own compiler: this needs x86-64 Linux".into()
        );
    }
    let missing: Vec<&str> = missing(programs);
    if missing.is_empty() {
        return Ok(());
    }
    let command = format!("apt-get install --no-install-recommends {}", missing.join(" "));
    if !is_root() || !is_there("apt-get") {
        return Err(format!("packages are missing: {command}"));
    }
    println!("==> {command}");
    let install = || {
        let mut apt = Command::new("apt-get");
        apt.args(["install", "--yes", "--quiet", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]);
        apt.args(&missing).env("DEBIAN_FRONTEND", "noninteractive");
        apt.output().is_ok_and(|output| output.status.success())
    };
    // The lists of packages may be missing, or older than the archive.
    let update = || Command::new("apt-get").args(["update", "--quiet"]).output().is_ok();
    if install() || (update() && install()) {
        let still = self::missing(programs);
        if still.is_empty() {
            return Ok(());
        }
    }
    Err(format!("packages are missing and could not be installed: {command}"))
}

fn missing(programs: &[Program]) -> Vec<&'static str> {
    let absent = programs.iter().filter(|program| !is_there(program.file));
    absent.flat_map(|program| program.packages).copied().collect()
}

/// Whether there is such a file; a name without a folder is looked for as a command is.
fn is_there(file: &str) -> bool {
    let path = Path::new(file);
    if path.is_absolute() {
        return path.exists();
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(path).exists())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_as_commands_are() {
        assert!(is_there("ls") && is_there("/dev/null"));
        assert!(!is_there("no-such-program") && !is_there("/no/such/file"));
        let program = |file| Program { file, packages: &["one", "two"] };
        assert_eq!(missing(&[program("ls"), program("no-such-program")]), ["one", "two"]);
    }
}
