//! The atomics of the request flag, named in one place: the model checker's test puts its own here.

pub(crate) use core::sync::atomic::{AtomicUsize, Ordering};
