//! Sessions: beside single calls on a twin, beside a flat map, with every allocation failing, and not finished.

mod common;

use std::collections::BTreeMap;

use common::{check_words, configs, everything, newest};
use frame_core::{AllocError, PhysAddr};
use frame_testkit::{TestHal, test_hal};
use proptest::prelude::*;
use vmx_structs::*;

test_hal! { struct Hal }

const PAGE: u64 = 4096;
const M2: u64 = 2 << 20;
const G: u64 = 1 << 30;

fn gpa(address: u64) -> GuestPhysAddr {
    GuestPhysAddr::new(address)
}

fn hpa(address: u64) -> PhysAddr {
    PhysAddr::from(address as usize)
}

fn range(start: u64, pages: u64) -> GuestRange {
    GuestRange::new(gpa(start), pages).unwrap()
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Map { page: u64, large: bool, host: u64 },
    MapRange { page: u64, count: u64, host: u64 },
    Unmap { page: u64 },
    UnmapRun { page: u64, count: u64 },
    UnmapRange { page: u64, count: u64 },
    Protect { page: u64, count: u64, read_only: bool },
    Remap { page: u64, host: u64 },
    Split { page: u64, count: u64 },
    Merge,
    Finish,
}

/// What each page of 4 KiB is mapped to, and whether it can be written.
type Flat = BTreeMap<u64, (u64, bool)>;

fn attributes(read_only: bool) -> EptAttributes {
    if read_only { EptAttributes::RAM.with_flags(EptFlags::READ) } else { EptAttributes::RAM }
}

fn flat_of(ept: &Ept<Hal>) -> Flat {
    let pages = |leaf: EptLeaf| {
        let writable = leaf.flags().contains(EptFlags::WRITE);
        let host = leaf.host().as_usize() as u64;
        (0..leaf.size().frames())
            .map(move |i| (leaf.guest().as_u64() + i * PAGE, (host + i * PAGE, writable)))
    };
    ept.leaves().flat_map(pages).collect()
}

/// Does one operation in the session, alone on the twin, and on the flat map. Notes what the twin owes.
fn apply(
    session: &mut EptSession<'_, Hal>,
    twin: &mut Ept<Hal>,
    flat: &mut Flat,
    owed: &mut Vec<Invalidation<Hal>>,
    at: &dyn Fn(u64) -> u64,
    op: Op,
) {
    let fill = |flat: &mut Flat, first: u64, count: u64, host: u64| {
        flat.extend((0..count).map(|i| (first + i * PAGE, (host + i * PAGE, true))));
    };
    let mut owes =
        |done: Result<Invalidation<Hal>, EptError>| done.map(|invalidation| owed.push(invalidation));
    match op {
        Op::Map { page, large, host } => {
            let size = if large { PageSize::Size2M } else { PageSize::Size4K };
            let (first, host) = (at(page) & !(size.bytes() - 1), host & !(size.bytes() - 1));
            let done = session.map(gpa(first), hpa(host), size, EptAttributes::RAM);
            assert_eq!(done, twin.map(gpa(first), hpa(host), size, EptAttributes::RAM));
            if done.is_ok() {
                fill(flat, first, size.frames(), host);
            }
        }
        Op::MapRange { page, count, host } => {
            let (first, range) = (at(page), range(at(page), count));
            let free = flat.range(first..first + count * PAGE).next().is_none();
            let done = session.map_range(range, hpa(host), EptAttributes::RAM);
            assert_eq!(done, twin.map_range(range, hpa(host), EptAttributes::RAM));
            assert_eq!(done.is_ok(), free);
            if free {
                fill(flat, first, count, host);
            }
        }
        Op::Unmap { page } => {
            let first = at(page);
            // No processor sets flags here, so both tell the same of the page.
            let done = if page % 2 == 0 { session.unmap(gpa(first)) } else { session.discard(gpa(first)) };
            let alone = twin.unmap(gpa(first)).map(|(leaf, invalidation)| {
                owed.push(invalidation);
                leaf
            });
            assert_eq!(done, alone);
            if let Ok(leaf) = done {
                assert_eq!(flat[&first].0, leaf.host().as_usize() as u64);
                flat.retain(|page, _| !(first..first + leaf.size().bytes()).contains(page));
            } else {
                let inside = matches!(done, Err(EptError::GuestMisaligned { .. }));
                assert_eq!(flat.contains_key(&first), inside);
            }
        }
        Op::UnmapRun { page, count } => {
            for i in 0..count {
                apply(session, twin, flat, owed, at, Op::Unmap { page: page + i });
            }
        }
        Op::UnmapRange { page, count } => {
            let (first, range) = (at(page), range(at(page), count));
            assert_eq!(session.unmap_range(range), owes(twin.unmap_range(range)));
            flat.retain(|page, _| !(first..first + count * PAGE).contains(page));
        }
        Op::Protect { page, count, read_only } => {
            let (first, range) = (at(page), range(at(page), count));
            let done = session.protect(range, attributes(read_only));
            assert_eq!(done, owes(twin.protect(range, attributes(read_only))));
            assert_eq!(done.is_ok(), flat.range(first..first + count * PAGE).count() as u64 == count);
            if done.is_ok() {
                flat.range_mut(first..first + count * PAGE).for_each(|(_, page)| page.1 = !read_only);
            }
        }
        Op::Remap { page, host } => {
            let first = at(page);
            let done = session.remap(gpa(first), hpa(host), EptAttributes::RAM);
            let alone = twin.remap(gpa(first), hpa(host), EptAttributes::RAM).map(|(leaf, invalidation)| {
                owed.push(invalidation);
                leaf
            });
            assert_eq!(done, alone);
            if let Ok(leaf) = done {
                fill(flat, first, leaf.size().frames(), host);
            }
        }
        Op::Split { page, count } => {
            let range = range(at(page), count);
            assert_eq!(session.split(range, PageSize::Size4K), owes(twin.split(range, PageSize::Size4K)));
        }
        Op::Merge => {
            let range = range(at(0) & !(M2 - 1), 2048);
            assert_eq!(session.merge(range), owes(twin.merge(range)));
        }
        Op::Finish => {}
    }
}

fn run(config: EptConfig, base: u64, ops: &[Op]) {
    let at = |page: u64| base + page % 2048 * PAGE;
    Hal::scope(128, || {
        let (mut ept, mut twin) = (Ept::<Hal>::new(config).unwrap(), Ept::<Hal>::new(config).unwrap());
        let mut flat = Flat::new();
        for ops in ops.split_inclusive(|op| matches!(op, Op::Finish)) {
            let mut owed = Vec::new();
            let mut session = ept.session();
            for &op in ops {
                apply(&mut session, &mut twin, &mut flat, &mut owed, &at, op);
                assert!(flat_of(session.ept()) == flat, "after {op:?}");
            }
            let invalidation = session.finish();
            assert_eq!(invalidation.is_needed(), owed.iter().any(Invalidation::is_needed));
            owed.into_iter().for_each(Invalidation::waive);
            // No table is empty: the twin has none, and both map the same by the same pages.
            assert!(ept.leaves().eq(twin.leaves()));
            assert_eq!(ept.table_frames(), twin.table_frames());
            check_words(&ept);
            check_words(&twin);
            let retired = invalidation.retired_tables();
            assert_eq!(Hal::owned(), ept.table_frames() + twin.table_frames() + retired);
            invalidation.complete(|_, _| Ok::<(), ()>(())).unwrap();
        }
    });
}

fn op() -> impl Strategy<Value = Op> {
    let page = || prop_oneof![0..2048_u64, (0..4_u64).prop_map(|block| block * 512), 0..8_u64];
    let count = || prop_oneof![1..8_u64, Just(512_u64), 1..1000_u64];
    let host = || prop_oneof![(1..1000_u64).prop_map(|n| n * M2), (1..100_000_u64).prop_map(|n| n * PAGE)];
    prop_oneof![
        3 => (page(), any::<bool>(), host()).prop_map(|(page, large, host)| Op::Map { page, large, host }),
        3 => (page(), count(), host()).prop_map(|(page, count, host)| Op::MapRange { page, count, host }),
        3 => page().prop_map(|page| Op::Unmap { page }),
        3 => (page(), 1..700_u64).prop_map(|(page, count)| Op::UnmapRun { page, count }),
        1 => (page(), count()).prop_map(|(page, count)| Op::UnmapRange { page, count }),
        3 => (page(), prop_oneof![Just(1), count()], any::<bool>())
            .prop_map(|(page, count, read_only)| Op::Protect { page, count, read_only }),
        1 => (page(), host()).prop_map(|(page, host)| Op::Remap { page, host }),
        1 => (page(), count()).prop_map(|(page, count)| Op::Split { page, count }),
        1 => Just(Op::Merge),
        2 => Just(Op::Finish),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// 8 MiB across the edge of a gibibyte, where the bookmark moves, on every processor.
    #[test]
    fn a_session_does_what_single_calls_do(
        ops in prop::collection::vec(op(), 1..32),
        which in any::<prop::sample::Index>(),
    ) {
        run(*which.get(&configs()), (512 << 30) - (4 << 20), &ops);
    }

    #[test]
    fn a_session_with_all_features_does_too(ops in prop::collection::vec(op(), 1..32), five in any::<bool>()) {
        let levels = if five { EptLevels::Five } else { EptLevels::Four };
        run(everything(levels), G - (4 << 20), &ops);
    }
}

#[test]
fn tables_of_each_level_that_a_session_empties_are_freed_after_the_invept() {
    for size in PageSize::ALL {
        Hal::scope(32, || {
            let mut ept = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
            // Three pages below each of two tables, far from each other.
            let pages: Vec<u64> =
                [0, 3 << 39].iter().flat_map(|at| (0..3).map(move |i| at + i * size.bytes())).collect();
            let frames = |ept: &Ept<Hal>| (ept.table_frames(), Hal::owned());
            for &page in &pages {
                ept.map(gpa(page), hpa(G), size, EptAttributes::RAM).unwrap();
            }
            let full = ept.table_frames();
            let mut session = ept.session();
            for &page in pages.iter().rev() {
                session.unmap(gpa(page)).unwrap();
            }
            assert_eq!(Hal::owned(), full, "none is freed before the INVEPT");
            let invalidation = session.finish();
            assert!(invalidation.is_needed());
            assert_eq!(invalidation.retired_tables(), full - 1);
            assert_eq!(frames(&ept), (1, full));
            invalidation.waive();
            assert_eq!(frames(&ept), (1, 1));
        });
    }
}

#[test]
fn an_operation_that_fails_leaves_what_the_session_did_before() {
    Hal::scope(64, || {
        let mut ept = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
        ept.map_range(range(0, 4), hpa(G), EptAttributes::RAM).unwrap();
        ept.map(gpa(G), hpa(G), PageSize::Size1G, EptAttributes::RAM).unwrap();
        let read_only = attributes(true);
        type Attempt = fn(&mut EptSession<'_, Hal>) -> Result<(), EptError>;
        let attempts: [(usize, Attempt); 5] = [
            (3, |session| session.map(gpa(1 << 39), hpa(0), PageSize::Size4K, EptAttributes::RAM)),
            (1 + 1, |session| session.map_range(range(M2 - PAGE * 8, 24), hpa(G), EptAttributes::RAM)),
            (2, |session| session.unmap_range(range(G + M2, 1))),
            (2, |session| session.protect(range(G + M2, 1), attributes(true))),
            (2, |session| session.split(range(G, 1), PageSize::Size4K)),
        ];
        for (expected, attempt) in attempts {
            let allocations = Hal::each_failure(|| {
                let mut session = ept.session();
                // The last page of its table: the table is noted when the operation fails.
                for page in 0..4 {
                    session.unmap(gpa(page * PAGE)).unwrap();
                }
                session.protect(range(G, 1 << 18), read_only).unwrap();
                let before = flat_of(session.ept());
                let done = attempt(&mut session);
                if done.is_err() {
                    assert_eq!(done, Err(EptError::Alloc(AllocError::NoMemory)));
                    assert!(flat_of(session.ept()) == before);
                }
                session.finish().waive();
                // As it was, for the next attempt.
                Hal::fail_never();
                ept.unmap_range(range(0, 1 << 30)).unwrap().waive();
                ept.map_range(range(0, 4), hpa(G), EptAttributes::RAM).unwrap();
                ept.map(gpa(G), hpa(G), PageSize::Size1G, EptAttributes::RAM).unwrap();
            });
            assert!(allocations >= expected, "{allocations} allocations, {expected} of them of the attempt");
        }
    });
}

#[test]
fn tables_of_a_session_that_was_not_finished_leak_and_never_come_back() {
    let leaked = std::panic::catch_unwind(|| {
        Hal::scope(64, || {
            let mut ept = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
            ept.map(gpa(0), hpa(0), PageSize::Size4K, EptAttributes::RAM).unwrap();
            let mut session = ept.session();
            session.unmap(gpa(0)).unwrap();
            drop(session);
            assert_eq!(ept.table_frames(), 1);
        });
    });
    let message = *leaked.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("3 frames leaked"), "{message}");
    // One that owes nothing leaks nothing.
    Hal::scope(64, || {
        let mut ept = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
        let mut session = ept.session();
        session.map(gpa(0), hpa(0), PageSize::Size4K, EptAttributes::RAM).unwrap();
        assert!(session.unmap(gpa(PAGE)).is_err());
        drop(session);
        let invalidation = ept.session().finish();
        assert!(!invalidation.is_needed());
    });
}

#[test]
fn tables_of_two_levels_with_the_same_number_are_told_apart() {
    Hal::scope(64, || {
        let mut ept = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
        ept.map(gpa(2 * M2), hpa(G), PageSize::Size4K, EptAttributes::RAM).unwrap();
        ept.map(gpa(5 * G), hpa(G), PageSize::Size2M, EptAttributes::RAM).unwrap();
        let mut session = ept.session();
        session.unmap(gpa(2 * M2)).unwrap();
        session.unmap(gpa(5 * G)).unwrap();
        session.finish().waive();
        assert_eq!((ept.table_frames(), Hal::owned()), (1, 1));
    });
}

#[test]
fn what_a_forgotten_session_left_the_next_one_owes() {
    for size in PageSize::ALL {
        Hal::scope(64, || {
            let mut ept = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
            let page = |i: u64| gpa(i * size.bytes());
            for i in 0..3 {
                ept.map(page(i), hpa(G), size, EptAttributes::RAM).unwrap();
            }
            let mut session = ept.session();
            session.unmap(page(0)).unwrap();
            std::mem::forget(session);
            // Nothing of its own, or a page of a table that was noted already.
            let invalidation = ept.session().finish();
            assert!(invalidation.is_needed());
            invalidation.waive();
            assert!(!ept.session().finish().is_needed());
            let mut session = ept.session();
            session.unmap(page(1)).unwrap();
            std::mem::forget(session);
            let mut session = ept.session();
            session.unmap(page(2)).unwrap();
            let invalidation = session.finish();
            assert!(invalidation.is_needed());
            invalidation.waive();
            assert_eq!((ept.table_frames(), Hal::owned()), (1, 1));
            // Also what owes an INVEPT without a table that may be empty: it had been looked at, or no page went.
            let changes: [fn(&mut EptSession<'_, Hal>); 2] = [
                |session| {
                    session.unmap(gpa(0)).unwrap();
                    session.unmap_range(range(1 << 40, 1)).unwrap();
                },
                |session| session.protect(range(0, 1), attributes(true)).unwrap(),
            ];
            for change in changes {
                ept.unmap_range(range(0, 1 << 30)).unwrap().waive();
                ept.map_range(range(0, 2), hpa(G), EptAttributes::RAM).unwrap();
                let mut session = ept.session();
                change(&mut session);
                std::mem::forget(session);
                let invalidation = ept.session().finish();
                assert!(invalidation.is_needed());
                invalidation.waive();
                assert!(!ept.session().finish().is_needed());
            }
        });
    }
}

#[test]
fn a_page_that_a_session_unmaps_is_returned_with_its_dirty_flag() {
    Hal::scope(64, || {
        let mut ept = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
        ept.map_range(range(0, 2), hpa(G), EptAttributes::RAM).unwrap();
        ept.access(gpa(PAGE), EptAccess::WRITE).unwrap();
        let mut session = ept.session();
        session.protect(range(0, 2), attributes(true)).unwrap();
        let dirty = [0, PAGE].map(|page| session.unmap(gpa(page)).unwrap().dirty());
        assert_eq!(dirty, [false, true]);
        session.finish().waive();
    });
}
