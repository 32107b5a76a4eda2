//! Regions: what is refused, and what is added while others allocate.
//!
//! The cases do nothing where the backend's tests cannot add one ([`Backend::offer`]).

use frame_core::RegionError;

use super::ragged;
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
