//! The cache: a backend, the CPUs, and a slot for each of them.
//!
//! Invariants:
//! - `count` is 0 until the slots are attached; from then on `slots` points to `count` slots borrowed for `'m`, which
//!   are reached through the cache alone.
//! - The slot at index i is entered only by executions that are pinned as CPU i, or claim it.

use core::{
    fmt, hint,
    marker::PhantomData,
    mem::MaybeUninit,
    ptr, slice,
    sync::atomic::{
        AtomicPtr, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use frame_core::{FrameAllocator, FrameRange};

use crate::{CacheStats, Checked, CpuIndex, CpuSlot, PinCpu, Policy, Trusting, slot::Owned};

/// A per-CPU cache over the backend `A`, itself a [`FrameAllocator`].
///
/// `C` names the current CPU ([`PinCpu`]); `P` says when a double free is found ([`Trusting`] or [`Checked`]). It is made
/// in a `static` and passes everything on to the backend until it is given a slot for each CPU
/// ([`attach`](Self::attach)).
///
/// ```
/// # mod backend { use frame_core::*;
/// #   pub struct Tree; impl Tree { pub const fn new() -> Self { Self } }
/// #   unsafe impl FrameAllocator for Tree {
/// #     fn alloc(&self, _: FrameLayout) -> Result<PhysAddr, AllocError> { Err(AllocError::NoMemory) }
/// #     unsafe fn dealloc(&self, _: PhysAddr, _: FrameLayout) -> Result<(), DeallocError> { Ok(()) }
/// #     fn stats(&self) -> FrameStats { FrameStats::default() }
/// #     fn visit_free(&self, _: &mut dyn FnMut(FrameRange)) {} } }
/// # use backend::Tree;
/// use frame_core::FrameAllocator;
/// use frame_percpu::{CpuSlot, PerCpu, ThreadCpus};
///
/// static FRAMES: PerCpu<Tree, ThreadCpus> = PerCpu::new(Tree::new(), ThreadCpus);
///
/// // At boot: the backend gets its regions (FRAMES.backend().add_region(..)), the cache its slots.
/// let slots: &'static mut [CpuSlot] = Box::leak(Box::new([const { CpuSlot::new() }; 4]));
/// FRAMES.attach(slots)?;
/// assert!(FRAMES.alloc_frame().is_err()); // this example's backend is empty
/// # Ok::<(), frame_percpu::AttachError>(())
/// ```
pub struct PerCpu<'m, A: FrameAllocator, C: PinCpu, P: Policy = Trusting> {
    slots: Slots<'m>,
    pub(crate) cpus: C,
    pub(crate) policy: P,
    pub(crate) backend: A,
}

/// Read by every operation and written once: on lines of their own, apart from the backend's busy words.
#[repr(align(128))]
struct Slots<'m> {
    first: AtomicPtr<CpuSlot>,
    count: AtomicUsize,
    /// Invariant in `'m`: a cache must not be seen as one that takes slots which live shorter.
    _slots: PhantomData<fn(&'m ()) -> &'m ()>,
}

impl<A: FrameAllocator, C: PinCpu> PerCpu<'_, A, C, Trusting> {
    /// A cache over `backend` that trusts its callers, without slots yet.
    pub const fn new(backend: A, cpus: C) -> Self {
        Self { slots: Slots::none(), cpus, policy: Trusting, backend }
    }
}

impl<'m, A: FrameAllocator, C: PinCpu> PerCpu<'m, A, C, Checked<'m>> {
    /// A cache over `backend` that finds a double free at once, without slots yet. Until
    /// [`attach_states`](Self::attach_states) every free goes straight to the backend.
    pub const fn checked(backend: A, cpus: C) -> Self {
        Self { slots: Slots::none(), cpus, policy: Checked::new(), backend }
    }

    /// Gives the policy a byte for each frame of `window`, which should cover the backend's frames; a frame outside is
    /// handed out through the cache, but freed past it. Must come before [`attach`](Self::attach).
    ///
    /// # Errors
    /// `states` is shorter than the window's count of frames; there are states, or slots, already.
    pub fn attach_states(
        &self,
        window: FrameRange,
        states: &'m mut [MaybeUninit<u8>],
    ) -> Result<(), AttachError> {
        if states.len() < window.count() {
            return Err(AttachError::TooFewStates { needed: window.count(), given: states.len() });
        }
        if self.slots.count() > 0 {
            return Err(AttachError::SlotsFirst);
        }
        self.policy.set_window(window, states).ok_or(AttachError::AlreadyAttached)
    }
}

impl<'m, A: FrameAllocator, C: PinCpu, P: Policy> PerCpu<'m, A, C, P> {
    /// Gives the cache its slots: the one at index i is for the CPU with index i. CPUs beyond them work without a
    /// cache. May be called while others use the allocator.
    ///
    /// Slots begin empty: what another cache left in them, one that was forgotten instead of dropped, stays allocated.
    ///
    /// # Errors
    /// There are slots already.
    pub fn attach(&self, slots: &'m mut [CpuSlot]) -> Result<(), AttachError> {
        if slots.is_empty() {
            return Ok(());
        }
        // One pointer for all that follows: the reference is not used beside it.
        let (first, count) = (slots.as_mut_ptr(), slots.len());
        self.slots
            .first
            .compare_exchange(ptr::null_mut(), first, Relaxed, Relaxed)
            .map_err(|_| AttachError::AlreadyAttached)?;
        for index in 0..count {
            // SAFETY: one of the slots that are lent for `'m`; nobody reaches them while `count` is 0. What was there needs
            // no drop.
            unsafe { first.add(index).write(CpuSlot::new()) };
        }
        self.slots.count.store(count, Release);
        Ok(())
    }

    /// The allocator behind the cache: to add regions, and to look at. Frames allocated there may be freed here and
    /// the other way round, but a frame freed *there* is unknown to a checking policy here.
    pub const fn backend(&self) -> &A {
        &self.backend
    }

    /// What the slot of a CPU has done; `None` if it has none. Stops nobody.
    pub fn cpu_stats(&self, cpu: CpuIndex) -> Option<CacheStats> {
        self.slots().get(cpu.0).map(CpuSlot::stats)
    }

    /// Frames that lie in slots now. Stops nobody.
    pub fn cached_frames(&self) -> usize {
        self.slots().iter().map(CpuSlot::cached_frames).sum()
    }

    /// Hands the frames of the current CPU's slot back to the backend. Returns how many there were.
    ///
    /// For the handler of the interrupt that [`PinCpu::kick`] sends, for an idle loop, and for a CPU that is about to
    /// go offline. Called from an interrupt in the middle of another operation of the cache, it leaves the work to the
    /// CPU's next operation and returns 0.
    pub fn drain_local(&self) -> usize {
        let (cpu, _pin) = self.cpus.pin();
        let Some(slot) = self.slot(cpu) else { return 0 };
        // SAFETY: pinned as `cpu` until the end of the function.
        match unsafe { slot.enter() } {
            Some(owned) => self.empty(cpu, owned),
            None => {
                slot.request.ask();
                0
            }
        }
    }

    /// Asks every CPU to hand its frames back, the current one included: it does so at its next operation. Waits for
    /// nobody; [`cached_frames`](Self::cached_frames) tells how far it has come. CPUs whose place can be taken
    /// ([`PinCpu::claim`]) are emptied at once.
    pub fn request_drain(&self) {
        for (index, slot) in self.slots().iter().enumerate() {
            self.recall(CpuIndex(index), slot);
        }
    }

    /// Hands the frames of another CPU's slot back, when that CPU has stopped. Returns how many there were.
    ///
    /// # Safety
    /// From before the call until after it, no execution is pinned as `cpu` (it is offline, or stopped outside of
    /// this cache's methods), and all that it did is visible to the caller.
    pub unsafe fn drain_cpu(&self, cpu: CpuIndex) -> usize {
        let Some(slot) = self.slot(cpu) else { return 0 };
        // SAFETY: nobody is pinned as `cpu`, so the caller is as good as pinned.
        match unsafe { slot.enter() } {
            Some(owned) => self.empty(cpu, owned),
            None => 0,
        }
    }

    /// Empties an entered slot, and answers whoever asked for that.
    pub(crate) fn empty(&self, cpu: CpuIndex, mut owned: Owned<'_>) -> usize {
        let drained = owned.drain(&self.backend, |frames| self.policy.give_back(frames, cpu));
        owned.answer();
        drained
    }

    #[inline]
    pub(crate) fn slots(&self) -> &[CpuSlot] {
        let count = self.slots.count.load(Acquire);
        if count == 0 {
            return &[];
        }
        // SAFETY: invariant of the module: a count above 0 was stored after the pointer, and is read with acquire.
        unsafe { slice::from_raw_parts(self.slots.first.load(Relaxed), count) }
    }

    #[inline]
    pub(crate) fn slot(&self, cpu: CpuIndex) -> Option<&CpuSlot> {
        if cpu.0 >= self.slots.count.load(Acquire) {
            return None;
        }
        let first = self.slots.first.load(Relaxed);
        // SAFETY: as in `slots`; the index is below the count.
        unsafe {
            // Spares the hot path a test for the niche of the `Option`.
            hint::assert_unchecked(!first.is_null());
            Some(&*first.add(cpu.0))
        }
    }
}

impl Slots<'_> {
    const fn none() -> Self {
        Self { first: AtomicPtr::new(ptr::null_mut()), count: AtomicUsize::new(0), _slots: PhantomData }
    }

    fn count(&self) -> usize {
        self.count.load(Acquire)
    }
}

impl<A: FrameAllocator, C: PinCpu, P: Policy> Drop for PerCpu<'_, A, C, P> {
    /// Hands every slot's frames back: the backend may live on, behind a reference.
    fn drop(&mut self) {
        for index in 0..self.slots.count() {
            // SAFETY: `&mut self`: nobody else uses the cache any more, on any CPU.
            unsafe { self.drain_cpu(CpuIndex(index)) };
        }
    }
}

impl<A: FrameAllocator + fmt::Debug, C: PinCpu, P: Policy> fmt::Debug for PerCpu<'_, A, C, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCpu")
            .field("slots", &self.slots())
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

/// Why slots or states were not taken: nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttachError {
    /// There are some already.
    AlreadyAttached,
    /// States must be attached before slots: frames that lie in slots already would be unknown to the policy.
    SlotsFirst,
    /// There must be a byte for each frame.
    TooFewStates {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::AlreadyAttached => f.write_str("attached already: a cache takes them once"),
            Self::SlotsFirst => f.write_str("slots were attached before the states: attach the states first"),
            Self::TooFewStates { needed, given } => {
                write!(f, "{given} bytes of states for {needed} frames: one byte each is needed")
            }
        }
    }
}

impl core::error::Error for AttachError {}
