//! What tests of frame allocators need: memory to pretend with, judges that do not trust the judged, and one suite
//! that every backend passes.
//!
//! | you are testing … | start at |
//! |---|---|
//! | an allocator | [`backend!`] and [`conformance_suite!`]: two lines give the whole suite |
//! | code that owns frames (`PhysFrame<H>`) | [`test_hal!`]: leaks, double frees and writes after a free fail the test |
//! | what happens when memory runs out | [`TestHal::each_failure`], [`FaultInjecting`] |
//! | a long run of anything | [`Watch`]: an ownership check around any allocator |
//!
//! Judges: [`Oracle`] is an allocator that is slow and obviously right; [`FrameSet`] is a set of frames; [`Judge`]
//! drives an allocator and compares every answer with such a set. Input: [`firmware`] maps of real machines and
//! [`random_map`].
//!
//! Without the feature `std` the simulated memory, the HAL and the threads are left out; the rest needs `alloc`
//! only and runs in a kernel.
#![no_std]
// A test kit reports a fault by a panic, everywhere.
#![allow(clippy::missing_panics_doc)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod backend;
pub mod conformance;
mod fault;
pub mod firmware;
mod frame_set;
#[cfg(feature = "std")]
mod hal;
mod judge;
#[cfg(feature = "std")]
mod memory;
mod metadata;
mod oracle;
mod random;
mod watch;

pub use backend::Backend;
pub use fault::{FaultInjecting, Faults};
pub use frame_set::FrameSet;
#[cfg(feature = "std")]
pub use hal::{HalState, HalTag, SimHal, TestHal};
pub use judge::Judge;
#[cfg(feature = "std")]
pub use memory::SimMemory;
pub use metadata::Metadata;
pub use oracle::{Oracle, OracleBackend};
pub use random::{Rng, random_map, random_ranges};
pub use watch::Watch;

#[doc(hidden)]
pub use alloc::vec::Vec as __Vec;
#[doc(hidden)]
pub use frame_core;
