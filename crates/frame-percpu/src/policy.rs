//! When is a double free found?
//!
//! A frame that lies in a cache looks allocated to the backend. Freed a second time, it may enter a cache a second
//! time and be handed out twice. The backend refuses it if it comes back there when it is free already. That may never
//! happen: both copies are handed out, one owner frees the frame, a third gets it, and the other owner's free is the
//! right one for it, as far as anybody can see. The type parameter `P` of
//! [`PerCpu`](crate::PerCpu) says what is done about it:
//!
//! | policy | a double free, or a free of a frame never managed, is found | costs | for |
//! |---|---|---|---|
//! | [`Trusting`] | if it comes back to the backend when it is free there ([`CacheStats::refusals`](crate::CacheStats)), or never | nothing | frames held by RAII types, which cannot be freed twice |
//! | [`Checked`](crate::Checked) | at once, on whatever CPU, as an error of the second free | a byte for each frame, a few instructions for each operation, an atomic exchange for a free on another CPU than the allocation | raw addresses freed by hand, and finding bugs |
//!
//! Whatever the policy, an address that is misaligned or 0 is refused at once.

use frame_core::{DeallocError, PhysAddr};

use crate::CpuIndex;

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Trusting {}
    impl Sealed for crate::Checked<'_> {}
}

/// What to do with a frame that is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Admission {
    /// It may lie in a cache.
    Keep,
    /// Only the backend knows whether it is allocated: ask it.
    AskBackend,
}

/// How a cache guards against frames that are freed twice: [`Trusting`] or [`Checked`](crate::Checked). Sealed.
pub trait Policy: sealed::Sealed + Send + Sync {
    /// Whether frames freed in bulk can go to the backend without looking at each.
    #[doc(hidden)]
    const TRUSTS: bool;

    /// A single frame comes from a caller, on `cpu`.
    #[doc(hidden)]
    fn admit(&self, frame: PhysAddr, cpu: CpuIndex) -> Result<Admission, DeallocError>;

    /// A run comes from a caller and goes to the backend.
    #[doc(hidden)]
    fn admit_run(&self, start: PhysAddr, count: usize) -> Result<(), DeallocError>;

    /// A frame goes from the slot of `cpu` to a caller. False if the slot should not have had it: it stays where it is.
    #[doc(hidden)]
    fn hand_out(&self, frame: PhysAddr, cpu: CpuIndex) -> bool;

    /// Frames came from the backend into the slot of `cpu`.
    #[doc(hidden)]
    fn take_in(&self, frames: &[PhysAddr], cpu: CpuIndex);

    /// Frames are about to go from the slot of `cpu` to the backend. Moves those that the slot should not have had to
    /// the end, and returns the number of the others.
    #[doc(hidden)]
    fn give_back(&self, frames: &mut [PhysAddr], cpu: CpuIndex) -> usize;

    /// A frame that was admitted goes to the backend after all.
    #[doc(hidden)]
    fn pass_on(&self, frame: PhysAddr);

    /// Bytes of the policy's books.
    #[doc(hidden)]
    fn metadata_bytes(&self) -> usize;
}

/// Believes that callers free what they own, once: the hot path has no check. See the [module's table](Policy).
#[derive(Clone, Copy, Debug, Default)]
pub struct Trusting;

impl Policy for Trusting {
    const TRUSTS: bool = true;

    #[inline]
    fn admit(&self, _: PhysAddr, _: CpuIndex) -> Result<Admission, DeallocError> {
        Ok(Admission::Keep)
    }
    #[inline]
    fn admit_run(&self, _: PhysAddr, _: usize) -> Result<(), DeallocError> {
        Ok(())
    }
    #[inline]
    fn hand_out(&self, _: PhysAddr, _: CpuIndex) -> bool {
        true
    }
    #[inline]
    fn take_in(&self, _: &[PhysAddr], _: CpuIndex) {}
    #[inline]
    fn give_back(&self, frames: &mut [PhysAddr], _: CpuIndex) -> usize {
        frames.len()
    }
    #[inline]
    fn pass_on(&self, _: PhysAddr) {}
    fn metadata_bytes(&self) -> usize {
        0
    }
}
