//! The checking policy: a state for each frame.
//!
//! The caller supplies a byte for each frame of a *window* of memory. A byte says where its frame is:
//!
//! ```text
//!                  take_in                  hand_out
//!     BACKEND ------------------> CACHED -------------> OUT
//!        ^  ^                      |  ^                  |
//!        |  +----- give_back ------+  +----- admit ------+
//!        +------------------- admit_run -----------------+
//! ```
//!
//! - `BACKEND`: the cache has nothing to do with it: it is free there, or was allocated past the caches (a run). The
//!   backend knows, and is asked at once when such a frame is freed.
//! - `CACHED`: it lies in some CPU's slot. Freeing it is a double free.
//! - `OUT`: a caller has it from a cache, and may give it back to any.
//!
//! So a free is right in state `OUT`, the backend's decision in state `BACKEND`, and wrong in state `CACHED`. Only
//! `admit` can be raced for, by two CPUs that free the same frame: it is a compare-exchange, and one of the two loses.
//! All other transitions belong to whoever owns the frame and are plain stores.
//!
//! All bytes zero (`BACKEND`) is right for any allocator no frame of which lies in a cache. A frame outside of the
//! window never enters a cache when it is freed: it goes to the backend, which finds a double free at once as well.
//!
//! Invariant: while a frame of the window lies in a slot, its byte is `CACHED`.

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

use crate::policy::{Admission, Policy};

const BACKEND: u8 = 0;
const OUT: u8 = 1;
const CACHED: u8 = 2;

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
        let states = states.get_mut(..window.count())?;
        let first = states.as_mut_ptr().cast::<AtomicU8>();
        // Whoever wins this alone writes the rest; nobody reads it while `count` is 0.
        self.states.compare_exchange(ptr::null_mut(), first, Relaxed, Relaxed).ok()?;
        for state in states {
            state.write(BACKEND);
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

    fn set(&self, frames: &[PhysAddr], to: u8) {
        for &frame in frames {
            if let Some(state) = self.state(frame) {
                state.store(to, Relaxed);
            }
        }
    }
}

impl Policy for Checked<'_> {
    const TRUSTS: bool = false;

    #[inline]
    fn admit(&self, frame: PhysAddr) -> Result<Admission, DeallocError> {
        let Some(state) = self.state(frame) else { return Ok(Admission::AskBackend) };
        if frame.as_usize() % FRAME_SIZE != 0 {
            return Ok(Admission::AskBackend);
        }
        match state.compare_exchange(OUT, CACHED, Relaxed, Relaxed) {
            Ok(_) => Ok(Admission::Keep),
            Err(CACHED) => Err(DeallocError::new(frame, DeallocErrorKind::NotAllocated)),
            Err(_) => Ok(Admission::AskBackend),
        }
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
            if state.load(Relaxed) != BACKEND
                && state.compare_exchange(OUT, BACKEND, Relaxed, Relaxed) == Err(CACHED)
            {
                return Err(DeallocError::new(frame, DeallocErrorKind::NotAllocated));
            }
        }
        Ok(())
    }

    #[inline]
    fn hand_out(&self, frame: PhysAddr) {
        if let Some(state) = self.state(frame) {
            state.store(OUT, Relaxed);
        }
    }

    fn take_in(&self, frames: &[PhysAddr]) {
        self.set(frames, CACHED);
    }

    fn give_back(&self, frames: &[PhysAddr]) {
        self.set(frames, BACKEND);
    }

    fn metadata_bytes(&self) -> usize {
        self.count.load(Relaxed)
    }
}
