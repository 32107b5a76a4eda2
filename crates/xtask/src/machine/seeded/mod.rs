//! `cargo xtask seeded-faults`: puts faults into a copy of the sources, one at a time, and demands that the kernels find
//! them. Checks that never fail prove nothing.
//!
//! The copy has a target directory of its own, so that each fault builds again only what depends on it, and its kernel
//! knows four allocators only, which is half of the code.
//!
//! A fault counts as found if the machine fails by what the fault is about ([`faults::Fault::shows`]), not if it fails anyhow.
//! A forgotten INVEPT is not among the faults: Bochs does not show it. `vmx_structs` answers a change that needs one with
//! a token that must be used, and tests that on the host.

mod faults;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    HypervisorArgs, KernelArgs, Outcome, ProofArgs, VirtioArgs, hypervisor, image, kernel, packages, proof,
    virtio,
};
use crate::command::{Failure, root};
use faults::{FAULTS, Fault, Judge};

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
    for sound in [Judge::Kernel("tree", 1), Judge::Holes, Judge::Hypervisor, Judge::Proof, Judge::Virtio] {
        if faults.iter().any(|fault| fault.judge.is_like(sound)) {
            judge(&copy, sound)?;
            judges += 1;
        }
    }

    let mut missed = Vec::new();
    let mut told = String::new();
    for fault in &faults {
        let start = Instant::now();
        copy_sources(&copy)?;
        seed(&copy, fault)?;
        let why = judge(&copy, fault.judge).err();
        let verdict = match &why {
            None => "MISSED",
            Some(why) if fault.is_shown_by(why) => "FOUND",
            Some(_) => "FAILS BY ACCIDENT",
        };
        let why = why.as_deref().unwrap_or("the machine passes").lines().next().unwrap_or_default();
        let line = format!("{verdict} in {:.0} s: {}: {why}\n", start.elapsed().as_secs_f64(), fault.what);
        println!("{line}");
        told += &line;
        if verdict != "FOUND" {
            missed.push(fault.what);
        }
    }
    print!("{told}");
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
        Judge::Holes => kernel::boot(&KernelArgs::holes("tree"), &build("kernel", "kernel")).map(drop),
        Judge::Hypervisor => {
            hypervisor::boot(&HypervisorArgs::one(), &build("hypervisor", "hypervisor")).map(drop)
        }
        Judge::Proof => proof::boot(&ProofArgs::one(), &build("vmx-proof", "vmx-proof")).map(drop),
        Judge::Virtio => virtio::boot_all(&VirtioArgs::one(), &build("virtio", "virtio")).map(drop),
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
    if from.ends_with("examples/kernel/src/run.rs") {
        contents = few_backends(&contents);
    }
    if fs::read(to).is_ok_and(|old| old == contents) {
        return Ok(());
    }
    fs::write(to, contents).map_err(failed(to))
}

/// The kernel's choice, which for each backend has a line `backends::CheckedTree::NAME => ...`, without those
/// of caches: the allocators themselves and the kernel's own.
fn few_backends(main: &[u8]) -> Vec<u8> {
    let is_cache = |line: &&[u8]| {
        let line = line.trim_ascii_start();
        let is_choice = line.starts_with(b"backends::") && line.windows(2).any(|pair| pair == b"=>");
        is_choice && !line.starts_with(b"backends::Plain")
    };
    main.split_inclusive(|&byte| byte == b'\n').filter(|line| !is_cache(line)).flatten().copied().collect()
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
        for fault in FAULTS {
            let text = fs::read_to_string(root().join(fault.file)).unwrap();
            assert_eq!(text.matches(fault.right).count(), 1, "{:?} in {}", fault.what, fault.file);
        }
    }

    #[test]
    fn a_fault_that_fails_by_something_else_is_not_found() {
        let fault = FAULTS.iter().find(|fault| fault.shows == ["Misaligned"]).unwrap();
        assert!(fault.is_shown_by("tree, 4 CPUs: a line is missing; it said: Misaligned: 3 times"));
        assert!(!fault.is_shown_by("tree, 4 CPUs: a line is missing; it said: NotFree: 3 times"));
    }

    #[test]
    fn the_kernel_of_the_copy_knows_four_allocators() {
        let main = fs::read(root().join("examples/kernel/src/run.rs")).unwrap();
        let text = String::from_utf8(few_backends(&main)).unwrap();
        assert_eq!(text.matches("=> checked::<").count(), 4);
        assert!(text.contains("backends::{self, Backend, Subject},"));
        assert!(
            text.contains("checked::<Kernel>(boot)") && text.contains("checked::<backends::PlainTree>(boot)")
        );
    }
}
