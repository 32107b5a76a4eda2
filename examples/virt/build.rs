//! Links the kernel where each machine's memory starts.

fn main() {
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let folder = env!("CARGO_MANIFEST_DIR");
    println!("cargo:rerun-if-changed={folder}/image.ld");
    // QEMU lays a device tree at the start of the Arm machine's memory.
    let start = if arch == "aarch64" { "0x40200000" } else { "0x80000000" };
    println!("cargo:rustc-link-arg-bins=--defsym=image_start={start}");
    println!("cargo:rustc-link-arg-bins=-T{folder}/image.ld");
}
