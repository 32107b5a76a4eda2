//! The upper memory is filled first, whatever lies below 4 GiB is kept for devices; and a cache lets it: on either side, or
//! over both, used frames sink to where allocation begins and whole 2 MiB frames come free elsewhere.
#![cfg(all(feature = "tree", feature = "percpu"))]

use std::{
    cell::Cell,
    mem::MaybeUninit,
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use frame_allocator::{
    FrameAllocator, FrameLayout, FrameRange, PerCpu, PhysAddr, Tree,
    percpu::{CpuIndex, CpuSlot, PinCpu},
};

const GIB: usize = 1 << 30;
const FRAME: usize = 4096;
const HUGE: usize = FrameLayout::HUGE_2M.count();

const CPUS: usize = 8;

/// The CPU that the one thread plays.
struct Cpus(AtomicUsize);

// SAFETY: one thread, one operation after another.
unsafe impl PinCpu for &Cpus {
    type Guard = ();
    fn pin(&self) -> (CpuIndex, ()) {
        (CpuIndex(self.0.load(Relaxed)), ())
    }
}

/// A cache over a tree, and the CPU that works.
struct Machine<'c> {
    cache: PerCpu<'c, Tree<'c, 4>, &'c Cpus>,
    cpus: &'c Cpus,
}

impl Machine<'_> {
    fn alloc(&self, cpu: usize) -> Option<PhysAddr> {
        self.cpus.0.store(cpu, Relaxed);
        self.cache.alloc_frame().ok()
    }

    fn free(&self, cpu: usize, frame: PhysAddr) {
        self.cpus.0.store(cpu, Relaxed);
        // SAFETY: the tests free what they allocated, once.
        unsafe { self.cache.dealloc_frame(frame) }.unwrap();
    }
}

/// Runs `test` on a machine with these regions: address and bytes.
fn with_machine(regions: &[(usize, usize)], test: impl FnOnce(&Machine<'_>)) {
    let tree = Tree::<4>::new();
    for &(start, bytes) in regions {
        let region = FrameRange::new(PhysAddr::from(start), bytes / FRAME).unwrap();
        let layout = Tree::<4>::metadata_layout(region);
        let bytes = vec![MaybeUninit::new(0u8); layout.size() + layout.align()].leak();
        let aligned = bytes.as_ptr().align_offset(layout.align());
        // SAFETY: the frames are numbers here: nobody touches them.
        unsafe { tree.add_region(region, &mut bytes[aligned..][..layout.size()]) }.unwrap();
    }
    let (mut slots, cpus) = ([const { CpuSlot::new() }; CPUS], Cpus(AtomicUsize::new(0)));
    let cache = PerCpu::new(tree, &cpus);
    cache.attach(&mut slots).unwrap();
    test(&Machine { cache, cpus: &cpus });
}

/// All of memory is allocated, by `before` CPUs, all but `used` frames of it freed at random, and then as many random frames
/// freed and replaced as there are, six times, by the CPUs `after`. Returns the free 2 MiB frames and the used frames below
/// 4 GiB.
fn churned(machine: &Machine<'_>, used: usize, before: usize, after: Range<usize>) -> (usize, usize) {
    let state = Cell::new(1u64);
    let random = |below: usize| {
        // Knuth's generator.
        state.set(state.get().wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f));
        (state.get() >> 32) as usize % below
    };
    let mut turn = 0;
    let mut all = std::iter::from_fn(|| {
        turn += 1;
        // Each CPU a batch.
        machine.alloc(turn / 64 % before)
    });
    let mut held: Vec<PhysAddr> = all.by_ref().collect();
    let total = held.len();
    while held.len() > used {
        let frame = held.swap_remove(random(held.len()));
        machine.free(random(before), frame);
    }
    for _ in 0..6 * total {
        let (slot, cpu) = (random(held.len()), after.start + random(after.len()));
        machine.free(cpu, held[slot]);
        held[slot] = machine.alloc(cpu).unwrap();
    }
    for cpu in 0..CPUS {
        machine.cpus.0.store(cpu, Relaxed);
        machine.cache.drain_local();
    }
    let low = held.iter().filter(|frame| frame.as_usize() < 4 * GIB).count();
    let huge = std::iter::from_fn(|| machine.cache.alloc(FrameLayout::HUGE_2M).ok()).count();
    (huge, low)
}

fn check(regions: &[(usize, usize)], used: usize, low_at_most: usize) {
    let total: usize = regions.iter().map(|(_, bytes)| bytes / FRAME).sum();
    with_machine(regions, |machine| {
        let (huge, low) = churned(machine, used, 1, 0..1);
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

/// Blocks belong to the CPU that used them last, but not for ever: whoever works where others worked packs what they left.
#[test]
fn whoever_used_it_before() {
    for (before, after) in [(1, 1..2), (8, 0..1), (8, 0..4), (8, 0..8), (4, 4..8)] {
        with_machine(&[(4 * GIB, GIB)], |machine| {
            let used = GIB / FRAME / 2;
            let (huge, _) = churned(machine, used, before, after.clone());
            assert!(huge >= 256 * 9 / 10, "{huge} of 256 free 2 MiB frames: {before} CPUs, then {after:?}");
        });
    }
}
