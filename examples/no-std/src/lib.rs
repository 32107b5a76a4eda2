//! Every library in a program without `std`: see `Cargo.toml` for what this proves.
#![no_std]

use core::panic::PanicInfo;

use frame_allocator::{FrameAllocator, FrameRange, Tree, bitmap as _, percpu as _};
use vmx_structs as _;

static FRAMES: Tree = Tree::new();

/// Lends the allocator a range of memory and takes one frame; returns its address, or 0.
///
/// # Safety
/// The `count` frames from `start` on are RAM that nobody else uses, and so are the `metadata_len` bytes at
/// `metadata`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn take_one(
    start: usize,
    count: usize,
    metadata: *mut u8,
    metadata_len: usize,
) -> usize {
    let Ok(region) = FrameRange::new(start.into(), count) else { return 0 };
    // SAFETY: the caller lends the bytes for good.
    let metadata = unsafe { core::slice::from_raw_parts_mut(metadata.cast(), metadata_len) };
    // SAFETY: the caller lends the frames for good.
    if unsafe { FRAMES.add_region(region, metadata) }.is_err() {
        return 0;
    }
    FRAMES.alloc_frame().map_or(0, |frame| frame.as_usize())
}

#[cfg(feature = "buddy")]
mod heap {
    use core::alloc::{GlobalAlloc, Layout};

    use frame_allocator::buddy as _;

    struct NoHeap;

    // SAFETY: it never gives memory.
    unsafe impl GlobalAlloc for NoHeap {
        unsafe fn alloc(&self, _: Layout) -> *mut u8 {
            core::ptr::null_mut()
        }
        unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
    }

    #[global_allocator]
    static HEAP: NoHeap = NoHeap;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
