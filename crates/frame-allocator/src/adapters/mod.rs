//! Faces that other crates' traits show to these allocators, and memory maps in other crates' types, each behind a
//! feature of that crate's name.

#[cfg(any(feature = "limine", feature = "uefi-raw"))]
mod boot_memory;
#[cfg(feature = "bootloader_api")]
pub mod bootloader_api;
#[cfg(feature = "limine")]
pub mod limine;
#[cfg(all(test, any(feature = "page_table_multiarch", feature = "x86_64")))]
mod logged;
#[cfg(feature = "multiboot2")]
pub mod multiboot2;
#[cfg(feature = "page_table_multiarch")]
pub mod page_table_multiarch;
#[cfg(all(
    test,
    any(feature = "bootloader_api", feature = "limine", feature = "multiboot2", feature = "uefi-raw")
))]
mod ranges;
#[cfg(feature = "uefi-raw")]
pub mod uefi_raw;
#[cfg(feature = "virtio-drivers")]
pub mod virtio_drivers;
#[cfg(feature = "x86_64")]
pub mod x86_64;

#[cfg(any(feature = "limine", feature = "uefi-raw"))]
pub use boot_memory::BootMemory;
