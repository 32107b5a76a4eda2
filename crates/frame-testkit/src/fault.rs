//! Fault injection: the n-th allocation fails, on purpose.
//!
//! [`Faults`] is the plan, shared by [`FaultInjecting`], which wraps an allocator, and by the HAL of
//! [`test_hal!`](crate::test_hal). Only allocations fail; a free always goes through.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use frame_core::{
    AllocError, CacheWatermark, DeallocError, FrameAllocator, FrameLayout, FrameRange, FrameStats, HeapFree,
    PhysAddr,
};

/// Which allocations fail. Allocations are numbered from 0, over all threads.
#[derive(Debug)]
pub struct Faults {
    calls: AtomicUsize,
    /// Calls of `from..until` fail.
    from: AtomicUsize,
    until: AtomicUsize,
    injected: AtomicUsize,
}

impl Faults {
    /// A plan by which nothing fails.
    pub const fn new() -> Self {
        Self {
            calls: AtomicUsize::new(0),
            from: AtomicUsize::new(usize::MAX),
            until: AtomicUsize::new(usize::MAX),
            injected: AtomicUsize::new(0),
        }
    }

    /// The `n`-th allocation from now fails, and no other; 1 is the next one.
    ///
    /// # Panics
    /// `n` is 0.
    pub fn fail_nth(&self, n: usize) {
        assert!(n > 0, "fail_nth counts from 1: the next allocation");
        let first = self.calls() + n - 1;
        self.plan(first, first + 1);
    }

    /// The next `n` allocations succeed and all after them fail.
    pub fn fail_after(&self, n: usize) {
        self.plan(self.calls() + n, usize::MAX);
    }

    /// Nothing fails any more.
    pub fn fail_never(&self) {
        self.plan(usize::MAX, usize::MAX);
    }

    /// Allocations tried so far, those that failed included.
    pub fn calls(&self) -> usize {
        self.calls.load(Relaxed)
    }

    /// Allocations that failed by this plan.
    pub fn injected(&self) -> usize {
        self.injected.load(Relaxed)
    }

    /// Forgets the plan and the counts.
    pub fn reset(&self) {
        self.fail_never();
        self.calls.store(0, Relaxed);
        self.injected.store(0, Relaxed);
    }

    /// Counts an allocation.
    ///
    /// # Errors
    /// [`AllocError::NoMemory`] when it is to fail.
    pub fn next_call(&self) -> Result<(), AllocError> {
        let call = self.calls.fetch_add(1, Relaxed);
        if self.from.load(Relaxed) <= call && call < self.until.load(Relaxed) {
            self.injected.fetch_add(1, Relaxed);
            return Err(AllocError::NoMemory);
        }
        Ok(())
    }

    fn plan(&self, from: usize, until: usize) {
        self.from.store(from, Relaxed);
        self.until.store(until, Relaxed);
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::new()
    }
}

/// An allocator whose allocations fail when the plan says so: `NoMemory` though there is memory.
///
/// Each frame of a bulk call counts as an allocation, so a bulk call can stop half-way.
///
/// ```
/// use frame_testkit::{FaultInjecting, Oracle, frame_core::*};
///
/// let oracle = Oracle::new();
/// oracle.add_region(FrameRange::new(PhysAddr::from(0x1000), 8)?)?;
/// let allocator = FaultInjecting::new(oracle);
/// allocator.faults().fail_nth(2);
/// assert!(allocator.alloc_frame().is_ok());
/// assert_eq!(allocator.alloc_frame(), Err(AllocError::NoMemory));
/// assert!(allocator.alloc_frame().is_ok());
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct FaultInjecting<A> {
    inner: A,
    faults: Faults,
}

impl<A> FaultInjecting<A> {
    /// Wraps an allocator; nothing fails yet.
    pub const fn new(inner: A) -> Self {
        Self { inner, faults: Faults::new() }
    }

    /// The plan.
    pub const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The allocator inside.
    pub const fn inner(&self) -> &A {
        &self.inner
    }

    /// The allocator, unwrapped.
    pub fn into_inner(self) -> A {
        self.inner
    }
}

// SAFETY: every call goes to an allocator that keeps the promises, or fails without an effect.
unsafe impl<A: FrameAllocator> FrameAllocator for FaultInjecting<A> {
    fn alloc(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        self.faults.next_call()?;
        self.inner.alloc(layout)
    }

    unsafe fn dealloc(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.dealloc(start, layout) }
    }

    fn stats(&self) -> FrameStats {
        self.inner.stats()
    }

    fn visit_free(&self, visit: &mut dyn FnMut(FrameRange)) {
        self.inner.visit_free(visit);
    }

    fn alloc_frame(&self) -> Result<PhysAddr, AllocError> {
        self.faults.next_call()?;
        self.inner.alloc_frame()
    }

    unsafe fn dealloc_frame(&self, frame: PhysAddr) -> Result<(), DeallocError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.dealloc_frame(frame) }
    }

    fn alloc_bulk(&self, frames: &mut [PhysAddr]) -> usize {
        let granted = frames.iter().take_while(|_| self.faults.next_call().is_ok()).count();
        self.inner.alloc_bulk(&mut frames[..granted])
    }

    fn alloc_bulk_for(&self, cpu: usize, frames: &mut [PhysAddr]) -> usize {
        let granted = frames.iter().take_while(|_| self.faults.next_call().is_ok()).count();
        self.inner.alloc_bulk_for(cpu, &mut frames[..granted])
    }

    unsafe fn dealloc_bulk(&self, frames: &[PhysAddr]) -> Result<(), DeallocError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.dealloc_bulk(frames) }
    }

    fn alloc_at(&self, range: FrameRange) -> Result<(), AllocError> {
        self.faults.next_call()?;
        self.inner.alloc_at(range)
    }

    fn alloc_in(&self, layout: FrameLayout, window: FrameRange) -> Result<PhysAddr, AllocError> {
        self.faults.next_call()?;
        self.inner.alloc_in(layout, window)
    }

    fn cache_watermark(&self) -> CacheWatermark {
        self.inner.cache_watermark()
    }
}

// SAFETY: counting allocates nothing.
unsafe impl<A: HeapFree> HeapFree for FaultInjecting<A> {}
