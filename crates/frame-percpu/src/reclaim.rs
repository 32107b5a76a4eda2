//! Before `NoMemory`: frames that lie idle in caches.
//!
//! An allocation that the backend cannot serve goes through these steps, each followed by another try, and ends after
//! the last:
//! 1. the current CPU hands back its own slot;
//! 2. slots of CPUs whose place can be taken ([`PinCpu::claim`]) are handed back in their stead;
//! 3. every other CPU that holds frames is asked, and kicked ([`PinCpu::kick`]); those asked just now get a bounded
//!    time to answer.
//!
//! What this means for idle CPUs: nobody but the owner touches a slot, so the frames of a CPU that runs, but uses no
//! frames, come back only when it next allocates or frees, or when an interrupt sent by `kick` makes it call
//! [`drain_local`](PerCpu::drain_local). Until then `NoMemory` may be answered while up to 2015 frames lie in its slot (159
//! single ones, 1024 in two huge frames, the rest in runs).
//! A CPU that has left a request unanswered is not waited for again.

use core::hint;

use frame_core::{AllocError, FrameAllocator};

use crate::{CpuIndex, CpuSlot, PerCpu, PinCpu, Policy};

/// Turns of waiting for CPUs that were asked: some ten microseconds.
const PATIENCE: usize = 256;

impl<A: FrameAllocator, C: PinCpu, P: Policy> PerCpu<'_, A, C, P> {
    /// Tries again, after each step, what failed with `error`. The caller is pinned as `me` and works on no slot.
    #[cold]
    pub(crate) fn retry<T>(
        &self,
        me: CpuIndex,
        error: AllocError,
        mut attempt: impl FnMut(&A) -> Result<T, AllocError>,
    ) -> Result<T, AllocError> {
        let mut result = Err(error);
        if self.hand_back_own(me) {
            result = attempt(&self.backend);
            // Another error than before is not one that more free frames mend.
            if !result.as_ref().is_err_and(|again| *again == error) {
                return result;
            }
        }
        if self.recall_others(me) {
            result = attempt(&self.backend);
        }
        result
    }

    /// Step 1. True if frames came back.
    fn hand_back_own(&self, me: CpuIndex) -> bool {
        let Some(slot) = self.slot(me) else { return false };
        // SAFETY: the caller is pinned as `me`.
        match unsafe { slot.enter() } {
            Some(owned) => self.empty(me, owned) > 0,
            None => false,
        }
    }

    /// Steps 2 and 3. True if frames may have come back.
    fn recall_others(&self, me: CpuIndex) -> bool {
        let (mut emptied, mut asked) = (false, false);
        let others = || self.slots().iter().enumerate().filter(|&(index, _)| index != me.0);
        for (index, slot) in others() {
            if slot.may_hold_frames() {
                match self.recall(CpuIndex(index), slot) {
                    Recall::Emptied => emptied = true,
                    Recall::Asked => asked = true,
                    Recall::AskedBefore => {}
                }
            }
        }
        if !asked {
            return emptied;
        }
        for _ in 0..PATIENCE {
            if !others().any(|(_, slot)| slot.request.is_pending() && slot.may_hold_frames()) {
                break;
            }
            hint::spin_loop();
        }
        // Some may have answered: one more try costs little beside the waiting.
        true
    }

    /// Empties the slot of an absent CPU, or asks a present one.
    pub(crate) fn recall(&self, cpu: CpuIndex, slot: &CpuSlot) -> Recall {
        if self.cpus.claim(cpu) {
            // SAFETY: the claim keeps every other execution off, and has everything before it visible here.
            let drained = unsafe { self.drain_cpu(cpu) };
            // SAFETY: claimed above; not used after this.
            unsafe { self.cpus.release(cpu) };
            return if drained > 0 { Recall::Emptied } else { Recall::AskedBefore };
        }
        if slot.request.ask() {
            self.cpus.kick(cpu);
            return Recall::Asked;
        }
        Recall::AskedBefore
    }
}

/// What came of recalling a slot's frames.
pub(crate) enum Recall {
    /// They are back.
    Emptied,
    /// The owner was asked.
    Asked,
    /// Nothing new.
    AskedBefore,
}
