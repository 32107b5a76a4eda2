//! QEMU: any number of CPUs, each a thread of the host, so that races are real.
//!
//! Never with `/dev/kvm`: what is tested must run alike everywhere. QEMU's own translation has no VMX; see
//! [`bochs`](super::bochs) for that.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{
    image,
    run::{self, Ended},
};
use crate::command::Failure;

pub(super) struct Qemu<'a> {
    pub(super) cpus: usize,
    pub(super) memory_mib: usize,
    pub(super) command_line: &'a str,
    /// A Multiboot module.
    pub(super) module: Option<&'a str>,
    /// The image of a virtio disk.
    pub(super) disk: Option<&'a Path>,
}

/// What `isa-debug-exit` makes of the kernel's 0x10.
const SUCCESS: i32 = 33;

impl Qemu<'_> {
    pub(super) fn run(&self, kernel: &Path, limit: Duration) -> Result<Ended, Failure> {
        let scratch = image::scratch()?;
        let serial = scratch.join("serial.txt");
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-nodefaults", "-no-reboot"])
            .args(["-display", "none", "-monitor", "none"])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
            .args(["-m", &self.memory_mib.to_string(), "-smp", &self.cpus.to_string()])
            .arg("-serial")
            .arg(argument("file:", &serial))
            .arg("-kernel")
            .arg(kernel)
            .args(["-append", self.command_line]);
        if let Some(module) = self.module {
            let path = scratch.join("module");
            fs::write(&path, module).map_err(|error| format!("{}: {error}", path.display()))?;
            command.arg("-initrd").arg(path);
        }
        if let Some(disk) = self.disk {
            command.arg("-drive").arg(argument("if=none,id=disk,format=raw,file=", disk));
            command.args(["-device", "virtio-blk-pci,drive=disk,disable-legacy=on"]);
        }
        let mut ended = run::watch(command, SUCCESS, limit)?;
        ended.serial = String::from_utf8_lossy(&fs::read(&serial).unwrap_or_default()).into_owned();
        let _ = fs::remove_dir_all(&scratch);
        Ok(ended)
    }
}

/// QEMU reads commas in arguments as separators; two are one.
fn argument(prefix: &str, path: &Path) -> PathBuf {
    PathBuf::from(format!("{prefix}{}", path.display().to_string().replace(',', ",,")))
}
