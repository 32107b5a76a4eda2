//! The kernel's memory. What an embedder writes is in this file.

use core::{alloc::Layout, mem::MaybeUninit, slice};

use frame_allocator::{
    EarlyAllocator, FrameRange, GlobalFrames, MemoryMap, PerCpu, PhysAddr, Tree, VirtAddr,
    percpu::{CpuIndex, CpuSlot, PinCpu},
};

use crate::machine::RAM;

/// As much as QEMU is told (`-m 256`). Both machines could read it in a device tree.
const RAM_BYTES: usize = 256 << 20;

unsafe extern "C" {
    static image_start: u8;
    static image_end: u8;
}

/// The kernel's frames.
pub static FRAMES: PerCpu<'static, Tree, Cpus> = PerCpu::new(Tree::new(), Cpus);

/// The HAL: `PhysFrame<Kernel>` is a frame of [`FRAMES`].
pub struct Kernel;

// SAFETY: `FRAMES` was given RAM that nothing else uses (`init`), and all of it is reached at its own address.
unsafe impl GlobalFrames for Kernel {
    type Allocator = PerCpu<'static, Tree<'static>, Cpus>;

    fn allocator() -> &'static Self::Allocator {
        &FRAMES
    }

    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        VirtAddr::from(paddr.as_usize())
    }
}

/// There is one CPU, and no interrupt.
pub struct Cpus;

// SAFETY: one CPU, number 0.
unsafe impl PinCpu for Cpus {
    type Guard = ();

    fn pin(&self) -> (CpuIndex, ()) {
        (CpuIndex(0), ())
    }
}

/// Gives all RAM but the image and the books to [`FRAMES`]. Returns the frames that it must have.
pub fn init() -> usize {
    let mut map = MemoryMap::<4>::new();
    let (start, end) = ((&raw const image_start).addr(), (&raw const image_end).addr());
    map.add_usable(RAM as u64, RAM_BYTES as u64).expect("room in the map");
    map.add_reserved(start as u64, (end - start) as u64).expect("room in the map");
    let books = map.frames().map(|region| <Tree>::metadata_layout(region).size() + 64).sum();
    let mut books = early(&mut map, Layout::from_size_align(books, 64).expect("a part of memory"));
    let slots = early(&mut map, Layout::new::<CpuSlot>());
    FRAMES.attach(CpuSlot::slice_in(slots)).expect("attached once");
    for region in map.frames() {
        let layout = <Tree>::metadata_layout(region);
        let skip = books.as_ptr().addr().next_multiple_of(layout.align()) - books.as_ptr().addr();
        let (part, rest) = books[skip..].split_at_mut(layout.size());
        books = rest;
        // SAFETY: RAM that nothing else uses: the image, the books and the slots are not in the map any more.
        unsafe { FRAMES.backend().add_region(region, part) }.expect("a region of RAM");
    }
    map.frames().map(FrameRange::count).sum()
}

/// Takes memory out of the map, for ever.
fn early<const N: usize>(map: &mut MemoryMap<N>, layout: Layout) -> &'static mut [MaybeUninit<u8>] {
    let end = PhysAddr::from(RAM + RAM_BYTES);
    let taken = EarlyAllocator::new(map).alloc(layout, end).expect("memory for the kernel itself");
    // SAFETY: RAM, reserved from now on, so that nobody else gets it.
    unsafe {
        slice::from_raw_parts_mut(Kernel::phys_to_virt(taken.start()).as_mut_ptr().cast(), layout.size())
    }
}
