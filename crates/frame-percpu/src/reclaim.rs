//! Before `NoMemory`: frames that lie idle in caches.
//!
//! An allocation that the backend cannot serve goes through these steps, each followed by another try, and ends after
//! the last:
//! 1. the current CPU hands back its own slot;
//! 2. slots of CPUs whose place can be taken ([`PinCpu::claim`]) are handed back in their stead;
//! 3. every other CPU that holds frames is asked, and kicked ([`PinCpu::kick`]) once for each answer that it owes; those who are
//!    not known to be idle get a bounded time to answer.
//!
//! What this means for idle CPUs: nobody but the owner touches a slot, so the frames of a CPU that runs, but uses no
//! frames, come back only when it next allocates or frees, or when an interrupt sent by `kick` makes it call
//! [`drain_local`](PerCpu::drain_local). Until then `NoMemory` may be answered while up to 2015 frames lie in its slot (159
//! single ones, 1024 in two huge frames, the rest in runs).
//! A CPU for which somebody waited in vain is not waited for again until it has answered.
//!
//! An interrupt that found its own CPU's slot in use cannot empty it. It asks for that as if it were another CPU, and the
//! operation that it interrupted, or the next, gives back. Itself it may get `NoMemory` while frames lie in that slot.

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
            None => {
                slot.request.ask();
                false
            }
        }
    }

    /// Steps 2 and 3. True if frames may have come back.
    fn recall_others(&self, me: CpuIndex) -> bool {
        let others = || {
            let slots = self.slots().iter().enumerate();
            slots.filter(move |&(index, slot)| index != me.0 && slot.may_hold_frames())
        };
        let mut emptied = false;
        for (index, slot) in others() {
            emptied |= self.recall(CpuIndex(index), slot) > 0;
        }
        let (mut patience, mut waited) = (PATIENCE, false);
        for (_, slot) in others() {
            let pending = || slot.request.is_pending() && slot.may_hold_frames();
            let Some(awaited) = slot.asked.awaited().filter(|_| pending()) else { continue };
            waited = true;
            while patience > 0 && pending() {
                patience -= 1;
                hint::spin_loop();
            }
            if pending() {
                slot.asked.give_up(awaited);
            }
        }
        if !waited {
            return emptied;
        }
        // Some may have answered: one more try costs little beside the waiting.
        true
    }

    /// Empties the slot of an absent CPU, or asks a present one. Returns how many frames came back.
    pub(crate) fn recall(&self, cpu: CpuIndex, slot: &CpuSlot) -> usize {
        if self.cpus.claim(cpu) {
            // SAFETY: the claim keeps every other execution off, and has everything before it visible here.
            let drained = unsafe { self.drain_cpu(cpu) };
            // SAFETY: claimed above; not used after this.
            unsafe { self.cpus.release(cpu) };
            return drained;
        }
        slot.request.ask();
        if slot.asked.is_to_be_kicked() {
            self.cpus.kick(cpu);
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use frame_core::{DeallocError, FrameLayout, FrameRange, FrameStats, PhysAddr};

    use super::*;
    use crate::FnCpus;

    /// A backend that has nothing, and swallows what it is given.
    struct Nothing;

    // SAFETY: it hands out no frame.
    unsafe impl FrameAllocator for Nothing {
        fn alloc(&self, _: FrameLayout) -> Result<PhysAddr, AllocError> {
            Err(AllocError::NoMemory)
        }
        unsafe fn dealloc(&self, _: PhysAddr, _: FrameLayout) -> Result<(), DeallocError> {
            Ok(())
        }
        fn stats(&self) -> FrameStats {
            FrameStats::default()
        }
        fn visit_free(&self, _: &mut dyn FnMut(FrameRange)) {}
    }

    #[test]
    fn whoever_was_asked_is_waited_for_once() {
        let current = AtomicUsize::new(0);
        // SAFETY: one thread plays all CPUs, one operation after another.
        let cpus = unsafe { FnCpus::new(|| (), || current.load(Relaxed)) };
        let mut slots = [const { CpuSlot::new() }; 3];
        let cache = PerCpu::new(Nothing, cpus);
        cache.attach(&mut slots).unwrap();
        let frame_on_cpu_2 = || {
            current.store(2, Relaxed);
            // SAFETY: nobody else has the frame: the backend forgets it.
            unsafe { cache.dealloc_frame(PhysAddr::from(4096)) }.unwrap();
        };
        let idle = || cache.slots()[2].asked.awaited().is_none();

        for _ in 0..2 {
            // The first is set aside, or answers a request.
            frame_on_cpu_2();
            frame_on_cpu_2();
            assert!(cache.slots()[2].may_hold_frames());
            // CPU 1 has asked, and does not wait. CPU 0 finds that somebody has asked, and waits all the same.
            current.store(1, Relaxed);
            cache.request_drain();
            assert!(!idle());
            current.store(0, Relaxed);
            assert_eq!(cache.alloc_frame(), Err(AllocError::NoMemory));
            assert!(idle(), "nobody waited for CPU 2");
        }
    }
}
