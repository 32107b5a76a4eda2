//! A last resort before `NoMemory`: the embedder's own caches give something back.
//!
//! A kernel has frames that it could do without: clean pages of files, slabs that are empty, a guest's balloon. Only it
//! knows them. [`Reclaiming`] wraps an allocator, and where that answers [`AllocError::NoMemory`] it calls a hook of the
//! embedder, [`Reclaim`], and tries again. It goes outermost, over the per-CPU cache, so that idle frames in caches come
//! first.
//!
//! Invariants:
//! - the hook runs with nothing held: no lock of the allocator, no pin of the cache; it may free, and allocate;
//! - an allocation calls it at most [`TURNS`] times, and not more often than it says that it helped;
//! - no more than `at_most` runs of it are under way at a time, the nested ones included: a hook that allocates, or is
//!   interrupted by something that does, cannot call itself deeper than that.

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::{
    AllocError, CacheWatermark, DeallocError, FrameAllocator, FrameLayout, FrameRange, FrameStats, HeapFree,
    PhysAddr,
};

/// How often one allocation calls the hook: what it frees, another CPU may take first.
const TURNS: usize = 4;

/// Gives memory back when there is none left. Every `Fn(usize) -> bool` that is `Send` and `Sync` is one.
pub trait Reclaim: Send + Sync {
    /// Frees frames, `needed` or more if it can. Returns whether it freed any: whether it is worth while to try again.
    ///
    /// It is called wherever an allocation is made, in an interrupt handler too if such allocate: where it cannot work,
    /// it returns `false`. What it allocates itself is answered with `NoMemory` where memory is short, without another
    /// call of it.
    fn reclaim(&self, needed: usize) -> bool;
}

impl<F: Fn(usize) -> bool + Send + Sync> Reclaim for F {
    fn reclaim(&self, needed: usize) -> bool {
        self(needed)
    }
}

/// Marks a hook that never calls the global heap, so that a heap may feed on the allocator behind it ([`HeapFree`]).
///
/// # Implementation safety
/// [`reclaim`](Reclaim::reclaim) neither allocates from the global heap nor frees to it. A hook that drops a `Box` does.
pub unsafe trait ReclaimHeapFree: Reclaim {}

/// An allocator that calls a hook before it answers [`AllocError::NoMemory`].
///
/// ```
/// # mod backend { // stands for a backend crate
/// #   use frame_core::*;
/// #   pub struct Tree;
/// #   unsafe impl FrameAllocator for Tree {
/// #     fn alloc(&self, _: FrameLayout) -> Result<PhysAddr, AllocError> { Err(AllocError::NoMemory) }
/// #     unsafe fn dealloc(&self, _: PhysAddr, _: FrameLayout) -> Result<(), DeallocError> { Ok(()) }
/// #     fn stats(&self) -> FrameStats { FrameStats::default() }
/// #     fn visit_free(&self, _: &mut dyn FnMut(FrameRange)) {}
/// #   }
/// # }
/// # use backend::Tree;
/// # mod page_cache { pub fn shrink(_: usize) -> usize { 0 } }
/// use frame_core::{AllocError, FrameAllocator, Reclaim, Reclaiming};
///
/// struct PageCache;
/// impl Reclaim for PageCache {
///     fn reclaim(&self, needed: usize) -> bool {
///         page_cache::shrink(needed) > 0
///     }
/// }
///
/// static FRAMES: Reclaiming<Tree, PageCache> = Reclaiming::new(Tree, PageCache);
/// assert_eq!(FRAMES.alloc_frame(), Err(AllocError::NoMemory)); // this example's page cache is empty
/// ```
#[derive(Debug)]
pub struct Reclaiming<A, R> {
    backend: A,
    reclaim: R,
    at_most: usize,
    /// Runs of the hook that are under way.
    running: AtomicUsize,
}

impl<A: FrameAllocator, R: Reclaim> Reclaiming<A, R> {
    /// Calls `reclaim` when `backend` has no memory, once at a time. Who runs out of memory while it works, on another
    /// CPU, tries once more and gets `NoMemory`.
    pub const fn new(backend: A, reclaim: R) -> Self {
        Self::concurrent(backend, reclaim, 1)
    }

    /// As [`new`](Self::new), with up to `at_most` runs of the hook at a time: for a hook that several CPUs may run at
    /// once. A hook that allocates may then be called from itself, up to that depth.
    pub const fn concurrent(backend: A, reclaim: R, at_most: usize) -> Self {
        Self { backend, reclaim, at_most, running: AtomicUsize::new(0) }
    }

    /// The allocator behind the hook: to add regions, and to allocate past the hook.
    pub const fn backend(&self) -> &A {
        &self.backend
    }

    /// A bulk allocation that got nothing calls the hook, for one frame at least.
    fn bulk_with_reclaim(
        &self,
        frames: &mut [PhysAddr],
        bulk: impl Fn(&A, &mut [PhysAddr]) -> usize,
    ) -> usize {
        let done = bulk(&self.backend, frames);
        let Some((first, rest)) = frames.split_first_mut().filter(|_| done == 0) else { return done };
        match self.retry(rest.len() + 1, A::alloc_frame) {
            Ok(frame) => {
                *first = frame;
                1 + bulk(&self.backend, rest)
            }
            Err(_) => 0,
        }
    }

    /// Tries, and tries again after the hook helped.
    #[inline]
    fn with_reclaim<T>(
        &self,
        needed: usize,
        attempt: impl Fn(&A) -> Result<T, AllocError>,
    ) -> Result<T, AllocError> {
        match attempt(&self.backend) {
            Err(AllocError::NoMemory) => self.retry(needed, attempt),
            result => result,
        }
    }

    #[cold]
    fn retry<T>(
        &self,
        needed: usize,
        attempt: impl Fn(&A) -> Result<T, AllocError>,
    ) -> Result<T, AllocError> {
        for _ in 0..TURNS {
            let helped = match self.enter() {
                Some(_running) => self.reclaim.reclaim(needed),
                // It runs elsewhere, or this comes from it: it may have helped by now.
                None => return attempt(&self.backend),
            };
            if !helped {
                break;
            }
            match attempt(&self.backend) {
                Err(AllocError::NoMemory) => {}
                result => return result,
            }
        }
        Err(AllocError::NoMemory)
    }

    /// Permission to run the hook.
    fn enter(&self) -> Option<Running<'_>> {
        let one_more = |running| (running < self.at_most).then_some(running + 1);
        self.running.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Running(&self.running))
    }
}

/// One run of the hook; it ends by a panic, too.
struct Running<'r>(&'r AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

// SAFETY: every call is passed on to an allocator that keeps the promises, some of them several times: an attempt that
// failed changed nothing, and only the answer of the last one is given.
unsafe impl<A: FrameAllocator, R: Reclaim> FrameAllocator for Reclaiming<A, R> {
    #[inline]
    fn alloc(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        self.with_reclaim(layout.count(), |backend| backend.alloc(layout))
    }

    #[inline]
    unsafe fn dealloc(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.backend.dealloc(start, layout) }
    }

    fn stats(&self) -> FrameStats {
        self.backend.stats()
    }

    fn visit_free(&self, visit: &mut dyn FnMut(FrameRange)) {
        self.backend.visit_free(visit);
    }

    #[inline]
    fn alloc_frame(&self) -> Result<PhysAddr, AllocError> {
        self.with_reclaim(1, A::alloc_frame)
    }

    #[inline]
    unsafe fn dealloc_frame(&self, frame: PhysAddr) -> Result<(), DeallocError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.backend.dealloc_frame(frame) }
    }

    /// The hook is called when there is not one frame: a part of the slice is an answer.
    fn alloc_bulk(&self, frames: &mut [PhysAddr]) -> usize {
        self.bulk_with_reclaim(frames, A::alloc_bulk)
    }

    fn alloc_bulk_for(&self, cpu: usize, frames: &mut [PhysAddr]) -> usize {
        self.bulk_with_reclaim(frames, |backend, frames| backend.alloc_bulk_for(cpu, frames))
    }

    unsafe fn dealloc_bulk(&self, frames: &[PhysAddr]) -> Result<(), DeallocError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.backend.dealloc_bulk(frames) }
    }

    /// No hook frees a given frame: this one is passed on.
    fn alloc_at(&self, range: FrameRange) -> Result<(), AllocError> {
        self.backend.alloc_at(range)
    }

    fn alloc_in(&self, layout: FrameLayout, window: FrameRange) -> Result<PhysAddr, AllocError> {
        self.with_reclaim(layout.count(), |backend| backend.alloc_in(layout, window))
    }

    #[inline]
    fn cache_watermark(&self) -> CacheWatermark {
        self.backend.cache_watermark()
    }
}

// SAFETY: neither the allocator nor the hook calls the heap, and nothing else here does.
unsafe impl<A: HeapFree, R: ReclaimHeapFree> HeapFree for Reclaiming<A, R> {}
