//! Guest memory against a flat map: ranges are backed and given back in any parts, and each allocation fails once.

mod common;

use common::newest;
use frame_core::{AllocError, PhysAddr};
use frame_testkit::{TestHal, test_hal};
use proptest::prelude::*;
use vmx_structs::*;

test_hal! { struct Hal }

const PAGE: u64 = 4096;
/// The window starts and ends in the middle of 2 MiB.
const BASE: u64 = (1 << 30) - (9 << 20);
const PAGES: usize = 16 * 256;

fn gpa(address: u64) -> GuestPhysAddr {
    GuestPhysAddr::new(address)
}

fn range(start: u64, bytes: u64) -> GuestRange {
    GuestRange::new(gpa(start), bytes / PAGE).unwrap()
}

#[derive(Clone, Copy, Debug)]
struct Op {
    add: bool,
    page: usize,
    count: usize,
    fails: bool,
}

fn op() -> impl Strategy<Value = Op> {
    // Edges fall on those of 2 MiB often enough to meet them.
    let edge = prop_oneof![0..PAGES, (0..PAGES / 512).prop_map(|n| n * 512 + 256)];
    let other = prop_oneof![edge.clone(), 0..PAGES];
    (any::<bool>(), edge, other, any::<bool>()).prop_map(|(add, a, b, fails)| Op {
        add,
        page: a.min(b),
        count: a.abs_diff(b).max(1),
        fails,
    })
}

/// The tables that hold runs: one for each 2 MiB that is backed by single frames, one for each gibibyte, one above for
/// both, and the root.
fn books(memory: &GuestMemory<Hal>) -> usize {
    let mut tables = std::collections::BTreeSet::new();
    tables.insert((4, 0));
    for run in memory.runs() {
        let start = run.guest.start().as_u64();
        let lowest = if run.guest.count() == 512 { 2 } else { 1 };
        tables.extend((lowest..4).map(|level| (level, start >> (12 + 9 * level))));
    }
    tables.len()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_part_is_given_back_and_the_rest_stays(ops in prop::collection::vec(op(), 1..24)) {
        Hal::scope(PAGES + 1024, || {
            let config = EptConfig::new(&newest()).unwrap();
            let mut memory = GuestMemory::<Hal>::new(&config).unwrap();
            let mut flat: Vec<Option<PhysAddr>> = vec![None; PAGES];
            for Op { add, page, count, fails } in ops {
                let part = range(BASE + page as u64 * PAGE, count as u64 * PAGE);
                let slots = &mut flat[page..page + count];
                let backed = slots.iter().flatten().count();
                if add && backed > 0 {
                    let first = page + slots.iter().position(Option::is_some).unwrap();
                    let refused = GuestMemoryError::Backed { guest: gpa(BASE + first as u64 * PAGE) };
                    assert_eq!(memory.add(part, Contents::Leftover), Err(refused));
                } else if add {
                    memory.add(part, Contents::Leftover).unwrap();
                    for (i, slot) in slots.iter_mut().enumerate() {
                        *slot = memory.translate(gpa(part.start().as_u64() + i as u64 * PAGE));
                        assert!(slot.is_some());
                    }
                } else if fails {
                    // Each allocation of it fails, and nothing is gone; then it works.
                    let before = (memory.frames(), memory.table_frames());
                    let mut removed = None;
                    Hal::each_failure(|| match memory.remove(part) {
                        Ok(frames) => removed = Some(frames),
                        Err(error) => {
                            assert_eq!(error, GuestMemoryError::Alloc(AllocError::NoMemory));
                            assert_eq!((memory.frames(), memory.table_frames()), before);
                        }
                    });
                    assert_eq!(removed, Some(backed as u64));
                    slots.fill(None);
                } else {
                    assert_eq!(memory.remove(part), Ok(backed as u64));
                    slots.fill(None);
                }
                for (i, &host) in flat.iter().enumerate() {
                    let guest = BASE + i as u64 * PAGE + 0x123;
                    assert_eq!(memory.translate(gpa(guest)), host.map(|host| host + 0x123), "{guest:#x}");
                }
                let frames = flat.iter().flatten().count();
                assert_eq!(memory.frames(), frames as u64);
                assert_eq!(memory.table_frames(), books(&memory), "no table too many");
                assert_eq!(Hal::owned(), frames + memory.table_frames());
            }
            drop(memory);
            assert_eq!(Hal::owned(), 0);
        });
    }
}

#[test]
fn a_gibibyte_of_guest_memory_can_be_given_back_in_any_part() {
    // 2 GiB and some, from 16 MiB on: one aligned gibibyte. Never touched.
    Hal::scope((2 << 18) + 1024, || {
        let config = EptConfig::new(&newest()).unwrap();
        let mut memory = GuestMemory::<Hal>::new(&config).unwrap();
        memory.add(range(1 << 30, 1 << 30), Contents::Leftover).unwrap();
        assert_eq!((memory.runs().count(), memory.table_frames()), (1, 2));
        let host = memory.translate(gpa(1 << 30)).unwrap();
        let at = |offset: u64| memory.translate(gpa((1 << 30) + offset));
        assert_eq!(at(0x1234), Some(host + 0x1234));
        // From the middle of one 2 MiB piece to the middle of another: a directory, and a table at each end.
        assert_eq!(memory.remove(range((1 << 30) + 0x1000, 0x40_0000)), Ok(0x400));
        assert_eq!(memory.table_frames(), 2 + 3);
        let at = |offset: u64| memory.translate(gpa((1 << 30) + offset));
        assert_eq!((at(0xfff), at(0x1000), at(0x40_0fff)), (Some(host + 0xfff), None, None));
        assert_eq!((at(0x40_1000), at(0x60_0000)), (Some(host + 0x40_1000), Some(host + 0x60_0000)));
        assert_eq!(memory.frames(), (1 << 18) - 0x400);
        // The rest of the pieces: their tables go.
        assert_eq!(memory.remove(range(1 << 30, 0x60_0000)), Ok(0x200));
        assert_eq!(memory.table_frames(), 2 + 1);
        assert_eq!(Hal::owned(), memory.frames() as usize + memory.table_frames());
    });
}
