//! DMA memory for `virtio-drivers` 0.13.

use core::{marker::PhantomData, ptr::NonNull};

use frame_core::{FRAME_SIZE, FrameHal, FrameLayout, FrameRange, PhysAddr, PhysFrames, VirtAddr};
use virtio_drivers::{BufferDirection, Hal, PhysAddr as BusAddr};

const _: () = assert!(virtio_drivers::PAGE_SIZE == FRAME_SIZE);

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
///
/// No memory is told as that trait wants it, by address 0; drivers turn it into `Error::DmaError`. Memory that the
/// allocator refuses to take back is told by -1, at which drivers panic: it never happens to what came from here.
#[derive(Debug)]
pub struct VirtioHal<H>(PhantomData<fn() -> H>);

// SAFETY: the frames of a run are exclusive, aligned and adjacent under `phys_to_virt` (promise of `FrameHal`), and are
// zeroed here; the other translations are the promise of `DmaMap`.
unsafe impl<H: DmaMap> Hal for VirtioHal<H> {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (BusAddr, NonNull<u8>) {
        // Address 0 is how this trait says that there is no memory.
        let none = (0, NonNull::dangling());
        let Ok(layout) = FrameLayout::contiguous(pages) else { return none };
        let Ok(frames) = PhysFrames::<H>::alloc_zero(layout) else { return none };
        let Some(pointer) = NonNull::new(frames.as_mut_ptr()) else { return none };
        (frames.into_raw().start().as_usize() as BusAddr, pointer)
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

#[cfg(test)]
mod tests {
    use core::slice;

    use frame_testkit::{TestHal, test_hal};

    use super::*;

    test_hal! { struct Ram }

    // SAFETY: no device reads or writes what is shared in these tests, and they ask for no registers.
    unsafe impl DmaMap for Ram {
        fn virt_to_phys(vaddr: VirtAddr) -> PhysAddr {
            PhysAddr::from(vaddr.as_usize() ^ 0x1000_0000_0000)
        }
        fn mmio_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
            unreachable!("no registers")
        }
    }

    #[test]
    fn dma_memory_is_zeroed_and_goes_back() {
        Ram::scope(16, || {
            PhysFrames::<Ram>::alloc(FrameLayout::contiguous(16).unwrap()).unwrap().fill(0xee);
            for pages in [1, 3, 16] {
                let (paddr, pointer) = VirtioHal::<Ram>::dma_alloc(pages, BufferDirection::Both);
                assert_eq!(Ram::owned(), pages);
                let start = PhysAddr::from(paddr as usize);
                assert_eq!(Ram::phys_to_virt(start).as_mut_ptr(), pointer.as_ptr());
                // SAFETY: `dma_alloc` gave so many bytes, and nobody else uses them.
                let bytes = unsafe { slice::from_raw_parts_mut(pointer.as_ptr(), pages * FRAME_SIZE) };
                assert!(bytes.iter().all(|&byte| byte == 0));
                bytes.fill(0xee);
                // SAFETY: allocated above, and not used any more.
                assert_eq!(unsafe { VirtioHal::<Ram>::dma_dealloc(paddr, pointer, pages) }, 0);
                assert_eq!(Ram::owned(), 0);
            }
        });
    }

    #[test]
    fn no_memory_is_address_0_and_nothing_leaks() {
        Ram::scope(16, || {
            for pages in [0, 17, usize::MAX] {
                assert_eq!(VirtioHal::<Ram>::dma_alloc(pages, BufferDirection::Both).0, 0);
            }
            assert_eq!(Ram::owned(), 0);
        });
    }

    #[test]
    fn a_buffer_is_shared_where_it_lies() {
        let mut buffer = [0_u8; 100];
        let pointer = NonNull::from(&mut buffer[4..]);
        // SAFETY: the buffer is valid, and nobody else uses it.
        let shared = unsafe { VirtioHal::<Ram>::share(pointer, BufferDirection::Both) };
        assert_eq!(shared, (buffer.as_ptr().addr() as u64 + 4) ^ 0x1000_0000_0000);
    }
}
