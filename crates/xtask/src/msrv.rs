//! The library crates build with the oldest compiler that they promise.
//!
//! That compiler comes from `MSRV_RUSTC` (a path), or is unpacked from Debian 12's packages `rustc-web` 1.85 into
//! `target/msrv`. Where neither can be had, the check says so loudly and checks nothing, which
//! on a machine that was made for testing is a failure.

use std::{env, path::Path};

use crate::{
    command::{Failure, cargo, root, run},
    debian::{unpack, version},
};

const VERSION: &str = "1.85.0";
pub(crate) const LIBRARIES: [&str; 7] = [
    "frame-core",
    "frame-tree",
    "frame-bitmap",
    "frame-buddy",
    "frame-percpu",
    "frame-allocator",
    "vmx-structs",
];

const FEATURES: &str = "frame-allocator/buddy,frame-allocator/bitmap,frame-allocator/x86_64,frame-allocator/limine,\
                        frame-allocator/bootloader_api,frame-allocator/page_table_multiarch,\
                        frame-allocator/virtio-drivers";

pub(crate) fn msrv() -> Result<(), Failure> {
    let folder = root().join("target/msrv");
    let compiler = match env::var_os("MSRV_RUSTC") {
        Some(path) => path.into(),
        None => folder.join("usr/bin/rustc"),
    };
    let libraries = folder.join("usr/lib/x86_64-linux-gnu");
    if !version(&compiler, &libraries).contains(VERSION)
        && let Err(reason) = fetch(&folder)
    {
        return skipped(&reason);
    }
    let found = version(&compiler, &libraries);
    if !found.contains(VERSION) {
        return skipped(&format!("found {found:?}"));
    }
    let mut check = cargo(&["check", "--target-dir"]);
    check.arg(folder.join("build")).env("RUSTC", &compiler).env("LD_LIBRARY_PATH", &libraries);
    // multiboot2 0.28 and uefi-raw 0.17 ask for 1.85.1: the adapters that need a later compiler.
    check.args(["--features", FEATURES]);
    for library in LIBRARIES {
        check.args(["--package", library]);
    }
    run(&mut check)
}

/// Nothing was checked. On a machine that was made for testing (`CI`) that is a failure, as it is in `cargo xtask test`.
fn skipped(reason: &str) -> Result<(), Failure> {
    let what =
        format!("SKIPPED: no rustc {VERSION} to check with ({reason}); set MSRV_RUSTC to the path of one");
    if env::var_os("CI").is_some() {
        return Err(what);
    }
    println!("{what}");
    Ok(())
}

/// Fetches the compiler.
fn fetch(folder: &Path) -> Result<(), String> {
    let release = "1.85.0+dfsg3-1~deb12u3";
    let packages = [
        format!("rustc-web={release}"),
        format!("libstd-rust-web-1.85={release}"),
        format!("libstd-rust-web-dev={release}"),
        "libllvm19".to_owned(),
    ];
    unpack(folder, &packages)
}
