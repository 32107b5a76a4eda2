//! The library crates build with the oldest compiler that they promise.
//!
//! That compiler comes from `MSRV_RUSTC` (a path), or is unpacked from Debian 12's packages `rustc-web` 1.85 into
//! `target/msrv`. Where neither can be had, the check says so loudly and checks nothing.

use std::{env, fs, path::Path, process::Command};

use crate::command::{Failure, cargo, root, run};

const VERSION: &str = "1.85.0";
const LIBRARIES: [&str; 7] = [
    "frame-core",
    "frame-tree",
    "frame-bitmap",
    "frame-buddy",
    "frame-percpu",
    "frame-allocator",
    "vmx-structs",
];

pub(crate) fn msrv() -> Result<(), Failure> {
    let folder = root().join("target/msrv");
    let compiler = match env::var_os("MSRV_RUSTC") {
        Some(path) => path.into(),
        None => folder.join("usr/bin/rustc"),
    };
    let libraries = folder.join("usr/lib/x86_64-linux-gnu");
    if !version(&compiler, &libraries).contains(VERSION)
        && let Err(reason) = unpack(&folder)
    {
        println!("SKIPPED: no rustc {VERSION} to check with ({reason}); set MSRV_RUSTC to the path of one");
        return Ok(());
    }
    let found = version(&compiler, &libraries);
    if !found.contains(VERSION) {
        println!(
            "SKIPPED: no rustc {VERSION} to check with (found {found:?}); set MSRV_RUSTC to the path of one"
        );
        return Ok(());
    }
    let mut check = cargo(&["check", "--target-dir"]);
    check.arg(folder.join("build")).env("RUSTC", &compiler).env("LD_LIBRARY_PATH", &libraries);
    // multiboot2 0.28 asks for 1.85.1: the one adapter that needs a later compiler.
    check.args(["--features", "frame-allocator/buddy,frame-allocator/bitmap,frame-allocator/x86_64"]);
    for library in LIBRARIES {
        check.args(["--package", library]);
    }
    run(&mut check)
}

/// What the compiler says of itself; empty if it cannot be run.
fn version(compiler: &Path, libraries: &Path) -> String {
    let output = Command::new(compiler).arg("--version").env("LD_LIBRARY_PATH", libraries).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// Fetches the compiler's packages without installing them: they would take the place of others.
fn unpack(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    let release = "1.85.0+dfsg3-1~deb12u3";
    let packages = [
        format!("rustc-web={release}"),
        format!("libstd-rust-web-1.85={release}"),
        format!("libstd-rust-web-dev={release}"),
        "libllvm19".to_owned(),
    ];
    let fetched = Command::new("apt-get").arg("download").args(&packages).current_dir(folder).output();
    if !fetched.map_err(|error| format!("apt-get: {error}"))?.status.success() {
        return Err("apt-get has no such packages".into());
    }
    for file in fs::read_dir(folder).map_err(|error| error.to_string())?.flatten() {
        let path = file.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg").arg("-x").arg(&path).arg(folder))?;
        }
    }
    Ok(())
}
