//! The checking policy: a state for each frame.
//!
//! The caller supplies a byte for each frame of a *window* of memory. A byte says where its frame is:
//!
//! ```text
//!                  take_in                   hand_out
//!     BACKEND ------------------> CACHED(c) ----------> OUT(c)
//!        ^  ^                      |   ^                  |
//!        |  +----- give_back ------+   +----- admit ------+
//!        +------------------- admit_run ------------------+
//! ```
//!
//! - `BACKEND`: the cache has nothing to do with it: it is free there, or was allocated past the caches (a run). The
//!   backend knows, and is asked at once when such a frame is freed.
//! - `CACHED(c)`: it lies in the slot of CPU c. Freeing it is a double free.
//! - `OUT(c)`: a caller has it from the slot of CPU c, and may give it back to any.
//!
//! So a free is right in state `OUT`, the backend's decision in state `BACKEND`, and wrong in state `CACHED`.
//!
//! # Racing for a free
//!
//! Every transition but `admit` belongs to whoever owns the frame and is a plain store. `admit` may be raced for, by
//! two CPUs that free the same frame at the same moment. On another CPU than c it is a compare-exchange. On c it is a
//! load and a store, for this is the hot path and an exchange would cost more than all the rest. A wrong free on d that
//! falls between the two is not refused: the frame then lies in the slots of c and d. But the byte names one of them,
//! and so the other slot, when it is about to hand the frame out or back, finds that it should not have it, drops it
//! and counts a refusal ([`CacheStats::refusals`](crate::CacheStats)). For the frame to have two owners, d must also
//! hand it out again before the store of c has followed its load.
//!
//! CPUs beyond the 126th share a tag, and always exchange.
//!
//! # What the bytes begin with
//!
//! All bytes zero (`BACKEND`) is right for any allocator no frame of which lies in a cache. A frame outside of the
//! window never enters a cache when it is freed: it goes to the backend, which finds a double free at once as well.
//!
//! Invariant: while a frame of the window lies in a slot, and nobody has freed it twice, its byte is `CACHED` with the
//! slot's tag.

use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ptr,
    sync::atomic::{
        AtomicPtr, AtomicU8, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use frame_core::{DeallocError, DeallocErrorKind, FRAME_SIZE, FrameRange, PhysAddr};

use crate::{
    CpuIndex,
    policy::{Admission, Policy},
};

const BACKEND: u8 = 0;
/// Added to the tag of the CPU in whose slot the frame lies. Without it, a tag says from whose slot the frame went out.
const CACHED: u8 = 0x80;
/// The tag that CPUs share for which there is none.
const SHARED: u8 = 0x7f;

/// 1 to 126, or `SHARED`.
#[inline]
fn tag(cpu: CpuIndex) -> u8 {
    cpu.0.min(SHARED as usize - 1) as u8 + 1
}

/// Finds a double free at once. See the [module's table](Policy) and
/// [`PerCpu::attach_states`](crate::PerCpu::attach_states).
///
/// ```
/// # use frame_core::*; use frame_percpu::*;
/// # struct Backend; unsafe impl FrameAllocator for Backend {
/// #   fn alloc(&self, _: FrameLayout) -> Result<PhysAddr, AllocError> { Err(AllocError::NoMemory) }
/// #   unsafe fn dealloc(&self, _: PhysAddr, _: FrameLayout) -> Result<(), DeallocError> { Ok(()) }
/// #   fn stats(&self) -> FrameStats { FrameStats::default() }
/// #   fn visit_free(&self, _: &mut dyn FnMut(FrameRange)) {} }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut states = vec![core::mem::MaybeUninit::uninit(); 512]; // a byte for each frame
/// let mut slots = [const { CpuSlot::new() }; 2];
/// let cache = PerCpu::checked(Backend, ThreadCpus);
/// cache.attach_states(FrameRange::new(PhysAddr::from(0x200000), 512)?, &mut states)?;
/// cache.attach(&mut slots)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[repr(align(64))]
pub struct Checked<'m> {
    // Written once, read by every operation.
    base: AtomicUsize,
    count: AtomicUsize,
    states: AtomicPtr<AtomicU8>,
    /// Invariant in `'m`: a longer-lived cache must not take states that live shorter.
    _states: PhantomData<fn(&'m ()) -> &'m ()>,
}

impl<'m> Checked<'m> {
    /// Without a window: every free goes straight to the backend.
    pub(crate) const fn new() -> Self {
        Self {
            base: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            states: AtomicPtr::new(ptr::null_mut()),
            _states: PhantomData,
        }
    }

    /// Takes over the states of a window. `None`, and nothing changed, if there is a window already; `states` holds at
    /// least a byte for each frame.
    pub(crate) fn set_window(&self, window: FrameRange, states: &'m mut [MaybeUninit<u8>]) -> Option<()> {
        // One pointer for all that follows: the reference is not used beside it.
        let first = states.get_mut(..window.count())?.as_mut_ptr().cast::<AtomicU8>();
        // Whoever wins this alone writes the rest; nobody reads it while `count` is 0.
        self.states.compare_exchange(ptr::null_mut(), first, Relaxed, Relaxed).ok()?;
        for index in 0..window.count() {
            // SAFETY: one of the bytes that are lent for `'m`.
            unsafe { first.add(index).write(AtomicU8::new(BACKEND)) };
        }
        self.base.store(window.start().as_usize(), Relaxed);
        self.count.store(window.count(), Release);
        Some(())
    }

    #[inline]
    fn state(&self, frame: PhysAddr) -> Option<&AtomicU8> {
        let count = self.count.load(Acquire);
        let index = frame.as_usize().wrapping_sub(self.base.load(Relaxed)) / FRAME_SIZE;
        if index >= count {
            return None;
        }
        // SAFETY: a count above 0 was stored after `base` and `states`, and read with acquire. `states` points to
        // `count` initialised bytes that were borrowed for 'm and are reached through these atomics alone.
        Some(unsafe { &*self.states.load(Relaxed).add(index) })
    }

    /// Admission in all cases but the hot one.
    #[cold]
    fn admit_by_exchange(
        &self,
        frame: PhysAddr,
        state: &AtomicU8,
        to: u8,
    ) -> Result<Admission, DeallocError> {
        if frame.as_usize() % FRAME_SIZE != 0 {
            return Ok(Admission::AskBackend);
        }
        let mut now = state.load(Relaxed);
        while now & CACHED == 0 {
            if now == BACKEND {
                return Ok(Admission::AskBackend);
            }
            match state.compare_exchange_weak(now, to, Relaxed, Relaxed) {
                Ok(_) => return Ok(Admission::Keep),
                Err(other) => now = other,
            }
        }
        Err(DeallocError::new(frame, DeallocErrorKind::NotAllocated))
    }
}

impl Policy for Checked<'_> {
    const TRUSTS: bool = false;

    #[inline]
    fn admit(&self, frame: PhysAddr, cpu: CpuIndex) -> Result<Admission, DeallocError> {
        let Some(state) = self.state(frame) else { return Ok(Admission::AskBackend) };
        let mine = tag(cpu);
        if state.load(Relaxed) == mine && mine != SHARED && frame.as_usize() % FRAME_SIZE == 0 {
            state.store(CACHED | mine, Relaxed);
            return Ok(Admission::Keep);
        }
        self.admit_by_exchange(frame, state, CACHED | mine)
    }

    fn admit_run(&self, start: PhysAddr, count: usize) -> Result<(), DeallocError> {
        // The run may be absurdly long: look at the part in the window only.
        let window = self.count.load(Acquire);
        let base = self.base.load(Relaxed) / FRAME_SIZE;
        let first = start.as_usize() / FRAME_SIZE;
        for number in first.max(base)..first.saturating_add(count).min(base + window) {
            let frame = PhysAddr::from(number * FRAME_SIZE);
            let Some(state) = self.state(frame) else { continue };
            // A frame that leaves `OUT` here while a later one is refused stays the caller's: the backend is asked
            // about it when it is freed next, and knows it as allocated.
            let mut now = state.load(Relaxed);
            while now != BACKEND {
                if now & CACHED != 0 {
                    return Err(DeallocError::new(frame, DeallocErrorKind::NotAllocated));
                }
                match state.compare_exchange_weak(now, BACKEND, Relaxed, Relaxed) {
                    Ok(_) => break,
                    Err(other) => now = other,
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn hand_out(&self, frame: PhysAddr, cpu: CpuIndex) -> bool {
        let Some(state) = self.state(frame) else { return true };
        let mine = tag(cpu);
        let is_mine = state.load(Relaxed) == CACHED | mine;
        if is_mine {
            state.store(mine, Relaxed);
        }
        is_mine
    }

    fn take_in(&self, frames: &[PhysAddr], cpu: CpuIndex) {
        for &frame in frames {
            if let Some(state) = self.state(frame) {
                state.store(CACHED | tag(cpu), Relaxed);
            }
        }
    }

    fn give_back(&self, frames: &mut [PhysAddr], cpu: CpuIndex) -> usize {
        let mut good = 0;
        for i in 0..frames.len() {
            match self.state(frames[i]) {
                Some(state) if state.load(Relaxed) != CACHED | tag(cpu) => continue,
                Some(state) => state.store(BACKEND, Relaxed),
                None => {}
            }
            frames.swap(good, i);
            good += 1;
        }
        good
    }

    fn pass_on(&self, frame: PhysAddr) {
        if let Some(state) = self.state(frame) {
            state.store(BACKEND, Relaxed);
        }
    }

    fn metadata_bytes(&self) -> usize {
        self.count.load(Relaxed)
    }
}
