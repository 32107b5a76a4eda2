//! The build script of every bare-metal example (`build = "../machine/link.rs"`): links it at 1 MiB, without any
//! start-up code or library of the host.

fn main() {
    let machine = concat!(env!("CARGO_MANIFEST_DIR"), "/../machine");
    println!("cargo:rerun-if-changed={machine}/image.ld");
    println!("cargo:rerun-if-changed={machine}/link.rs");
    for arg in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,-z,max-page-size=0x1000",
        "-Wl,-z,noexecstack",
        "-Wl,--gc-sections",
        &format!("-Wl,-T,{machine}/image.ld"),
    ] {
        println!("cargo:rustc-link-arg-bins={arg}");
    }
}
