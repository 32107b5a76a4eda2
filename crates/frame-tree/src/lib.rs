#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(any(test, loom))]
extern crate std;

mod allocator;
mod bits;
mod block;
mod blocks;
mod bulk;
mod geometry;
mod hints;
mod region;
mod registry;
mod run;
mod search;
mod shard;
mod single;
mod storage;
mod sync;
mod tree;
mod walk;
mod watermark;
mod zone;

#[cfg(doc)]
#[doc = include_str!("../docs/algorithm.md")]
pub mod algorithm {}

#[cfg(all(test, not(loom)))]
mod tests;

pub use tree::Tree;
