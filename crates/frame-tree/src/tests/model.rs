//! Random operations against an oracle: a list of which frames are free.

use std::{collections::BTreeSet, vec::Vec};

use frame_core::{AllocError, DeallocErrorKind, FrameAllocator, FrameRange, PhysAddr};
use proptest::prelude::*;

use super::{
    invariants,
    support::{at, layout, range, with_tree},
};
use crate::Tree;

#[derive(Clone, Debug)]
enum Op {
    Single,
    Run {
        count: usize,
        align: usize,
    },
    At {
        first: usize,
        count: usize,
    },
    In {
        count: usize,
        align: usize,
        first: usize,
        window: usize,
    },
    Bulk {
        count: usize,
    },
    /// Gives back a part of what is owned: `pick` says where, `count` how much at most.
    Free {
        pick: usize,
        count: usize,
    },
    FreeBulk {
        pick: usize,
        count: usize,
        step: usize,
    },
    BadFree {
        first: usize,
        count: usize,
    },
    Offline {
        first: usize,
        count: usize,
    },
    FreeAll,
}

/// Which frames are managed, free, and out of service.
struct Oracle {
    managed: BTreeSet<usize>,
    free: BTreeSet<usize>,
    owned: BTreeSet<usize>,
    offline: Vec<FrameRange>,
}

impl Oracle {
    fn new(regions: &[(usize, usize)]) -> Self {
        let managed: BTreeSet<_> = regions.iter().flat_map(|(first, count)| *first..first + count).collect();
        Self { free: managed.clone(), managed, owned: BTreeSet::new(), offline: Vec::new() }
    }

    fn take(&mut self, first: usize, count: usize) {
        for frame in first..first + count {
            assert!(self.free.remove(&frame), "frame {frame:#x} was handed out and is not free");
            assert!(self.owned.insert(frame));
        }
    }

    fn give(&mut self, frame: usize) {
        assert!(self.owned.remove(&frame));
        assert!(self.free.insert(frame));
    }

    /// Whether there is a free run at all, aligned or not to anything but `align`.
    fn fits(&self, count: usize, align: usize, window: core::ops::Range<usize>) -> bool {
        let mut run = 0;
        let mut last = usize::MAX;
        let mut start = 0;
        for &frame in self.free.range(window) {
            if run == 0 || frame != last + 1 {
                (start, run) = (frame, 0);
            }
            run += 1;
            last = frame;
            if start + run >= start.next_multiple_of(align) + count {
                return true;
            }
        }
        false
    }

    /// Owned frames from the `pick`-th on that adjoin, at most `count`.
    fn owned_run(&self, pick: usize, count: usize) -> Option<(usize, usize)> {
        let first = *self.owned.iter().nth(pick % self.owned.len().max(1))?;
        let length = (first..first + count).take_while(|frame| self.owned.contains(frame)).count();
        Some((first, length))
    }
}

fn frame_of(addr: PhysAddr) -> usize {
    addr.as_usize() / 4096
}

fn apply(tree: &Tree<'_>, oracle: &mut Oracle, op: &Op) {
    let answer =
        |oracle: &mut Oracle, result: Result<PhysAddr, AllocError>, count, align, window| match result {
            Ok(addr) => {
                let first = frame_of(addr);
                assert_eq!(first % align, 0, "aligned");
                let window: core::ops::Range<usize> = window;
                assert!(window.contains(&first) && window.contains(&(first + count - 1)), "in the window");
                oracle.take(first, count);
            }
            Err(error) => {
                assert_eq!(error, AllocError::NoMemory);
                assert!(
                    !oracle.fits(count, align, window),
                    "NoMemory, and {count} frames at {align} are free"
                );
            }
        };
    match *op {
        Op::Single => answer(oracle, tree.alloc_frame(), 1, 1, 0..usize::MAX),
        Op::Run { count, align } => {
            answer(oracle, tree.alloc(layout(count, align)), count, align, 0..usize::MAX);
        }
        Op::In { count, align, first, window } => {
            let result = tree.alloc_in(layout(count, align), range(first, window));
            answer(oracle, result, count, align, first..first + window);
        }
        Op::At { first, count } | Op::Offline { first, count } => {
            let frames = first..first + count;
            let expected = match () {
                () if !frames.clone().all(|frame| oracle.managed.contains(&frame)) => {
                    Err(AllocError::NotManaged)
                }
                () if !frames.clone().all(|frame| oracle.free.contains(&frame)) => Err(AllocError::InUse),
                () => Ok(()),
            };
            if matches!(op, Op::At { .. }) {
                assert_eq!(tree.alloc_at(range(first, count)), expected);
                if expected.is_ok() {
                    oracle.take(first, count);
                }
            } else {
                assert_eq!(tree.offline(range(first, count)), expected);
                if expected.is_ok() {
                    oracle.free.retain(|frame| !frames.contains(frame));
                    oracle.offline.push(range(first, count));
                }
            }
        }
        Op::Bulk { count } => {
            let mut frames = std::vec![at(0); count];
            let got = tree.alloc_bulk(&mut frames);
            assert_eq!(got, count.min(oracle.free.len()), "bulk gives what there is");
            for frame in &frames[..got] {
                oracle.take(frame_of(*frame), 1);
            }
            assert!(frames[got..].iter().all(|frame| *frame == at(0)), "the rest is untouched");
        }
        Op::Free { pick, count } => {
            let Some((first, count)) = oracle.owned_run(pick, count) else { return };
            // SAFETY: owned, says the oracle.
            unsafe { tree.dealloc(at(first), layout(count, 1)) }.unwrap();
            (first..first + count).for_each(|frame| oracle.give(frame));
        }
        Op::FreeBulk { pick, count, step } => {
            let skip = pick % oracle.owned.len().max(1);
            let mut frames: Vec<_> =
                oracle.owned.iter().skip(skip).step_by(step).copied().take(count).collect();
            if step % 2 == 0 {
                frames.reverse();
            }
            let addresses: Vec<_> = frames.iter().map(|frame| at(*frame)).collect();
            // SAFETY: owned, says the oracle.
            unsafe { tree.dealloc_bulk(&addresses) }.unwrap();
            frames.into_iter().for_each(|frame| oracle.give(frame));
        }
        Op::BadFree { first, count } => {
            let bad = (first..first + count).find_map(|frame| match frame {
                frame if !oracle.managed.contains(&frame) => Some((frame, DeallocErrorKind::NotManaged)),
                frame if oracle.free.contains(&frame) => Some((frame, DeallocErrorKind::NotAllocated)),
                _ => None,
            });
            let Some((frame, kind)) = bad else { return };
            // SAFETY: it is refused, which is the point.
            let error = unsafe { tree.dealloc(at(first), layout(count, 1)) }.unwrap_err();
            assert_eq!((error.frame, error.kind), (at(frame), kind));
        }
        Op::FreeAll => {
            for range in oracle.offline.drain(..) {
                // SAFETY: it was taken out of service.
                unsafe { tree.online(range) }.unwrap();
                oracle.free.extend(range.frames().map(frame_of));
            }
            while let Some((first, count)) = oracle.owned_run(0, usize::MAX / 4096) {
                // SAFETY: owned, says the oracle.
                unsafe { tree.dealloc(at(first), layout(count, 1)) }.unwrap();
                (first..first + count).for_each(|frame| oracle.give(frame));
            }
        }
    }
}

fn compare(tree: &Tree<'_>, oracle: &Oracle) {
    invariants::check(tree);
    assert!(invariants::free_frames(tree).iter().eq(oracle.free.iter()), "the same frames are free");
    let mut visited = Vec::new();
    tree.visit_free(&mut |run| visited.extend(run.frames().map(frame_of)));
    assert!(visited.iter().eq(oracle.free.iter()), "visit_free shows every free frame once, in order");
    let stats = tree.stats();
    let offline: usize = oracle.offline.iter().map(|range| range.count()).sum();
    assert_eq!(stats.total_frames, oracle.managed.len() - offline);
    assert_eq!(stats.free_frames, oracle.free.len());
}

fn run(regions: &[(usize, usize)], ops: &[Op]) {
    with_tree(regions, |tree| {
        let mut oracle = Oracle::new(regions);
        compare(tree, &oracle);
        for op in ops {
            apply(tree, &mut oracle, op);
            compare(tree, &oracle);
        }
        // Everything back: the largest run is there again.
        apply(tree, &mut oracle, &Op::FreeAll);
        compare(tree, &oracle);
        for (first, count) in regions {
            tree.alloc_at(range(*first, *count)).unwrap();
        }
        assert_eq!(tree.alloc_frame(), Err(AllocError::NoMemory));
    });
}

fn counts() -> impl Strategy<Value = usize> {
    prop_oneof![
        1usize..=8,
        1usize..=70,
        1usize..=520,
        Just(512),
        500usize..=3000,
        (0u32..11).prop_map(|k| 1 << k)
    ]
}

fn aligns() -> impl Strategy<Value = usize> {
    prop_oneof![4 => Just(1usize), 3 => (0u32..11).prop_map(|k| 1 << k), 1 => (9u32..20).prop_map(|k| 1 << k)]
}

fn ops(frames: core::ops::Range<usize>) -> impl Strategy<Value = Op> {
    let first = || frames.clone();
    prop_oneof![
        4 => Just(Op::Single),
        4 => (counts(), aligns()).prop_map(|(count, align)| Op::Run { count, align }),
        1 => (first(), counts()).prop_map(|(first, count)| Op::At { first, count }),
        1 => (counts(), aligns(), first(), 1usize..4000)
            .prop_map(|(count, align, first, window)| Op::In { count, align, first, window }),
        2 => (0usize..700).prop_map(|count| Op::Bulk { count }),
        5 => (any::<usize>(), counts()).prop_map(|(pick, count)| Op::Free { pick, count }),
        3 => (any::<usize>(), 0usize..600, 1usize..5)
            .prop_map(|(pick, count, step)| Op::FreeBulk { pick, count, step }),
        1 => (first(), counts()).prop_map(|(first, count)| Op::BadFree { first, count }),
        1 => (first(), counts()).prop_map(|(first, count)| Op::Offline { first, count }),
        1 => Just(Op::FreeAll),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whole blocks, around 16 MiB so that two zones are used.
    #[test]
    fn a_few_blocks(ops in prop::collection::vec(ops(3584..6200), 1..60)) {
        run(&[(3584, 2560)], &ops);
    }

    /// Starts and ends in the middle of rows; regions that adjoin in the middle of a row, and a hole.
    #[test]
    fn ragged_regions(ops in prop::collection::vec(ops(690..4900), 1..60)) {
        run(&[(701, 700), (1401, 1300), (3000, 1), (3001, 63), (3500, 1333)], &ops);
    }

    /// Over the borders of groups and spans.
    #[test]
    fn over_a_span(ops in prop::collection::vec(ops((2 << 20) - 2100..(2 << 20) + 2100), 1..40)) {
        run(&[((2 << 20) - 2000, 4000)], &ops);
    }
}
