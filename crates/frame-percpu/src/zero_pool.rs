//! Frames that are zero already.
//!
//! Page tables and memory for users must be cleared before they are used, and clearing costs more than everything else
//! about a frame. It can be done ahead of need: the embedder's idle loop calls [`ZeroPool::fill`], and whoever needs a
//! zeroed frame takes one from the pool. When the pool is empty the frame is cleared on the spot.
//!
//! The pool is an array of places, each of which holds a frame or nothing. A frame is taken out by an atomic swap and put
//! in by a compare-exchange from nothing, so any CPU, interrupt or NMI may do either, and none waits for another.
//!
//! Invariant: a place holds 0, or the address of a frame that came from `H`, is owned by the pool, and is all zero; the
//! zeroes were written before the address was stored, with release.

use core::{
    fmt,
    marker::PhantomData,
    sync::atomic::{
        AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use frame_core::{AllocError, FrameHal, PhysAddr, PhysFrame};

use crate::clear::clear_past_caches;

/// Up to `N` zeroed frames of the HAL `H`, kept for those who need them at once.
///
/// ```
/// # use frame_core::*;
/// # use frame_percpu::ZeroPool;
/// # struct Kernel;
/// # unsafe impl FrameHal for Kernel {
/// #   fn alloc_frame() -> Option<PhysAddr> { None }
/// #   unsafe fn dealloc_frame(_: PhysAddr) {}
/// #   fn phys_to_virt(p: PhysAddr) -> VirtAddr { p.as_usize().into() }
/// # }
/// static ZEROED: ZeroPool<Kernel, 64> = ZeroPool::new();
///
/// fn idle() {
///     ZEROED.fill(8); // a few at a time, so that the CPU is soon free for work
/// }
/// fn new_page_table() -> Result<PhysFrame<Kernel>, AllocError> {
///     ZEROED.alloc_zeroed()
/// }
/// # idle();
/// # assert!(new_page_table().is_err()); // this example's HAL is empty
/// ```
///
/// The pool's frames count as allocated. An embedder that runs out of memory takes them back with
/// [`drain`](Self::drain).
#[repr(align(64))]
pub struct ZeroPool<H: FrameHal, const N: usize> {
    places: [AtomicUsize; N],
    /// About where frames are: places below it tend to be taken, from it on empty. Never relied upon.
    hint: AtomicUsize,
    hits: AtomicUsize,
    misses: AtomicUsize,
    _hal: PhantomData<fn() -> H>,
}

impl<H: FrameHal, const N: usize> ZeroPool<H, N> {
    /// An empty pool.
    pub const fn new() -> Self {
        Self {
            places: [const { AtomicUsize::new(0) }; N],
            hint: AtomicUsize::new(0),
            hits: AtomicUsize::new(0),
            misses: AtomicUsize::new(0),
            _hal: PhantomData,
        }
    }

    /// Allocates and clears up to `frames` frames, as long as there is room for them. Returns how many it added. It
    /// takes the last frames of memory too: an embedder that is short of them does not call it.
    ///
    /// Clearing goes past the CPU's caches where that can be had (x86_64), since the frames are used later.
    pub fn fill(&self, frames: usize) -> usize {
        for done in 0..frames {
            // Looked for first, so that a full pool costs no clearing.
            let Some(place) = self.empty_place() else { return done };
            let Ok(frame) = PhysFrame::<H>::try_alloc() else { return done };
            // SAFETY: the frame is owned here and nowhere else; a HAL's frame is aligned and writable at this pointer.
            unsafe { clear_past_caches(frame.as_mut_ptr()) };
            if let Err(frame) = self.put(frame, place) {
                drop(frame);
                return done;
            }
        }
        frames
    }

    /// Allocates a zeroed frame: one from the pool, else a new one that is cleared here.
    ///
    /// # Errors
    /// [`AllocError::NoMemory`] when the pool is empty and `H` has no frame.
    pub fn alloc_zeroed(&self) -> Result<PhysFrame<H>, AllocError> {
        if let Some(frame) = self.take() {
            self.hits.fetch_add(1, Relaxed);
            return Ok(frame);
        }
        self.misses.fetch_add(1, Relaxed);
        let mut frame = PhysFrame::<H>::try_alloc()?;
        frame.fill(0);
        Ok(frame)
    }

    /// Gives all frames of the pool back to `H`. Returns how many there were.
    pub fn drain(&self) -> usize {
        core::iter::from_fn(|| self.take()).count()
    }

    /// Frames in the pool now.
    pub fn len(&self) -> usize {
        self.places.iter().filter(|place| place.load(Relaxed) != 0).count()
    }

    /// Whether the pool is empty now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many allocations found a zeroed frame, and how many had to clear one.
    pub fn hits_and_misses(&self) -> (usize, usize) {
        (self.hits.load(Relaxed), self.misses.load(Relaxed))
    }

    /// The places from the hint downwards, then the others.
    fn downwards(&self) -> impl Iterator<Item = usize> {
        let hint = self.hint.load(Relaxed).min(N);
        (0..hint).rev().chain((hint..N).rev())
    }

    fn empty_place(&self) -> Option<usize> {
        let hint = self.hint.load(Relaxed).min(N);
        (hint..N).chain(0..hint).find(|&place| self.places[place].load(Relaxed) == 0)
    }

    fn take(&self) -> Option<PhysFrame<H>> {
        for place in self.downwards() {
            if self.places[place].load(Relaxed) == 0 {
                continue;
            }
            let frame = self.places[place].swap(0, Acquire);
            if frame != 0 {
                self.hint.store(place, Relaxed);
                // SAFETY: the place held a frame of `H` that the pool owned, and does not hold it any more.
                return Some(unsafe { PhysFrame::from_raw(PhysAddr::from_usize(frame)) });
            }
        }
        None
    }

    /// Puts a zeroed frame into `first`, or into another place if that was filled meanwhile.
    fn put(&self, frame: PhysFrame<H>, first: usize) -> Result<(), PhysFrame<H>> {
        let addr = frame.start_paddr().as_usize();
        for place in core::iter::once(first).chain(0..N) {
            if self.places[place].compare_exchange(0, addr, Release, Relaxed).is_ok() {
                // The pool owns it from here on; another CPU may have taken it already.
                let _ = frame.into_raw();
                self.hint.store(place + 1, Relaxed);
                return Ok(());
            }
        }
        Err(frame)
    }
}

impl<H: FrameHal, const N: usize> Default for ZeroPool<H, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<H: FrameHal, const N: usize> Drop for ZeroPool<H, N> {
    fn drop(&mut self) {
        self.drain();
    }
}

impl<H: FrameHal, const N: usize> fmt::Debug for ZeroPool<H, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hits, misses) = self.hits_and_misses();
        let mut pool = f.debug_struct("ZeroPool");
        pool.field("len", &self.len())
            .field("capacity", &N)
            .field("hits", &hits)
            .field("misses", &misses)
            .finish()
    }
}
