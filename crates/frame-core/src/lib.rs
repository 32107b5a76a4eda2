//! The vocabulary of physical frames: what an allocator of 4 KiB frames promises, and the types that own what
//! it gave.
//!
//! | you are … | start at |
//! |---|---|
//! | an embedder with a `static` allocator | [`GlobalFrames`]: name it and your linear map, get RAII frames |
//! | an embedder with your own HAL | [`FrameHal`]: three functions |
//! | a user of frames | [`PhysFrame`], [`PhysFrames`] (contiguous), [`FrameBox`] (typed) |
//! | early in boot | [`MemoryMap`], [`EarlyAllocator`], [`EarlyMemory`] |
//! | short of memory, with caches of your own to shrink | [`Reclaiming`] |
//! | writing an allocator | [`FrameAllocator`], and [`HeapFree`] if it never calls the heap |
//!
//! Sizes are counted in **frames** of [`FRAME_SIZE`] bytes and alignments in **bytes**, everywhere. Frame 0 is
//! never handed out. This crate has no backend, no heap and no lock.
#![no_std]

mod allocator;
mod boxed;
#[cfg(frame_counted)]
#[doc(hidden)]
pub mod counted;
mod early;
mod error;
mod frame;
mod frames;
mod global;
mod hal;
mod layout;
mod memory_map;
mod range;
#[cfg(target_has_atomic = "ptr")]
mod reclaim;
#[cfg(target_has_atomic = "64")]
mod stack;
mod stats;
#[cfg(target_has_atomic = "64")]
mod table;
mod watermark;

pub use allocator::{FrameAllocator, HeapFree};
pub use boxed::FrameBox;
pub use early::{EarlyAllocator, EarlyError, EarlyMemory};
pub use error::{AllocError, DeallocError, DeallocErrorKind, RegionError};
pub use frame::PhysFrame;
pub use frames::{IntoFrames, MergeError, PhysFrames};
pub use global::GlobalFrames;
pub use hal::FrameHal;
pub use layout::{FrameLayout, LayoutError};
pub use memory_map::{FrameRanges, MapError, MemoryMap};
pub use range::{FrameRange, RangeError};
#[cfg(target_has_atomic = "ptr")]
pub use reclaim::{Reclaim, ReclaimHeapFree, Reclaiming};
#[cfg(target_has_atomic = "64")]
pub use stack::FrameStack;
pub use stats::{FrameStats, FreeRuns};
#[cfg(target_has_atomic = "64")]
pub use table::{
    FrameTable, FrameTree, OwnedWord, PlainWord, TableEntry, TableMut, TableRef, TableStep, TableWalk,
    WordMut,
};
pub use watermark::CacheWatermark;

pub use axerrno::{AxError, AxResult};
pub use memory_addr::{MemoryAddr, PhysAddr, VirtAddr};

/// Bytes in a frame: 4 KiB, the granule of every architecture served.
pub const FRAME_SIZE: usize = 4096;
