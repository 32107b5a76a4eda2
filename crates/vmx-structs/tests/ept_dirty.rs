//! Accessed and dirty flags, PML, and entries edited by hand.

mod common;

use common::{configs, everything, newest};
use frame_core::PhysAddr;
use frame_testkit::{TestHal, test_hal};
use vmx_structs::*;

test_hal! { struct Hal }

const M: u64 = 1 << 20;

fn gpa(address: u64) -> GuestPhysAddr {
    GuestPhysAddr::new(address)
}

fn range(start: u64, bytes: u64) -> GuestRange {
    GuestRange::new(gpa(start), bytes / 4096).unwrap()
}

/// 4 MiB in 4 KiB pages, 2 MiB in one.
fn tables() -> Ept<Hal> {
    let mut ept = Ept::new(EptConfig::new(&newest()).unwrap()).unwrap();
    ept.map_range(range(0, 4 * M), PhysAddr::from(0x4000_1000), EptAttributes::RAM).unwrap();
    ept.map(gpa(4 * M), PhysAddr::from(0x8000_0000), PageSize::Size2M, EptAttributes::RAM).unwrap();
    ept
}

#[test]
fn accesses_set_the_flags_that_the_processor_sets() {
    Hal::scope(16, || {
        let ept = tables();
        let flags = |address| {
            let leaf = ept.query(gpa(address)).unwrap();
            (leaf.accessed(), leaf.dirty())
        };
        ept.access(gpa(0x3000), EptAccess::READ).unwrap();
        ept.access(gpa(0x4fff), EptAccess::WRITE).unwrap();
        ept.access(gpa(0x5000), EptAccess::READ.of_paging_structure()).unwrap();
        ept.access(gpa(5 * M), EptAccess::FETCH).unwrap();
        assert_eq!(
            [0x2000, 0x3000, 0x4000, 0x5000].map(flags),
            [(false, false), (true, false), (true, true), (true, true)]
        );
        assert_eq!(flags(4 * M), (true, false));
        // On the way down, the accessed flag alone.
        for level in 2..=4 {
            assert_eq!(ept.entry(gpa(0), level).unwrap() & 0x300, 0x100);
        }
        // Refused: no flag.
        assert!(ept.access(gpa(8 * M), EptAccess::READ).is_err());
        assert_eq!(ept.entry(gpa(8 * M), 2), Some(0));
        // Off: no flag ever.
        let off = EptConfig::new(&newest()).unwrap().with_accessed_dirty(false).unwrap();
        let mut ept = Ept::<Hal>::new(off).unwrap();
        ept.map(gpa(0), PhysAddr::from(0), PageSize::Size4K, EptAttributes::RAM).unwrap();
        ept.access(gpa(0), EptAccess::WRITE).unwrap();
        assert_eq!(ept.entry(gpa(0), 1).unwrap() & 0x300, 0);
        assert!(matches!(ept.take_dirty(range(0, M), |_| ()), Err(EptError::NoAccessedDirty)));
        assert!(matches!(ept.take_accessed(range(0, M), |_| ()), Err(EptError::NoAccessedDirty)));
    });
}

#[test]
fn dirty_pages_are_taken_once() {
    Hal::scope(16, || {
        let mut ept = tables();
        let written = [0x1000, 0x2000, 0x1f_f000, 0x20_0000, 4 * M + 0x5000];
        for page in written {
            ept.access(gpa(page), EptAccess::WRITE).unwrap();
        }
        let mut seen = Vec::new();
        // A range takes what reaches into it; a large page as a whole.
        let invalidation =
            ept.take_dirty(range(0x2000, 4 * M), |leaf| seen.push(leaf.guest().as_u64())).unwrap();
        assert!(invalidation.is_needed() && invalidation.retired_tables() == 0);
        invalidation.waive();
        assert_eq!(seen, [0x2000, 0x1f_f000, 0x20_0000, 4 * M]);
        let again = ept.take_dirty(range(0x2000, 4 * M), |_| panic!("taken before")).unwrap();
        assert!(!again.is_needed());
        let left: Vec<_> = ept.leaves().filter(EptLeaf::dirty).map(|leaf| leaf.guest().as_u64()).collect();
        assert_eq!(left, [0x1000]);
        // The accessed flags are another matter.
        let mut accessed = 0;
        ept.take_accessed(range(0, 8 * M), |_| accessed += 1).unwrap().waive();
        assert_eq!((accessed, ept.leaves().filter(EptLeaf::accessed).count()), (5, 0));
    });
}

#[test]
fn flags_survive_protect_split_and_merge() {
    Hal::scope(16, || {
        let mut ept = tables();
        ept.access(gpa(0x1000), EptAccess::WRITE).unwrap();
        ept.access(gpa(4 * M), EptAccess::WRITE).unwrap();
        let ro = EptAttributes::RAM.with_flags(EptFlags::READ);
        ept.protect(range(0, 6 * M), ro).unwrap().waive();
        assert_eq!(ept.leaves().filter(EptLeaf::dirty).count(), 2);
        // Every piece of a dirty page may be the one that was written.
        ept.split(range(4 * M, 4096), PageSize::Size4K).unwrap().waive();
        assert_eq!(ept.leaves().filter(EptLeaf::dirty).count(), 1 + 512);
        let mut taken = 0;
        ept.take_dirty(range(0, 6 * M), |_| taken += 1).unwrap().waive();
        assert_eq!(taken, 513);
        // Read-only: nobody sets a dirty flag meanwhile, so clean stays clean.
        ept.merge(range(0, 6 * M)).unwrap().waive();
        assert_eq!(ept.query(gpa(4 * M)).unwrap().size(), PageSize::Size2M);
        assert_eq!(ept.leaves().filter(EptLeaf::dirty).count(), 0);
        ept.protect(range(4 * M, 2 * M), EptAttributes::RAM).unwrap().waive();
        ept.split(range(4 * M, 4096), PageSize::Size4K).unwrap().waive();
        ept.access(gpa(4 * M + 0x3000), EptAccess::WRITE).unwrap();
        ept.merge(range(4 * M, 2 * M)).unwrap().waive();
        assert!(ept.query(gpa(4 * M)).unwrap().dirty());
        // What an unmap returns has the flags.
        assert!(
            ept.unmap(gpa(4 * M))
                .map(|(leaf, invalidation)| {
                    invalidation.waive();
                    leaf
                })
                .unwrap()
                .dirty()
        );
    });
}

#[test]
fn a_log_of_writes_and_the_dirty_flags_agree() {
    Hal::scope(16, || {
        let mut ept = tables();
        let log = PmlBuffer::<Hal>::new().unwrap();
        let mut index = PmlBuffer::<Hal>::START;
        // As the processor: a write that sets a dirty flag is logged.
        for i in 0..300_u64 {
            let page = gpa((i * i * 7 % 1024) * 4096);
            if !ept.query(page).unwrap().dirty() {
                index = log.log(index, page).unwrap();
            }
            ept.access(page, EptAccess::WRITE).unwrap();
        }
        let mut logged: Vec<_> = log.logged(index).collect();
        logged.sort_unstable();
        let mut dirty = Vec::new();
        ept.take_dirty(range(0, 8 * M), |leaf| dirty.push(leaf.guest())).unwrap().waive();
        assert!(!dirty.is_empty());
        assert_eq!(logged, dirty);
    });
}

#[test]
fn entries_can_be_edited_and_nothing_else_falls_over() {
    let words = [
        0,
        2,
        4,
        6,
        0x407,
        0x87,
        0x1f,
        0x97,
        0x40_0087,
        1 << 51 | 0x37,
        1 << 63,
        1 << 63 | 0xb7,
        0x400,
        u64::MAX,
    ];
    for config in configs() {
        Hal::scope(64, || {
            for level in 1..=config.levels().count() {
                for word in words {
                    let mut ept = Ept::<Hal>::new(config).unwrap();
                    ept.map_range(range(0, 16 * 4096), PhysAddr::from(0x4000_1000), EptAttributes::RAM)
                        .unwrap();
                    let linked = ept.entry(gpa(0), level).unwrap();
                    let edited = ept.edit_entry(gpa(0), level, |_| word);
                    if level == 1 && word & 0xf << 52 != 0 {
                        assert!(matches!(edited, Err(EptError::Edit)), "an owner cannot be forged");
                        continue;
                    }
                    edited.unwrap().waive();
                    // Bits 56 and 11 are marks of tables that are full, and of those that a session noted: none is so where
                    // entries are edited.
                    let held = if level > 1 { 0x01ff_ffff_ffff_f800 } else { 0 };
                    assert_eq!(ept.entry(gpa(0), level).unwrap(), word & !held | linked & held);
                    // The walk has a verdict, and every operation an answer.
                    let _ = ept.translate(gpa(0), EptAccess::READ);
                    let _ = ept.query(gpa(0));
                    let _ = ept.leaves().count() + ept.runs().count();
                    let _ = format!("{ept:?}");
                    let _ = ept.map(gpa(0), PhysAddr::from(0), PageSize::Size4K, EptAttributes::RAM);
                    let _ = ept.map_range(range(0, 4 * M), PhysAddr::from(0), EptAttributes::RAM);
                    ept.protect(range(0, 4096), EptAttributes::DEVICE).map(Invalidation::waive).ok();
                    ept.split(range(0, 4096), PageSize::Size4K).map(Invalidation::waive).ok();
                    ept.merge(range(0, 4 * M)).map(Invalidation::waive).ok();
                    ept.unmap(gpa(0)).map(|(_, invalidation)| invalidation.waive()).ok();
                    ept.unmap_range(range(0x1000, 0x2000)).map(Invalidation::waive).ok();
                    ept.unmap_range(range(0, 1 << 39)).unwrap().waive();
                    assert_eq!(ept.table_frames(), Hal::owned());
                    drop(ept);
                    assert_eq!(Hal::owned(), 0);
                }
            }
            // Where nothing is linked: a table of somebody else is refused.
            let mut ept = Ept::<Hal>::new(config).unwrap();
            let top = config.levels().count();
            assert!(matches!(ept.edit_entry(gpa(0), top, |_| 0x5000 | 7), Err(EptError::Edit)));
            assert!(matches!(ept.edit_entry(gpa(0), 1, |word| word), Err(EptError::Edit)), "no table there");
            for level in [0, top + 1, u32::MAX] {
                assert!(matches!(ept.edit_entry(gpa(0), level, |word| word), Err(EptError::Edit)));
                assert_eq!(ept.entry(gpa(0), level), None);
            }
            // An entry that is no mapping is not cut, and says so.
            ept.edit_entry(gpa(0), top, |_| 0x87).unwrap().waive();
            let part = ept.unmap_range(range(0, 4096)).map(Invalidation::waive);
            assert_eq!(part, Err(EptError::Malformed { guest: gpa(0), level: top }));
            let seen = ept.translate(gpa(0), EptAccess::READ);
            assert!(matches!(seen, Err(EptFault::Misconfiguration(found)) if found.level == top));
            // As a whole it can be taken out.
            ept.unmap_range(range(0, 1 << (12 + 9 * (top - 1)))).unwrap().waive();
            assert_eq!(ept.entry(gpa(0), top).map(|word| word & 0xff), Some(0));
        });
    }
}

#[test]
fn edited_leaves_are_walked_as_they_stand() {
    Hal::scope(16, || {
        let mut ept = Ept::<Hal>::new(everything(EptLevels::Four)).unwrap();
        ept.map(gpa(0), PhysAddr::from(0x1000), PageSize::Size4K, EptAttributes::RAM).unwrap();
        // Write without read in the leaf; then a reserved memory type; then a permission less further up.
        ept.edit_entry(gpa(0), 1, |word| word & !1).unwrap().waive();
        let seen = ept.translate(gpa(0), EptAccess::READ).unwrap_err();
        let EptFault::Misconfiguration(found) = seen else { panic!("{seen}") };
        assert_eq!((found.level, found.cause), (1, MisconfigurationCause::WriteWithoutRead));
        ept.edit_entry(gpa(0), 1, |word| word & !0x38 | 0x10 | 1).unwrap().waive();
        let seen = ept.translate(gpa(0), EptAccess::READ).unwrap_err();
        let EptFault::Misconfiguration(found) = seen else { panic!("{seen}") };
        assert_eq!(found.cause, MisconfigurationCause::MemoryType);
        assert_eq!(ept.query(gpa(0)).unwrap().attributes(), None);
        ept.edit_entry(gpa(0), 1, |word| word & !0x38 | 0x30).unwrap().waive();
        ept.edit_entry(gpa(0), 3, |word| word & !2).unwrap().waive();
        let seen = ept.translate(gpa(0), EptAccess::WRITE).unwrap_err();
        let EptFault::Violation(violation) = seen else { panic!("{seen}") };
        assert!(!violation.qualification.contains(EptQualification::WRITABLE));
        assert!(violation.qualification.contains(EptQualification::READABLE | EptQualification::EXECUTABLE));
        assert!(ept.translate(gpa(0), EptAccess::READ).is_ok());
    });
}

#[test]
fn an_entry_that_lost_its_size_is_no_page() {
    for size in [PageSize::Size2M, PageSize::Size1G] {
        Hal::scope(64, || {
            let mut ept = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
            ept.map(gpa(0), PhysAddr::from(0), size, EptAttributes::RAM).unwrap();
            ept.edit_entry(gpa(0), size.level(), |word| word & !0x80).unwrap().waive();
            let none = Err(EptError::NotMapped { guest: gpa(0) });
            assert_eq!(ept.unmap(gpa(0)).map(|_| ()), none);
            let mut session = ept.session();
            assert_eq!(session.unmap(gpa(0)).map(|_| ()), none);
            assert_eq!(session.discard(gpa(0)).map(|_| ()), none);
            assert!(!session.finish().is_needed());
            assert_eq!(ept.query(gpa(0)), None);
            assert!(matches!(ept.translate(gpa(0), EptAccess::READ), Err(EptFault::Misconfiguration { .. })));
        });
    }
}
