//! What one CPU keeps: stacks of frames and runs to hand out again (see `stacks`), and a buffer of frames to hand back.
//!
//! ```text
//!  returns [ high frames ... | unused ]        handed back together when full
//! ```
//!
//! A stack grows downwards, so that a refill, written in address order, is handed out in address order. Frames beyond the
//! backend's watermark (see `keep`) go to the buffer instead: reusing only those before it lets whole huge frames come free
//! beyond.
//!
//! # One owner, without atomic read-modify-writes
//!
//! Only code that is pinned as the slot's CPU touches a slot. That leaves interrupts on that same CPU, and against
//! them a flag suffices, `busy`, raised and lowered by plain stores. Take an execution E that has loaded `busy` as
//! false and is about to store true:
//! - an interrupt *before the load, or after the lowering*, finds the slot at rest;
//! - an interrupt *between the load and the store* finds `busy` false, uses the slot, and leaves it at rest with `busy`
//!   false, because it ends before E goes on. E has read nothing but `busy` so far, so nothing it knows is stale;
//! - an interrupt *between the store and the lowering* finds `busy` true and keeps off. This holds at any depth of
//!   nesting, for the interrupt too is an execution of this kind.
//!
//! So at most one execution at a time reads or writes what lies behind `busy`. The order "store true, then touch" and
//! "touch, then store false" must hold for the program order of this CPU only: a compiler fence keeps it, for a CPU
//! always sees its own accesses in program order.
//!
//! # Invariants (while `busy` is false)
//! - What lies in the stacks was handed to this cache by the backend, or given back by its callers: the slot owns it.
//! - `returning < RETURNS`, and `returns[..returning]` are such frames too: frame-aligned and not 0.

use core::{
    cell::UnsafeCell,
    fmt,
    mem::MaybeUninit,
    sync::atomic::{
        Ordering::{Relaxed, SeqCst},
        compiler_fence,
    },
};

use frame_core::{FrameAllocator, PhysAddr};

use crate::{
    CacheStats, CpuIndex,
    keep::{Keep, is_run},
    request::{Request, STACK},
    stacks::{Order, Stacks},
    sync::{AtomicBool, AtomicUsize},
};

/// Frames that move between a stack and the backend at a time: half of the stack, so that neither an allocation nor a
/// free that follows needs the backend again, and a row of the tree.
pub(crate) const BATCH: usize = STACK / 2;
/// Periods that an owner waits at most before it goes by the watermark again: some 65,000 pops.
const MOST_PATIENCE: usize = 255;
/// Frames that gather before they are handed back.
pub(crate) const RETURNS: usize = 32;

/// The cache of one CPU. Made by the embedder, one for each CPU, and given to
/// [`PerCpu::attach`](crate::PerCpu::attach).
#[repr(C, align(128))]
pub struct CpuSlot {
    // What a hit touches lies in the first line; nothing here is shared with another slot (128 bytes: adjacent lines
    // are fetched in pairs).
    busy: AtomicBool,
    pub(crate) request: Request,
    keep: Keep,
    stacks: Stacks,
    /// Periods until the owner goes by the watermark again.
    waiting: AtomicUsize,
    /// Periods that it waited last.
    patience: AtomicUsize,
    returning: AtomicUsize,
    misses: AtomicUsize,
    refills: AtomicUsize,
    refilled: AtomicUsize,
    spills: AtomicUsize,
    spilled: AtomicUsize,
    bypasses: AtomicUsize,
    refusals: AtomicUsize,
    /// Somebody waited in vain for an answer to `request`: see there.
    pub(crate) idle: AtomicBool,
    returns: UnsafeCell<[PhysAddr; RETURNS]>,
}

const _: () = assert!(align_of::<CpuSlot>() == 128 && size_of::<CpuSlot>() % 128 == 0);

// SAFETY: all fields but `returns` and the places inside `stacks` are atomics. These are reached through `Owned` alone,
// of which there is one at a time (promise of the callers of `enter` and proof in the module's documentation);
// executions that own the slot one after another are ordered, by `PinCpu`'s promise.
unsafe impl Sync for CpuSlot {}

impl CpuSlot {
    /// An empty slot.
    pub const fn new() -> Self {
        const ZERO: PhysAddr = PhysAddr::from_usize(0);
        Self {
            busy: AtomicBool::new(false),
            request: Request(AtomicUsize::new(STACK)),
            keep: Keep::new(),
            stacks: Stacks::new(),
            waiting: AtomicUsize::new(0),
            patience: AtomicUsize::new(0),
            returning: AtomicUsize::new(0),
            misses: AtomicUsize::new(0),
            refills: AtomicUsize::new(0),
            refilled: AtomicUsize::new(0),
            spills: AtomicUsize::new(0),
            spilled: AtomicUsize::new(0),
            bypasses: AtomicUsize::new(0),
            refusals: AtomicUsize::new(0),
            idle: AtomicBool::new(false),
            returns: UnsafeCell::new([ZERO; RETURNS]),
        }
    }

    /// Makes as many empty slots as fit into raw memory, such as the boot allocator gives: `size_of::<CpuSlot>()` bytes
    /// for each, at a multiple of 128 bytes; what lies before that in `memory` is left out.
    pub fn slice_in(memory: &mut [MaybeUninit<u8>]) -> &mut [CpuSlot] {
        // SAFETY: any bytes are a `MaybeUninit<CpuSlot>`.
        let (_, slots, _) = unsafe { memory.align_to_mut::<MaybeUninit<CpuSlot>>() };
        for slot in slots.iter_mut() {
            slot.write(CpuSlot::new());
        }
        // SAFETY: every element has just been written.
        unsafe { &mut *(core::ptr::from_mut(slots) as *mut [CpuSlot]) }
    }

    /// Takes the slot for one operation; `None` if the operation interrupts another one on this CPU.
    ///
    /// # Safety
    /// The caller is pinned as this slot's CPU until after the result is dropped, or holds a claim of this CPU.
    #[inline]
    pub(crate) unsafe fn enter(&self) -> Option<Owned<'_>> {
        if self.busy.load(Relaxed) {
            return None;
        }
        self.busy.store(true, Relaxed);
        compiler_fence(SeqCst);
        Some(Owned { slot: self })
    }

    /// Notes that an interrupt went straight to the backend.
    pub(crate) fn count_bypass(&self) {
        add(&self.bypasses, 1);
    }

    /// Frames that lie here.
    pub(crate) fn cached_frames(&self) -> usize {
        self.stacks.cached_frames() + self.returning.load(Relaxed)
    }

    /// Whether frames lie here, or may at the end of an operation that is under way.
    pub(crate) fn may_hold_frames(&self) -> bool {
        self.busy.load(Relaxed) || self.cached_frames() > 0
    }

    pub(crate) fn stats(&self) -> CacheStats {
        CacheStats {
            cached_frames: self.cached_frames(),
            hits: self.stacks.hits(),
            misses: self.misses.load(Relaxed),
            refills: self.refills.load(Relaxed),
            refilled_frames: self.refilled.load(Relaxed),
            spills: self.spills.load(Relaxed),
            spilled_frames: self.spilled.load(Relaxed),
            bypasses: self.bypasses.load(Relaxed),
            refusals: self.refusals.load(Relaxed),
        }
    }
}

impl Default for CpuSlot {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CpuSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuSlot").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// Adds to a counter that one CPU alone writes: a plain load and store. (A count may be lost when an interrupt counts
/// in between; counters behind `busy` lose none.)
#[inline]
fn add(counter: &AtomicUsize, n: usize) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

/// Whether an address is that of a frame at all: aligned and not 0.
#[inline]
pub(crate) fn is_frame(addr: PhysAddr) -> bool {
    is_run(Order::FRAME, addr)
}

/// A slot that the current execution works on alone; leaving it is dropping this.
pub(crate) struct Owned<'s> {
    slot: &'s CpuSlot,
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
