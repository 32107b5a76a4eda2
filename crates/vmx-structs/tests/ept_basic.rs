//! EPT tables in small: each operation once, and each refusal.

mod common;

use common::{configs, everything, newest, oldest};
use frame_core::{AllocError, FrameRange, MemoryMap, PhysAddr};
use frame_testkit::{TestHal, test_hal};
use vmx_structs::*;

test_hal! { struct Hal }

const G: u64 = 1 << 30;
const M: u64 = 1 << 20;
const K: u64 = 1 << 10;

fn gpa(address: u64) -> GuestPhysAddr {
    GuestPhysAddr::new(address)
}

fn hpa(address: u64) -> PhysAddr {
    PhysAddr::from(address as usize)
}

fn range(start: u64, bytes: u64) -> GuestRange {
    GuestRange::new(gpa(start), bytes / 4096).unwrap()
}

fn reads(ept: &Ept<Hal>, address: u64) -> Option<u64> {
    ept.translate(gpa(address), EptAccess::READ).ok().map(|seen| seen.host.as_usize() as u64)
}

#[test]
fn a_four_level_tree_maps_4k() {
    Hal::scope(64, || {
        let mut ept = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
        assert_eq!((ept.table_frames(), Hal::owned()), (1, 1));
        assert_eq!(reads(&ept, 0x5000), None);
        ept.map(gpa(0x5000), hpa(0x8000_0000), PageSize::Size4K, EptAttributes::RAM).unwrap();
        assert_eq!((ept.table_frames(), Hal::owned()), (4, 4));
        assert_eq!(reads(&ept, 0x5fff), Some(0x8000_0fff));
        assert_eq!((reads(&ept, 0x4fff), reads(&ept, 0x6000)), (None, None));
        let leaf = ept.query(gpa(0x5123)).unwrap();
        assert_eq!(
            (leaf.guest(), leaf.host(), leaf.size()),
            (gpa(0x5000), hpa(0x8000_0000), PageSize::Size4K)
        );
        assert_eq!(
            leaf.attributes(),
            Some(EptAttributes {
                flags: EptFlags::READ | EptFlags::WRITE | EptFlags::EXECUTE,
                ..EptAttributes::RAM
            })
        );
        assert_eq!(leaf.word(), 0x8000_0037);
        assert_eq!(ept.pointer().bits() & 0xfff, 6 | 3 << 3 | 1 << 6);

        let (was, invalidation) = ept.unmap(gpa(0x5000)).unwrap();
        assert_eq!(was, leaf);
        assert_eq!((ept.table_frames(), invalidation.retired_tables(), Hal::owned()), (1, 3, 4));
        let mut told = None;
        invalidation
            .complete(|kind, descriptor| {
                assert_eq!(Hal::owned(), 4, "tables live until the INVEPT");
                told = Some((kind, *descriptor));
                Ok::<(), ()>(())
            })
            .unwrap();
        assert_eq!(told, Some((InveptType::SingleContext, InveptDescriptor::new(ept.pointer()))));
        assert_eq!(Hal::owned(), 1);
    });
}

#[test]
fn a_range_gets_the_largest_pages_that_fit() {
    Hal::scope(64, || {
        let mut ept = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
        // 4K up to 2M, 2M up to 1G, 1G, and down again.
        let (start, end) = (G - 2 * M - 8 * K, 3 * G + 2 * M + 4 * K);
        ept.map_range(range(start, end - start), hpa(start + 4 * G), EptAttributes::RAM).unwrap();
        let sizes: Vec<_> =
            ept.runs().map(|run| (run.guest().as_u64(), run.page_size(), run.pages())).collect();
        let expected = [
            (start, PageSize::Size4K, 2),
            (G - 2 * M, PageSize::Size2M, 1),
            (G, PageSize::Size1G, 2),
            (3 * G, PageSize::Size2M, 1),
            (3 * G + 2 * M, PageSize::Size4K, 1),
        ];
        assert_eq!(sizes, expected);
        assert_eq!(ept.table_frames(), 1 + 1 + 2 + 2);
        for at in [start, start + 4095, G - 1, G, 2 * G + 12345, end - 1] {
            assert_eq!(reads(&ept, at), Some(at + 4 * G));
        }
        assert_eq!((reads(&ept, start - 1), reads(&ept, end)), (None, None));
    });
}

#[test]
fn a_range_whose_addresses_differ_in_their_low_bits_gets_small_pages() {
    Hal::scope(64, || {
        let mut ept = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
        ept.map_range(range(0, 4 * M), hpa(G + 4 * K), EptAttributes::RAM).unwrap();
        assert!(ept.leaves().all(|leaf| leaf.size() == PageSize::Size4K));
        assert_eq!(ept.leaves().count(), 1024);
        ept.map_range(range(4 * G, G), hpa(6 * G + 2 * M), EptAttributes::RAM).unwrap();
        assert!(ept.leaves_in(range(4 * G, G)).unwrap().all(|leaf| leaf.size() == PageSize::Size2M));
    });
}

#[test]
fn bad_addresses_sizes_and_attributes_are_refused() {
    Hal::scope(64, || {
        for config in configs() {
            let mut ept = Ept::<Hal>::new(config).unwrap();
            let ram = EptAttributes::RAM;
            let (guest_end, host_end) = (1_u64 << config.guest_width(), 1_u64 << config.physical_width());
            // Guest addresses: no alias of address 0 at 2^48 or 2^57.
            for guest in [guest_end, guest_end + 4096, 1 << 63, !4095] {
                let refused = Err(EptError::GuestTooWide { guest: gpa(guest), width: config.guest_width() });
                assert_eq!(ept.map(gpa(guest), hpa(0), PageSize::Size4K, ram), refused);
                assert_eq!(ept.unmap(gpa(guest)).map(|_| ()), refused);
                assert!(ept.query(gpa(guest)).is_none() && ept.entry(gpa(guest), 1).is_none());
                assert!(ept.map_range(range(guest - 4096, 8192), hpa(0), ram).is_err());
                assert!(ept.protect(range(guest, 4096), ram).is_err());
                assert!(ept.split(range(guest, 4096), PageSize::Size4K).is_err());
                assert!(ept.merge(range(guest, 4096)).is_err());
                assert!(ept.leaves_in(range(guest, 4096)).is_err());
            }
            // Host addresses beyond MAXPHYADDR.
            for host in [host_end, host_end - 4096 + (1 << 52), 1 << 63] {
                let refused = Err(EptError::HostTooWide { host: hpa(host), width: config.physical_width() });
                assert_eq!(ept.map(gpa(0), hpa(host), PageSize::Size4K, ram), refused);
            }
            assert!(ept.map_range(range(0, 8192), hpa(host_end - 4096), ram).is_err());
            // Alignment, by page size; sizes that the processor does not have.
            for size in PageSize::ALL {
                let low = (size.bytes() / 2).max(1);
                let (here, there) = (gpa(0), hpa(0));
                if !config.supports(size) {
                    assert_eq!(ept.map(here, there, size, ram), Err(EptError::PageSize { size }));
                    continue;
                }
                let guest = gpa(low);
                assert_eq!(ept.map(guest, there, size, ram), Err(EptError::GuestMisaligned { guest, size }));
                let host = hpa(low);
                assert_eq!(ept.map(here, host, size, ram), Err(EptError::HostMisaligned { host, size }));
                assert!(ept.map(here, hpa(1), size, ram).is_err());
            }
            assert!(ept.map_range(range(0, 4096), hpa(12), ram).is_err());
            // Attributes: write-only, nothing at all.
            use AttributeError as A;
            for (flags, error) in [
                (EptFlags::WRITE, A::WriteWithoutRead),
                (EptFlags::WRITE | EptFlags::EXECUTE, A::WriteWithoutRead),
                (EptFlags::empty(), A::NoAccess),
                (EptFlags::IGNORE_PAT, A::NoAccess),
            ] {
                let refused = Err(EptError::Attributes(error));
                assert_eq!(ept.map(gpa(0), hpa(0), PageSize::Size4K, ram.with_flags(flags)), refused);
            }
            let execute_only = ept.map(gpa(0), hpa(0), PageSize::Size4K, ram.with_flags(EptFlags::EXECUTE));
            assert_eq!(execute_only.is_ok(), config.execute_only());
            if execute_only.is_ok() {
                ept.unmap(gpa(0)).unwrap().1.waive();
            }
            assert_eq!(ept.leaves().count(), 0);
            assert_eq!((ept.table_frames(), Hal::owned()), (1, 1), "what was refused took nothing");
            // The very last page of both spaces works.
            ept.map(gpa(guest_end - 4096), hpa(host_end - 4096), PageSize::Size4K, ram).unwrap();
            assert_eq!(reads(&ept, guest_end - 1), Some(host_end - 1));
            assert_eq!(ept.leaves().count(), 1);
        }
    });
}

#[test]
fn features_that_are_off_cannot_be_asked_for() {
    Hal::scope(64, || {
        let plain = EptConfig::new(&newest()).unwrap();
        let full = everything(EptLevels::Four);
        for flag in [EptFlags::SUPPRESS_VE, EptFlags::SUB_PAGE_WRITE, EptFlags::SUPERVISOR_SHADOW_STACK] {
            let asked = EptAttributes::RAM.with_flags(EptFlags::RWX | flag);
            let mut ept = Ept::<Hal>::new(plain).unwrap();
            let refused = Err(EptError::Attributes(AttributeError::Unsupported { flags: flag }));
            assert_eq!(ept.map(gpa(0), hpa(0), PageSize::Size4K, asked), refused);
            let mut ept = Ept::<Hal>::new(full).unwrap();
            ept.map(gpa(0), hpa(0), PageSize::Size4K, asked).unwrap();
            assert_eq!(ept.query(gpa(0)).unwrap().attributes(), Some(asked));
        }
        let user = EptAttributes::RAM.with_flags(EptFlags::USER_EXECUTE);
        let mut ept = Ept::<Hal>::new(plain).unwrap();
        let refused = Err(EptError::Attributes(AttributeError::UserExecute));
        assert_eq!(ept.map(gpa(0), hpa(0), PageSize::Size4K, user), refused);
        let mut ept = Ept::<Hal>::new(full).unwrap();
        ept.map(gpa(0), hpa(0), PageSize::Size4K, user).unwrap();
    });
    // Old processors say so.
    let old = EptConfig::new(&oldest()).unwrap();
    assert!(old.with_accessed_dirty(true).is_err() && !old.accessed_dirty());
    assert!(old.with_levels(EptLevels::Five).is_err());
    assert!(old.with_largest_page(PageSize::Size1G).is_err());
    assert!(old.with_mode_based_execute(true).is_err());
    assert!(old.with_ve(true).is_err() && old.with_sub_page_write(true).is_err());
    assert!(old.with_shadow_stack_control(true).is_err());
    assert!(old.with_table_memory_type(EptMemoryType::WriteThrough).is_err());
    let mut none = newest();
    none.ept_vpid = EptVpidCap::empty();
    assert_eq!(EptConfig::new(&none), Err(EptConfigError::NoEpt));
    let mut wide = newest();
    wide.cpu.physical_width = 57;
    assert_eq!(EptConfig::new(&wide), Err(EptConfigError::PhysicalWidth { width: 57 }));
}

#[test]
fn accessed_and_dirty_follow_the_capability() {
    Hal::scope(4, || {
        let new = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
        let old = Ept::<Hal>::new(EptConfig::new(&oldest()).unwrap()).unwrap();
        assert!(new.pointer().accessed_dirty() && !old.pointer().accessed_dirty());
    });
}

#[test]
fn what_is_mapped_is_not_mapped_over() {
    Hal::scope(64, || {
        for config in configs() {
            let mut ept = Ept::<Hal>::new(config).unwrap();
            ept.map(gpa(3 * M), hpa(M), PageSize::Size4K, EptAttributes::RAM).unwrap();
            let before: Vec<_> = ept.leaves().collect();
            let (frames, owned) = (ept.table_frames(), Hal::owned());
            let occupied = Err(EptError::Occupied { guest: gpa(3 * M) });
            assert_eq!(ept.map(gpa(3 * M), hpa(0), PageSize::Size4K, EptAttributes::RAM), occupied);
            assert_eq!(ept.map_range(range(0, 8 * M), hpa(0), EptAttributes::RAM), occupied);
            assert_eq!(ept.map_range(range(3 * M, 4096), hpa(0), EptAttributes::RAM), occupied);
            for size in [PageSize::Size2M, PageSize::Size1G] {
                if config.supports(size) {
                    let at = (3 * M) & !(size.bytes() - 1);
                    let refused = ept.map(gpa(at), hpa(0), size, EptAttributes::RAM);
                    assert!(matches!(refused, Err(EptError::Occupied { .. })), "{refused:?}");
                }
            }
            assert!(ept.leaves().eq(before));
            assert_eq!((ept.table_frames(), Hal::owned()), (frames, owned));
        }
    });
}

#[test]
fn unmapping_part_of_a_large_page_keeps_the_rest() {
    Hal::scope(64, || {
        let mut ept = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
        ept.map(gpa(G), hpa(8 * G), PageSize::Size1G, EptAttributes::RAM).unwrap();
        assert_eq!(ept.table_frames(), 2);
        let hole = range(G + 4 * M + 4 * K, 4 * K);
        ept.unmap_range(hole).unwrap().waive();
        assert_eq!(ept.table_frames(), 4);
        for at in [G, G + 4 * M, G + 4 * M + 4 * K - 1, G + 4 * M + 8 * K, 2 * G - 1] {
            assert_eq!(reads(&ept, at), Some(at + 7 * G));
        }
        assert_eq!(reads(&ept, G + 4 * M + 4 * K), None);
        // Full again, and one page again.
        ept.map_range(hole, hpa(8 * G + 4 * M + 4 * K), EptAttributes::RAM).unwrap();
        let merged = ept.merge(range(G, G)).unwrap();
        assert_eq!(merged.retired_tables(), 2);
        merged.waive();
        assert_eq!(ept.query(gpa(G)).unwrap().size(), PageSize::Size1G);
        assert_eq!((ept.table_frames(), Hal::owned()), (2, 2));
        // Not a start of a page.
        assert!(matches!(ept.unmap(gpa(G + 4096)), Err(EptError::GuestMisaligned { .. })));
        ept.unmap(gpa(G)).unwrap().1.waive();
        assert_eq!((ept.table_frames(), Hal::owned()), (1, 1));
        assert!(!ept.unmap_range(range(0, 4 * G)).unwrap().is_needed(), "nothing was there");
    });
}

#[test]
fn only_more_permission_needs_no_invept() {
    // One page is another way than several.
    for pages in [1, 2] {
        only_more_permission_of_pages_needs_no_invept(pages);
    }
}

fn only_more_permission_of_pages_needs_no_invept(pages: u64) {
    Hal::scope(64, || {
        let mut ept = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
        let all = range(0, pages * 4 * K);
        let (ro, rw, ram) = (
            EptAttributes::RAM.with_flags(EptFlags::READ),
            EptAttributes::RAM.with_flags(EptFlags::RW),
            EptAttributes::RAM,
        );
        ept.map_range(all, hpa(G), ro).unwrap();
        let mut needed = |attributes| {
            let invalidation = ept.protect(all, attributes).unwrap();
            let needed = invalidation.is_needed();
            invalidation.waive();
            needed
        };
        assert!(!needed(ro) && !needed(rw) && !needed(ram) && !needed(ram));
        assert!(needed(rw) && needed(ro), "less");
        assert!(needed(ro.with_memory_type(EptMemoryType::Uncacheable)), "other memory type");
        assert!(needed(EptAttributes::RAM.with_flags(EptFlags::RX)), "more, and another memory type");
        assert!(needed(rw), "some more, some less");
        // A gap is an error that names it, and nothing changes.
        let refused = ept.protect(range(0, 16 * K), ro);
        assert_eq!(refused.map(|_| ()), Err(EptError::NotMapped { guest: gpa(pages * 4 * K) }));
        assert!(ept.leaves().all(|leaf| leaf.attributes() == Some(rw)));
        // In a session too, which owes one for all.
        for (attributes, owes) in [(ram, false), (ro, true)] {
            let mut session = ept.session();
            session.protect(all, attributes).unwrap();
            session.protect(all, attributes).unwrap();
            let invalidation = session.finish();
            assert_eq!(invalidation.is_needed(), owes);
            invalidation.waive();
        }
    });
}

#[test]
fn a_page_can_be_pointed_elsewhere() {
    Hal::scope(64, || {
        let mut ept = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
        ept.map(gpa(G), hpa(8 * G), PageSize::Size1G, EptAttributes::RAM).unwrap();
        // The seed lets a 1 GiB leaf be pointed at an unaligned address.
        let refused = ept.remap(gpa(G), hpa(8 * G + 2 * M), EptAttributes::RAM);
        let error = EptError::HostMisaligned { host: hpa(8 * G + 2 * M), size: PageSize::Size1G };
        assert_eq!(refused.map(|_| ()), Err(error));
        assert!(ept.remap(gpa(G), hpa(1 << 52), EptAttributes::RAM).is_err());
        assert!(ept.remap(gpa(G + 4096), hpa(0), EptAttributes::RAM).is_err());
        assert!(ept.remap(gpa(0), hpa(0), EptAttributes::RAM).is_err());
        let (was, invalidation) = ept.remap(gpa(G), hpa(2 * G), EptAttributes::DEVICE).unwrap();
        assert!(invalidation.is_needed());
        invalidation.waive();
        assert_eq!(was.host(), hpa(8 * G));
        assert_eq!(reads(&ept, G + 5), Some(2 * G + 5));
    });
}

#[test]
fn a_memory_map_is_mapped_to_itself() {
    Hal::scope(8192, || {
        let mut map = MemoryMap::<8>::new();
        map.add_usable(0, 0x9fc00).unwrap();
        map.add_usable(0x10_0000, 0xbff0_0000 - 0x1234).unwrap();
        map.add_usable(1 << 32, 3 << 30).unwrap();
        map.add_reserved(0x20_0000, 0x30_0000).unwrap();
        for config in configs() {
            let mut ept = Ept::<Hal>::new(config).unwrap();
            ept.map_memory_map(&map, EptAttributes::RAM).unwrap();
            let mapped: u64 = ept.leaves().map(|leaf| leaf.size().frames()).sum();
            assert_eq!(mapped, map.frame_count() as u64);
            for range in map.frames() {
                for at in [range.start().as_usize(), range.end().as_usize() - 1] {
                    assert_eq!(reads(&ept, at as u64), Some(at as u64));
                }
                assert_eq!(reads(&ept, range.end().as_usize() as u64), None);
            }
            assert_eq!(ept.table_frames(), Hal::owned());
        }
    });
}

#[test]
fn ranges_of_a_batch_must_be_in_order() {
    Hal::scope(64, || {
        let mut ept = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
        let at = |start: u64| (range(start, 8 * K), hpa(start), EptAttributes::RAM);
        for batch in [[at(0), at(4 * K)], [at(8 * K), at(0)], [at(0), at(0)]] {
            let error = EptError::Unordered { guest: batch[1].0.start() };
            assert_eq!(ept.map_ranges(batch.into_iter()), Err(error));
        }
        assert_eq!(Hal::owned(), 1);
        // Neighbours share the tables that the first needs.
        ept.map_ranges([at(0), at(8 * K), at(G), at(G + 8 * K)].into_iter()).unwrap();
        assert_eq!((ept.table_frames(), Hal::owned()), (6, 6));
    });
}

#[test]
fn tables_of_a_dropped_invalidation_leak_and_never_come_back() {
    let leaked = std::panic::catch_unwind(|| {
        Hal::scope(64, || {
            let mut ept = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
            ept.map(gpa(0), hpa(0), PageSize::Size4K, EptAttributes::RAM).unwrap();
            drop(ept.unmap(gpa(0)).unwrap());
        });
    });
    let message = *leaked.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("3 frames leaked"), "{message}");
}

#[test]
fn invalidations_of_one_tree_can_be_taken_together() {
    Hal::scope(64, || {
        let config = EptConfig::new(&newest()).unwrap();
        let (mut one, mut other) = (Ept::<Hal>::new(config).unwrap(), Ept::<Hal>::new(config).unwrap());
        for ept in [&mut one, &mut other] {
            for at in [0, G, 2 * G] {
                ept.map(gpa(at), hpa(0), PageSize::Size4K, EptAttributes::RAM).unwrap();
            }
        }
        let mut sum = one.unmap(gpa(0)).unwrap().1;
        sum.merge(one.unmap(gpa(G)).unwrap().1).unwrap();
        sum.merge(one.unmap(gpa(2 * G)).unwrap().1).unwrap();
        assert_eq!(sum.retired_tables(), 7);
        let foreign = sum.merge(other.unmap(gpa(0)).unwrap().1).unwrap_err();
        foreign.waive();
        // A processor that does not answer: still owed.
        let (sum, error) = sum.complete(|_, _| Err("no answer")).unwrap_err();
        assert_eq!((error, sum.retired_tables()), ("no answer", 7));
        sum.waive();
        assert_eq!(Hal::owned(), one.table_frames() + other.table_frames());
    });
}

#[test]
fn no_frame_for_the_root_is_an_error() {
    Hal::scope(1, || {
        let config = EptConfig::new(&newest()).unwrap();
        let _one = Ept::<Hal>::new(config).unwrap();
        assert_eq!(Ept::<Hal>::new(config).unwrap_err(), EptError::Alloc(AllocError::NoMemory));
    });
    // A frame that the processor cannot point to.
    let mut narrow = newest();
    narrow.cpu.physical_width = 32;
    let high = FrameRange::new(hpa(1 << 32), 1).unwrap();
    Hal::scope_in::<frame_testkit::OracleBackend, _>(&[high], || {
        let refused = Ept::<Hal>::new(EptConfig::new(&narrow).unwrap()).unwrap_err();
        assert!(matches!(refused, EptError::Pointer(EptPointerError::TooWide { .. })));
        assert_eq!(Hal::owned(), 0);
    });
}
