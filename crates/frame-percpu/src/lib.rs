#![doc = include_str!("../README.md")]
#![no_std]
#![warn(unreachable_pub)]

#[cfg(feature = "std")]
extern crate std;

mod allocator;
mod asked;
mod cache;
mod checked;
mod clear;
mod cpu;
mod keep;
mod policy;
mod reclaim;
mod request;
mod slot;
mod slow;
mod stacks;
mod stats;
mod sync;
#[cfg(feature = "std")]
mod thread;
mod zero_pool;

pub use cache::{AttachError, PerCpu};
pub use checked::Checked;
pub use cpu::{CpuIndex, FnCpus, PinCpu};
pub use policy::{Policy, Trusting};
pub use slot::CpuSlot;
pub use stats::CacheStats;
#[cfg(feature = "std")]
pub use thread::ThreadCpus;
pub use zero_pool::ZeroPool;
