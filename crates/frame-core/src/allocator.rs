//! The promise of a physical-frame allocator.
//!
//! # Ownership is by the frame
//!
//! An allocation is a number of frames that the caller now owns, one by one. It may give them back together, one
//! at a time, in any order, or joined with frames of a neighbouring allocation: [`dealloc`] asks only that every
//! frame it names is owned by the caller. This is what lets `PhysFrames` split and merge, and what a backend
//! checks: each frame is managed, and each is allocated.
//!
//! # A wrong implementation
//!
//! ```compile_fail
//! # use frame_core::*; use core::sync::atomic::{AtomicUsize, Ordering};
//! struct Bump(AtomicUsize);
//! impl FrameAllocator for Bump { // error: the trait is unsafe to implement, and this shows why
//!     fn alloc(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> {
//!         let at = self.0.load(Ordering::Relaxed);           // two CPUs read the same address ...
//!         self.0.store(at + layout.size(), Ordering::Relaxed); // ... and both get the same frames
//!         Ok(PhysAddr::from(at))                             // and nothing aligned them, or knew an end
//!     }
//! }
//! ```
//!
//! [`dealloc`]: FrameAllocator::dealloc

use crate::{AllocError, CacheWatermark, DeallocError, FrameLayout, FrameRange, FrameStats, PhysAddr};

/// An allocator of physical frames.
///
/// The methods take `&self`, so one allocator in a `static` serves every CPU.
///
/// # Implementation safety
///
/// Memory safety rests on the answers of an implementor. It must hold, from any thread and under any interleaving:
/// - **Exclusive**: a frame that was handed out is not handed out again until it has been given back.
/// - **Real**: every frame handed out is RAM that was given to the allocator, and is not frame 0.
/// - **As asked**: the run is contiguous, has the layout's count, and starts at a multiple of its alignment.
/// - **Untouched**: the allocator does not write to a frame that is handed out.
/// - **A refusal changes nothing**: an `Err` leaves every frame as it was; a refused free never reaches another
///   caller.
///
/// The provided methods keep these promises if the required ones do.
pub unsafe trait FrameAllocator: Send + Sync {
    /// Allocates `layout.count()` contiguous frames; the first is aligned to `layout.align()` bytes. Contents are
    /// whatever the last owner left.
    ///
    /// # Errors
    /// [`AllocError::NoMemory`] when no free run fits.
    fn alloc(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError>;

    /// Gives back `layout.count()` frames from `start` on: an allocation, a part of one, or several that adjoin.
    ///
    /// # Errors
    /// `start` is not aligned to `layout.align()`, or a frame is not managed here or is free already: the error
    /// names the frame. Nothing is freed then.
    ///
    /// # Safety
    /// The caller owns the frames and nothing uses them any more. Freeing what somebody else owns is not
    /// detectable; a free of what nobody owns is refused.
    unsafe fn dealloc(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError>;

    /// How many frames there are and how many are free. Taken without stopping anyone: exact when nothing runs.
    fn stats(&self) -> FrameStats;

    /// Calls `visit` with runs of free frames, lowest address first. The runs are disjoint and cover every free
    /// frame that lies in no cache (drain first to see those); adjoining ones may come apart. Taken without stopping
    /// anyone: exact when nothing runs.
    ///
    /// `visit` must not call the allocator: a backend behind a lock holds it meanwhile.
    fn visit_free(&self, visit: &mut dyn FnMut(FrameRange));

    /// Allocates one frame: the path that backends make fast.
    ///
    /// # Errors
    /// [`AllocError::NoMemory`] when no frame is free.
    #[inline]
    fn alloc_frame(&self) -> Result<PhysAddr, AllocError> {
        self.alloc(FrameLayout::SINGLE)
    }

    /// Gives one frame back.
    ///
    /// # Errors
    /// As [`dealloc`](Self::dealloc).
    ///
    /// # Safety
    /// As [`dealloc`](Self::dealloc).
    #[inline]
    unsafe fn dealloc_frame(&self, frame: PhysAddr) -> Result<(), DeallocError> {
        // SAFETY: the caller's promise for one frame is the promise for a layout of one frame.
        unsafe { self.dealloc(frame, FrameLayout::SINGLE) }
    }

    /// Allocates single frames into `frames`, from the front, until it is full or none is left. Returns how many
    /// were written; the rest of the slice is untouched. They need not be contiguous.
    fn alloc_bulk(&self, frames: &mut [PhysAddr]) -> usize {
        for (done, slot) in frames.iter_mut().enumerate() {
            match self.alloc_frame() {
                Ok(frame) => *slot = frame,
                Err(_) => return done,
            }
        }
        frames.len()
    }

    /// As [`alloc_bulk`](Self::alloc_bulk), for the cache of CPU number `cpu`: a backend may serve each CPU from a place of its
    /// own, so that CPUs stay out of each other's cache lines. Only a hint: any number will do, and any frame may come.
    fn alloc_bulk_for(&self, cpu: usize, frames: &mut [PhysAddr]) -> usize {
        let _ = cpu;
        self.alloc_bulk(frames)
    }

    /// Gives single frames back. Every frame that can be freed is freed, whatever its neighbours in the slice do.
    ///
    /// # Errors
    /// The first refusal, after the whole slice was tried.
    ///
    /// # Safety
    /// As [`dealloc`](Self::dealloc), for each frame.
    unsafe fn dealloc_bulk(&self, frames: &[PhysAddr]) -> Result<(), DeallocError> {
        let mut result = Ok(());
        for &frame in frames {
            // SAFETY: the caller owns each frame of the slice.
            let freed = unsafe { self.dealloc_frame(frame) };
            result = result.and(freed);
        }
        result
    }

    /// Allocates exactly the frames of `range`.
    ///
    /// # Errors
    /// [`AllocError::NotManaged`] when a frame is not the allocator's, [`AllocError::InUse`] when one is taken,
    /// [`AllocError::Unsupported`] where the backend cannot do it.
    fn alloc_at(&self, range: FrameRange) -> Result<(), AllocError> {
        let _ = range;
        Err(AllocError::Unsupported)
    }

    /// Allocates as [`alloc`](Self::alloc), with every frame inside `window`: memory below 16 MiB or 4 GiB for a
    /// device that cannot address more, or one node's memory.
    ///
    /// # Errors
    /// [`AllocError::NoMemory`] when no free run of the window fits, [`AllocError::Unsupported`] where the backend
    /// cannot do it.
    fn alloc_in(&self, layout: FrameLayout, window: FrameRange) -> Result<PhysAddr, AllocError> {
        let _ = (layout, window);
        Err(AllocError::Unsupported)
    }

    /// Advice to a cache in front of this allocator: which frames are better kept, and which handed back, because reusing
    /// those where allocation begins lets whole huge frames come free elsewhere. Only a hint.
    #[inline]
    fn cache_watermark(&self) -> CacheWatermark {
        CacheWatermark::KEEP_ALL
    }
}

/// Marks an allocator that never calls the global heap.
///
/// Whatever feeds a `#[global_allocator]` with frames must require this bound: a backend that keeps its books on
/// the heap would call the heap, which would call it again.
///
/// # Implementation safety
/// No method of the implementor, [`FrameAllocator`]'s included, allocates from or frees to the global heap.
pub unsafe trait HeapFree: FrameAllocator {}

// SAFETY: every call is passed on unchanged to an allocator that keeps the promises.
unsafe impl<A: FrameAllocator + ?Sized> FrameAllocator for &A {
    #[inline]
    fn alloc(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        (**self).alloc(layout)
    }
    #[inline]
    unsafe fn dealloc(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).dealloc(start, layout) }
    }
    fn stats(&self) -> FrameStats {
        (**self).stats()
    }
    fn visit_free(&self, visit: &mut dyn FnMut(FrameRange)) {
        (**self).visit_free(visit);
    }
    #[inline]
    fn alloc_frame(&self) -> Result<PhysAddr, AllocError> {
        (**self).alloc_frame()
    }
    #[inline]
    unsafe fn dealloc_frame(&self, frame: PhysAddr) -> Result<(), DeallocError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).dealloc_frame(frame) }
    }
    fn alloc_bulk(&self, frames: &mut [PhysAddr]) -> usize {
        (**self).alloc_bulk(frames)
    }
    fn alloc_bulk_for(&self, cpu: usize, frames: &mut [PhysAddr]) -> usize {
        (**self).alloc_bulk_for(cpu, frames)
    }
    unsafe fn dealloc_bulk(&self, frames: &[PhysAddr]) -> Result<(), DeallocError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).dealloc_bulk(frames) }
    }
    fn alloc_at(&self, range: FrameRange) -> Result<(), AllocError> {
        (**self).alloc_at(range)
    }
    fn alloc_in(&self, layout: FrameLayout, window: FrameRange) -> Result<PhysAddr, AllocError> {
        (**self).alloc_in(layout, window)
    }
    fn cache_watermark(&self) -> CacheWatermark {
        (**self).cache_watermark()
    }
}

// SAFETY: passing a call on allocates nothing.
unsafe impl<A: HeapFree + ?Sized> HeapFree for &A {}
