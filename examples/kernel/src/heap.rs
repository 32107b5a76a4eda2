//! The heap, `Box` and `Vec`, fed by frames.
//!
//! Small objects come from lists of equal blocks, cut from one frame at a time; large ones are runs of frames. A heap
//! that eats frames must not stand on an allocator that eats heap: the bound on
//! [`HeapFree`](frame_allocator::HeapFree) keeps `Buddy` out when this is compiled. A small block that is freed stays
//! in its list: its frame is not given back.

use core::{
    alloc::{GlobalAlloc, Layout},
    marker::PhantomData,
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

use frame_allocator::{FRAME_SIZE, FrameAllocator, FrameLayout, GlobalFrames, HeapFree, PhysAddr};

use crate::{irq_lock::Mutex, memory::Kernel};

#[global_allocator]
static HEAP: FrameHeap<Kernel> = FrameHeap::new();

/// Frames that the heap holds now.
pub fn frames() -> usize {
    HEAP.frames.load(Ordering::Relaxed)
}

/// Blocks of 16, 32, ... 2048 bytes.
const CLASSES: usize = 8;
const SMALLEST: usize = 16;
const LARGEST: usize = SMALLEST << (CLASSES - 1);

struct FrameHeap<G> {
    /// For each class its free blocks: the address of the first, each one holding the address of the next.
    free: [Mutex<usize>; CLASSES],
    frames: AtomicUsize,
    _frames: PhantomData<fn() -> G>,
}

impl<G: GlobalFrames<Allocator: HeapFree>> FrameHeap<G> {
    const fn new() -> Self {
        let free = [const { Mutex::new(0) }; CLASSES];
        Self { free, frames: AtomicUsize::new(0), _frames: PhantomData }
    }

    fn run(&self, layout: Layout) -> Option<FrameLayout> {
        FrameLayout::new(layout.size().div_ceil(FRAME_SIZE), layout.align().max(FRAME_SIZE)).ok()
    }

    fn alloc_run(&self, layout: Layout) -> *mut u8 {
        let Some(run) = self.run(layout) else { return ptr::null_mut() };
        match G::allocator().alloc(run) {
            Ok(start) => {
                self.frames.fetch_add(run.count(), Ordering::Relaxed);
                G::phys_to_virt(start).as_mut_ptr()
            }
            Err(_) => ptr::null_mut(),
        }
    }

    /// Cuts a frame into blocks. Returns the first, chained to the others; 0 if there is no frame.
    fn refill(&self, size: usize) -> usize {
        let Ok(frame) = G::allocator().alloc_frame() else { return 0 };
        self.frames.fetch_add(1, Ordering::Relaxed);
        let start = G::phys_to_virt(frame).as_usize();
        for block in (start..start + FRAME_SIZE).step_by(size) {
            let next = if block + size < start + FRAME_SIZE { block + size } else { 0 };
            // SAFETY: the block lies in the frame, which is mapped, aligned and this heap's.
            unsafe { ptr::with_exposed_provenance_mut::<usize>(block).write(next) };
        }
        start
    }
}

/// The class that serves a layout; `None` for a run of frames.
fn class(layout: Layout) -> Option<usize> {
    let size = layout.size().max(layout.align()).max(SMALLEST).next_power_of_two();
    (size <= LARGEST).then(|| (size / SMALLEST).ilog2() as usize)
}

// SAFETY: a block is in its class's list or with one owner, never both; it is as large and as aligned as its class,
// because frames are cut at multiples of its power-of-two size; runs are the frame allocator's own.
unsafe impl<G: GlobalFrames<Allocator: HeapFree>> GlobalAlloc for FrameHeap<G> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class(layout) else { return self.alloc_run(layout) };
        let mut first = self.free[class].lock();
        let block = if *first == 0 { self.refill(SMALLEST << class) } else { *first };
        if block == 0 {
            return ptr::null_mut();
        }
        let block = ptr::with_exposed_provenance_mut::<usize>(block);
        // SAFETY: a block of the list holds the next one's address.
        *first = unsafe { block.read() };
        block.cast()
    }

    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        let Some(class) = class(layout) else {
            let run = self.run(layout).expect("it was allocated with this layout");
            let start = PhysAddr::from(object.addr()); // the linear map is the identity
            // SAFETY: the run was allocated by `alloc_run` and is given up by its owner.
            let freed = unsafe { G::allocator().dealloc(start, run) };
            self.frames.fetch_sub(run.count(), Ordering::Relaxed);
            return freed.unwrap_or_else(|error| panic!("the heap freed what is not its own: {error}"));
        };
        let mut first = self.free[class].lock();
        // SAFETY: the owner gives the block up; it is at least 16 bytes, aligned.
        unsafe { object.cast::<usize>().write(*first) };
        *first = object.expose_provenance();
    }
}
