//! A view gives what the tables give, wherever the address lies.

mod common;

use common::configs;
use frame_core::PhysAddr;
use frame_testkit::{TestHal, test_hal};
use vmx_structs::*;

test_hal! { struct Hal }

const M: u64 = 1 << 20;
const G: u64 = 1 << 30;

fn gpa(address: u64) -> GuestPhysAddr {
    GuestPhysAddr::new(address)
}

fn range(start: u64, bytes: u64) -> GuestRange {
    GuestRange::new(gpa(start), bytes / 4096).unwrap()
}

fn compare(ept: &Ept<Hal>, ranges: &[GuestRange]) {
    let edges =
        [0, 4096, M, 2 * M, 4 * M, G, 2 * G, 3 * G, 512 * G, 1024 * G, 1536 * G, 1 << 48, 1 << 57, 1 << 63];
    let accesses = [
        EptAccess::READ,
        EptAccess::WRITE,
        EptAccess::FETCH.at(GuestPaging::USER),
        EptAccess::READ.of_paging_structure(),
    ];
    for &range in ranges {
        let view = ept.view(range).unwrap();
        for address in edges.iter().flat_map(|&edge: &u64| [edge.wrapping_sub(1), edge, edge + 0x1234]) {
            let leaf = ept.query(gpa(address));
            let listed = ept.leaves().find(|leaf| {
                let start = leaf.guest().as_u64();
                (start..start + leaf.size().bytes()).contains(&address)
            });
            assert_eq!(leaf, listed, "{address:#x}");
            assert_eq!(view.query(gpa(address)), leaf, "{address:#x} in {view:?}");
            if let Some(leaf) = leaf {
                let offset = address - leaf.guest().as_u64();
                assert_eq!(leaf.host_at(gpa(address)), leaf.host() + offset as usize, "{address:#x}");
            }
            for access in accesses {
                let seen = ept.translate(gpa(address), access);
                assert_eq!(view.translate(gpa(address), access), seen, "{address:#x} in {view:?}");
                // And both what a walk of the words gives.
                let walked =
                    walk_ept(ept.config(), ept.pointer().root(), gpa(address), access, |table, i| {
                        use frame_core::FrameHal;
                        let words: *const u64 = Hal::phys_to_virt(table).as_ptr().cast();
                        // SAFETY: the tables live as long as `ept`, nobody changes them, and `i` is below 512.
                        Some(unsafe { words.add(i).read() })
                    });
                assert_eq!(seen, walked, "{address:#x}");
            }
        }
    }
}

#[test]
fn a_view_gives_what_the_tables_give() {
    for config in configs() {
        Hal::scope(64, || {
            let mut ept = Ept::<Hal>::new(config).unwrap();
            let ranges = [
                range(0, 4096),
                range(0, 4 * M),
                range(M, 2 * G),
                range(512 * G, G),
                range(G - 4096, 8192),
                range(0, 1 << 48),
                range(0, 1024 * G),
                range(511 * G, 2 * G),
                range(0, 1025 * G),
                range(G, 1535 * G),
                range(1023 * G, 2 * G),
                range(1535 * G, 2 * G),
                range(512 * G - 4096, 512 * G),
            ];
            compare(&ept, &ranges);
            let map = |ept: &mut Ept<Hal>, at: u64, pages: u64, kind: EptAttributes| {
                ept.map_range(range(at, pages * 4096), PhysAddr::from(0x4000_1000), kind).unwrap();
            };
            map(&mut ept, 0, 600, EptAttributes::RAM);
            map(&mut ept, 4 * M, 1, EptAttributes::RAM.with_flags(EptFlags::READ));
            map(&mut ept, G, 1, EptAttributes::DEVICE);
            map(&mut ept, 512 * G, 1, EptAttributes::RAM);
            for size in [PageSize::Size2M, PageSize::Size1G] {
                if config.supports(size) {
                    let at = gpa(if size == PageSize::Size2M { 1024 * G } else { 2 * G });
                    ept.map(at, PhysAddr::from(8 << 30), size, EptAttributes::RAM).unwrap();
                }
            }
            // The first of three regions are there, or the first of two, or the last.
            map(&mut ept, 1536 * G - 4096, 1, EptAttributes::DEVICE);
            compare(&ept, &ranges);
            if config.execute_only() {
                let kind = EptAttributes::RAM.with_flags(EptFlags::EXECUTE);
                map(&mut ept, 1024 * G - 4096, 1, kind);
                for (at, size) in [(2 * M, PageSize::Size2M), (3 * G, PageSize::Size1G)] {
                    if config.supports(size) {
                        ept.unmap_range(range(at, size.bytes())).unwrap().waive();
                        ept.map(gpa(at), PhysAddr::from(8 << 30), size, kind).unwrap();
                    }
                }
            }
            compare(&ept, &ranges);
            // An entry on the way that allows less, one that is none, and a leaf that has lost its size.
            ept.edit_entry(gpa(0), 3, |word| word & !2).unwrap().waive();
            compare(&ept, &ranges);
            ept.edit_entry(gpa(0), 2, |word| word | 0x40).unwrap().waive();
            compare(&ept, &ranges);
            if config.supports(PageSize::Size1G) {
                ept.edit_entry(gpa(2 * G), 3, |word| word & !0x80).unwrap().waive();
                compare(&ept, &ranges);
            }
            assert!(ept.view(range(0, 1 << 57)).is_ok() == (config.guest_width() == 57));
        });
    }
}

#[test]
fn a_view_of_a_part_that_begins_where_nothing_is_finds_nothing_there() {
    let config = EptConfig::new(&common::newest()).unwrap();
    Hal::scope(16, || {
        let mut ept = Ept::<Hal>::new(config).unwrap();
        // The last gibibytes of the second and the third region have the index of that of the first.
        for page in [1023 * G, 1535 * G] {
            ept.map(gpa(page), PhysAddr::from(0), PageSize::Size1G, EptAttributes::RAM).unwrap();
        }
        for view in [range(511 * G, 513 * G), range(511 * G, 1025 * G)].map(|range| ept.view(range).unwrap())
        {
            for (page, is_there) in [(511 * G, false), (1023 * G, true), (1535 * G, true), (2047 * G, false)]
            {
                assert_eq!(view.query(gpa(page)).is_some(), is_there, "{page:#x} in {view:?}");
                assert_eq!(
                    view.translate(gpa(page), EptAccess::READ).is_ok(),
                    is_there,
                    "{page:#x} in {view:?}"
                );
            }
        }
    });
}
