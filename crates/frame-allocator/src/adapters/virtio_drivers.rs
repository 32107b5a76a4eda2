//! DMA memory for `virtio-drivers` 0.13.

use core::{marker::PhantomData, ptr::NonNull};

use frame_core::{FRAME_SIZE, FrameHal, FrameLayout, FrameRange, PhysAddr, VirtAddr};
use virtio_drivers::{BufferDirection, Hal, PhysAddr as BusAddr};

/// What drivers need of an address space beyond frames: for devices that see physical memory as it is, without an
/// IOMMU.
///
/// # Implementation safety
/// [`virt_to_phys`](Self::virt_to_phys) gives the address at which the device reaches the byte, for all memory of
/// which drivers share buffers, which is physically contiguous where it is virtually contiguous.
/// [`mmio_to_virt`](Self::mmio_to_virt) gives a valid, unaliased pointer to device memory.
pub unsafe trait DmaMap: FrameHal {
    /// The physical address of a byte of mapped memory.
    fn virt_to_phys(vaddr: VirtAddr) -> PhysAddr;

    /// Where the CPU reaches `size` bytes of device registers at `paddr`.
    fn mmio_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8>;
}

/// A `Hal` whose DMA memory comes from the HAL `H`: contiguous, zeroed frames.
#[derive(Debug)]
pub struct VirtioHal<H>(PhantomData<fn() -> H>);

// SAFETY: the frames of a run are exclusive, aligned and adjacent under `phys_to_virt` (promise of `FrameHal`), and are
// zeroed here; the other translations are the promise of `DmaMap`.
unsafe impl<H: DmaMap> Hal for VirtioHal<H> {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (BusAddr, NonNull<u8>) {
        // Address 0 is how this trait says that there is no memory.
        let none = (0, NonNull::dangling());
        let Ok(layout) = FrameLayout::contiguous(pages) else { return none };
        let Ok(start) = H::alloc_frames(layout) else { return none };
        let Some(pointer) = NonNull::new(H::phys_to_virt(start).as_mut_ptr()) else { return none };
        // SAFETY: the run was just allocated, is writable and belongs to nobody else.
        unsafe { pointer.write_bytes(0, pages * FRAME_SIZE) };
        (start.as_usize() as BusAddr, pointer)
    }

    unsafe fn dma_dealloc(paddr: BusAddr, _: NonNull<u8>, pages: usize) -> i32 {
        let start = PhysAddr::from(paddr as usize);
        let Ok(frames) = FrameRange::new(start, pages) else { return -1 };
        // SAFETY: the caller gives back a run of `dma_alloc`, once.
        match unsafe { H::dealloc_frames(start, frames.layout()) } {
            Ok(()) => 0,
            Err(_) => -1,
        }
    }

    unsafe fn mmio_phys_to_virt(paddr: BusAddr, size: usize) -> NonNull<u8> {
        H::mmio_to_virt(PhysAddr::from(paddr as usize), size)
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> BusAddr {
        H::virt_to_phys(VirtAddr::from(buffer.as_ptr().cast::<u8>().expose_provenance())).as_usize()
            as BusAddr
    }

    unsafe fn unshare(_: BusAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
