//! Ownership is by the frame: any part of an allocation, and any union of neighbours, may be freed.

use alloc::vec::Vec;

use super::{contiguous, frame, ragged};
use crate::{Backend, Judge, Rng, frame_set::range};

/// Allocations are given back in pieces of random sizes, in random order.
pub fn parts_are_freed_in_any_order<B: Backend>() {
    let mut rng = Rng::new(Rng::seed_or(4));
    Judge::run::<B, _>("ragged ranges", &ragged(), |judge| {
        for count in [2, 3, 8, 64, 65, 511, 512, 1024, 1500] {
            let run = judge.alloc(contiguous(count)).expect("the run is free");
            let mut parts = Vec::new();
            let mut rest = run;
            loop {
                let part = rng.between(1, rest.count());
                let (start, end) = crate::frame_set::numbers(rest);
                parts.push(range(start, start + part));
                if start + part == end {
                    break;
                }
                rest = range(start + part, end);
            }
            rng.shuffle(&mut parts);
            for part in parts {
                judge.free(part);
                judge.check();
            }
        }
    });
}

/// All memory is allocated frame by frame and given back in runs that span allocations, rows, blocks.
pub fn neighbours_are_freed_together<B: Backend>() {
    let mut rng = Rng::new(Rng::seed_or(5));
    let ranges = [range(7, 4000)];
    Judge::run::<B, _>("one range of 3,993 frames", &ranges, |judge| {
        for longest in [3, 100, 1500, 3993] {
            while judge.alloc_frame().is_ok() {}
            let mut parts = Vec::new();
            let mut at = 7;
            while at < 4000 {
                let end = (at + rng.between(1, longest)).min(4000);
                parts.push(range(at, end));
                at = end;
            }
            rng.shuffle(&mut parts);
            for (i, part) in parts.into_iter().enumerate() {
                judge.free(part);
                if longest > 3 || i % 50 == 0 {
                    judge.check();
                }
            }
            judge.check();
        }
    });
}

/// A run across the seam of two regions, owned as two allocations, is freed at once: merged runs are.
pub fn neighbouring_regions_are_freed_together<B: Backend>() {
    let ranges = [range(100, 700), range(700, 701), range(701, 1300)];
    Judge::run::<B, _>("three ranges that adjoin", &ranges, |judge| {
        while judge.alloc_frame().is_ok() {}
        judge.free(range(650, 750));
        judge.check();
        // A free frame among them: nothing is freed, in none of the regions.
        if B::REFUSES_BAD_FREES {
            let refused = judge.refuse(frame(640), contiguous(200));
            assert_eq!(refused.frame, frame(650), "{}: the lowest free frame", judge.label());
        }
        judge.free(range(100, 650));
        judge.free(range(750, 1300));
        judge.check();
    });
}
