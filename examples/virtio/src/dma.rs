//! What a driver needs of this kernel: frames, and the address at which the device reaches a byte. **This is the
//! embedding**; `VirtioHal<Cached>` is then the `Hal` of `virtio-drivers`.

use core::ptr::NonNull;

use frame_allocator::{Bitmap, GlobalFrames, PhysAddr, VirtAddr, adapters::virtio_drivers::DmaMap};
use kernel_example::{
    irq_lock::IrqLock,
    memory::{self, CachedTree},
};

/// The simplest allocator, one lock: with room for as many regions as the firmware's map may have.
pub type Locked = Bitmap<'static, IrqLock, 256>;

/// The tree behind its caches, as drivers see it.
pub struct Cached;

/// The bitmap, as drivers see it.
pub struct Plain;

// SAFETY: `main` gave the allocator RAM that nothing else uses, and all of it is mapped at its own address.
unsafe impl GlobalFrames for Cached {
    type Allocator = CachedTree;

    fn allocator() -> &'static CachedTree {
        &memory::FRAMES
    }

    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        memory::linear(paddr)
    }
}

// SAFETY: as above.
unsafe impl GlobalFrames for Plain {
    type Allocator = Locked;

    fn allocator() -> &'static Locked {
        static FRAMES: Locked = Bitmap::new();
        &FRAMES
    }

    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        memory::linear(paddr)
    }
}

/// The linear map turned round, and device registers: the boot page tables map both at their own addresses.
macro_rules! dma_map {
    ($($frames:ty),*) => {$(
        // SAFETY: all memory of this kernel, its stacks included, is mapped at its own address, so it is contiguous in
        // both senses, and the device sees physical addresses as they are. Only the driver of a device asks for its
        // registers.
        unsafe impl DmaMap for $frames {
            fn virt_to_phys(vaddr: VirtAddr) -> PhysAddr {
                PhysAddr::from(vaddr.as_usize())
            }

            fn mmio_to_virt(paddr: PhysAddr, _: usize) -> NonNull<u8> {
                NonNull::new(memory::linear(paddr).as_mut_ptr()).expect("no device is at address 0")
            }
        }
    )*};
}

dma_map!(Cached, Plain);
