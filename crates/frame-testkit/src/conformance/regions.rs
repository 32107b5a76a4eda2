//! Regions: what is refused, and what is added while others allocate.
//!
//! The cases do nothing where the backend's tests cannot add one ([`Backend::offer`]).

use alloc::{format, vec::Vec};

use frame_core::{AllocError, FRAME_SIZE, RegionError};

use super::{aligned, contiguous, ragged};
use crate::{Backend, Judge, frame_set::range};

/// Frame 0, and overlaps of every kind: refused with the right error, and nothing changes.
pub fn bad_regions_are_refused<B: Backend>() {
    Judge::run::<B, _>("ragged ranges", &ragged(), |judge| {
        for zero in [range(0, 1), range(0, 100)] {
            let Some(answer) = judge.offer(zero) else { return };
            let overlaps = judge.managed().first_present(zero).is_some();
            let right = match answer {
                Err(RegionError::FrameZero) => true,
                Err(RegionError::Overlap { .. }) => overlaps,
                _ => false,
            };
            assert!(right, "{}: the region {zero} gave {answer:?}", judge.label());
            judge.check();
        }
        // The same, inside, around, over the start, over the end, over several; the lowest and the last frame.
        for (start, end) in
            [(256, 1256), (300, 301), (250, 1300), (200, 257), (1255, 2048), (100, 2048), (1, 2), (158, 160)]
        {
            let region = range(start, end);
            let answer = judge.offer(region).expect("offered before");
            match answer {
                Err(RegionError::Overlap { region: named, managed }) => {
                    assert_eq!(named, region, "{}: the region offered", judge.label());
                    assert!(
                        managed.overlaps(region) && judge.managed().contains_range(managed),
                        "{}: {region} does not overlap {managed}",
                        judge.label()
                    );
                }
                _ => panic!("{}: the region {region} gave {answer:?}", judge.label()),
            }
            judge.check();
        }
    });
}

/// A region that comes later, beside others or far away, is used like the rest.
pub fn regions_are_added_in_use<B: Backend>() {
    Judge::run::<B, _>("one small range", &[range(1000, 1010)], |judge| {
        while judge.alloc_frame().is_ok() {}
        for (start, end) in
            [(500, 600), (1010, 1100), (990, 1000), (1 << 20, (1 << 20) + 1), (1 << 18, (1 << 18) + 512)]
        {
            let region = range(start, end);
            let Some(answer) = judge.offer(region) else { return };
            assert_eq!(answer, Ok(()), "{}: the region {region}", judge.label());
            judge.check();
            let mut got = 0;
            while judge.alloc_frame().is_ok() {
                got += 1;
            }
            assert_eq!(got, region.count(), "{}: every frame of the new region", judge.label());
        }
        // Across the seams of what came at different times.
        judge.free(range(990, 1100));
        judge.check();
    });
}

/// Regions beyond what the backend has room for are refused, and those that are there go on working.
pub fn too_many_regions_are_refused<B: Backend>() {
    Judge::run::<B, _>("one frame", &[range(7, 8)], |judge| {
        // Far apart, so that no backend can take two for one.
        for n in 1..=3000 {
            let region = range(n << 10, (n << 10) + 1);
            match judge.offer(region) {
                None => return,
                Some(Ok(())) => {}
                Some(Err(RegionError::TooManyRegions { limit })) => {
                    assert_eq!(limit, n, "{}: {n} regions are there, and no more fit", judge.label());
                    judge.check();
                    break;
                }
                Some(Err(error)) => panic!("{}: the region {region} gave {error:?}", judge.label()),
            }
        }
        let all = judge.managed().count();
        let mut frames = 0;
        while judge.alloc_frame().is_ok() {
            frames += 1;
        }
        assert_eq!(frames, all, "{}: every frame is handed out", judge.label());
    });
}

/// Small regions at all alignments and lengths, on both sides of words of 64 frames and blocks of 512.
pub fn regions_of_every_shape<B: Backend>() {
    for offset in [0, 1, 31, 63, 64, 65, 127, 511] {
        let mut at = 512 + offset;
        let mut ranges = Vec::new();
        for count in [1, 2, 63, 64, 65, 127, 128, 129, 511, 512, 513, 1025] {
            ranges.push(range(at, at + count));
            at += count + 1 + offset % 3;
        }
        Judge::run::<B, _>(&format!("regions from frame {}", 512 + offset), &ranges, |judge| {
            // Runs first, then what is left of each region.
            while judge.alloc(aligned(64, 64 * FRAME_SIZE)).is_ok() {}
            while judge.alloc(contiguous(5)).is_ok() {}
            judge.check();
            while judge.alloc_frame().is_ok() {}
            assert!(judge.free_set().is_empty());
            judge.check();
            for range in &ranges {
                judge.free(*range); // a whole region at once
            }
            judge.check();
        });
    }
}

/// A region at 48 TiB, where 32 bits of frame number or of address are not enough.
pub fn high_addresses<B: Backend>() {
    const AT: usize = 48 << 28;
    let ranges = [range(1 << 20, (1 << 20) + 10), range(AT - 70, AT + 5000)];
    Judge::run::<B, _>("ranges at 4 GiB and 48 TiB", &ranges, |judge| {
        if B::SUPPORTS_ALLOC_AT {
            judge.alloc_at(range(AT + 4000, AT + 5000)).expect("the frames are free");
        }
        let run = judge.alloc(aligned(512, 512 * FRAME_SIZE)).expect("the run is free");
        assert!(run.start().as_usize() >= AT * FRAME_SIZE, "{}: {run}", judge.label());
        if B::SUPPORTS_ALLOC_IN {
            let low = judge.alloc_in(contiguous(1), range(0, 1 << 21)).expect("low memory is free");
            assert_eq!(judge.alloc_in(contiguous(11), range(0, AT - 70)), Err(AllocError::NoMemory));
            judge.free(low);
        }
        while judge.alloc_frame().is_ok() {}
        judge.check();
        judge.free(range(AT - 70, AT + 5000));
        judge.check();
    });
}
