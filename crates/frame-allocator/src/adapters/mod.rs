//! Faces that other crates' traits show to these allocators, each behind a feature of that crate's name.

#[cfg(all(test, any(feature = "page_table_multiarch", feature = "x86_64")))]
mod logged;
#[cfg(feature = "multiboot2")]
pub mod multiboot2;
#[cfg(feature = "page_table_multiarch")]
pub mod page_table_multiarch;
#[cfg(feature = "virtio-drivers")]
pub mod virtio_drivers;
#[cfg(feature = "x86_64")]
pub mod x86_64;
