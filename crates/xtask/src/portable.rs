//! The library crates for processors that are no x86, 64-bit Arm and RISC-V: all of them build, and `examples/virt` runs
//! the allocators on simulated machines.
//!
//! There is no need to install a target: `core` and `alloc` are built from source. The source must be that of the
//! compiler, so both come from Debian 12's packages `rustc-web` and `rust-web-src`, unpacked into `target/portable`.
//! Where they cannot be had, or only an old release of them, the check says so loudly and checks nothing.

use std::{fs, path::Path, process::Command};

use crate::{
    command::{Failure, cargo, root, run},
    debian::{unpack, version},
    machine::{Outcome, virt},
    msrv::LIBRARIES,
};

const TARGETS: [&str; 2] = ["aarch64-unknown-none", "riscv64gc-unknown-none-elf"];

/// Everything that does not say x86 in its name. `vmx-structs` goes without its instructions, which are x86's own.
const FEATURES: &str = "frame-allocator/bitmap,frame-allocator/buddy,frame-allocator/multiboot2,\
                        frame-allocator/limine,frame-allocator/uefi-raw,frame-allocator/bootloader_api,\
                        frame-allocator/page_table_multiarch,frame-allocator/virtio-drivers";

/// The oldest minor release that will do: `multiboot2` asks for 1.85.1.
const OLDEST: u32 = 86;

pub(crate) fn portable() -> Result<Outcome, Failure> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Ok(Outcome::Skipped("the compiler's packages are for x86-64 Linux".into()));
    }
    let folder = root().join("target/portable");
    let compiler = folder.join("usr/bin/rustc");
    let libraries = folder.join("usr/lib/x86_64-linux-gnu");
    let is_new = |version: &str| release(version, "rustc ").is_some_and(|minor| minor >= OLDEST);
    if !is_new(&version(&compiler, &libraries))
        && let Err(reason) = fetch(&folder)
    {
        return Ok(Outcome::Skipped(format!("no compiler with its library's source ({reason})")));
    }
    let found = version(&compiler, &libraries);
    if !is_new(&found) {
        return Ok(Outcome::Skipped(format!("Debian's rustc does not run here, or is too old: {found:?}")));
    }
    println!("{}", found.trim());
    // The stable compiler builds `core` too, if it is told that it may.
    let cargo = |arguments: &[&str]| {
        let mut command = cargo(arguments);
        command.env("RUSTC", &compiler).env("LD_LIBRARY_PATH", &libraries).env("RUSTC_BOOTSTRAP", "1");
        command
    };
    let mut check =
        cargo(&["check", "--quiet", "-Zbuild-std=core,alloc", "--features", FEATURES, "--target-dir"]);
    check.arg(folder.join("build"));
    for target in TARGETS {
        check.args(["--target", target]);
    }
    for library in LIBRARIES {
        check.args(["--package", library]);
    }
    // Nothing of it is run, so nothing is to be made fast.
    check.env("CARGO_PROFILE_DEV_OPT_LEVEL", "0").env("CARGO_PROFILE_DEV_DEBUG", "0");
    run(&mut check)?;
    println!("{} libraries build for {}", LIBRARIES.len(), TARGETS.join(" and "));
    virt(cargo, &root())
}

/// Fetches the newest release that there is, and the library of the same release.
fn fetch(folder: &Path) -> Result<(), String> {
    const LIBRARY: &str = "libstd-rust-web-";
    let newest = || named(&depends("libstd-rust-web-dev"), LIBRARY);
    let is_new = |library: &str| release(library, LIBRARY).is_some_and(|minor| minor >= OLDEST);
    let mut library = newest();
    if !library.as_deref().is_some_and(is_new) {
        // The lists of packages may be missing, or older than the archive.
        let _ = Command::new("apt-get").args(["update", "--quiet"]).output();
        library = newest();
    }
    let library = library.ok_or("apt-cache knows no libstd-rust-web")?;
    if !is_new(&library) {
        return Err(format!("1.{OLDEST} or later is wanted, the newest is {library}"));
    }
    let llvm = named(&depends(&library), "libllvm").ok_or("apt-cache knows no libllvm")?;
    let packages = ["rustc-web".into(), "rust-web-src".into(), "libstd-rust-web-dev".into(), library, llvm];
    // Nothing of another release may lie there.
    let _ = fs::remove_dir_all(folder);
    unpack(folder, &packages)
}

/// What `apt-cache` says that a package depends on.
fn depends(package: &str) -> String {
    let output = Command::new("apt-cache").args(["depends", package]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// The minor release in a text such as `rustc 1.96.0`, behind `prefix`.
fn release(text: &str, prefix: &str) -> Option<u32> {
    text.strip_prefix(prefix)?.split('.').nth(1)?.parse().ok()
}

/// The package that starts with `name` in what `apt-cache depends` says.
fn named(depends: &str, name: &str) -> Option<String> {
    let packages = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    packages.map(str::to_owned).find(|package| package.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(
            release("rustc 1.96.0 (abc 2026-05-01) (built from a source tarball)", "rustc "),
            Some(96)
        );
        assert_eq!(release("libstd-rust-web-1.85", "libstd-rust-web-"), Some(85));
        assert_eq!(release("", "rustc "), None);
    }

    #[test]
    fn packages_are_found_among_the_dependencies() {
        let text = "libstd-rust-web-1.96\n  Depends: libc6\n  Depends: libllvm22\n  Conflicts: <libllvm21>\n";
        assert_eq!(named(text, "libllvm").as_deref(), Some("libllvm22"));
        assert_eq!(named(text, "libstd-rust-web-"), None);
    }
}
