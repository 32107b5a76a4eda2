//! The bridge from an allocator in a `static` to the static functions of [`FrameHal`].
//!
//! Half of the frame traits in the field are static functions, half take `&self`. Here the instance is the core;
//! naming the instance once gives the static face.

use log::error;

use crate::{AllocError, DeallocError, FrameAllocator, FrameHal, FrameLayout, PhysAddr, VirtAddr};

/// Names a `static` allocator and the linear map: every implementor is a [`FrameHal`].
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
/// use frame_core::{GlobalFrames, PhysAddr, PhysFrame, VirtAddr};
///
/// static FRAMES: Tree = Tree;
/// const LINEAR_MAP: usize = 0xffff_8000_0000_0000;
///
/// struct Kernel;
/// // SAFETY: all RAM is mapped at LINEAR_MAP, and FRAMES was given RAM that nothing else uses.
/// unsafe impl GlobalFrames for Kernel {
///     type Allocator = Tree;
///     fn allocator() -> &'static Tree {
///         &FRAMES
///     }
///     fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
///         VirtAddr::from(LINEAR_MAP + paddr.as_usize())
///     }
/// }
///
/// let frame = PhysFrame::<Kernel>::alloc(); // this example's allocator is empty
/// assert_eq!(frame.unwrap_err(), frame_core::AxError::NoMemory);
/// ```
///
/// # Implementation safety
/// [`allocator`](Self::allocator) returns the same allocator each time; its frames are RAM that nobody else uses;
/// [`phys_to_virt`](Self::phys_to_virt) keeps the promise of [`FrameHal`] for them: frames that are adjacent in physical
/// memory are adjacent there too, in one allocation, whichever calls handed them out. One offset for all RAM does that.
/// A wrong implementation has two: RAM below 4 GiB mapped at one place, RAM above at another. The last frame below and
/// the first above adjoin in physical memory only.
pub unsafe trait GlobalFrames: 'static {
    /// The allocator's type.
    type Allocator: FrameAllocator + 'static;

    /// The allocator.
    fn allocator() -> &'static Self::Allocator;

    /// The address at which the CPU reaches the byte at `paddr`.
    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr;
}

// SAFETY: an allocator's frames are exclusive, aligned as asked and never at 0 (promise of `FrameAllocator`); that
// they can be reached through `phys_to_virt` is the promise of `GlobalFrames`.
unsafe impl<G: GlobalFrames> FrameHal for G {
    #[inline]
    fn alloc_frame() -> Option<PhysAddr> {
        G::allocator().alloc_frame().ok()
    }

    #[inline]
    unsafe fn dealloc_frame(paddr: PhysAddr) {
        // SAFETY: the caller owns the frame, which came from the same allocator.
        if let Err(refused) = unsafe { G::allocator().dealloc_frame(paddr) } {
            log_refusal(refused);
        }
    }

    #[inline]
    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        <G as GlobalFrames>::phys_to_virt(paddr)
    }

    #[inline]
    fn alloc_frames(layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        G::allocator().alloc(layout)
    }

    #[inline]
    unsafe fn dealloc_frames(start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
        // SAFETY: the caller owns the run, which came from the same allocator.
        unsafe { G::allocator().dealloc(start, layout) }
    }
}

/// Out of line: the path of an owner that lied, kept off every drop's hot path.
#[cold]
#[inline(never)]
fn log_refusal(refused: DeallocError) {
    error!("frame leaked, the allocator refused it: {refused}");
}
