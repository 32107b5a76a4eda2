//! `cargo xtask seeded-faults`: puts faults into a copy of the sources, one at a time, and demands that the kernels find
//! them. Checks that never fail prove nothing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{HypervisorArgs, KernelArgs, Outcome, hypervisor, image, kernel, packages};
use crate::command::{Failure, root};

/// Who must find a fault.
#[derive(Clone, Copy)]
enum Judge {
    /// The kernel in QEMU, on 4 CPUs, with this backend.
    Kernel(&'static str),
    /// The hypervisor in Bochs, on one CPU.
    Hypervisor,
}

/// A fault: `right` stands once in `file`, and becomes `wrong`.
struct Fault {
    what: &'static str,
    file: &'static str,
    right: &'static str,
    wrong: &'static str,
    judge: Judge,
}

const FAULTS: [Fault; 8] = [
    Fault {
        what: "a racy allocator: a frame is taken by a load and a store",
        file: "crates/frame-tree/src/block.rs",
        right: "match row.compare_exchange_weak(free, free & (free - 1), AcqRel, Relaxed) {",
        wrong: "match { row.store(free & (free - 1), Relaxed); Ok::<u64, u64>(free) } {",
        judge: Judge::Kernel("tree"),
    },
    Fault {
        what: "a reused frame: now and then the cache hands one out and keeps it",
        file: "crates/frame-percpu/src/slot.rs",
        right: "self.slot.top.store(top + 1, Relaxed);",
        wrong: "if self.slot.hits.load(Relaxed) % 4096 != 4095 { self.slot.top.store(top + 1, Relaxed); }",
        judge: Judge::Kernel("percpu-tree"),
    },
    Fault {
        what: "an interrupt works on the slot of the code that it interrupts",
        file: "crates/frame-percpu/src/slot.rs",
        right: "if self.busy.load(Relaxed) {\n            return None;\n        }\n        self.busy.store(true, Relaxed);",
        wrong: "self.busy.store(true, Relaxed);",
        judge: Judge::Kernel("percpu-tree"),
    },
    Fault {
        what: "the I/O bitmap is off by one bit",
        file: "crates/vmx-structs/src/bits.rs",
        right: "let (head, tail) = (u8::MAX << (first % 8), u8::MAX >> (7 - last % 8));",
        wrong: "let (first, last) = (first + 1, last + 1);\n    \
                let (head, tail) = (u8::MAX << (first % 8), u8::MAX >> (7 - last % 8));",
        judge: Judge::Hypervisor,
    },
    Fault {
        what: "the MSR bitmap's quarters are in the wrong order",
        file: "crates/vmx-structs/src/msr_bitmap.rs",
        right: "if high { base + QUARTER } else { base }",
        wrong: "if high { base } else { base + QUARTER }",
        judge: Judge::Hypervisor,
    },
    Fault {
        what: "a wrong revision identifier",
        file: "crates/vmx-structs/src/region.rs",
        right: "let word = if shadow { revision | SHADOW } else { revision };",
        wrong: "let word = if shadow { revision | SHADOW } else { revision ^ 1 };",
        judge: Judge::Hypervisor,
    },
    Fault {
        what: "page tables that are not cleared",
        file: "crates/frame-core/src/table.rs",
        right: "for i in 0..WORDS {\n            // SAFETY: the frame is writable and frame-aligned",
        wrong: "for i in 0..0 {\n            // SAFETY: the frame is writable and frame-aligned",
        judge: Judge::Hypervisor,
    },
    Fault {
        what: "the processor keeps translations of a VM that is gone",
        file: "examples/hypervisor/src/vm.rs",
        right: "unsafe { instructions::invept(kind, &descriptor)? };",
        wrong: "let _ = (kind, descriptor);",
        judge: Judge::Hypervisor,
    },
];

/// Finds what the kernels do not find.
pub(crate) fn seeded_faults() -> Result<Outcome, Failure> {
    for programs in [&[packages::QEMU][..], &packages::BOCHS] {
        if let Err(why) = packages::require(programs) {
            return Ok(Outcome::Skipped(why));
        }
    }
    let copy = root().join("target/seeded-faults");
    // Without a fault both must pass, or what follows means nothing.
    copy_sources(&copy)?;
    judge(&copy, Judge::Kernel("percpu-tree"))?;
    judge(&copy, Judge::Hypervisor)?;

    let mut missed = Vec::new();
    for fault in &FAULTS {
        copy_sources(&copy)?;
        seed(&copy, fault)?;
        match judge(&copy, fault.judge) {
            Err(why) => println!("FOUND: {}\n{why}\n", fault.what),
            Ok(()) => {
                println!("MISSED: {}\n", fault.what);
                missed.push(fault.what);
            }
        }
    }
    if missed.is_empty() {
        Ok(Outcome::Passed { runs: FAULTS.len() + 2, checks: FAULTS.len() })
    } else {
        Err(format!("faults that were not found: {}", missed.join("; ")))
    }
}

/// Builds and runs one program. An error in the build is no verdict: it is printed, and ends everything.
fn judge(sources: &Path, judge: Judge) -> Result<(), Failure> {
    let build = |example, binary| {
        image::build_in(sources, example, binary).unwrap_or_else(|error| {
            eprintln!("error: {error}");
            std::process::exit(1)
        })
    };
    match judge {
        Judge::Kernel(backend) => kernel::boot(&KernelArgs::on(4, backend), &build("kernel", "kernel")),
        Judge::Hypervisor => hypervisor::boot(&HypervisorArgs::one(), &build("hypervisor", "hypervisor")),
    }
    .map(drop)
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
    let contents = fs::read(from).map_err(failed(from))?;
    if fs::read(to).is_ok_and(|old| old == contents) {
        return Ok(());
    }
    fs::write(to, contents).map_err(failed(to))
}

fn seed(sources: &Path, fault: &Fault) -> Result<(), Failure> {
    let path = sources.join(fault.file);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if text.matches(fault.right).count() != 1 {
        return Err(format!("the fault {:?} is out of date: {} has changed", fault.what, fault.file));
    }
    fs::write(&path, text.replace(fault.right, fault.wrong)).map_err(|error| error.to_string())
}
