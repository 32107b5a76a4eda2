//! Asking another CPU to give its cached frames back.
//!
//! Nobody but its CPU touches a slot, so when memory runs out the others can only be asked: one flag for each slot.
//! The owner looks at it in every operation, empties its slot into the backend, and then lowers the flag.
//!
//! Invariant: whoever sees its raised flag lowered sees the backend with the owner's frames in it. A request that
//! comes while the owner serves an earlier one is served with it: the slot is not filled again before the flag is
//! lowered.

use crate::sync::{AtomicBool, Ordering};

/// The flag of one slot.
#[derive(Debug)]
pub(crate) struct Request(pub(crate) AtomicBool);

impl Request {
    /// Asks the owner. True if it had not been asked yet: only then is waiting for an answer worth while, for an owner
    /// that left an earlier request unanswered is idle.
    pub(crate) fn ask(&self) -> bool {
        // The load spares a shared line that is already as it should be.
        !self.0.load(Ordering::Acquire) && !self.0.swap(true, Ordering::AcqRel)
    }

    /// Whether the owner has not answered yet. Acquires what the owner wrote before it did.
    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Whether somebody asked. For the owner, in every operation: a plain load.
    #[inline]
    pub(crate) fn was_made(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The owner's slot is empty and its frames are in the backend.
    pub(crate) fn answer(&self) {
        self.0.store(false, Ordering::Release);
    }
}
