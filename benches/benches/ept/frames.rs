//! Where the tables of both come from: one cache over one tree, in a `static`.

use std::sync::OnceLock;

use frame_allocator::{
    FrameHal, FrameRange, GlobalFrames, PerCpu, PhysAddr, Tree, VirtAddr,
    percpu::{CpuSlot, ThreadCpus},
};
use frame_benches::arena::{arena, zeroed};
use page_table_multiarch::PagingHandler;

static FRAMES: PerCpu<'static, Tree<'static>, ThreadCpus> = PerCpu::new(Tree::new(), ThreadCpus);

/// Bytes: tables for 1 TiB of pages of 4 KiB take 2 GiB.
const MEMORY: usize = 5 << 30;

/// Gives the allocator its memory.
pub(crate) fn start() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        let memory = arena(MEMORY).expect("address space");
        let region = FrameRange::from_bounds(PhysAddr::from(memory.start), PhysAddr::from(memory.end))
            .expect("an arena is aligned");
        let books = zeroed(<Tree>::metadata_layout(region));
        // SAFETY: the arena was made for this.
        unsafe { FRAMES.backend().add_region(region, books) }.expect("the first region");
        let slots = Box::leak(Box::new([const { CpuSlot::new() }; 64]));
        FRAMES.attach(slots).expect("no slots yet");
    });
}

/// The HAL of the EPT tables.
pub(crate) struct Host;

// SAFETY: the arena of `FRAMES` is mapped memory that nobody else uses, and an address is a pointer.
unsafe impl GlobalFrames for Host {
    type Allocator = PerCpu<'static, Tree<'static>, ThreadCpus>;

    #[inline]
    fn allocator() -> &'static Self::Allocator {
        &FRAMES
    }

    #[inline]
    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        VirtAddr::from(paddr.as_usize())
    }
}

/// The same for the peer.
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
