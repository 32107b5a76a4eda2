//! Replays a program on an allocator: once watched, to know the truth, and once more for each timing.
//!
//! Watching costs more than an allocation does, so the two are apart. [`Watched`] keeps a [ledger](crate::ledger), looks at the
//! allocator at the program's samples, and ends with an account of every frame. [`Timed`] does nothing but the calls: for each
//! operation it reads 8 bytes, names the CPU and calls the allocator. Both do the same calls in the same order, and an
//! allocator that is a function of its input answers them alike.
//!
//! An allocation that fails leaves its slot empty, and the free of an empty slot is left out.

mod timed;
mod watched;

use frame_core::{FRAME_SIZE, FrameAllocator, FrameLayout, PhysAddr};

use crate::trace::ORDERS;

pub(crate) use timed::{Timed, time_of_harness};
pub(crate) use watched::{Verdict, Watched};

/// Frame 0 is never handed out: it marks an empty slot.
const EMPTY: PhysAddr = PhysAddr::from_usize(0);

/// What Linux means by each order: `2^order` frames at a multiple of their size.
const LAYOUTS: [FrameLayout; ORDERS] = {
    let mut layouts = [FrameLayout::SINGLE; ORDERS];
    let mut order = 0;
    while order < ORDERS {
        layouts[order] = match FrameLayout::new(1 << order, FRAME_SIZE << order) {
            Ok(layout) => layout,
            Err(_) => panic!("a power of two is a count and an alignment"),
        };
        order += 1;
    }
    layouts
};

#[inline]
pub(crate) fn call_alloc<A: FrameAllocator>(allocator: &A, order: u8) -> Option<PhysAddr> {
    match order {
        0 => allocator.alloc_frame().ok(),
        _ => allocator.alloc(LAYOUTS[usize::from(order)]).ok(),
    }
}

/// Gives back what a slot held; false if it was refused.
#[inline]
pub(crate) fn call_dealloc<A: FrameAllocator>(allocator: &A, start: PhysAddr, order: u8) -> bool {
    // SAFETY: a slot holds what the allocator gave for this order and is freed once: a program frees a slot once
    // for each allocation. No memory lies behind the frames of a replay, so nothing uses them.
    unsafe {
        match order {
            0 => allocator.dealloc_frame(start).is_ok(),
            _ => allocator.dealloc(start, LAYOUTS[usize::from(order)]).is_ok(),
        }
    }
}
