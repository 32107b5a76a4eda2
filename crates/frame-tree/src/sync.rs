//! The atomics, and their stand-ins under the model checker and where they are counted.

#[cfg(not(any(loom, frame_counted)))]
pub(crate) use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
#[cfg(all(frame_counted, not(loom)))]
pub(crate) use frame_core::counted::{AtomicBool, AtomicU64, AtomicUsize};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

pub(crate) use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
