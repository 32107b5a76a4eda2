//! `cargo xtask seeded-faults`: puts faults into a copy of the sources, one at a time, and demands that the kernels find
//! them. Checks that never fail prove nothing.
//!
//! The copy has a target directory of its own, so that each fault builds again only what depends on it, and its kernel
//! knows two allocators only, which is a third of the code.
//!
//! A forgotten INVEPT is not among the faults: Bochs does not show it. `vmx_structs` answers a change that needs one with
//! a token that must be used, and tests that on the host.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{HypervisorArgs, KernelArgs, Outcome, ProofArgs, hypervisor, image, kernel, packages, proof};
use crate::command::{Failure, root};

/// Puts faults into a copy of the sources, one at a time, and demands that the kernels find them.
#[derive(clap::Args, Debug)]
pub(crate) struct SeededArgs {
    /// Only the faults whose description holds this text; may be given more than once
    #[arg(long)]
    only: Vec<String>,
    /// Without those that are found by a machine that hangs until its time is up
    #[arg(long)]
    quick: bool,
}

/// Who must find a fault.
#[derive(Clone, Copy)]
enum Judge {
    /// The kernel in QEMU, on 4 CPUs, with this backend. A race is a matter of luck: as many boots as this, until one
    /// finds it.
    Kernel(&'static str, usize),
    /// The hypervisor in Bochs, on one CPU.
    Hypervisor,
    /// The comparison of software and processor, in Bochs, on one CPU.
    Proof,
}

impl Judge {
    /// Whether it is the same program.
    fn is_like(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// A fault: `right` stands once in `file`, and becomes `wrong`.
struct Fault {
    what: &'static str,
    file: &'static str,
    right: &'static str,
    wrong: &'static str,
    judge: Judge,
    /// Whether the machine may hang by it.
    hangs: bool,
}

const FAULTS: [Fault; 11] = [
    Fault {
        what: "a racy allocator: a frame is taken by a load and a store",
        file: "crates/frame-tree/src/block.rs",
        right: "match row.compare_exchange_weak(free, free & (free - 1), AcqRel, Relaxed) {",
        wrong: "match { row.store(free & (free - 1), Relaxed); Ok::<u64, u64>(free) } {",
        judge: Judge::Kernel("tree", 10),
        hangs: false,
    },
    Fault {
        what: "a reused frame: one of some thousands is handed out and stays free",
        file: "crates/frame-tree/src/block.rs",
        right: "match row.compare_exchange_weak(free, free & (free - 1), AcqRel, Relaxed) {",
        wrong: "static COUNT: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);\n            \
                let keep = if COUNT.fetch_add(1, Relaxed) % 4096 == 99 { !0 } else { free - 1 };\n            \
                match row.compare_exchange_weak(free, free & keep, AcqRel, Relaxed) {",
        judge: Judge::Kernel("tree", 1),
        hangs: false,
    },
    Fault {
        what: "an interrupt works on the slot of the code that it interrupts",
        file: "crates/frame-percpu/src/slot.rs",
        right: "if self.busy.load(Relaxed) {\n            return None;\n        }\n        self.busy.store(true, Relaxed);",
        wrong: "self.busy.store(true, Relaxed);",
        judge: Judge::Kernel("percpu-tree", 3),
        hangs: true,
    },
    Fault {
        what: "the I/O bitmap is off by one bit",
        file: "crates/vmx-structs/src/bits.rs",
        right: "let (head, tail) = (u8::MAX << (first % 8), u8::MAX >> (7 - last % 8));",
        wrong: "let (first, last) = (first + 1, last + 1);\n    \
                let (head, tail) = (u8::MAX << (first % 8), u8::MAX >> (7 - last % 8));",
        judge: Judge::Hypervisor,
        hangs: false,
    },
    Fault {
        what: "the MSR bitmap's quarters are in the wrong order",
        file: "crates/vmx-structs/src/msr_bitmap.rs",
        right: "if high { base + QUARTER } else { base }",
        wrong: "if high { base } else { base + QUARTER }",
        judge: Judge::Hypervisor,
        hangs: false,
    },
    Fault {
        what: "a wrong revision identifier",
        file: "crates/vmx-structs/src/region.rs",
        right: "let word = if shadow { revision | SHADOW } else { revision };",
        wrong: "let word = if shadow { revision | SHADOW } else { revision ^ 1 };",
        judge: Judge::Hypervisor,
        hangs: false,
    },
    Fault {
        what: "page tables that are not cleared",
        file: "crates/frame-core/src/table/mod.rs",
        right: "for i in 0..WORDS {\n            // SAFETY: the frame is writable and frame-aligned",
        wrong: "for i in 0..0 {\n            // SAFETY: the frame is writable and frame-aligned",
        judge: Judge::Hypervisor,
        hangs: false,
    },
    Fault {
        what: "VM entry takes a VPID of 0, say the checks",
        file: "crates/vmx-structs/src/checks/controls.rs",
        right: "self.require(self.get(control::VPID) != 0, Rule::VpidNotZero, control::VPID);",
        wrong: "self.require(true, Rule::VpidNotZero, control::VPID);",
        judge: Judge::Proof,
        hangs: false,
    },
    Fault {
        what: "the walk passes over a reserved bit of an entry that points to a table",
        file: "crates/vmx-structs/src/ept/walk.rs",
        right: "None => 0x78 | LARGE,",
        wrong: "None => 0x70 | LARGE,",
        judge: Judge::Proof,
        hangs: false,
    },
    Fault {
        what: "an access that wraps past port 0xffff runs, says the bitmap",
        file: "crates/vmx-structs/src/io_bitmap.rs",
        right: "port.checked_add(i).is_none_or(|port| self.intercepts(port))",
        wrong: "port.checked_add(i).is_some_and(|port| self.intercepts(port))",
        judge: Judge::Proof,
        hangs: false,
    },
    Fault {
        what: "an MSR area takes the last MSR of the x2APIC",
        file: "crates/vmx-structs/src/msr_area.rs",
        right: "0x800..=0x8ff",
        wrong: "0x800..=0x8fe",
        judge: Judge::Proof,
        hangs: false,
    },
];

pub(crate) fn seeded_faults(args: &SeededArgs) -> Result<Outcome, Failure> {
    for programs in [&[packages::QEMU][..], &packages::BOCHS] {
        if let Err(why) = packages::require(programs) {
            return Ok(Outcome::Skipped(why));
        }
    }
    let copy = root().join("target/seeded-faults");
    let wanted = |fault: &&Fault| {
        let named = args.only.is_empty() || args.only.iter().any(|text| fault.what.contains(text));
        named && !(args.quick && fault.hangs)
    };
    let faults: Vec<&Fault> = FAULTS.iter().filter(wanted).collect();
    // Without a fault all must pass, or what follows means nothing.
    copy_sources(&copy)?;
    let mut judges = 0;
    for sound in [Judge::Kernel("tree", 1), Judge::Hypervisor, Judge::Proof] {
        if faults.iter().any(|fault| fault.judge.is_like(sound)) {
            judge(&copy, sound)?;
            judges += 1;
        }
    }

    let mut missed = Vec::new();
    let mut found = String::new();
    for fault in &faults {
        let start = Instant::now();
        copy_sources(&copy)?;
        seed(&copy, fault)?;
        match judge(&copy, fault.judge) {
            Err(why) => {
                let why = why.lines().next().unwrap_or_default();
                let line = format!("FOUND in {:.0} s: {}: {why}", start.elapsed().as_secs_f64(), fault.what);
                println!("{line}\n");
                found += &line;
                found += "\n";
            }
            Ok(()) => {
                println!("MISSED: {}\n", fault.what);
                missed.push(fault.what);
            }
        }
    }
    print!("{found}");
    if missed.is_empty() {
        Ok(Outcome::Passed { runs: faults.len() + judges, checks: faults.len() })
    } else {
        Err(format!("faults that were not found: {}", missed.join("; ")))
    }
}

/// Builds a program and runs it. An error in the build is no verdict: it is printed, and ends everything.
fn judge(sources: &Path, judge: Judge) -> Result<(), Failure> {
    let build = |example, binary| {
        image::build_quickly(sources, example, binary).unwrap_or_else(|error| {
            eprintln!("error: {error}");
            std::process::exit(1)
        })
    };
    match judge {
        Judge::Kernel(backend, boots) => {
            let image = build("kernel", "kernel");
            let arguments = KernelArgs::small(4, backend);
            (0..boots).try_for_each(|_| kernel::boot(&arguments, &image).map(drop))
        }
        Judge::Hypervisor => {
            hypervisor::boot(&HypervisorArgs::one(), &build("hypervisor", "hypervisor")).map(drop)
        }
        Judge::Proof => proof::boot(&ProofArgs::one(), &build("vmx-proof", "vmx-proof")).map(drop),
    }
}

/// What the examples are built of.
fn copy_sources(to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to).map_err(|error| format!("{}: {error}", to.display()))?;
    for part in ["Cargo.toml", "benches", "crates", "examples"] {
        copy(&root().join(part), &to.join(part))?;
    }
    Ok(())
}

/// Copies what differs, so that cargo builds again only what it must.
fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| format!("{path}: {error}")
    };
    if from.is_dir() {
        fs::create_dir_all(to).map_err(failed(to))?;
        for entry in fs::read_dir(from).map_err(failed(from))? {
            let path: PathBuf = entry.map_err(failed(from))?.path();
            if let Some(name) = path.file_name().filter(|&name| name != "target") {
                copy(&path, &to.join(name))?;
            }
        }
        return Ok(());
    }
    let mut contents = fs::read(from).map_err(failed(from))?;
    if from.ends_with("examples/kernel/src/main.rs") {
        contents = two_backends(&contents);
    }
    if fs::read(to).is_ok_and(|old| old == contents) {
        return Ok(());
    }
    fs::write(to, contents).map_err(failed(to))
}

/// The kernel's main function, which for each backend has a line `backends::CheckedTree::NAME => run...`, with the first
/// of these lines only: that allocator and the kernel's own.
fn two_backends(main: &[u8]) -> Vec<u8> {
    let mut seen = 0;
    let lines = main.split_inclusive(|&byte| byte == b'\n').filter(|line| {
        let names_one = line.trim_ascii_start().starts_with(b"backends::");
        seen += usize::from(names_one);
        !names_one || seen == 1
    });
    lines.flatten().copied().collect()
}

fn seed(sources: &Path, fault: &Fault) -> Result<(), Failure> {
    let path = sources.join(fault.file);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if text.matches(fault.right).count() != 1 {
        return Err(format!("the fault {:?} is out of date: {} has changed", fault.what, fault.file));
    }
    fs::write(&path, text.replace(fault.right, fault.wrong)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_its_place_in_the_sources() {
        for fault in &FAULTS {
            let text = fs::read_to_string(root().join(fault.file)).unwrap();
            assert_eq!(text.matches(fault.right).count(), 1, "{:?} in {}", fault.what, fault.file);
        }
    }

    #[test]
    fn the_kernel_of_the_copy_knows_two_allocators() {
        let main = fs::read(root().join("examples/kernel/src/main.rs")).unwrap();
        let text = String::from_utf8(two_backends(&main)).unwrap();
        assert_eq!(text.matches("=> run::<").count(), 2);
        assert!(text.contains("run::<Kernel>(boot)") && text.contains("run::<backends::PlainTree>(boot)"));
    }
}
