//! A bad free is refused as a whole, with the frame that is at fault, and changes nothing.
//!
//! [`Judge::refuse`] compares everything that is free before and after. The cases do nothing for a backend that
//! does not promise this ([`Backend::REFUSES_BAD_FREES`]).

use DeallocErrorKind::{Misaligned, NotAllocated, NotManaged};
use frame_core::{DeallocError, DeallocErrorKind, FRAME_SIZE, PhysAddr};

use super::{aligned, contiguous, frame, ragged};
use crate::{Backend, Judge, frame_set::range};

/// A frame or run is freed twice, at once and after others were freed; what was never handed out is freed.
pub fn double_frees_are_refused<B: Backend>() {
    if !B::REFUSES_BAD_FREES {
        return;
    }
    Judge::run::<B, _>("ragged ranges", &ragged(), |judge| {
        for free in [1, 3, 256, 2048 + 519, (1 << 20) + 4096] {
            let refused = judge.refuse(frame(free), contiguous(1));
            assert_eq!(refused, DeallocError::new(frame(free), NotAllocated));
        }
        for count in [1, 2, 64, 100, 512, 1500] {
            let run = judge.alloc(contiguous(count)).expect("the run is free");
            let keep = judge.alloc_frame().expect("more is free");
            judge.free(run);
            let refused = judge.refuse(run.start(), contiguous(count));
            assert_eq!(refused, DeallocError::new(run.start(), NotAllocated));
            judge.free(keep);
            judge.refuse(run.start(), contiguous(count));
        }
        // The frame that is free lies somewhere in the run, in each of its words and at their edges.
        let run = judge.alloc(aligned(1024, FRAME_SIZE << 10)).expect("the block is free");
        for hole in [0, 1, 62, 63, 64, 65, 127, 128, 511, 512, 513, 1022, 1023] {
            let hole = run.start() + hole * FRAME_SIZE;
            judge.free_frame(hole);
            let refused = judge.refuse(run.start(), contiguous(1024));
            assert_eq!(refused, DeallocError::new(hole, NotAllocated));
            if B::SUPPORTS_ALLOC_AT {
                let hole = frame_core::FrameRange::new(hole, 1).expect("a frame");
                judge.alloc_at(hole).expect("the frame is free");
            }
        }
    });
}

/// Frames that were never given to the allocator: below, between and above the regions, frame 0, the last address.
pub fn foreign_frees_are_refused<B: Backend>() {
    if !B::REFUSES_BAD_FREES {
        return;
    }
    let last = usize::MAX - FRAME_SIZE + 1;
    Judge::run::<B, _>("ragged ranges", &ragged(), |judge| {
        while judge.alloc_frame().is_ok() {}
        let foreign =
            [0, 2, 159, 255, 1256, 2048, 2048 + 6, (1 << 18) - 4, (1 << 20) + 1012, 1 << 30, 1 << 40]
                .map(frame)
                .into_iter()
                .chain([PhysAddr::from(last), PhysAddr::from(last - FRAME_SIZE), PhysAddr::from(1 << 63)]);
        for foreign in foreign {
            for count in [1, 2, 512] {
                let refused = judge.refuse(foreign, contiguous(count));
                assert_eq!(refused, DeallocError::new(foreign, NotManaged), "{}", judge.label());
            }
        }
    });
}

/// Longer than what was allocated: into free frames, over the end of a region, over a hole into the next one.
pub fn frees_of_a_wrong_size_are_refused<B: Backend>() {
    if !B::REFUSES_BAD_FREES {
        return;
    }
    let ranges = [range(5, 300), range(301, 1500)];
    Judge::run::<B, _>("two ranges, a hole of one frame", &ranges, |judge| {
        while judge.alloc_frame().is_ok() {}
        judge.free(range(200, 210));
        judge.free(range(1000, 1001));
        let cases = [
            (190, 20, 200, NotAllocated),    // into free frames
            (190, 11, 200, NotAllocated),    // the last frame is free
            (199, 5, 200, NotAllocated),     // the free frames end it
            (210, 91, 300, NotManaged),      // the hole is the last frame
            (210, 100, 300, NotManaged),     // over the hole, into the next region
            (301, 1199, 1000, NotAllocated), // a long run, one free frame in it
            (1001, 500, 1500, NotManaged),   // over the end
            (1499, 2, 1500, NotManaged),     // the last frame and one more
            (1499, 1 << 30, 1500, NotManaged),
        ];
        for (start, count, at, kind) in cases {
            let refused = judge.refuse(frame(start), contiguous(count));
            assert_eq!(refused, DeallocError::new(frame(at), kind), "{}", judge.label());
        }
        // Both faults: either may be named.
        judge.refuse(frame(301), contiguous(usize::MAX / FRAME_SIZE));
        judge.refuse(frame(190), contiguous(200));
        // Shorter is a partial free and no fault.
        judge.free(range(301, 302));
        judge.check();
    });
}

/// An address inside a frame; a start that is not aligned as the layout says.
pub fn misaligned_frees_are_refused<B: Backend>() {
    if !B::REFUSES_BAD_FREES {
        return;
    }
    Judge::run::<B, _>("ragged ranges", &ragged(), |judge| {
        let run = judge.alloc(aligned(1024, FRAME_SIZE << 10)).expect("the block is free");
        for offset in [1, 8, 2048, 4095] {
            let inside = run.start() + offset;
            for count in [1, 2, 1024] {
                let refused = judge.refuse(inside, contiguous(count));
                assert_eq!(refused, DeallocError::new(inside, Misaligned), "{}", judge.label());
            }
        }
        for (offset, shift) in [(1, 1), (3, 2), (256, 9), (512, 10), (1, 20), (512, 40)] {
            let start = run.start() + offset * FRAME_SIZE;
            let refused = judge.refuse(start, aligned(1, FRAME_SIZE << shift));
            assert_eq!(refused, DeallocError::new(start, Misaligned), "{}", judge.label());
        }
        judge.free(run);
        judge.check();
    });
}
