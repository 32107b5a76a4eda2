//! A HAL over whatever allocator is compared: what `vmx-structs` needs to build on it.
//!
//! A [`FrameHal`] is a type with static functions, and a compared allocator is a local variable. In between,
//! [`serve`] names an allocator and its simulated memory to this thread for as long as a closure runs, and counts what
//! is taken and given back.
//!
//! Invariant: `SERVED` is null, or points to a [`Served`] of a [`serve`] further up on this thread's stack.

use std::{cell::Cell, marker::PhantomData, ptr};

use frame_core::{
    AllocError, DeallocError, DeallocErrorKind, FrameAllocator, FrameHal, FrameLayout, PhysAddr, VirtAddr,
};
use frame_testkit::SimMemory;

/// The HAL. Works on the thread, and while, [`serve`] runs.
#[derive(Debug)]
pub(crate) struct LabHal;

/// Frames that went through the HAL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) taken: usize,
    pub(crate) given_back: usize,
    /// Good frees that the allocator refused.
    pub(crate) refused: usize,
}

struct Served<'a> {
    allocator: &'a dyn FrameAllocator,
    memory: &'a SimMemory,
    tally: Cell<Tally>,
}

thread_local! {
    static SERVED: Cell<*const ()> = const { Cell::new(ptr::null()) };
}

/// Runs `work` with [`LabHal`] standing on this allocator. `work` gets a function that tells the tally so far.
///
/// # Panics
/// It runs already on this thread.
pub(crate) fn serve<R>(
    allocator: &dyn FrameAllocator,
    memory: &SimMemory,
    work: impl FnOnce(&dyn Fn() -> Tally) -> R,
) -> R {
    /// Ends the service whether `work` returns or panics.
    struct End<'a>(PhantomData<&'a ()>);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            SERVED.set(ptr::null());
        }
    }
    assert!(SERVED.get().is_null(), "one allocator at a time");
    let served = Served { allocator, memory, tally: Cell::default() };
    // Declared behind `served`, so dropped before it.
    let _end = End(PhantomData);
    SERVED.set(ptr::from_ref(&served).cast());
    work(&|| served.tally.get())
}

fn with<R>(work: impl FnOnce(&Served<'_>) -> R) -> Option<R> {
    let served: *const Served<'_> = SERVED.get().cast();
    // SAFETY: invariant of the module: null, or a `Served` that is alive. It is used on this thread only, and not
    // beyond this call: the lifetime is that of the borrow.
    unsafe { served.as_ref() }.map(work)
}

impl Served<'_> {
    fn alloc(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        let start = self.allocator.alloc(layout)?;
        self.note(|tally| tally.taken += layout.count());
        Ok(start)
    }

    /// # Safety
    /// As [`FrameAllocator::dealloc`].
    unsafe fn dealloc(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
        // SAFETY: the caller's promise is passed on.
        let result = unsafe { self.allocator.dealloc(start, layout) };
        self.note(|tally| match result {
            Ok(()) => tally.given_back += layout.count(),
            Err(_) => tally.refused += layout.count(),
        });
        result
    }

    fn note(&self, change: impl FnOnce(&mut Tally)) {
        let mut tally = self.tally.get();
        change(&mut tally);
        self.tally.set(tally);
    }
}

// SAFETY: frames are those of an allocator that keeps its promises, and the memory behind them is that of the
// simulated ranges: mapped, initialised (zero, or what was written), adjacent where the frames are, and alive until the
// frames are dropped: the structures live inside of `serve`. On other threads there are no frames.
unsafe impl FrameHal for LabHal {
    fn alloc_frame() -> Option<PhysAddr> {
        with(|served| served.alloc(FrameLayout::SINGLE).ok()).flatten()
    }

    unsafe fn dealloc_frame(paddr: PhysAddr) {
        // SAFETY: the caller's promise is passed on. A refusal is in the tally; without an allocator, the frame leaks.
        let _ = with(|served| unsafe { served.dealloc(paddr, FrameLayout::SINGLE) });
    }

    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        let ptr = with(|served| served.memory.ptr(paddr));
        VirtAddr::from(ptr.expect("frames are reached while their allocator is served") as usize)
    }

    fn alloc_frames(layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        with(|served| served.alloc(layout)).unwrap_or(Err(AllocError::NoMemory))
    }

    unsafe fn dealloc_frames(start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
        // SAFETY: the caller's promise is passed on.
        let result = with(|served| unsafe { served.dealloc(start, layout) });
        result.unwrap_or(Err(DeallocError::new(start, DeallocErrorKind::NotManaged)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use frame_core::{FrameRange, PhysFrame};
    use frame_testkit::Oracle;

    #[test]
    fn frames_are_counted_and_memory_is_behind_them() {
        let range = FrameRange::new(PhysAddr::from(0x10_0000), 4).unwrap();
        let (oracle, memory) = (Oracle::new(), SimMemory::new(&[range]).unwrap());
        oracle.add_region(range).unwrap();
        assert!(PhysFrame::<LabHal>::alloc().is_err());
        serve(&oracle, &memory, |tally| {
            let mut frame = PhysFrame::<LabHal>::alloc_zero().unwrap();
            frame.fill(7);
            assert_eq!(tally(), Tally { taken: 1, ..Tally::default() });
            drop(frame);
            assert_eq!(tally(), Tally { taken: 1, given_back: 1, refused: 0 });
        });
        assert!(PhysFrame::<LabHal>::alloc().is_err());
    }
}
