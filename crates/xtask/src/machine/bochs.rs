//! Bochs: slower, deterministic, and it has VMX.
//!
//! An option ROM (`examples/machine/bochs/optrom.asm`) plays boot loader; it reads the kernel's flat image from a disk. A success breaks into Bochs's debugger, which quits with status 0; a failure shuts the machine down,
//! which ends with status 1.

use std::{fmt::Write, fs, path::Path, process::Command, time::Duration};

use super::{
    image,
    run::{self, Ended},
};
use crate::command::{Failure, root, run as run_command};

pub(super) struct Bochs<'a> {
    /// One of Bochs's CPU models.
    pub(super) model: &'a str,
    pub(super) cpus: usize,
    pub(super) memory_mib: usize,
    pub(super) command_line: &'a str,
}

/// Much longer than a run of the kernels for VMX takes.
pub(super) const LIMIT: Duration = Duration::from_secs(300);

/// The processors with VMX that the kernels for it run on: short names and Bochs's names.
pub(super) const MODELS: [(&str, &str); 4] = [
    ("sandy_bridge", "corei7_sandy_bridge_2600k"),
    ("haswell", "corei7_haswell_4770"),
    ("skylake_x", "corei7_skylake_x"),
    ("tigerlake", "tigerlake"),
];

const SECTOR: usize = 512;
/// Bytes of a cylinder: a disk is made of whole ones.
const CYLINDER: usize = SECTOR * 63 * 16;

impl Bochs<'_> {
    pub(super) fn run(&self, kernel: &Path, limit: Duration) -> Result<Ended, Failure> {
        let scratch = image::scratch()?;
        let write = |name: &str, contents: &[u8]| {
            let path = scratch.join(name);
            fs::write(&path, contents).map_err(|error| format!("{}: {error}", path.display()))
        };
        let disk = scratch.join("disk");
        run_command(Command::new("objcopy").args(["-O", "binary"]).arg(kernel).arg(&disk))?;
        let mut image = fs::read(&disk).map_err(|error| format!("{}: {error}", disk.display()))?;
        let sectors = image.len().div_ceil(SECTOR);
        image.resize(image.len().next_multiple_of(CYLINDER), 0);
        write("disk", &image)?;
        write("optrom.bin", &self.option_rom(&scratch, sectors)?)?;
        write("bochsrc", self.configuration(image.len() / CYLINDER).as_bytes())?;
        write("debugger", b"c\nq\n")?;

        let mut command = Command::new("bochs");
        command.args(["-q", "-f", "bochsrc", "-rc", "debugger"]).env("TERM", "dumb").current_dir(&scratch);
        let mut ended = run::watch(command, 0, limit)?;
        let read =
            |name| String::from_utf8_lossy(&fs::read(scratch.join(name)).unwrap_or_default()).into_owned();
        ended.serial = read("serial.txt");
        if !ended.succeeded {
            // What Bochs itself thought of it: panics and triple faults.
            let log = read("bochs.log");
            let said = log.lines().filter(|line| line.contains("PANIC") || line.contains("e[CPU"));
            said.for_each(|line| _ = writeln!(ended.serial, "bochs: {line}"));
        }
        let _ = fs::remove_dir_all(&scratch);
        Ok(ended)
    }

    /// The option ROM with the command line in it. All of its bytes add up to 0, or the BIOS passes it over.
    fn option_rom(&self, scratch: &Path, sectors: usize) -> Result<Vec<u8>, Failure> {
        let source = root().join("examples/machine/bochs/optrom.asm");
        let path = scratch.join("optrom.raw");
        let line = self.command_line.replace('\'', "");
        let mut nasm = Command::new("nasm");
        nasm.args(["-f", "bin", "-D", &format!("COMMAND_LINE='{line}'")]);
        nasm.args(["-D", &format!("SECTORS={sectors}")]).arg(source).arg("-o").arg(&path);
        run_command(&mut nasm)?;
        let mut rom = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let sum = rom.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
        if let Some(last) = rom.last_mut() {
            *last = last.wrapping_sub(sum);
        }
        Ok(rom)
    }

    fn configuration(&self, cylinders: usize) -> String {
        let Self { model, cpus, memory_mib, .. } = self;
        format!(
            "config_interface: textconfig\n\
             display_library: term\n\
             cpu: model={model}, count={cpus}, ips=4000000, reset_on_triple_fault=0\n\
             memory: guest={memory_mib}, host={memory_mib}\n\
             romimage: file=/usr/share/bochs/BIOS-bochs-latest\n\
             vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest\n\
             optromimage1: file=optrom.bin, address=0xd0000\n\
             ata0-master: type=disk, path=disk, mode=flat, cylinders={cylinders}, heads=16, spt=63\n\
             boot: floppy\n\
             com1: enabled=1, mode=file, dev=serial.txt\n\
             log: bochs.log\n\
             panic: action=fatal\n\
             clock: sync=none, time0=1\n"
        )
    }
}
