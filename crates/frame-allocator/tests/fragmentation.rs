//! The cache must not keep memory in pieces: single frames that come and go sink to low addresses, through the cache as
//! without it, and whole 2 MiB frames come free above.
#![cfg(all(feature = "tree", feature = "percpu"))]

use std::{
    alloc::{Layout, alloc_zeroed},
    mem::MaybeUninit,
};

use frame_allocator::{
    FrameAllocator, FrameLayout, FrameRange, PerCpu, PhysAddr, Tree,
    percpu::{CpuSlot, ThreadCpus},
};

/// 128 MiB.
const FRAMES: usize = 1 << 15;
/// Whole 2 MiB frames, if the half that is used were packed.
const MOST: usize = FRAMES / 2 / 512;

fn zeroed(layout: Layout) -> &'static mut [MaybeUninit<u8>] {
    // SAFETY: the layout has a size; the bytes are leaked.
    unsafe { std::slice::from_raw_parts_mut(alloc_zeroed(layout).cast(), layout.size()) }
}

fn tree() -> Tree<'static> {
    let tree = Tree::new();
    let region = FrameRange::new(PhysAddr::from(1 << 30), FRAMES).unwrap();
    // SAFETY: nothing touches the addresses.
    unsafe { tree.add_region(region, zeroed(<Tree>::metadata_layout(region))) }.unwrap();
    tree
}

/// xorshift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// All of memory is taken, a random half freed; then, `turns` times the memory, `burst` random frames are freed and as
/// many allocated. Returns how many 2 MiB frames can be had.
fn whole_after_churn<A: FrameAllocator>(
    allocator: &A,
    settle: impl Fn(&A),
    turns: usize,
    burst: usize,
) -> usize {
    let mut random = Random(7);
    let mut held: Vec<PhysAddr> = (0..FRAMES).map(|_| allocator.alloc_frame().unwrap()).collect();
    let mut free = |held: &mut Vec<PhysAddr>| {
        let victim = held.swap_remove(random.below(held.len()));
        // SAFETY: allocated, and off the list now.
        unsafe { allocator.dealloc_frame(victim) }.unwrap();
    };
    (0..FRAMES / 2).for_each(|_| free(&mut held));
    for _ in 0..turns * FRAMES / burst {
        (0..burst).for_each(|_| free(&mut held));
        held.extend((0..burst).map(|_| allocator.alloc_frame().unwrap()));
    }
    settle(allocator);
    held.sort_unstable();
    held.dedup();
    assert_eq!(held.len(), FRAMES / 2, "a frame was handed out twice");
    std::iter::from_fn(|| allocator.alloc(FrameLayout::HUGE_2M).ok()).count()
}

#[test]
fn the_tree_packs_what_comes_and_goes() {
    let whole = whole_after_churn(&tree(), |_| (), 16, 1);
    assert!(whole * 100 >= 95 * MOST, "{whole} of {MOST}");
}

#[test]
fn the_cache_lets_it() {
    for burst in [1, 8, 64, 500] {
        let cache = PerCpu::new(tree(), ThreadCpus);
        cache.attach(Box::leak(Box::new([const { CpuSlot::new() }; 16]))).unwrap();
        let whole = whole_after_churn(&cache, |cache| _ = cache.drain_local(), 16, burst);
        assert!(whole * 100 >= 95 * MOST, "{whole} of {MOST} after bursts of {burst}");
    }
}
