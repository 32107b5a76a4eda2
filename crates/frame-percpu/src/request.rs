//! Asking another CPU to give its cached frames back.
//!
//! Nobody but its CPU touches a slot, so when memory runs out the others can only be asked: one word for each slot.
//! The owner looks at it in every operation, empties its slot into the backend, and then answers.
//!
//! The word is the length of the slot's stack, with which the owner compares in every operation anyway: a request sets
//! it to 0, so that the stack looks both empty and full, and the operation leaves its hot path. Looking costs nothing.
//!
//! Invariants:
//! - The word is [`STACK`] or 0.
//! - Whoever sees its request answered sees the backend with the owner's frames in it. A request that comes while the
//!   owner serves an earlier one is served with it: the slot is not filled again before the answer.

use crate::sync::{AtomicUsize, Ordering};

/// Frames that a slot keeps to hand out again.
pub(crate) const STACK: usize = 128;

/// The word of one slot.
#[derive(Debug)]
pub(crate) struct Request(pub(crate) AtomicUsize);

impl Request {
    /// Asks the owner. True if it had not been asked yet.
    pub(crate) fn ask(&self) -> bool {
        // The load spares a shared line that is already as it should be.
        self.0.load(Ordering::Acquire) != 0 && self.0.swap(0, Ordering::AcqRel) != 0
    }

    /// Whether the owner has not answered yet. Acquires what the owner wrote before it did.
    pub(crate) fn is_pending(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }

    /// The length of the stack; 0 if somebody asked. For the owner, in every operation: a plain load.
    #[inline]
    pub(crate) fn length(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// The owner's slot is empty and its frames are in the backend.
    pub(crate) fn answer(&self) {
        self.0.store(STACK, Ordering::Release);
    }
}
