//! The seed's HAL: three static functions that a kernel or hypervisor fills in once.
//!
//! A type parameter `H: FrameHal` carries no state, so an owned frame is one word and its drop knows where to go.
//! An embedder whose allocator is a `static` implements [`GlobalFrames`](crate::GlobalFrames) instead and gets
//! this trait, with contiguous runs, for free.

use crate::{AllocError, DeallocError, FRAME_SIZE, FrameLayout, PhysAddr, VirtAddr};

/// Where frames come from, go to, and can be reached.
///
/// # Implementation safety
///
/// [`PhysFrame`](crate::PhysFrame) hands out references to the memory behind these addresses. For every frame that
/// [`alloc_frame`](Self::alloc_frame) or [`alloc_frames`](Self::alloc_frames) returned and that has not been given
/// back:
/// - it is exclusive: not returned again, and used by nobody else;
/// - it is frame-aligned (`alloc_frames`: aligned as the layout says) and not at address 0;
/// - [`phys_to_virt`](Self::phys_to_virt) gives a non-null, frame-aligned pointer to [`FRAME_SIZE`] bytes that may
///   be read and written, the same for each call;
/// - **frames that are adjacent in physical memory are adjacent there too, in one allocation in Rust's sense** (so at
///   most `isize::MAX` bytes from end to end): the frames of a run, and frames of different calls as well, for
///   [`PhysFrames::merge`](crate::PhysFrames::merge) makes one slice of them;
/// - the bytes are initialised in Rust's sense. RAM always is; a HAL that carves frames out of a host heap must
///   write to them first.
///
/// All functions may be called from any thread.
///
/// A linear map of all RAM keeps all of that. A wrong implementation: `phys_to_virt` that adds an offset which covers
/// only the first 4 GiB. Frames above come back as pointers to something else, and safe code writes there.
///
/// Another one, whose runs are right and whose neighbours are not:
///
/// ```compile_fail,E0200
/// # use frame_core::*; use std::alloc::{Layout, alloc_zeroed};
/// # const FRAME: Layout = Layout::new::<[u8; FRAME_SIZE]>();
/// struct Heap;
/// impl FrameHal for Heap { // error: the trait is unsafe to implement, and this shows why
///     fn alloc_frame() -> Option<PhysAddr> {
///         // Each frame is an allocation of its own. Two may well adjoin: `merge` then makes one slice of two
///         // allocations, which no pointer may cross.
///         let frame = unsafe { alloc_zeroed(FRAME.align_to(FRAME_SIZE).unwrap()) };
///         (!frame.is_null()).then(|| PhysAddr::from(frame.expose_provenance()))
///     }
///     // ...
/// #   unsafe fn dealloc_frame(_: PhysAddr) {}
/// #   fn phys_to_virt(paddr: PhysAddr) -> VirtAddr { paddr.as_usize().into() }
/// }
/// ```
///
/// It is mended by taking the frames out of one large allocation, or by leaving a frame between two of them. A HAL that
/// maps frames in a window, each where there is room, is as wrong; that one `merge` finds out and refuses.
pub unsafe trait FrameHal: 'static {
    /// Allocates a frame, or `None` when memory is exhausted.
    fn alloc_frame() -> Option<PhysAddr>;

    /// Gives a frame back.
    ///
    /// # Safety
    /// `paddr` came from [`alloc_frame`](Self::alloc_frame) or lies in a run from
    /// [`alloc_frames`](Self::alloc_frames), was not given back since, and nothing uses it any more.
    unsafe fn dealloc_frame(paddr: PhysAddr);

    /// The address at which the CPU reaches the byte at `paddr`.
    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr;

    /// Allocates a contiguous run. Provided for single frames only; a HAL with runs overrides it.
    ///
    /// # Errors
    /// [`AllocError::NoMemory`] when no run fits; [`AllocError::Unsupported`] when this HAL has single frames only.
    #[inline]
    fn alloc_frames(layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        if !layout.is_single() {
            return Err(AllocError::Unsupported);
        }
        Self::alloc_frame().ok_or(AllocError::NoMemory)
    }

    /// Gives a run, or a part of one, back. Provided: frame by frame.
    ///
    /// # Errors
    /// The backend refused a frame.
    ///
    /// # Safety
    /// As [`dealloc_frame`](Self::dealloc_frame), for each of the `layout.count()` frames from `start` on.
    #[inline]
    unsafe fn dealloc_frames(start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
        for i in 0..layout.count() {
            // SAFETY: the caller owns each frame of the run.
            unsafe { Self::dealloc_frame(start + i * FRAME_SIZE) };
        }
        Ok(())
    }
}
