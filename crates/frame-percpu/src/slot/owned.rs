//! A slot at work: what the one execution that has entered it does there.
//!
//! Everything here runs behind `busy` (see the parent module), so it reads and writes the slot as if it were alone. A backend
//! that is called meanwhile may be interrupted, or call back into the cache: that finds `busy` and keeps off.

use core::sync::atomic::{
    Ordering::{Relaxed, SeqCst},
    compiler_fence,
};

use frame_core::{FrameAllocator, PhysAddr};

use super::{BATCH, CpuSlot, RETURNS, add, is_frame};
use crate::{CpuIndex, request::STACK, stacks::Order};

/// Periods that an owner waits at most before it goes by the watermark again: some 65,000 pops.
const MOST_PATIENCE: usize = 255;

/// A slot that the current execution works on alone; leaving it is dropping this.
pub(crate) struct Owned<'s> {
    pub(super) slot: &'s CpuSlot,
}

impl Drop for Owned<'_> {
    #[inline]
    fn drop(&mut self) {
        compiler_fence(SeqCst);
        self.slot.busy.store(false, Relaxed);
    }
}

impl Owned<'_> {
    /// Takes the newest frame; `None` if there is none, or the owner was asked to hand everything back.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<PhysAddr> {
        // SAFETY: this execution owns the slot.
        unsafe { self.slot.stacks.pop_frame(self.slot.request.length()) }
    }

    /// Puts a frame on the stack; false if it is full, or the owner was asked to hand everything back, or the frame
    /// does not belong there.
    #[inline]
    pub(crate) fn push(&mut self, frame: PhysAddr) -> bool {
        // SAFETY: this execution owns the slot, and its caller gives the frame.
        self.keeps(frame) && unsafe { self.slot.stacks.push_frame(frame, self.slot.request.length()) }
    }

    /// Takes a frame as it is best: [`push`](Self::push) or [`set_aside`](Self::set_aside). False if neither can be.
    #[inline]
    pub(crate) fn take_in(&mut self, frame: PhysAddr) -> bool {
        if self.keeps(frame) {
            // SAFETY: this execution owns the slot, and its caller gives the frame.
            unsafe { self.slot.stacks.push_frame(frame, self.slot.request.length()) }
        } else {
            self.set_aside(frame)
        }
    }

    /// Puts a frame that is not kept into the buffer; false if that would fill it, or the owner was asked to hand
    /// everything back, or it is no frame.
    #[inline]
    pub(crate) fn set_aside(&mut self, frame: PhysAddr) -> bool {
        let returning = self.slot.returning.load(Relaxed);
        if returning + 1 >= RETURNS || self.was_asked() || !is_frame(frame) {
            return false;
        }
        // SAFETY: the place is in bounds; this execution alone reaches the array, and no reference into it lives.
        unsafe { self.slot.returns.get().cast::<PhysAddr>().add(returning).write(frame) };
        self.slot.returning.store(returning + 1, Relaxed);
        true
    }

    /// Whether this is a frame, and one that is better kept than handed back.
    #[inline]
    pub(crate) fn keeps(&self, frame: PhysAddr) -> bool {
        self.slot.keep.admits(Order::FRAME, frame)
    }

    /// Takes the newest run of an order; `None` if there is none, or the owner was asked to hand everything back.
    #[inline]
    pub(crate) fn pop_run(&mut self, order: Order) -> Option<PhysAddr> {
        if self.was_asked() {
            return None;
        }
        // SAFETY: this execution owns the slot.
        unsafe { self.slot.stacks.pop(order) }
    }

    /// Puts a run on its stack; false if it is full, or the owner was asked to hand everything back, or the run is not
    /// one that is better kept.
    #[inline]
    pub(crate) fn push_run(&mut self, order: Order, start: PhysAddr) -> bool {
        if self.was_asked() || !self.keeps_run(order, start) {
            return false;
        }
        // SAFETY: this execution owns the slot, and its caller gives the run.
        unsafe { self.slot.stacks.push(order, start) }
    }

    /// Whether this is a run, and one that is better kept than handed back.
    #[inline]
    pub(crate) fn keeps_run(&self, order: Order, start: PhysAddr) -> bool {
        self.slot.keep.admits(order, start)
    }

    /// Whether somebody asked for the slot's frames.
    #[inline]
    pub(crate) fn was_asked(&self) -> bool {
        self.slot.request.length() == 0
    }

    /// Now and then, whatever else is done: where the watermark is now. An owner who finds all it wants in its stacks
    /// would go on with the same frames for ever, wherever they lie. Returns whether it was time: then a stack that
    /// looked empty or full may not be.
    pub(crate) fn look_around<A: FrameAllocator>(&mut self, backend: &A, order: Order) -> bool {
        // SAFETY: this execution owns the slot.
        let over = unsafe { self.slot.stacks.end_period(order) };
        if over {
            match self.slot.waiting.load(Relaxed) {
                0 => self.take_advice(backend),
                periods => self.slot.waiting.store(periods - 1, Relaxed),
            }
        }
        over
    }

    /// Notes that the slot is empty and its frames are in the backend.
    pub(crate) fn answer(&mut self) {
        self.slot.asked.count_answer();
        self.slot.request.answer();
    }

    /// Frames on the stack.
    pub(crate) fn stacked(&self) -> usize {
        self.slot.stacks.len(Order::FRAME)
    }

    /// Fills the empty stack of `cpu` with up to [`BATCH`] frames of the backend, which need not be neighbours, and passes
    /// them to `note`. Returns how many it got.
    pub(crate) fn refill<A: FrameAllocator>(
        &mut self,
        backend: &A,
        cpu: CpuIndex,
        note: impl FnOnce(&[PhysAddr]),
    ) -> usize {
        debug_assert_eq!(self.stacked(), 0);
        add(&self.slot.misses, 1);
        // SAFETY: this execution alone reaches the array. The backend may be interrupted, or call back into the cache,
        // while it fills the slice: that finds `busy` and keeps off.
        let frames = unsafe { self.slot.stacks.places(Order::FRAME) };
        let got = backend.alloc_bulk_for(cpu.0, &mut frames[STACK - BATCH..]).min(BATCH);
        if got == 0 {
            return 0;
        }
        if got < BATCH {
            frames.copy_within(STACK - BATCH..STACK - BATCH + got, STACK - got);
        }
        let got_frames = &frames[STACK - got..];
        note(got_frames);
        // What the backend hands out now is worth keeping, whatever the watermark says: handed back, it would only be
        // handed out again.
        let advice = backend.cache_watermark();
        let widened = got_frames.iter().fold(advice, |advice, &frame| advice.with(frame));
        self.slot.keep.set(widened);
        // SAFETY: this execution owns the slot; the frames lie in the last places.
        unsafe { self.slot.stacks.resize(Order::FRAME, got) };
        // Frames from beyond the watermark: going by it would hand them back, and get their like again. Each time this
        // happens the owner waits twice as long before it tries.
        let longer = MOST_PATIENCE.min(2 * self.slot.patience.load(Relaxed) + 1);
        let patience = if widened == advice { 0 } else { longer };
        self.slot.patience.store(patience, Relaxed);
        self.slot.waiting.store(patience, Relaxed);
        add(&self.slot.refills, 1);
        add(&self.slot.refilled, got);
        got
    }

    /// Makes room on the stack: the older half goes back to the backend.
    pub(crate) fn spill<A: FrameAllocator>(
        &mut self,
        backend: &A,
        filter: impl FnOnce(&mut [PhysAddr]) -> usize,
    ) {
        let stacked = self.stacked();
        let batch = stacked.min(BATCH);
        // SAFETY: this execution alone reaches the places.
        let frames = unsafe { self.slot.stacks.places(Order::FRAME) };
        self.hand_back(backend, &mut frames[STACK - batch..], filter);
        frames.copy_within(STACK - stacked..STACK - batch, STACK - (stacked - batch));
        // SAFETY: this execution owns the slot; what is left lies in the last places.
        unsafe { self.slot.stacks.resize(Order::FRAME, stacked - batch) };
        self.take_advice(backend);
    }

    /// Puts a frame into the buffer, and hands the buffer back if that fills it.
    pub(crate) fn push_return<A: FrameAllocator>(
        &mut self,
        backend: &A,
        frame: PhysAddr,
        filter: impl FnOnce(&mut [PhysAddr]) -> usize,
    ) {
        let returning = self.slot.returning.load(Relaxed);
        // SAFETY: this execution alone reaches the array; the reference ends with the statement.
        unsafe { (&mut *self.slot.returns.get())[returning] = frame };
        self.slot.returning.store(returning + 1, Relaxed);
        if returning + 1 == RETURNS {
            self.flush_returns(backend, filter);
            self.take_advice(backend);
        }
    }

    /// Hands the buffer back. Returns how many frames it held.
    pub(crate) fn flush_returns<A: FrameAllocator>(
        &mut self,
        backend: &A,
        filter: impl FnOnce(&mut [PhysAddr]) -> usize,
    ) -> usize {
        let returning = self.slot.returning.load(Relaxed);
        if returning > 0 {
            // SAFETY: this execution alone reaches the array.
            let returns = unsafe { &mut *self.slot.returns.get() };
            self.hand_back(backend, &mut returns[..returning], filter);
            self.slot.returning.store(0, Relaxed);
        }
        returning
    }

    /// Hands everything back. Returns how many frames there were.
    pub(crate) fn drain<A: FrameAllocator>(
        &mut self,
        backend: &A,
        mut filter: impl FnMut(&mut [PhysAddr]) -> usize,
    ) -> usize {
        let mut drained = self.flush_returns(backend, &mut filter);
        for order in Order::runs() {
            drained += self.spill_runs(backend, order, self.slot.stacks.len(order));
        }
        while self.stacked() > 0 {
            drained += self.stacked().min(BATCH);
            self.spill(backend, &mut filter);
        }
        drained
    }

    /// Makes room on the stack of an order: the older half goes back to the backend.
    pub(crate) fn halve_runs<A: FrameAllocator>(&mut self, backend: &A, order: Order) {
        self.spill_runs(backend, order, self.slot.stacks.len(order).div_ceil(2));
    }

    /// Hands the oldest runs of an order back. Returns how many frames they were.
    fn spill_runs<A: FrameAllocator>(&mut self, backend: &A, order: Order, batch: usize) -> usize {
        let len = self.slot.stacks.len(order);
        // SAFETY: this execution alone reaches the places; a backend that calls back finds the slot busy.
        let runs = unsafe { self.slot.stacks.places(order) };
        let end = runs.len();
        let refused = runs[end - batch..].iter().filter(|&&start| {
            // SAFETY: the slot owns the run, and forgets it below.
            unsafe { backend.dealloc(start, order.layout()) }.is_err()
        });
        let refused = refused.count();
        runs.copy_within(end - len..end - batch, end - (len - batch));
        // SAFETY: this execution owns the slot; what is left lies in the last places.
        unsafe { self.slot.stacks.resize(order, len - batch) };
        let frames = batch * order.frames();
        add(&self.slot.refusals, usize::from(refused > 0));
        add(&self.slot.spills, usize::from(batch > 0));
        add(&self.slot.spilled, frames);
        frames
    }

    /// An allocation of a run found none: whoever uses runs alone polls here. Lowering the limit is left to those who
    /// move batches, and to the end of a period.
    pub(crate) fn note_missing_run<A: FrameAllocator>(&mut self, backend: &A) {
        self.slot.keep.set(backend.cache_watermark().or(self.slot.keep.advice()));
    }

    /// A frame turned out to belong elsewhere: somebody freed it twice.
    #[cold]
    pub(crate) fn count_refusal(&mut self) {
        add(&self.slot.refusals, 1);
    }

    /// `filter` comes first, for after the call the frames may be anybody's: it moves those that are not the slot's to
    /// the end and returns the number of the others.
    fn hand_back<A: FrameAllocator>(
        &self,
        backend: &A,
        batch: &mut [PhysAddr],
        filter: impl FnOnce(&mut [PhysAddr]) -> usize,
    ) {
        let good = filter(batch).min(batch.len());
        // SAFETY: the slot owns the frames, and after this call it forgets them.
        let handed = unsafe { backend.dealloc_bulk(&batch[..good]) };
        if handed.is_err() || good < batch.len() {
            // Somebody freed what was not theirs. The frame went no further: it was refused, and the others are free.
            // There is nobody to tell but the counter: the culprit is gone.
            add(&self.slot.refusals, 1);
        }
        add(&self.slot.spills, 1);
        add(&self.slot.spilled, good);
    }

    /// Asks the backend which frames are better kept.
    fn take_advice<A: FrameAllocator>(&self, backend: &A) {
        self.slot.keep.set(backend.cache_watermark());
    }
}
