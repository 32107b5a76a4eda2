//! Every kind of request: counts, alignments, places, windows, bulk.

use frame_allocator::{AllocError, FRAME_SIZE, FrameAllocator, FrameLayout, FrameRange, PhysAddr};

use super::{Bench, hand::Hand};
use crate::{backends::Subject, check, check_eq, ledger};

/// Counts that are powers of two and counts that are not, each at every alignment: exactly as many frames are taken,
/// and parts can be freed in any order.
pub fn layouts<S: Subject>(bench: &Bench<S>) {
    let hand = Hand::<S>::new(0);
    for count in [1, 2, 3, 5, 8, 63, 64, 100, 512, 513, 1024] {
        for align in [FRAME_SIZE, 64 << 10, 2 << 20] {
            let layout = FrameLayout::new(count, align).expect("a layout");
            let run = hand.alloc(layout);
            check!(run.is_ok(), "{count} frames aligned to {align}: {run:?}");
            let Ok(run) = run else { continue };
            check_eq!(bench.used(), count, "frames taken for a count of {count}, aligned to {align}");
            // The middle third first, then the last, then the first.
            let third = count / 3;
            for part in [third..2 * third, 2 * third..count, 0..third] {
                if let Ok(layout) = FrameLayout::contiguous(part.len()) {
                    hand.free(run + part.start * FRAME_SIZE, layout);
                }
            }
        }
    }
}

/// Frames at a given place, and in a window.
pub fn places<S: Subject>(bench: &Bench<S>) {
    let hand = Hand::<S>::new(0);
    let allocator = S::allocator();
    let eight = FrameLayout::contiguous(8).expect("eight frames");

    let Ok(run) = hand.alloc(eight) else {
        check!(false, "eight frames");
        return;
    };
    hand.free(run, eight);
    let range = FrameRange::new(run, 8).expect("a run");
    check_eq!(allocator.alloc_at(range), Ok(()), "eight frames at the place that was just free");
    hand.took(run, 8);
    check_eq!(allocator.alloc_at(range), Err(AllocError::InUse), "the same place again");
    let kernel = FrameRange::new(PhysAddr::from(machine::image().start), 1).expect("a frame");
    check_eq!(allocator.alloc_at(kernel), Err(AllocError::NotManaged), "the kernel's place");
    check_eq!(bench.used(), 8, "frames in use after two refusals");
    hand.free(run, eight);

    // All that a device with 24 address lines can reach, where memory starts at 0.
    const WINDOW: usize = 16 << 20;
    let first = bench.map.frames().next().expect("a machine with memory").start().as_usize();
    let window = FrameRange::new(PhysAddr::from(first & !(WINDOW - 1)), WINDOW / FRAME_SIZE).expect("16 MiB");
    bench.settle();
    let mut inside = 0;
    allocator.visit_free(&mut |run| inside += run.intersection(window).map_or(0, FrameRange::count));
    check!(inside > 0, "there is memory in the first 16 MiB");
    let mut taken = 0;
    let result = loop {
        match allocator.alloc_in(FrameLayout::SINGLE, window) {
            Ok(frame) => hand.took(frame, 1),
            Err(error) => break error,
        }
        taken += 1;
    };
    check_eq!(result, AllocError::NoMemory, "the end of the window");
    check_eq!(taken, inside, "frames of the window");
    check!(ledger::held_by(0).all(|frame| window.contains(frame)), "none outside");
    for frame in ledger::held_by(0) {
        hand.free(frame, FrameLayout::SINGLE);
    }
}

/// Many single frames at once.
pub fn bulk<S: Subject>(bench: &Bench<S>) {
    let hand = Hand::<S>::new(0);
    for count in [1, 7, 64, 65, 500] {
        let mut frames = [PhysAddr::from(0); 500];
        let frames = &mut frames[..count];
        check_eq!(S::allocator().alloc_bulk(frames), count, "frames in bulk");
        check_eq!(bench.used(), count, "frames in use");
        frames.iter().for_each(|&frame| hand.took(frame, 1));
        frames.iter().for_each(|&frame| hand.gives(frame, 1));
        // SAFETY: all of them were allocated just now.
        let freed = unsafe { S::allocator().dealloc_bulk(frames) };
        check_eq!(freed, Ok(()), "freed in bulk");
    }
}
