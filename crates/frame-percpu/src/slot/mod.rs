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

mod owned;

use core::{
    cell::UnsafeCell,
    fmt,
    mem::MaybeUninit,
    sync::atomic::{
        Ordering::{Relaxed, SeqCst},
        compiler_fence,
    },
};

use frame_core::PhysAddr;

pub(crate) use owned::Owned;

use crate::{
    CacheStats,
    asked::Asked,
    keep::{Keep, is_run},
    request::{Request, STACK},
    stacks::{Order, Stacks},
    sync::{AtomicBool, AtomicUsize},
};

/// Frames that move between a stack and the backend at a time: half of the stack, so that neither an allocation nor a
/// free that follows needs the backend again, and a row of the tree.
pub(crate) const BATCH: usize = STACK / 2;
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
    /// Who asked, and who waited: see there.
    pub(crate) asked: Asked,
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
            asked: Asked::new(),
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
