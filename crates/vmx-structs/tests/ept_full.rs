//! The mark of a full table, by which `protect` need not read it first: however a page of such a table goes away, a
//! `protect` of the whole says that there is a gap, and changes nothing.

mod common;

use common::configs;
use frame_core::PhysAddr;
use frame_testkit::{TestHal, test_hal};
use vmx_structs::*;

test_hal! { struct Hal }

const PAGE: u64 = 4096;
const G: u64 = 1 << 30;
/// Three tables of level 1, on both sides of a border of 1 GiB.
const FIRST: u64 = G - 512 * PAGE;
const PAGES: u64 = 3 * 512;

fn gpa(address: u64) -> GuestPhysAddr {
    GuestPhysAddr::new(address)
}

fn range(start: u64, pages: u64) -> GuestRange {
    GuestRange::new(gpa(start), pages).unwrap()
}

type Hole = fn(&mut Ept<Hal>, u64);

/// The ways in which a page of 4 KiB goes away.
const HOLES: &[Hole] = &[
    |ept, page| ept.unmap(gpa(page)).unwrap().1.waive(),
    |ept, page| {
        let mut session = ept.session();
        session.unmap(gpa(page)).unwrap();
        session.finish().waive();
    },
    |ept, page| ept.unmap_range(range(page, 1)).unwrap().waive(),
    |ept, page| {
        let mut session = ept.session();
        session.unmap_range(range(page, 1)).unwrap();
        session.finish().waive();
    },
    |ept, page| {
        // The mark cannot be forged either.
        ept.edit_entry(gpa(page), 2, |word| word | 1 << 56).unwrap().waive();
        ept.edit_entry(gpa(page), 1, |_| 0).unwrap().waive();
    },
    |ept, page| {
        ept.unmap(gpa(page)).unwrap().1.waive();
        ept.edit_entry(gpa(page), 2, |word| word | 1 << 56).unwrap().waive();
    },
];

#[test]
fn a_gap_in_a_table_that_was_full_is_found() {
    let read_only = EptAttributes::RAM.with_flags(EptFlags::READ);
    for config in configs() {
        for hole in HOLES {
            for page in [0, 511, 512, 700, PAGES - 1].map(|i| FIRST + i * PAGE) {
                Hal::scope(64, || {
                    let mut ept = Ept::<Hal>::new(config).unwrap();
                    let all = range(FIRST, PAGES);
                    ept.map_range(all, PhysAddr::from(0x4000_1000), EptAttributes::RAM).unwrap();
                    ept.protect(all, read_only).unwrap().waive();
                    assert!(ept.leaves().all(|leaf| leaf.attributes() == Some(read_only)));
                    hole(&mut ept, page);
                    assert_eq!(ept.query(gpa(page)), None);
                    let gap = ept.protect(all, EptAttributes::RAM).unwrap_err();
                    assert_eq!(gap, EptError::NotMapped { guest: gpa(page) });
                    assert!(ept.leaves().all(|leaf| leaf.attributes() == Some(read_only)));
                    assert_eq!(ept.leaves().count() as u64, PAGES - 1);
                });
            }
        }
    }
}

#[test]
fn a_session_finds_the_gap_that_it_made() {
    for config in configs() {
        Hal::scope(64, || {
            let mut ept = Ept::<Hal>::new(config).unwrap();
            let all = range(FIRST, PAGES);
            ept.map_range(all, PhysAddr::from(0x4000_1000), EptAttributes::RAM).unwrap();
            let mut session = ept.session();
            for page in [PAGES - 1, 600, 3].map(|i| FIRST + i * PAGE) {
                session.unmap(gpa(page)).unwrap();
                let gap = session.protect(all, EptAttributes::DEVICE).unwrap_err();
                assert_eq!(gap, EptError::NotMapped { guest: gpa(page) });
            }
            session.finish().waive();
        });
    }
}
