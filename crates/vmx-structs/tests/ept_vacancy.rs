//! Pages of a whole table go away one by one, in several orders: the table goes with the last of them, and not before.

mod common;

use common::{check_words, newest};
use frame_core::PhysAddr;
use frame_testkit::{TestHal, test_hal};
use vmx_structs::*;

test_hal! { struct Hal }

const ENTRIES: u64 = 512;

/// Orders of the entries of a table.
fn orders() -> Vec<(&'static str, Vec<u64>)> {
    let ascending: Vec<u64> = (0..ENTRIES).collect();
    let mut random = ascending.clone();
    let mut state = 7u64;
    for i in (1..random.len()).rev() {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        random.swap(i, (state >> 33) as usize % (i + 1));
    }
    vec![
        ("descending", ascending.iter().rev().copied().collect()),
        (
            "from both ends",
            (0..ENTRIES).map(|i| if i % 2 == 0 { i / 2 } else { ENTRIES - 1 - i / 2 }).collect(),
        ),
        ("from the middle", (0..ENTRIES).map(|i| i * 257 % ENTRIES).collect()),
        ("random", random),
        ("ascending", ascending),
    ]
}

#[test]
fn a_table_goes_with_its_last_page_and_not_before() {
    for size in PageSize::ALL {
        for (name, order) in orders() {
            Hal::scope(16, || {
                let mut ept = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
                // A neighbour that shares the tables above, and stays.
                let neighbour = GuestPhysAddr::new(ENTRIES * size.bytes());
                ept.map(neighbour, PhysAddr::from(0), size, EptAttributes::RAM).unwrap();
                let without = ept.table_frames();
                for round in 0..2 {
                    for &i in &order {
                        let guest = GuestPhysAddr::new(i * size.bytes());
                        ept.map(guest, PhysAddr::from(0), size, EptAttributes::RAM).unwrap();
                    }
                    for (done, &i) in order.iter().enumerate() {
                        let (leaf, owed) = ept.unmap(GuestPhysAddr::new(i * size.bytes())).unwrap();
                        assert_eq!((leaf.guest().as_u64(), leaf.size()), (i * size.bytes(), size));
                        let is_last = done + 1 == order.len();
                        let context = format!("{size}, {name}, round {round}, {done}");
                        assert_eq!(owed.retired_tables(), usize::from(is_last), "{context}");
                        if done % 100 == 0 || is_last {
                            check_words(&ept);
                        }
                        assert_eq!(ept.table_frames(), without + usize::from(!is_last), "{context}");
                        owed.waive();
                    }
                }
                assert_eq!(Hal::owned(), without);
            });
        }
    }
}
