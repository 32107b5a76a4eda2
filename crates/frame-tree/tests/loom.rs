//! Every interleaving of the block protocol, as far as the model checker goes.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p frame-tree --release --test loom`
//!
//! The main thread only prepares, spawns and joins: with a main thread that takes part, the checker was seen to
//! explore one interleaving and pass. Each test names the outcomes that must be seen, all of them, and no other.
#![cfg(loom)]

use std::{
    collections::BTreeSet,
    fmt::Debug,
    mem::MaybeUninit,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use frame_core::{DeallocErrorKind, FrameAllocator, FrameLayout, FrameRange, PhysAddr, RegionError};
use frame_tree::Tree;

type OneRegion = Tree<'static, 1>;

/// The first frame of the region: 2 MiB aligned, above 16 MiB.
const FIRST: usize = 1 << 13;

fn at(frame: usize) -> PhysAddr {
    PhysAddr::from((FIRST + frame) * 4096)
}

fn range(first: usize, count: usize) -> FrameRange {
    FrameRange::new(at(first), count).unwrap()
}

fn layout(count: usize, align_frames: usize) -> FrameLayout {
    FrameLayout::new(count, align_frames * 4096).unwrap()
}

/// Metadata: only its size and alignment are looked at under the checker.
fn metadata(region: FrameRange) -> &'static mut [MaybeUninit<u8>] {
    #[repr(align(128))]
    #[derive(Clone)]
    struct Line(#[allow(dead_code)] [MaybeUninit<u8>; 128]);
    let lines = <Tree>::metadata_layout(region).size().div_ceil(128);
    let lines = vec![Line([MaybeUninit::uninit(); 128]); lines].leak();
    // SAFETY: `Line` is bytes that may be uninitialised, and no padding.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 128) }
}

fn tree(blocks: usize) -> OneRegion {
    let tree = Tree::new();
    let region = range(0, blocks * 512);
    // SAFETY: the frames are numbers.
    unsafe { tree.add_region(region, metadata(region)) }.unwrap();
    tree
}

/// Runs `a` and `b` against each other in every order, `check`s what is left, and compares the outcomes seen with
/// `expected`.
fn race<A, B, const N: usize>(
    prepare: impl Fn() -> Tree<'static, N> + Send + Sync + 'static,
    a: impl Fn(&Tree<'static, N>) -> A + Send + Sync + Copy + 'static,
    b: impl Fn(&Tree<'static, N>) -> B + Send + Sync + Copy + 'static,
    check: impl Fn(&Tree<'static, N>, &A, &B) + Send + Sync + 'static,
    expected: &[(A, B)],
) where
    A: Ord + Clone + Debug + Send + 'static,
    B: Ord + Clone + Debug + Send + 'static,
{
    let outcomes = Arc::new(Mutex::new(BTreeSet::new()));
    let runs = Arc::new(AtomicUsize::new(0));
    let (seen, count) = (outcomes.clone(), runs.clone());
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.max_branches = 100_000;
    model.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let tree = loom::sync::Arc::new(prepare());
        let threads = {
            let (one, two) = (tree.clone(), tree.clone());
            (loom::thread::spawn(move || a(&one)), loom::thread::spawn(move || b(&two)))
        };
        let (a, b) = (threads.0.join().unwrap(), threads.1.join().unwrap());
        check(&tree, &a, &b);
        seen.lock().unwrap().insert((a, b));
    });
    let runs = runs.load(Ordering::Relaxed);
    assert!(runs > 1, "one interleaving is no check");
    let expected: BTreeSet<_> = expected.iter().cloned().collect();
    assert_eq!(*outcomes.lock().unwrap(), expected, "after {runs} runs");
    println!("{runs} interleavings");
}

fn free_frames<const N: usize>(tree: &Tree<'static, N>) -> usize {
    tree.stats().free_frames
}

#[test]
fn of_two_huge_allocations_one_gets_the_block() {
    let huge = |tree: &OneRegion| tree.alloc(FrameLayout::HUGE_2M).is_ok();
    race(
        || tree(1),
        huge,
        huge,
        |tree, _, _| assert_eq!(free_frames(tree), 0),
        &[(true, false), (false, true)],
    );
}

#[test]
fn the_free_that_fills_the_block_against_a_huge_allocation() {
    race(
        || {
            let tree = tree(1);
            tree.alloc_at(range(7, 1)).unwrap();
            tree
        },
        // SAFETY: allocated above.
        |tree| unsafe { tree.dealloc_frame(at(7)) }.is_ok(),
        |tree| tree.alloc(FrameLayout::HUGE_2M).is_ok(),
        |tree, _, huge| {
            assert_eq!(free_frames(tree), if *huge { 0 } else { 512 });
            assert_eq!(tree.alloc(FrameLayout::HUGE_2M).is_ok(), !huge, "what was free is found");
        },
        &[(true, true), (true, false)],
    );
}

#[test]
fn the_free_that_fills_a_row_against_a_single_allocation() {
    race(
        || {
            let tree = tree(1);
            tree.alloc_at(range(0, 512)).unwrap();
            // SAFETY: allocated above.
            unsafe { tree.dealloc(at(1), layout(63, 1)) }.unwrap();
            tree
        },
        // SAFETY: allocated above.
        |tree| unsafe { tree.dealloc_frame(at(0)) }.is_ok(),
        |tree| tree.alloc_frame().unwrap(),
        |tree, _, frame| {
            assert_eq!(free_frames(tree), 63);
            // The other 63 are found.
            let mut rest = [at(0); 64];
            assert_eq!(tree.alloc_bulk(&mut rest), 63);
            assert!(!rest[..63].contains(frame));
        },
        &[(true, at(0)), (true, at(1))],
    );
}

#[test]
fn a_placed_frame_against_a_single_one() {
    race(
        || tree(1),
        |tree| tree.alloc_at(range(0, 1)).is_ok(),
        |tree| tree.alloc_frame().ok().map(|frame| frame.as_usize() / 4096 - FIRST),
        |tree, placed, single| {
            let used = usize::from(*placed) + usize::from(single.is_some());
            assert_eq!(free_frames(tree), 512 - used);
        },
        // None: the other thread stopped between claiming the block and opening it.
        &[(true, Some(1)), (false, Some(0)), (true, None)],
    );
}

#[test]
fn a_placed_frame_against_a_huge_one() {
    race(
        || tree(1),
        |tree| tree.alloc_at(range(100, 1)).is_ok(),
        |tree| tree.alloc(FrameLayout::HUGE_2M).is_ok(),
        |tree, placed, _| assert_eq!(free_frames(tree), if *placed { 511 } else { 0 }),
        &[(true, false), (false, true)],
    );
}

/// Runs of two rows that overlap in one: a claim that fails gives back all that it took, and nothing else. (A peer
/// hands the same frames out twice here.)
#[test]
fn overlapping_claims_roll_back() {
    race(
        || {
            let tree = tree(1);
            tree.alloc_at(range(0, 512)).unwrap();
            // SAFETY: allocated above.
            unsafe { tree.dealloc(at(0), layout(192, 1)) }.unwrap();
            tree
        },
        |tree| tree.alloc_at(range(0, 128)).is_ok(),
        |tree| tree.alloc_at(range(64, 128)).is_ok(),
        |tree, first, _| {
            assert_eq!(free_frames(tree), 64);
            assert_eq!(tree.alloc(layout(64, 64)), Ok(at(if *first { 128 } else { 0 })));
        },
        &[(true, false), (false, true)],
    );
}

#[test]
fn runs_of_order_7_and_8_in_contention() {
    race(
        || {
            let tree = tree(1);
            tree.alloc_at(range(0, 512)).unwrap();
            // SAFETY: allocated above.
            unsafe { tree.dealloc(at(256), layout(256, 256)) }.unwrap();
            tree
        },
        |tree| tree.alloc(layout(256, 256)).is_ok(),
        |tree| tree.alloc(layout(128, 128)).ok().map(|start| start.as_usize() / 4096 - FIRST),
        |tree, all, _| assert_eq!(free_frames(tree), if *all { 0 } else { 128 }),
        &[(true, None), (false, Some(256)), (false, Some(384))],
    );
}

#[test]
fn closing_blocks_against_a_single_allocation() {
    race(
        || {
            let tree = tree(1);
            // An open block with nothing but free frames.
            let frame = tree.alloc_frame().unwrap();
            // SAFETY: just allocated.
            unsafe { tree.dealloc_frame(frame) }.unwrap();
            tree
        },
        |tree| tree.alloc(FrameLayout::HUGE_2M).is_ok(),
        |tree| tree.alloc_frame().is_ok(),
        |tree, huge, _| assert_eq!(free_frames(tree), if *huge { 0 } else { 511 }),
        &[(true, false), (false, true)],
    );
}

/// A free raises hints while a search lowers them: no hint below the highest may stay lowered, or the frames would be
/// missed by those who want less.
#[test]
fn a_free_against_a_search_that_lowers_hints() {
    race(
        || {
            let tree = tree(2);
            tree.alloc_at(range(0, 1024)).unwrap();
            // A hint that is too high: a pair was there.
            // SAFETY: allocated above.
            unsafe { tree.dealloc(at(0), layout(2, 2)) }.unwrap();
            tree.alloc_at(range(0, 2)).unwrap();
            tree
        },
        |tree| tree.alloc(layout(2, 2)).is_ok(),
        // SAFETY: allocated above.
        |tree| unsafe { tree.dealloc(at(4), layout(4, 4)) }.is_ok(),
        |tree, pair, _| {
            assert_eq!(free_frames(tree), if *pair { 2 } else { 4 });
            // SAFETY: allocated above.
            unsafe { tree.dealloc(at(512), FrameLayout::HUGE_2M) }.unwrap();
            let single = tree.alloc_frame().unwrap();
            assert!(single < at(8), "{single:#x}: a whole block was broken for want of a hint");
        },
        &[(true, true), (false, true)],
    );
}

#[test]
fn of_two_frees_of_a_frame_one_is_refused() {
    let free = |tree: &OneRegion| {
        // SAFETY: one of the two is refused, which is the point.
        unsafe { tree.dealloc_frame(at(3)) }.map_err(|error| {
            assert_eq!(error.frame, at(3));
            error.kind == DeallocErrorKind::NotAllocated
        })
    };
    race(
        || {
            let tree = tree(1);
            tree.alloc_at(range(3, 2)).unwrap();
            tree
        },
        free,
        free,
        |tree, _, _| assert_eq!(free_frames(tree), 511),
        &[(Ok(()), Err(true)), (Err(true), Ok(()))],
    );
}

#[test]
fn two_bulk_allocations_share_a_block() {
    let bulk = |tree: &OneRegion| {
        let mut frames = [at(0); 2];
        let got = tree.alloc_bulk(&mut frames);
        frames[..got].iter().map(|frame| frame.as_usize() / 4096 - FIRST).collect::<Vec<_>>()
    };
    race(
        || {
            let tree = tree(1);
            tree.alloc_at(range(0, 512)).unwrap();
            // SAFETY: allocated above.
            unsafe { tree.dealloc(at(0), layout(3, 1)) }.unwrap();
            tree
        },
        bulk,
        bulk,
        |tree, a, b| {
            let all: BTreeSet<_> = a.iter().chain(b).copied().collect();
            assert_eq!((a.len() + b.len(), all.len(), free_frames(tree)), (3, 3, 0), "each frame once");
        },
        &[(vec![0, 1], vec![2]), (vec![2], vec![0, 1])],
    );
}

#[test]
fn of_two_regions_that_overlap_one_is_linked() {
    fn add(tree: &Tree<'static, 2>, first: usize) -> bool {
        let region = range(first, 512);
        // SAFETY: the frames are numbers.
        match unsafe { tree.add_region(region, metadata(region)) } {
            Ok(()) => true,
            Err(RegionError::Overlap { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }
    race(
        Tree::<2>::new,
        |tree| add(tree, 0),
        |tree| add(tree, 256),
        |tree, _, _| assert_eq!((tree.regions().count(), free_frames(tree)), (1, 512)),
        &[(true, false), (false, true)],
    );
}
