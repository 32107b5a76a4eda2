//! Frames for the page tables of `page_table_multiarch` 0.6.
//!
//! That crate's `PagingHandler` frees by a **safe** function: whoever can name the handler can free any frame, one that
//! a [`PhysFrame`](frame_core::PhysFrame) owns too. No handler can check who calls it. So a HAL is a handler only if its
//! embedder says so, by an `unsafe impl` of [`PagingFrames`].

use core::marker::PhantomData;

use frame_core::{FrameHal, FrameLayout, FrameRange, PhysAddr, VirtAddr};
use log::error;
use page_table_multiarch::PagingHandler;

/// A HAL whose frames the tables of `page_table_multiarch` may take and free, through [`Paging`].
///
/// ```
/// # use frame_core::{FrameHal, PhysAddr, VirtAddr};
/// use frame_allocator::adapters::page_table_multiarch::{Paging, PagingFrames};
/// use page_table_multiarch::PagingHandler;
///
/// struct Kernel;
/// # // SAFETY: it hands no frame out.
/// # unsafe impl FrameHal for Kernel {
/// #     fn alloc_frame() -> Option<PhysAddr> { None }
/// #     unsafe fn dealloc_frame(_: PhysAddr) {}
/// #     fn phys_to_virt(paddr: PhysAddr) -> VirtAddr { VirtAddr::from(paddr.as_usize()) }
/// # }
/// // SAFETY: nothing in this kernel calls `Paging<Kernel>` but the page tables.
/// unsafe impl PagingFrames for Kernel {}
/// assert_eq!(Paging::<Kernel>::alloc_frame(), None); // this HAL has no memory
/// ```
///
/// Without that line the HAL is no handler:
///
/// ```compile_fail,E0277
/// # use frame_core::{FrameHal, PhysAddr, PhysFrame, VirtAddr};
/// # use frame_allocator::adapters::page_table_multiarch::Paging;
/// # use page_table_multiarch::PagingHandler;
/// fn two_owners<H: FrameHal>(frame: &PhysFrame<H>) {
///     Paging::<H>::dealloc_frame(frame.start_paddr()); // safe code, and the frame is still owned
/// }
/// ```
///
/// # Implementation safety
/// `dealloc_frame` and `dealloc_frames` of `Paging<Self>` are called by the tables of `page_table_multiarch` alone, or
/// as they do it: with frames that came from `Paging<Self>`, once, when nothing uses them any more. That is a promise
/// about all code that can name `Paging<Self>`; a HAL type that only the module with the page tables can name keeps the
/// code small that must be read.
pub unsafe trait PagingFrames: FrameHal {}

/// A `PagingHandler` that takes tables from the HAL `H`.
///
/// Alignments are in bytes on both sides. A free that the allocator refuses is logged as an error, and the frames leak.
#[derive(Debug)]
pub struct Paging<H>(PhantomData<fn() -> H>);

impl<H: PagingFrames> PagingHandler for Paging<H> {
    fn alloc_frames(num: usize, align: usize) -> Option<PhysAddr> {
        H::alloc_frames(FrameLayout::new(num, align).ok()?).ok()
    }

    fn dealloc_frames(paddr: PhysAddr, num: usize) {
        let frames = match FrameRange::new(paddr, num) {
            Ok(frames) => frames,
            Err(wrong) => return error!("page table not freed: {wrong}"),
        };
        // SAFETY: the frames came from here and are freed once, when nothing uses them (promise of `PagingFrames`).
        if let Err(refused) = unsafe { H::dealloc_frames(paddr, frames.layout()) } {
            error!("page table leaked, the allocator refused it: {refused}");
        }
    }

    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        H::phys_to_virt(paddr)
    }
}

#[cfg(test)]
mod tests {
    use frame_testkit::{TestHal, test_hal};

    use super::*;
    use crate::adapters::logged::{Refusing, errors_of};

    test_hal! { struct Ram }

    // SAFETY: only these tests call it, with frames that they took from it.
    unsafe impl PagingFrames for Ram {}
    // SAFETY: it has no frames.
    unsafe impl PagingFrames for Refusing {}

    #[test]
    fn tables_come_and_go_as_they_are_asked_for() {
        Ram::scope(64, || {
            let one = Paging::<Ram>::alloc_frame().unwrap();
            let four = Paging::<Ram>::alloc_frames(4, 0x4000).unwrap();
            assert_eq!((four.as_usize() % 0x4000, Ram::owned()), (0, 5));
            assert_eq!(Paging::<Ram>::phys_to_virt(four), Ram::phys_to_virt(four));
            for (num, align) in [(0, 0x1000), (1, 12), (65, 0x1000)] {
                assert_eq!(Paging::<Ram>::alloc_frames(num, align), None);
            }
            Paging::<Ram>::dealloc_frame(one);
            Paging::<Ram>::dealloc_frames(four, 4);
            assert_eq!(Ram::owned(), 0);
        });
    }

    #[test]
    fn what_is_not_taken_back_is_told() {
        let refused = errors_of(|| Paging::<Refusing>::dealloc_frames(0x7000.into(), 2));
        assert!(refused[0].contains("0x7000") && refused[0].contains("leaked"), "{refused:?}");
        let wrong = errors_of(|| Paging::<Ram>::dealloc_frames(0x7001.into(), 1));
        assert!(wrong[0].contains("0x7001"), "{wrong:?}");
    }
}
