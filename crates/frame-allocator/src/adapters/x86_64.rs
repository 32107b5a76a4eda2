//! Frames for the page tables of `x86_64` 0.15: 4 KiB, 2 MiB and 1 GiB.

use frame_core::{FRAME_SIZE, FrameAllocator, FrameLayout, PhysAddr};
use log::error;
use x86_64::structures::paging::{FrameAllocator as Allocate, FrameDeallocator, PageSize, PhysFrame};

/// Any allocator, as the mapper of that crate wants it: `&mut X86(&FRAMES)`.
///
/// A free that the allocator refuses is logged as an error, and the frame leaks.
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
        // SAFETY: the caller gives up a frame of this size that it owns.
        if let Err(refused) = unsafe { self.0.dealloc(start, layout::<S>()) } {
            error!("frame leaked, the allocator refused it: {refused}");
        }
    }
}

#[cfg(test)]
mod tests {
    use frame_testkit::{Backend, OracleBackend};
    use x86_64::structures::paging::{Size2MiB, Size4KiB};

    use super::*;
    use crate::adapters::logged::{Refusing, errors_of};

    #[test]
    fn pages_of_every_size_come_and_go() {
        let ram = frame_core::FrameRange::new(PhysAddr::from(16 << 20), 1024).unwrap();
        OracleBackend::with(&[ram], |frames| {
            let mut frames = X86(frames);
            let small: PhysFrame<Size4KiB> = frames.allocate_frame().unwrap();
            let large: PhysFrame<Size2MiB> = frames.allocate_frame().unwrap();
            assert_eq!(frames.0.stats().used_frames(), 513);
            // SAFETY: just allocated, and nothing uses them.
            unsafe {
                frames.deallocate_frame(small);
                frames.deallocate_frame(large);
            }
            assert_eq!(frames.0.stats().used_frames(), 0);
        });
    }

    #[test]
    fn what_is_not_taken_back_is_told() {
        let frame = PhysFrame::<Size4KiB>::containing_address(x86_64::PhysAddr::new(0x7000));
        // SAFETY: nothing is behind the address, and nothing comes of it: it is refused.
        let errors = errors_of(|| unsafe { X86(&Refusing).deallocate_frame(frame) });
        assert!(errors[0].contains("0x7000") && errors[0].contains("leaked"), "{errors:?}");
    }
}
