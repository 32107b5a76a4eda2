//! The cache as an allocator: what goes through a slot, and what passes by.
//!
//! | request | way |
//! |---|---|
//! | one frame | the slot; empty or full, a batch moves between it and the backend |
//! | up to [`SMALL`] frames in bulk | the slot, refilled once |
//! | a run of 2, 4 ... 32 or 512 frames, aligned to no more than its size | under a trusting policy, the order's stack if it has one or the run is freed; else the backend |
//! | more in bulk, other runs, `alloc_at`, `alloc_in` | the backend |
//! | anything from an interrupt that found the slot busy | the backend |
//!
//! Every way ends in [`retry`](PerCpu) before it fails for want of free frames.
//!
//! The hit paths are written to compile to straight code without a call or a bounds check: what they do not do
//! themselves is behind one `#[cold]` function each, which looks at everything again.

use frame_core::{
    AllocError, CacheWatermark, DeallocError, FrameAllocator, FrameLayout, FrameRange, FrameStats, HeapFree,
    PhysAddr,
};

use crate::{PerCpu, PinCpu, Policy, policy::Admission, slot::BATCH, stacks::Order};

/// Frames that a bulk request may ask for and still be served from the slot: more would empty it to no use.
const SMALL: usize = BATCH / 2;

// SAFETY: a frame that is handed out comes from the backend, directly or through a slot. A slot holds only frames that
// the backend handed to it or that callers, who owned them, gave back; it forgets each when it hands it out or back, and
// at most one execution works on it at a time (see `slot`). So a frame is owned by the backend, by one slot or by one
// caller, and exclusiveness follows from the backend's. A slot keeps frame-aligned, non-zero addresses only, for
// layouts that ask for no more. The cache never writes to a frame. A refused free is refused by the backend, or by the
// policy before anything changed.
unsafe impl<A: FrameAllocator, C: PinCpu, P: Policy> FrameAllocator for PerCpu<'_, A, C, P> {
    #[inline]
    fn alloc(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        if P::TRUSTS {
            if let Some(order) = Order::of(layout) {
                let (cpu, _pin) = self.cpus.pin();
                // SAFETY: pinned as `cpu`; the pin is dropped after `owned`.
                let owned = unsafe { self.at_hand(cpu) };
                if let Some(run) = owned.and_then(|mut owned| owned.pop_run(order)) {
                    return Ok(run);
                }
            }
        }
        self.alloc_slow(layout)
    }

    #[inline]
    unsafe fn dealloc(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
        if P::TRUSTS {
            if let Some(order) = Order::of(layout) {
                let (cpu, _pin) = self.cpus.pin();
                // SAFETY: pinned as `cpu`; the pin is dropped after `owned`.
                let owned = unsafe { self.at_hand(cpu) };
                if owned.is_some_and(|mut owned| owned.push_run(order, start)) {
                    return Ok(());
                }
            }
        }
        // SAFETY: the caller owns the frames.
        unsafe { self.dealloc_slow(start, layout) }
    }

    #[inline]
    fn alloc_frame(&self) -> Result<PhysAddr, AllocError> {
        let (cpu, _pin) = self.cpus.pin();
        // SAFETY: pinned as `cpu`; the pin is dropped after `owned`.
        if let Some(mut owned) = unsafe { self.at_hand(cpu) } {
            if let Some(frame) = owned.pop() {
                if self.policy.hand_out(frame, cpu) {
                    return Ok(frame);
                }
                owned.count_refusal();
            }
        }
        self.alloc_frame_slow(cpu).map(|frame| PhysAddr::from_usize(frame.get())).ok_or(AllocError::NoMemory)
    }

    #[inline]
    unsafe fn dealloc_frame(&self, frame: PhysAddr) -> Result<(), DeallocError> {
        let (cpu, _pin) = self.cpus.pin();
        if self.policy.admit(frame, cpu)? == Admission::AskBackend {
            // SAFETY: the caller owns the frame.
            return unsafe { self.dealloc_past(frame) };
        }
        // SAFETY: pinned as `cpu`; the pin is dropped after `owned`.
        if let Some(mut owned) = unsafe { self.at_hand(cpu) } {
            if owned.take_in(frame) {
                return Ok(());
            }
            // SAFETY: the caller owns the frame.
            return unsafe { self.dealloc_elsewhere(owned, cpu, frame) };
        }
        // SAFETY: the caller owns the frame.
        unsafe { self.dealloc_bypass(cpu, frame) }
    }

    fn stats(&self) -> FrameStats {
        let backend = self.backend.stats();
        let cached = self.cached_frames();
        FrameStats {
            // Taken while others run, a frame on its way may be seen on both sides.
            free_frames: (backend.free_frames + cached).min(backend.total_frames),
            cached_frames: backend.cached_frames + cached,
            metadata_bytes: backend.metadata_bytes + size_of_val(self.slots()) + self.policy.metadata_bytes(),
            ..backend
        }
    }

    fn visit_free(&self, visit: &mut dyn FnMut(FrameRange)) {
        self.backend.visit_free(visit);
    }

    fn alloc_bulk(&self, frames: &mut [PhysAddr]) -> usize {
        let (cpu, _pin) = self.cpus.pin();
        let mut done = 0;
        // SAFETY: pinned as `cpu` until the end of the function.
        let (cpu, owned) = unsafe { self.enter(cpu) };
        if let Some(mut owned) = owned {
            if frames.len() <= SMALL {
                done = self.pop_many(&mut owned, cpu, frames);
                if done < frames.len() && owned.stacked() == 0 && self.refill(&mut owned, cpu) > 0 {
                    done += self.pop_many(&mut owned, cpu, &mut frames[done..]);
                }
            }
        }
        if done < frames.len() {
            done += self.backend.alloc_bulk_for(cpu.0, &mut frames[done..]);
        }
        if done < frames.len() {
            let _ = self.retry(cpu, AllocError::NoMemory, |backend| {
                done += backend.alloc_bulk_for(cpu.0, &mut frames[done..]);
                if done < frames.len() { Err(AllocError::NoMemory) } else { Ok(()) }
            });
        }
        done
    }

    unsafe fn dealloc_bulk(&self, frames: &[PhysAddr]) -> Result<(), DeallocError> {
        if frames.len() <= SMALL {
            let mut result = Ok(());
            for &frame in frames {
                // SAFETY: the caller owns each frame.
                let freed = unsafe { self.dealloc_frame(frame) };
                result = result.and(freed);
            }
            return result;
        }
        self.serve_request();
        if P::TRUSTS {
            // SAFETY: the caller owns each frame.
            return unsafe { self.backend.dealloc_bulk(frames) };
        }
        // What the policy refuses is left out; what lies between goes to the backend together.
        let mut result = Ok(());
        let mut rest = frames;
        while !rest.is_empty() {
            let mut refusal = Ok(());
            let admitted = rest
                .iter()
                .position(|&frame| {
                    refusal = self.policy.admit_run(frame, 1);
                    refusal.is_err()
                })
                .unwrap_or(rest.len());
            // SAFETY: the caller owns each frame.
            let freed = unsafe { self.backend.dealloc_bulk(&rest[..admitted]) };
            result = result.and(freed).and(refusal);
            rest = rest.get(admitted + 1..).unwrap_or_default();
        }
        result
    }

    fn alloc_at(&self, range: FrameRange) -> Result<(), AllocError> {
        self.past(|backend| backend.alloc_at(range))
    }

    fn alloc_in(&self, layout: FrameLayout, window: FrameRange) -> Result<PhysAddr, AllocError> {
        self.past(|backend| backend.alloc_in(layout, window))
    }

    #[inline]
    fn cache_watermark(&self) -> CacheWatermark {
        self.backend.cache_watermark()
    }
}

// SAFETY: the cache allocates nothing; the backend never calls the heap.
unsafe impl<A: HeapFree, C: PinCpu, P: Policy> HeapFree for PerCpu<'_, A, C, P> {}
