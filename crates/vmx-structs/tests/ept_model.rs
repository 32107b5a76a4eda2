//! EPT tables against a flat map: random operations, and after each of them every page is compared.

mod common;

use common::{configs, everything, newest};
use frame_core::PhysAddr;
use frame_testkit::{TestHal, test_hal};
use proptest::prelude::*;
use std::collections::BTreeSet;
use vmx_structs::*;

test_hal! { struct Hal }

const PAGE: u64 = 4096;
const M2: u64 = 2 << 20;

/// The flat map: what each 4 KiB page of a window is mapped to. The simplest thing that could be right.
struct Flat {
    base: u64,
    /// Host address and attributes.
    pages: Vec<Option<(u64, EptAttributes)>>,
}

impl Flat {
    fn slots(&mut self, first: u64, count: u64) -> &mut [Option<(u64, EptAttributes)>] {
        let start = ((first - self.base) / PAGE) as usize;
        &mut self.pages[start..start + count as usize]
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    MapRange { page: u64, count: u64, host: u64, kind: usize },
    MapPage { page: u64, size: usize, host: u64, kind: usize },
    Unmap { page: u64 },
    UnmapRange { page: u64, count: u64 },
    Protect { page: u64, count: u64, kind: usize },
    Split { page: u64, count: u64, size: usize },
    Merge,
    Remap { page: u64, host: u64, kind: usize },
}

/// Attributes that every processor takes.
fn attributes(kind: usize) -> EptAttributes {
    match kind % 5 {
        0 => EptAttributes::RAM,
        1 => EptAttributes::RAM.with_flags(EptFlags::RX),
        2 => EptAttributes::DEVICE,
        3 => EptAttributes::RAM.with_flags(EptFlags::READ | EptFlags::IGNORE_PAT),
        _ => EptAttributes::RAM.with_memory_type(EptMemoryType::WriteProtected),
    }
}

/// What the tables keep of attributes.
fn kept(config: &EptConfig, mut attributes: EptAttributes) -> EptAttributes {
    if !config.mode_based_execute() {
        attributes.flags.remove(EptFlags::USER_EXECUTE);
    }
    attributes
}

fn check(ept: &Ept<Hal>, flat: &Flat, retired: usize) {
    let window = flat.base..flat.base + flat.pages.len() as u64 * PAGE;
    let mut seen = vec![None; flat.pages.len()];
    let mut tables = BTreeSet::new();
    let levels = ept.config().levels().count();
    let mut end = 0;
    for leaf in ept.leaves() {
        let start = leaf.guest().as_u64();
        assert!(start >= end && window.contains(&start), "in order, none twice, none outside");
        end = start + leaf.size().bytes();
        assert!(ept.config().supports(leaf.size()));
        for i in 0..leaf.size().frames() {
            let host = leaf.host().as_usize() as u64 + i * PAGE;
            seen[((start - flat.base) / PAGE + i) as usize] = Some((host, leaf.attributes().unwrap()));
        }
        // The tables that this leaf needs: of its own level and above, by what they serve.
        for level in leaf.size().level()..=levels {
            tables.insert((level, start >> (12 + 9 * level)));
        }
    }
    tables.insert((levels, window.start >> (12 + 9 * levels)));
    for (i, (seen, expected)) in seen.iter().zip(&flat.pages).enumerate() {
        assert_eq!(seen, expected, "page {:#x}", flat.base + i as u64 * PAGE);
    }
    // No table is empty, none is missing, none leaks.
    assert_eq!(ept.table_frames(), tables.len());
    assert_eq!(Hal::owned(), tables.len() + retired);
    // The processor's view, at some pages.
    for i in (0..flat.pages.len()).step_by(37) {
        let guest = flat.base + i as u64 * PAGE + (i as u64 & 0xfff);
        let seen = ept.translate(GuestPhysAddr::new(guest), EptAccess::READ);
        match (&flat.pages[i], seen) {
            (Some((host, _)), Ok(seen)) => assert_eq!(seen.host.as_usize() as u64, host | guest & 0xfff),
            (None, Err(EptFault::Violation(_))) => {}
            (expected, seen) => panic!("{guest:#x}: {seen:?}, not {expected:?}"),
        }
    }
}

fn range(first: u64, count: u64) -> GuestRange {
    GuestRange::new(GuestPhysAddr::new(first), count).unwrap()
}

/// Does one operation on both. What is refused must be refused for a reason that the flat map sees, and change nothing.
fn apply(ept: &mut Ept<Hal>, flat: &mut Flat, op: Op) -> Option<Invalidation<Hal>> {
    let config = *ept.config();
    let base = flat.base;
    let total = flat.pages.len() as u64;
    let at = |page: u64| base + page % total * PAGE;
    let clip = |page: u64, count: u64| count.clamp(1, total - page % total);
    match op {
        Op::MapRange { page, count, host, kind } => {
            let (first, count) = (at(page), clip(page, count));
            let slots = flat.slots(first, count);
            let done = ept.map_range(range(first, count), PhysAddr::from(host as usize), attributes(kind));
            match slots.iter().position(Option::is_some) {
                None => {
                    done.unwrap();
                    for (i, slot) in slots.iter_mut().enumerate() {
                        *slot = Some((host + i as u64 * PAGE, kept(&config, attributes(kind))));
                    }
                }
                Some(taken) => {
                    let guest = GuestPhysAddr::new(first + taken as u64 * PAGE);
                    assert_eq!(done, Err(EptError::Occupied { guest }), "the first page that is taken");
                }
            }
            None
        }
        Op::MapPage { page, size, host, kind } => {
            let size = PageSize::ALL[size % 2];
            let (first, host) = (at(page) & !(size.bytes() - 1), host & !(size.bytes() - 1));
            let done =
                ept.map(GuestPhysAddr::new(first), PhysAddr::from(host as usize), size, attributes(kind));
            let slots = flat.slots(first, size.frames());
            if !config.supports(size) {
                assert_eq!(done, Err(EptError::PageSize { size }));
            } else if slots.iter().any(Option::is_some) {
                assert!(matches!(done, Err(EptError::Occupied { .. })));
            } else {
                done.unwrap();
                for (i, slot) in slots.iter_mut().enumerate() {
                    *slot = Some((host + i as u64 * PAGE, kept(&config, attributes(kind))));
                }
            }
            None
        }
        Op::Unmap { page } => {
            let first = at(page);
            match ept.unmap(GuestPhysAddr::new(first)) {
                Ok((leaf, invalidation)) => {
                    let slots = flat.slots(first, leaf.size().frames());
                    assert_eq!(slots[0], Some((leaf.host().as_usize() as u64, leaf.attributes().unwrap())));
                    slots.fill(None);
                    assert!(invalidation.is_needed());
                    Some(invalidation)
                }
                Err(EptError::NotMapped { .. }) => {
                    assert_eq!(flat.slots(first, 1)[0], None);
                    None
                }
                Err(EptError::GuestMisaligned { .. }) => {
                    assert!(flat.slots(first, 1)[0].is_some());
                    None
                }
                Err(other) => panic!("{other}"),
            }
        }
        Op::UnmapRange { page, count } => {
            let (first, count) = (at(page), clip(page, count));
            let invalidation = ept.unmap_range(range(first, count)).unwrap();
            let slots = flat.slots(first, count);
            assert_eq!(invalidation.is_needed(), slots.iter().any(Option::is_some));
            slots.fill(None);
            Some(invalidation)
        }
        Op::Protect { page, count, kind } => {
            let (first, count) = (at(page), clip(page, count));
            let slots = flat.slots(first, count);
            let done = ept.protect(range(first, count), attributes(kind));
            match slots.iter().position(Option::is_none) {
                Some(_) => {
                    assert!(matches!(done, Err(EptError::NotMapped { .. })));
                    None
                }
                None => {
                    for slot in slots.iter_mut().flatten() {
                        slot.1 = kept(&config, attributes(kind));
                    }
                    Some(done.unwrap())
                }
            }
        }
        Op::Split { page, count, size } => {
            let (first, count) = (at(page), clip(page, count));
            let size = PageSize::ALL[size % 2];
            if !config.supports(size) {
                return None;
            }
            let invalidation = ept.split(range(first, count), size).unwrap();
            assert!(ept.leaves_in(range(first, count)).unwrap().all(|leaf| leaf.size() <= size));
            Some(invalidation)
        }
        Op::Merge => {
            let invalidation = ept.merge(range(base, total)).unwrap();
            // Nothing is left that could be merged into 2 MiB: 512 in a row, aligned on both sides, alike.
            if config.largest_page() >= PageSize::Size2M && config.supports(PageSize::Size2M) {
                for (i, block) in flat.pages.chunks(512).enumerate() {
                    let alike = block.iter().enumerate().all(|(j, page)| match (page, block[0]) {
                        (Some(page), Some(first)) => {
                            first.0 % M2 == 0 && page.0 == first.0 + j as u64 * PAGE && page.1 == first.1
                        }
                        _ => false,
                    });
                    let guest = GuestPhysAddr::new(base + i as u64 * M2);
                    let large = ept.query(guest).is_some_and(|leaf| leaf.size() >= PageSize::Size2M);
                    assert_eq!(large, alike, "{guest:?}");
                }
            }
            Some(invalidation)
        }
        Op::Remap { page, host, kind } => {
            let first = at(page);
            let leaf = ept.query(GuestPhysAddr::new(first));
            let done = ept.remap(GuestPhysAddr::new(first), PhysAddr::from(host as usize), attributes(kind));
            let Ok((_, invalidation)) = done else {
                let aligned = leaf
                    .is_some_and(|leaf| leaf.guest().as_u64() == first && host % leaf.size().bytes() == 0);
                assert!(!aligned, "refused for no reason");
                return None;
            };
            let slots = flat.slots(first, leaf.unwrap().size().frames());
            for (i, slot) in slots.iter_mut().enumerate() {
                *slot = Some((host + i as u64 * PAGE, kept(&config, attributes(kind))));
            }
            Some(invalidation)
        }
    }
}

/// Pages at and around the edges of 2 MiB blocks, and anywhere.
fn page(total: u64) -> impl Strategy<Value = u64> {
    prop_oneof![
        0..total,
        (0..total / 512, prop_oneof![Just(0), Just(1), Just(511), Just(256)])
            .prop_map(|(block, page)| block * 512 + page),
    ]
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![1..8_u64, 500..530_u64, 1..3000_u64, Just(512), Just(1024)]
}

/// Host addresses, aligned to 2 MiB as often as not.
fn host() -> impl Strategy<Value = u64> {
    prop_oneof![(1..1000_u64).prop_map(|n| n * M2), (1..1_000_000_u64).prop_map(|n| n * PAGE)]
}

fn op(total: u64) -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (page(total), count(), host(), 0..5_usize)
            .prop_map(|(page, count, host, kind)| Op::MapRange { page, count, host, kind }),
        // The same offset between guest and host, so that neighbours can be merged.
        3 => (page(total), count()).prop_map(|(page, count)| Op::MapRange { page, count, host: (1 << 35) + page * PAGE, kind: 0 }),
        3 => (page(total), 0..2_usize, host(), 0..5_usize)
            .prop_map(|(page, size, host, kind)| Op::MapPage { page, size, host, kind }),
        2 => page(total).prop_map(|page| Op::Unmap { page }),
        3 => (page(total), count()).prop_map(|(page, count)| Op::UnmapRange { page, count }),
        3 => (page(total), count(), 0..5_usize).prop_map(|(page, count, kind)| Op::Protect { page, count, kind }),
        1 => (page(total), count(), 0..2_usize).prop_map(|(page, count, size)| Op::Split { page, count, size }),
        2 => Just(Op::Merge),
        1 => (page(total), host(), 0..5_usize).prop_map(|(page, host, kind)| Op::Remap { page, host, kind }),
    ]
}

fn run(config: EptConfig, base: u64, pages: u64, ops: &[Op]) {
    Hal::scope(256, || {
        let mut ept = Ept::<Hal>::new(config).unwrap();
        let mut flat = Flat { base, pages: vec![None; pages as usize] };
        let mut owed: Option<Invalidation<Hal>> = None;
        for (i, &op) in ops.iter().enumerate() {
            let invalidation = apply(&mut ept, &mut flat, op);
            match (&mut owed, invalidation) {
                (Some(owed), Some(more)) => owed.merge(more).unwrap(),
                (None, invalidation) => owed = invalidation,
                (_, None) => {}
            }
            check(&ept, &flat, owed.as_ref().map_or(0, Invalidation::retired_tables));
            if i % 4 == 3 {
                if let Some(owed) = owed.take() {
                    owed.complete(|_, _| Ok::<(), ()>(())).unwrap();
                }
            }
        }
        if let Some(owed) = owed {
            owed.waive();
        }
        // Everything away leaves the root.
        ept.unmap_range(range(base, pages)).unwrap().waive();
        assert_eq!((ept.table_frames(), Hal::owned()), (1, 1));
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// 16 MiB across the edge of a 512 GiB slot, on every processor.
    #[test]
    fn tables_do_what_a_flat_map_does(ops in prop::collection::vec(op(4096), 1..24), which in any::<prop::sample::Index>()) {
        run(*which.get(&configs()), (512 << 30) - (8 << 20), 4096, &ops);
    }

    /// 16 MiB in the middle of the last 48-bit terabyte, with everything on.
    #[test]
    fn tables_with_all_features_do_too(ops in prop::collection::vec(op(4096), 1..24), five in any::<bool>()) {
        let levels = if five { EptLevels::Five } else { EptLevels::Four };
        run(everything(levels), (1 << 48) - (1 << 39) - (6 << 20), 4096, &ops);
    }
}

#[test]
fn one_gib_pages_do_what_a_flat_map_does() {
    // 3 GiB: cuts of 1 GiB pages, merges back up to them. Few operations, chosen.
    const G: u64 = 1 << 18;
    for levels in [EptLevels::Four, EptLevels::Five] {
        let config = EptConfig::new(&newest()).unwrap().with_levels(levels).unwrap();
        let host = 8 << 30;
        let ops = [
            Op::MapRange { page: 0, count: 3 * G, host, kind: 0 },
            Op::Protect { page: G + 5, count: 3, kind: 1 },
            Op::UnmapRange { page: G - 1, count: 2 },
            Op::Protect { page: 2 * G, count: G, kind: 1 },
            Op::Split { page: 2 * G + 700, count: 1, size: 1 },
            Op::MapRange { page: G - 1, count: 2, host: host + (G - 1) * PAGE, kind: 0 },
            Op::Protect { page: G + 5, count: 3, kind: 0 },
            Op::Merge,
            Op::UnmapRange { page: 511, count: 3 * G - 1023 },
            Op::Unmap { page: 0 },
        ];
        run(config, 1 << 30, 3 * G, &ops);
        Hal::scope(256, || {
            let mut ept = Ept::<Hal>::new(config).unwrap();
            let all = range(1 << 30, 3 * G);
            ept.map_range(all, PhysAddr::from(host as usize), EptAttributes::RAM).unwrap();
            assert_eq!(ept.leaves().count(), 3);
            ept.split(range((1 << 30) + 4096, 1), PageSize::Size4K).unwrap().waive();
            assert_eq!(ept.leaves().count(), 2 + 511 + 512);
            ept.merge(all).unwrap().waive();
            assert_eq!(ept.leaves().count(), 3);
        });
    }
}
