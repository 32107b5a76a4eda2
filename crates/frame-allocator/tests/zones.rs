//! The upper memory is filled first, whatever lies below 4 GiB is kept for devices; and a cache lets it: on either side, or
//! over both, used frames sink to where allocation begins and whole 2 MiB frames come free elsewhere.
#![cfg(all(feature = "tree", feature = "percpu"))]

use std::{cell::Cell, mem::MaybeUninit};

use frame_allocator::{
    FrameAllocator, FrameLayout, FrameRange, PerCpu, PhysAddr, Tree,
    percpu::{CpuSlot, FnCpus},
};

const GIB: usize = 1 << 30;
const FRAME: usize = 4096;
const HUGE: usize = FrameLayout::HUGE_2M.count();

/// Runs `test` on a cache over a tree with these regions: address and bytes.
fn with_cache(regions: &[(usize, usize)], test: impl FnOnce(&dyn FrameAllocator)) {
    let tree = Tree::<4>::new();
    for &(start, bytes) in regions {
        let region = FrameRange::new(PhysAddr::from(start), bytes / FRAME).unwrap();
        let layout = Tree::<4>::metadata_layout(region);
        let bytes = vec![MaybeUninit::new(0u8); layout.size() + layout.align()].leak();
        let aligned = bytes.as_ptr().align_offset(layout.align());
        // SAFETY: the frames are numbers here: nobody touches them.
        unsafe { tree.add_region(region, &mut bytes[aligned..]) }.unwrap();
    }
    let mut slots = [const { CpuSlot::new() }];
    // SAFETY: one thread, never interrupted.
    let cache = PerCpu::new(tree, unsafe { FnCpus::new(|| (), || 0) });
    cache.attach(&mut slots).unwrap();
    test(&cache);
}

/// All of memory is allocated, all but `used` frames of it freed at random, and then as many random frames freed and
/// replaced as there are, six times. Returns the free 2 MiB frames and the used frames below 4 GiB.
fn churned(cache: &dyn FrameAllocator, used: usize) -> (usize, usize) {
    let state = Cell::new(1u64);
    let random = |below: usize| {
        // Knuth's generator.
        state.set(state.get().wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f));
        (state.get() >> 32) as usize % below
    };
    let mut held: Vec<PhysAddr> = std::iter::from_fn(|| cache.alloc_frame().ok()).collect();
    let total = held.len();
    while held.len() > used {
        let frame = held.swap_remove(random(held.len()));
        // SAFETY: allocated above, and forgotten.
        unsafe { cache.dealloc_frame(frame) }.unwrap();
    }
    for _ in 0..6 * total {
        let slot = random(held.len());
        // SAFETY: allocated above, and replaced.
        unsafe { cache.dealloc_frame(held[slot]) }.unwrap();
        held[slot] = cache.alloc_frame().unwrap();
    }
    let low = held.iter().filter(|frame| frame.as_usize() < 4 * GIB).count();
    let huge = std::iter::from_fn(|| cache.alloc(FrameLayout::HUGE_2M).ok()).count();
    (huge, low)
}

fn check(regions: &[(usize, usize)], used: usize, low_at_most: usize) {
    let total: usize = regions.iter().map(|(_, bytes)| bytes / FRAME).sum();
    with_cache(regions, |cache| {
        let (huge, low) = churned(cache, used);
        let most = (total - used) / HUGE;
        assert!(huge * 100 >= most * 95, "{huge} of {most} free 2 MiB frames, {regions:x?}");
        assert!(low <= low_at_most, "{low} frames are still used below 4 GiB, {regions:x?}");
    });
}

#[test]
fn above_4_gib() {
    check(&[(4 * GIB, GIB)], GIB / FRAME / 2, 0);
}

#[test]
fn below_4_gib() {
    check(&[(GIB, GIB)], GIB / FRAME / 2, usize::MAX);
}

#[test]
fn on_both_sides_with_room_above() {
    check(&[(2 * GIB, GIB), (4 * GIB, 2 * GIB)], GIB / FRAME, GIB / FRAME / 64);
}

#[test]
fn on_both_sides_with_too_little_room_above() {
    check(&[(2 * GIB, 2 * GIB), (4 * GIB, GIB)], 3 * GIB / FRAME / 2, GIB / FRAME / 2 + GIB / FRAME / 32);
}
