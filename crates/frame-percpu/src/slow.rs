//! Off the hit paths: empty and full stacks, slots in use, requests to give back, and operations that pass by.
//!
//! A hit path that does not succeed at once calls one function here, and that looks at everything again.

use core::num::NonZeroUsize;

use frame_core::{AllocError, DeallocError, FrameAllocator, FrameLayout, PhysAddr};

use crate::{
    CpuIndex, PerCpu, PinCpu, Policy,
    slot::{Owned, is_frame},
    stacks::Order,
};

impl<A: FrameAllocator, C: PinCpu, P: Policy> PerCpu<'_, A, C, P> {
    /// There is no run of the order at hand, or the layout has no order that slots keep, or the policy checks.
    #[inline(never)]
    pub(crate) fn alloc_slow(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        if layout.is_single() {
            return self.alloc_frame();
        }
        if P::TRUSTS {
            let (cpu, _pin) = self.cpus.pin();
            if let Some(order) = Order::of(layout) {
                // SAFETY: pinned as `cpu` until the end of the block.
                if let (_, Some(mut owned)) = unsafe { self.enter(cpu) } {
                    if owned.look_around(&self.backend, order) {
                        if let Some(run) = owned.pop_run(order) {
                            return Ok(run);
                        }
                    }
                    owned.note_missing_run(&self.backend);
                }
            }
        }
        self.past(|backend| backend.alloc(layout))
    }

    /// The stack of the order is full, or the run does not belong there, or the layout has no order that slots keep, or
    /// the policy checks.
    ///
    /// # Safety
    /// The caller owns the frames.
    #[inline(never)]
    pub(crate) unsafe fn dealloc_slow(
        &self,
        start: PhysAddr,
        layout: FrameLayout,
    ) -> Result<(), DeallocError> {
        if layout.is_single() {
            if !P::TRUSTS {
                // SAFETY: the caller's promise for the layout is the promise for one frame.
                return unsafe { self.dealloc_frame(start) };
            }
            // The hit path has tried already.
            let (cpu, _pin) = self.cpus.pin();
            // SAFETY: pinned as `cpu`; the pin is dropped after `owned`. The caller owns the frame.
            return unsafe {
                match self.at_hand(cpu) {
                    Some(owned) => self.dealloc_elsewhere(owned, cpu, start),
                    None => self.dealloc_bypass(cpu, start),
                }
            };
        }
        if P::TRUSTS {
            let (cpu, _pin) = self.cpus.pin();
            // SAFETY: pinned as `cpu` until the end of the block.
            if let (Some(order), (_, Some(mut owned))) = (Order::of(layout), unsafe { self.enter(cpu) }) {
                if owned.look_around(&self.backend, order) && owned.push_run(order, start) {
                    return Ok(());
                }
                if owned.keeps_run(order, start) {
                    owned.halve_runs(&self.backend, order);
                    if owned.push_run(order, start) {
                        return Ok(());
                    }
                }
            }
        }
        self.serve_request();
        if !P::TRUSTS && start.as_usize() % layout.align() == 0 {
            self.policy.admit_run(start, layout.count()).map_err(|refusal| self.lowest(start, refusal))?;
        }
        // SAFETY: the caller owns the frames.
        unsafe { self.backend.dealloc(start, layout) }
    }

    /// The slot was busy, or its owner was asked, or it is empty, or there is none. `None` is `NoMemory`, and goes
    /// through a register where a `Result` would go through memory.
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_frame_slow(&self, cpu: CpuIndex) -> Option<NonZeroUsize> {
        // SAFETY: the caller is pinned as `cpu`.
        let (cpu, owned) = unsafe { self.enter(cpu) };
        if let Some(mut owned) = owned {
            loop {
                match owned.pop() {
                    Some(frame) if self.policy.hand_out(frame, cpu) => {
                        return NonZeroUsize::new(frame.as_usize());
                    }
                    Some(_) => owned.count_refusal(),
                    None if owned.was_asked() => {
                        self.empty(cpu, owned);
                        break;
                    }
                    // Not empty: the period ended with the frame before.
                    None if owned.look_around(&self.backend, Order::FRAME) => {}
                    None if self.refill(&mut owned, cpu) == 0 => break,
                    None => {}
                }
            }
        }
        let attempt = |backend: &A| backend.alloc_frame();
        let frame = attempt(&self.backend).or_else(|_| self.retry(cpu, AllocError::NoMemory, attempt));
        NonZeroUsize::new(frame.ok()?.as_usize())
    }

    /// The stack is full, or the owner was asked to hand everything back, or the frame does not belong on the stack.
    ///
    /// # Safety
    /// The caller owns the frame; the policy has admitted it on `cpu`, whose slot `owned` is.
    #[inline(never)]
    pub(crate) unsafe fn dealloc_elsewhere(
        &self,
        mut owned: Owned<'_>,
        cpu: CpuIndex,
        frame: PhysAddr,
    ) -> Result<(), DeallocError> {
        let filter = |frames: &mut [PhysAddr]| self.policy.give_back(frames, cpu);
        if is_frame(frame) && !owned.was_asked() {
            let period_over = owned.look_around(&self.backend, Order::FRAME);
            if owned.keeps(frame) {
                if !period_over {
                    owned.spill(&self.backend, filter);
                }
                // The watermark may have moved, and the stack may be full even so.
                if owned.push(frame) {
                    return Ok(());
                }
            }
            owned.push_return(&self.backend, frame, filter);
            return Ok(());
        }
        if owned.was_asked() {
            self.empty(cpu, owned);
        }
        self.policy.pass_on(frame);
        // SAFETY: the caller owns the frame, and no slot has taken it.
        unsafe { self.backend.dealloc_frame(frame) }
    }

    /// There is no slot, or it is busy.
    ///
    /// # Safety
    /// The caller owns the frame and is pinned as `cpu`; the policy has admitted it.
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn dealloc_bypass(&self, cpu: CpuIndex, frame: PhysAddr) -> Result<(), DeallocError> {
        // SAFETY: the caller is pinned as `cpu`.
        let (cpu, owned) = unsafe { self.enter(cpu) };
        if let Some(mut owned) = owned {
            // It was admitted under another index if the caller was enlisted just now.
            self.policy.take_in(&[frame], cpu);
            if owned.push(frame) {
                return Ok(());
            }
            // SAFETY: the caller owns the frame.
            return unsafe { self.dealloc_elsewhere(owned, cpu, frame) };
        }
        self.policy.pass_on(frame);
        // SAFETY: the caller owns the frame, and no slot has taken it.
        unsafe { self.backend.dealloc_frame(frame) }
    }

    /// Only the backend knows whether the frame is allocated.
    ///
    /// # Safety
    /// The caller owns the frame.
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn dealloc_past(&self, frame: PhysAddr) -> Result<(), DeallocError> {
        self.serve_request();
        // SAFETY: the caller owns the frame, which lies in no slot: so says the policy.
        unsafe { self.backend.dealloc_frame(frame) }
    }

    /// A run was refused for a frame that lies in a slot; a lower frame of it may be free in the backend.
    #[cold]
    fn lowest(&self, start: PhysAddr, refusal: DeallocError) -> DeallocError {
        let mut lowest = refusal;
        self.backend.visit_free(&mut |run| {
            if run.end() > start && run.start() < lowest.frame {
                lowest.frame = run.start().max(start);
            }
        });
        lowest
    }

    /// Fills an empty stack. Returns how many frames it got.
    pub(crate) fn refill(&self, owned: &mut Owned<'_>, cpu: CpuIndex) -> usize {
        owned.refill(&self.backend, cpu, |frames| self.policy.take_in(frames, cpu))
    }

    /// Takes up to `into.len()` frames off the stack. Returns how many.
    pub(crate) fn pop_many(&self, owned: &mut Owned<'_>, cpu: CpuIndex, into: &mut [PhysAddr]) -> usize {
        let mut done = 0;
        while done < into.len() {
            let Some(frame) = owned.pop() else {
                // Not empty, perhaps: the period ended with the frame before.
                if owned.look_around(&self.backend, Order::FRAME) {
                    continue;
                }
                break;
            };
            if self.policy.hand_out(frame, cpu) {
                into[done] = frame;
                done += 1;
            } else {
                owned.count_refusal();
            }
        }
        done
    }

    /// Takes the slot for one operation, if there is one and it is at rest: the way of all hits.
    ///
    /// # Safety
    /// As [`CpuSlot::enter`](crate::CpuSlot), with the caller pinned as `cpu`.
    #[inline(always)]
    pub(crate) unsafe fn at_hand(&self, cpu: CpuIndex) -> Option<Owned<'_>> {
        // SAFETY: promised by the caller.
        unsafe { self.slot(cpu)?.enter() }
    }

    /// Takes the slot for one operation, unless there is none, or the operation interrupts another one, or the owner
    /// was asked to hand everything back: that is done here and now, and the operation goes to the backend. The index
    /// is that of the slot: an execution that had none may get one here, and has it from then on.
    ///
    /// # Safety
    /// As [`CpuSlot::enter`], with the caller pinned as `cpu`.
    pub(crate) unsafe fn enter(&self, cpu: CpuIndex) -> (CpuIndex, Option<Owned<'_>>) {
        let cpu = if self.slot(cpu).is_some() { cpu } else { self.cpus.enlist(cpu) };
        let Some(slot) = self.slot(cpu) else { return (cpu, None) };
        // SAFETY: the caller is pinned as `cpu`, of old or as of now.
        let Some(owned) = (unsafe { slot.enter() }) else {
            slot.count_bypass();
            return (cpu, None);
        };
        if owned.was_asked() {
            self.empty(cpu, owned);
            return (cpu, None);
        }
        (cpu, Some(owned))
    }

    /// Operations that pass the slot by are operations too: if the owner was asked, it answers.
    pub(crate) fn serve_request(&self) {
        let (cpu, _pin) = self.cpus.pin();
        if self.slot(cpu).is_some_and(|slot| slot.request.length() == 0) {
            // SAFETY: pinned as `cpu` until the end of the function.
            unsafe { self.enter(cpu) };
        }
    }

    /// An allocation that passes the slot by: frames that lie in slots may be what is missing.
    pub(crate) fn past<T>(
        &self,
        mut attempt: impl FnMut(&A) -> Result<T, AllocError>,
    ) -> Result<T, AllocError> {
        self.serve_request();
        match attempt(&self.backend) {
            Err(error @ (AllocError::NoMemory | AllocError::InUse)) => {
                let (cpu, _pin) = self.cpus.pin();
                self.retry(cpu, error, attempt)
            }
            result => result,
        }
    }
}
