//! Notes what the program was built from: the compiler, and the packages that the backends stand on. A report shows them.

use std::{env, fs, path::Path, process::Command};

/// Packages whose versions a report shows, each with the crate that stands on it: others may use another version.
const PACKAGES: [(&str, &str); 4] = [
    ("frame-buddy", "buddy_system_allocator"),
    ("frame-bitmap", "bitmap-allocator"),
    ("frame-buddy", "lock_api"),
    ("frame-buddy", "spin"),
];

fn main() {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().ok();
    let version = version.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    println!("cargo::rustc-env=LAB_RUSTC={}", version.unwrap_or_else(|| "rustc (version unknown)".into()));

    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    println!("cargo::rerun-if-changed=build.rs");
    let lock = fs::read_to_string(lock).unwrap_or_default();
    let versions: Vec<String> =
        PACKAGES.iter().filter_map(|(user, name)| version_in(&lock, user, name)).collect();
    println!("cargo::rustc-env=LAB_PACKAGES={}", versions.join(", "));
    println!("cargo::rustc-env=LAB_PROFILE={}", env::var("PROFILE").unwrap_or_default());
}

/// `name version` of the package that `user` depends on, from the text of a lock file.
fn version_in(lock: &str, user: &str, name: &str) -> Option<String> {
    let entry = |name: &str, version: &str| {
        let start = format!("\nname = \"{name}\"\nversion = \"{version}");
        lock.split("[[package]]").find(|entry| entry.starts_with(&start))
    };
    // The lock file names the version here only where there are several.
    let of_user = entry(user, "")?.split('"').find(|word| word.split(' ').next() == Some(name))?;
    let entry = entry(name, of_user.split(' ').nth(1).unwrap_or_default())?;
    let version = entry.split("version = \"").nth(1)?.split('"').next()?;
    Some(format!("{name} {version}"))
}
