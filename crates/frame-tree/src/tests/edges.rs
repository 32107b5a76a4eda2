//! Sizes and places at the edges, exhaustion, bad frees, and the cost of a start.

use std::{collections::BTreeSet, vec::Vec};

use frame_core::{AllocError, DeallocErrorKind, FrameAllocator, FrameLayout, FreeRuns, RegionError};

use super::{
    invariants,
    support::{Metadata, Random, at, layout, range, with_tree},
};
use crate::Tree;

const GIB: usize = 1 << 18;

#[test]
fn odd_regions_give_every_frame_once() {
    let regions = [
        (1, 1),
        (5, 63),
        (63, 2),
        (64, 64),
        (511, 2),
        (513, 1),
        (1, 511),
        (1, 1024),
        (700, 40_000),
        (32_767, 2),
    ];
    for (first, count) in regions {
        with_tree(&[(first, count)], |tree| {
            for round in 0..2 {
                let mut seen = BTreeSet::new();
                while let Ok(frame) = tree.alloc_frame() {
                    assert!(seen.insert(frame), "{frame:?} twice");
                }
                assert!(seen.iter().copied().eq((first..first + count).map(at)), "{first} {count} {round}");
                assert_eq!(tree.stats().free_frames, 0);
                for frame in seen {
                    // SAFETY: allocated above.
                    unsafe { tree.dealloc_frame(frame) }.unwrap();
                }
                invariants::check(tree);
            }
            tree.alloc_at(range(first, count)).unwrap();
        });
    }
}

#[test]
fn the_largest_runs_come_back_after_dust() {
    let frames = 2 * GIB;
    with_tree(&[(GIB, frames)], |tree| {
        let mut dust = std::vec![at(0); frames];
        assert_eq!(tree.alloc_bulk(&mut dust), frames);
        assert_eq!(tree.alloc(FrameLayout::HUGE_2M), Err(AllocError::NoMemory));
        let mut random = Random(7);
        for i in (1..frames).rev() {
            dust.swap(i, random.below(i + 1));
        }
        for part in dust.chunks(64) {
            // SAFETY: allocated above.
            unsafe { tree.dealloc_bulk(part) }.unwrap();
        }
        assert_eq!(FreeRuns::of(tree).longest(), frames);
        let gib = |n| tree.alloc(FrameLayout::HUGE_1G).map(|start| start.as_usize() >> 30).map_err(|_| n);
        assert_eq!(BTreeSet::from([gib(1), gib(2)]), BTreeSet::from([Ok(1), Ok(2)]));
        assert_eq!(gib(3), Err(3));
        invariants::check(tree);
        // SAFETY: allocated above, both.
        unsafe { tree.dealloc(at(GIB), layout(frames, GIB)) }.unwrap();
        assert_eq!(tree.alloc(layout(frames, 1)), Ok(at(GIB)));
    });
}

#[test]
fn alignment_is_physical_and_goes_beyond_a_gibibyte() {
    with_tree(&[(GIB - 777, 9 * GIB)], |tree| {
        for order in [21, 20, 18, 15, 12, 9, 8, 3, 0] {
            let start = tree.alloc(layout(1, 1 << order)).unwrap();
            assert_eq!(start.as_usize() % (4096 << order), 0, "{order}");
        }
        let start = tree.alloc(layout(3 * GIB - 5, GIB)).unwrap();
        assert_eq!(start.as_usize() % (1 << 30), 0);
        assert_eq!(tree.alloc(layout(1, 1 << 40)), Err(AllocError::NoMemory));
        assert_eq!(tree.alloc(layout(isize::MAX as usize / 4096, 1)), Err(AllocError::NoMemory));
        invariants::check(tree);
    });
}

#[test]
fn bad_frees_are_named_and_change_nothing() {
    with_tree(&[(1000, 5000), (6000, 100), (9000, 3000)], |tree| {
        tree.alloc_at(range(1500, 3000)).unwrap();
        tree.alloc_at(range(5990, 50)).unwrap();
        let before = invariants::free_frames(tree);
        let refused = |first: usize, count: usize, align: usize| {
            // SAFETY: refused.
            let error = unsafe { tree.dealloc(at(first), layout(count, align)) }.unwrap_err();
            assert_eq!(invariants::free_frames(tree), before, "a refusal changes nothing");
            (error.frame.as_usize() / 4096, error.kind)
        };
        use DeallocErrorKind::{Misaligned, NotAllocated, NotManaged};
        assert_eq!(refused(1501, 1, 2), (1501, Misaligned));
        assert_eq!(refused(1499, 10, 1), (1499, NotAllocated));
        assert_eq!(refused(1500, 3001, 1), (4500, NotAllocated), "a count larger than was allocated");
        assert_eq!(refused(999, 1, 1), (999, NotManaged));
        assert_eq!(refused(6100, 1, 1), (6100, NotManaged));
        assert_eq!(refused(5990, 60, 1), (6040, NotAllocated), "over the border of two regions");
        assert_eq!(refused(1500, isize::MAX as usize / 4096, 1), (4500, NotAllocated));
        assert_eq!(refused(usize::MAX / 4096, 4096, 1), (usize::MAX / 4096, NotManaged));
        // SAFETY: refused.
        let error = unsafe { tree.dealloc_frame(at(1500) + 8) }.unwrap_err();
        assert_eq!(error.kind, Misaligned);
        // SAFETY: refused.
        let error = unsafe { tree.dealloc_frame(at(8000)) }.unwrap_err();
        assert_eq!(error.kind, NotManaged);
        // In bulk the good ones are freed: 1500 once, 1501; the rest is refused.
        let frames = [1500, 1500, 8000, 1501, 1499].map(at);
        // SAFETY: the good ones are owned.
        let error = unsafe { tree.dealloc_bulk(&frames) }.unwrap_err();
        assert_eq!((error.frame, error.kind), (at(1500), NotAllocated));
        assert_eq!(invariants::free_frames(tree).len(), before.len() + 2);
        // SAFETY: owned; over the border of two regions.
        unsafe { tree.dealloc(at(5990), layout(50, 1)) }.unwrap();
        invariants::check(tree);
    });
}

#[test]
fn what_is_left_of_a_run_can_be_had() {
    with_tree(&[(512, 512)], |tree| {
        assert_eq!(tree.alloc(layout(300, 1)), Ok(at(512)));
        assert_eq!(
            tree.alloc(layout(212, 1)),
            Ok(at(812)),
            "no aligned run of 256 is left, but 212 frames are"
        );
        assert_eq!(tree.alloc_frame(), Err(AllocError::NoMemory));
        // SAFETY: allocated above, in two pieces.
        unsafe { tree.dealloc(at(512), layout(512, 512)) }.unwrap();
        assert_eq!(tree.alloc(FrameLayout::HUGE_2M), Ok(at(512)));
    });
}

#[test]
fn runs_may_reach_over_regions_that_adjoin() {
    with_tree(&[(100, 50), (150, 50)], |tree| {
        assert_eq!(tree.alloc(layout(100, 4)), Ok(at(100)));
        // SAFETY: allocated above.
        unsafe { tree.dealloc(at(100), layout(100, 4)) }.unwrap();
        assert_eq!(tree.alloc_in(layout(20, 1), range(140, 20)), Ok(at(140)));
    });
}

#[test]
fn low_memory_is_kept_for_last() {
    let (mib16, gib4) = (4096, 4 * GIB);
    with_tree(&[(1, 4 * 4096), (gib4, 4096)], |tree| {
        let mut frames = std::vec![at(0); 4096];
        assert_eq!(tree.alloc_bulk(&mut frames), 4096);
        assert!(frames.iter().all(|frame| *frame >= at(gib4)), "above 4 GiB first");
        let mut frames = std::vec![at(0); 3 * 4096];
        assert_eq!(tree.alloc_bulk(&mut frames), 3 * 4096);
        let low = frames.iter().filter(|frame| **frame < at(mib16)).count();
        assert_eq!(low, 0, "then above 16 MiB");
        assert!(tree.alloc_in(FrameLayout::SINGLE, range(1, mib16 - 1)).is_ok(), "for those who need it");
        assert_eq!(tree.alloc_bulk(&mut frames), 4095);
        assert_eq!(tree.alloc_frame(), Err(AllocError::NoMemory));
    });
}

#[test]
fn bad_regions_are_refused() {
    let tree = Tree::<2>::new();
    let mut metadata: Vec<_> = (0..5).map(|_| Metadata::new(range(1, GIB), 0xff)).collect();
    let [a, b, c, d, e] = &mut metadata[..] else { unreachable!() };
    // SAFETY: nobody uses the frames.
    unsafe {
        assert_eq!(tree.add_region(range(0, 1), a.bytes()), Err(RegionError::FrameZero));
        let high = range((1 << 40) - 1, 2);
        assert_eq!(tree.add_region(high, b.bytes()), Err(RegionError::TooLarge { region: high }));
        let needed = Tree::<2>::metadata_layout(range(1, 1000)).size();
        let small = &mut c.bytes()[..needed - 1];
        let given = needed - 1;
        let error = tree.add_region(range(1, 1000), small);
        assert_eq!(error, Err(RegionError::MetadataTooSmall { needed, given }));
        let crooked = &mut d.bytes()[8..];
        let error = tree.add_region(range(1, 1000), crooked);
        assert_eq!(error, Err(RegionError::MetadataMisaligned { align: 128 }));
        tree.add_region(range(1000, 1000), e.bytes()).unwrap();
    }
    let mut more: Vec<_> = (0..3).map(|_| Metadata::new(range(1, 2048), 0xff)).collect();
    let [f, g, h] = &mut more[..] else { unreachable!() };
    // SAFETY: nobody uses the frames.
    unsafe {
        let (region, managed) = (range(1999, 10), range(1000, 1000));
        assert_eq!(tree.add_region(region, f.bytes()), Err(RegionError::Overlap { region, managed }));
        tree.add_region(range(1, 999), g.bytes()).unwrap();
        let error = tree.add_region(range(5000, 9), h.bytes());
        assert_eq!(error, Err(RegionError::TooManyRegions { limit: 2 }));
    }
    assert!(tree.regions().eq([range(1, 999), range(1000, 1000)]));
    assert_eq!(tree.stats().total_frames, 1999);
}

/// Bytes of `metadata` that are not zero any more.
fn touched(frames: usize) -> (usize, usize) {
    let region = range(777, frames);
    let mut metadata = Metadata::new(region, 0);
    let tree = Tree::<1>::new();
    // SAFETY: nobody uses the frames; the metadata is zero.
    unsafe { tree.add_zeroed_region(region, metadata.bytes()) }.unwrap();
    assert_eq!(tree.stats().free_frames, frames);
    let size = Tree::<1>::metadata_layout(region).size();
    // SAFETY: `Metadata::new` initialised every byte.
    let touched = metadata.bytes().iter().filter(|byte| unsafe { byte.assume_init() } != 0).count();
    (touched, size)
}

#[test]
fn a_start_touches_the_edges_only() {
    let (small, size) = touched(GIB);
    assert!(size <= 35 << 10, "{size} bytes of metadata for a gibibyte");
    let (large, _) = touched(64 * GIB);
    assert_eq!(small, large, "the same bytes whatever the size");
    assert!(small < 400, "{small}");
}

#[test]
fn metadata_of_any_contents_will_do() {
    // Rubbish that is not cleared: the rows of blocks that were never used.
    let region = range(512, 64 * 512);
    let mut metadata = Metadata::new(region, 0xff);
    let tree = Tree::<1>::new();
    // SAFETY: nobody uses the frames.
    unsafe { tree.add_region(region, metadata.bytes()) }.unwrap();
    let huge = tree.alloc(FrameLayout::HUGE_2M).unwrap();
    // SAFETY: allocated above; one frame of it.
    unsafe { tree.dealloc_frame(huge) }.unwrap();
    assert_eq!(tree.stats().free_frames, region.count() - 511);
    invariants::check(&tree);
}

#[test]
fn frames_out_of_service_do_not_count() {
    with_tree(&[(512, 4096)], |tree| {
        tree.offline(range(600, 1000)).unwrap();
        assert_eq!(tree.offline(range(600, 1)), Err(AllocError::InUse));
        assert_eq!(tree.offline(range(1, 1)), Err(AllocError::NotManaged));
        let stats = tree.stats();
        assert_eq!((stats.total_frames, stats.free_frames, stats.used_frames()), (3096, 3096, 0));
        let mut frames = std::vec![at(0); 4096];
        assert_eq!(tree.alloc_bulk(&mut frames), 3096);
        assert!(frames[..3096].iter().all(|frame| !range(600, 1000).contains(*frame)));
        // SAFETY: it was taken out of service above, in one piece; it comes back in two.
        unsafe {
            tree.online(range(600, 10)).unwrap();
            tree.online(range(610, 990)).unwrap();
            assert!(tree.online(range(610, 990)).is_err());
        }
        assert_eq!(tree.stats().total_frames, 4096);
        assert_eq!(tree.alloc_bulk(&mut frames), 1000);
    });
}

#[test]
fn the_watermark_follows_use() {
    with_tree(&[(GIB, GIB)], |tree| {
        let start = tree.cache_watermark();
        assert!(start.keeps(at(GIB)) && !start.keeps(at(GIB + 2048)), "{start:?}");
        let mut frames = std::vec![at(0); GIB / 2];
        for part in frames.chunks_mut(64) {
            assert_eq!(tree.alloc_bulk(part), part.len());
        }
        let half = tree.cache_watermark();
        let expected = GIB + GIB / 2 / 16 * 17;
        assert!(half.keeps(at(expected - GIB / 32)) && !half.keeps(at(expected + GIB / 32)), "{half:?}");
        for part in frames.chunks(64) {
            // SAFETY: allocated above.
            unsafe { tree.dealloc_bulk(part) }.unwrap();
        }
        // A few allocations later it has sunk.
        for _ in 0..20_000 {
            let mut frames = [at(0); 64];
            assert_eq!(tree.alloc_bulk(&mut frames), 64);
            // SAFETY: allocated above.
            unsafe { tree.dealloc_bulk(&frames) }.unwrap();
        }
        assert!(!tree.cache_watermark().keeps(at(GIB + GIB / 16)), "{:?}", tree.cache_watermark());
    });
}
