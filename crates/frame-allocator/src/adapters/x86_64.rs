//! Frames for the page tables of `x86_64` 0.15: 4 KiB, 2 MiB and 1 GiB.

use frame_core::{FRAME_SIZE, FrameAllocator, FrameLayout, PhysAddr};
use x86_64::structures::paging::{FrameAllocator as Allocate, FrameDeallocator, PageSize, PhysFrame};

/// Any allocator, as the mapper of that crate wants it: `&mut X86(&FRAMES)`.
#[derive(Debug)]
pub struct X86<'a, A: ?Sized>(pub &'a A);

fn layout<S: PageSize>() -> FrameLayout {
    let size = S::SIZE as usize;
    FrameLayout::new(size / FRAME_SIZE, size).expect("page sizes are powers of two of at least 4 KiB")
}

// SAFETY: an allocator's frames are exclusive, unused and aligned as asked (promise of our `FrameAllocator`).
unsafe impl<S: PageSize, A: FrameAllocator + ?Sized> Allocate<S> for X86<'_, A> {
    fn allocate_frame(&mut self) -> Option<PhysFrame<S>> {
        let start = self.0.alloc(layout::<S>()).ok()?;
        PhysFrame::from_start_address(x86_64::PhysAddr::try_new(start.as_usize() as u64).ok()?).ok()
    }
}

impl<S: PageSize, A: FrameAllocator + ?Sized> FrameDeallocator<S> for X86<'_, A> {
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame<S>) {
        let start = PhysAddr::from(frame.start_address().as_u64() as usize);
        // SAFETY: the caller gives up a frame of this size that it owns. A refusal leaks it: there is nobody to tell.
        let _ = unsafe { self.0.dealloc(start, layout::<S>()) };
    }
}
