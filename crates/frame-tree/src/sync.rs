//! The atomics, and their stand-ins under the model checker and where they are counted.

#[cfg(not(any(loom, frame_counted)))]
pub(crate) use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
#[cfg(all(frame_counted, not(loom)))]
pub(crate) use frame_core::counted::{AtomicBool, AtomicU64, AtomicUsize};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

pub(crate) use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

/// Defines a function that is const, but under the model checker, whose atomics are not made in constants.
macro_rules! const_unless_loom {
    ($(#[$meta:meta])* $vis:vis fn $name:ident() -> $result:ty $body:block) => {
        #[cfg(not(loom))]
        $(#[$meta])*
        $vis const fn $name() -> $result $body

        #[cfg(loom)]
        $(#[$meta])*
        $vis fn $name() -> $result $body
    };
}
pub(crate) use const_unless_loom;
