//! Hints that were changed by two CPUs at a time: never too low when nothing runs, as the invariants have it, and a search
//! finds what is free.

use frame_core::{FrameAllocator, FrameLayout, PhysAddr};

use super::{
    invariants,
    steps::{Step, between, is_done},
    support::*,
};
use crate::{Tree, geometry::Frame, region::BlockRef, single::Sink};

const FIRST: usize = 1 << 21;

/// Whether a search by hints, without the walk, finds a frame. It is given back.
fn is_found(tree: &Tree<'_>) -> bool {
    let mut frame = [at(0)];
    let mut sink = Sink::new(&mut frame);
    let found = tree.regions.pick(tree.shards.of_cpu(0), &tree.watermark, &mut sink).is_some();
    if found {
        // SAFETY: just taken.
        unsafe { tree.dealloc_frame(frame[0]) }.unwrap();
    }
    found
}

/// Runs `test` with a block all of whose frames are allocated, and its first frame.
fn with_block(test: impl FnOnce(&Tree<'_>, BlockRef<'_>, PhysAddr)) {
    with_tree(&[(FIRST, 512)], |tree| {
        let first = tree.alloc(FrameLayout::HUGE_2M).unwrap();
        let (_, region) = tree.regions.iter().next().unwrap();
        test(tree, region.block(Frame::of(first).block()), first);
        assert!(is_done());
        invariants::check(tree);
    });
}

/// A refresh lowers the hints, and an allocation takes more in the middle of that.
#[test]
fn an_allocation_amid_a_refresh_leaves_the_summary_true() {
    with_block(|tree, block, first| {
        // SAFETY: allocated by `with_block`.
        unsafe { tree.dealloc(first, layout(128, 128)) }.unwrap();
        tree.alloc_at(range(FIRST + 64, 64)).unwrap();
        let other = || tree.alloc_at(range(FIRST, 59)).unwrap();
        // SAFETY: done by the refresh.
        unsafe { between(Step::HintsCleared, 1, other) };
        block.refresh();
        assert!(is_found(tree), "5 frames are free");
        invariants::check(tree);
        for frame in (0..59).filter(|frame| frame % 16 != 0) {
            // SAFETY: allocated above.
            unsafe { tree.dealloc_frame(at(FIRST + frame)) }.unwrap();
        }
        assert!(is_found(tree), "60 frames are free");
    });
}

/// A free is about to set a hint when its run is allocated again, and a refresh finds nothing free.
#[test]
fn a_refresh_amid_a_free_leaves_no_hole() {
    for (turn, again) in (1..=6).flat_map(|turn| [(turn, 32), (turn, 4), (turn, 1)]) {
        with_block(|tree, block, first| {
            let other = || {
                tree.alloc_at(range(FIRST, 32)).unwrap();
                block.refresh();
            };
            // SAFETY: done by the free.
            unsafe { between(Step::HintRaised, turn, other) };
            // SAFETY: allocated by `with_block`, and then above.
            unsafe {
                tree.dealloc(first, layout(32, 32)).unwrap();
                tree.dealloc(first, layout(again, again)).unwrap();
            }
            assert!(is_found(tree), "{again} frames are free, after a refresh before hint {turn}");
        });
    }
}
