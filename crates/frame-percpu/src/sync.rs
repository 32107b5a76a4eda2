//! The atomics of slots, named in one place: the model checker's test puts its own here, and a build with
//! `--cfg frame_counted` those that are counted.

#[cfg(not(frame_counted))]
pub(crate) use core::sync::atomic::{AtomicBool, AtomicUsize};
#[cfg(frame_counted)]
pub(crate) use frame_core::counted::{AtomicBool, AtomicUsize};

pub(crate) use core::sync::atomic::Ordering;
