//! Frames for the page tables of `page_table_multiarch` 0.6.

use core::marker::PhantomData;

use frame_core::{FrameHal, FrameLayout, FrameRange, PhysAddr, VirtAddr};
use page_table_multiarch::PagingHandler;

/// A `PagingHandler` that takes tables from the HAL `H`.
///
/// Alignments are in bytes on both sides. The trait's `dealloc_frames` is a safe function; it frees what its caller
/// says, as that crate's tables do for frames that they own. A refusal is dropped: the frames leak.
#[derive(Debug)]
pub struct Paging<H>(PhantomData<fn() -> H>);

impl<H: FrameHal> PagingHandler for Paging<H> {
    fn alloc_frames(num: usize, align: usize) -> Option<PhysAddr> {
        H::alloc_frames(FrameLayout::new(num, align).ok()?).ok()
    }

    fn dealloc_frames(paddr: PhysAddr, num: usize) {
        if let Ok(frames) = FrameRange::new(paddr, num) {
            // SAFETY: the tables free what they allocated here, once (contract of `PagingHandler`).
            let _ = unsafe { H::dealloc_frames(paddr, frames.layout()) };
        }
    }

    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        H::phys_to_virt(paddr)
    }
}
