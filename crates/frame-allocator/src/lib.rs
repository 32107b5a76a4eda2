//! Physical frames of 4 KiB for kernels and hypervisors: one dependency, one `use`.
//!
//! Everything of `frame-core` is re-exported here: the [`FrameAllocator`] and [`FrameHal`] traits, the RAII types
//! [`PhysFrame`], [`PhysFrames`] and [`FrameBox`], [`MemoryMap`] and [`EarlyAllocator`]. A feature adds a backend
//! **type**; no feature changes what another means, so any combination builds.
//!
//! | feature | adds | take it when |
//! |---|---|---|
//! | `tree` (default) | `Tree` | always, unless one of the others fits better: lock-free, no heap |
//! | `percpu` (default) | `PerCpu` | there is more than one CPU, or single frames are hot: a cache over any backend |
//! | `bitmap` | `Bitmap` | you want the simplest structure and the lowest address first |
//! | `buddy` | `Buddy` | you have a heap already and want `buddy_system_allocator` underneath |
//! | `std` | `percpu::ThreadCpus` | you run on a host, where each thread is a CPU |
//! | `x86_64`, `page_table_multiarch`, `virtio-drivers` | [`adapters`] to their traits | you use that crate |
//! | `multiboot2`, `limine`, `bootloader_api`, `uefi-raw` | [`adapters`] for their memory maps | you boot with it |
#![no_std]

#[cfg(test)]
extern crate std;

pub mod adapters;
pub mod compat;

pub use frame_core::*;

#[cfg(feature = "bitmap")]
pub use frame_bitmap::{self as bitmap, Bitmap};
#[cfg(feature = "buddy")]
pub use frame_buddy::{self as buddy, Buddy};
#[cfg(feature = "percpu")]
pub use frame_percpu::{self as percpu, PerCpu};
#[cfg(feature = "tree")]
pub use frame_tree::{self as tree, Tree};

/// The workspace's README: its example is compiled here.
#[cfg(all(doctest, feature = "tree"))]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// The book's chapter for embedders: so are its examples.
#[cfg(all(doctest, feature = "tree", feature = "percpu"))]
#[doc = include_str!("../../../docs/src/embedding.md")]
struct Embedding;
