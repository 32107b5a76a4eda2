//! Where the tables of both come from: one cache over one tree, in a `static`.

use frame_allocator::{FrameHal, PhysAddr, VirtAddr};
pub(crate) use frame_benches::ours::Host;
use frame_benches::ours::start_host;
use page_table_multiarch::PagingHandler;

/// Bytes: tables for 1 TiB of pages of 4 KiB take 2 GiB.
const MEMORY: usize = 5 << 30;

/// Gives the allocator its memory.
pub(crate) fn start() {
    start_host(MEMORY);
}

/// The HAL for the peer.
pub(crate) struct Handler;

impl PagingHandler for Handler {
    #[inline]
    fn alloc_frame() -> Option<PhysAddr> {
        Host::alloc_frame()
    }

    fn alloc_frames(num: usize, _align: usize) -> Option<PhysAddr> {
        if num == 1 { Host::alloc_frame() } else { None }
    }

    #[inline]
    fn dealloc_frame(paddr: PhysAddr) {
        // SAFETY: the tables free what they allocated here, once.
        unsafe { Host::dealloc_frame(paddr) }
    }

    fn dealloc_frames(paddr: PhysAddr, _num: usize) {
        Self::dealloc_frame(paddr);
    }

    #[inline]
    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        <Host as FrameHal>::phys_to_virt(paddr)
    }
}
