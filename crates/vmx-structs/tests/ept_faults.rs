//! Every allocation of every operation fails once: nothing leaks, and the tables are as they were.

mod common;

use common::newest;
use frame_core::{AllocError, MemoryMap, PhysAddr};
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

/// Every word of every table, by what it translates.
fn dump(ept: &Ept<Hal>) -> Vec<(u32, u64, u64)> {
    fn below(ept: &Ept<Hal>, level: u32, base: u64, words: &mut Vec<(u32, u64, u64)>) {
        for i in 0..512 {
            let guest = base + (i << (12 + 9 * (level - 1)));
            let Some(word) = ept.entry(gpa(guest), level) else { return };
            words.push((level, guest, word));
            if word != 0 && level > 1 && ept.entry(gpa(guest), level - 1).is_some() {
                below(ept, level - 1, guest, words);
            }
        }
    }
    let mut words = Vec::new();
    below(ept, ept.config().levels().count(), 0, &mut words);
    words
}

/// Some pages of each size, with neighbours.
fn tables(levels: EptLevels) -> Ept<Hal> {
    let config = EptConfig::new(&newest()).unwrap().with_levels(levels).unwrap();
    let mut ept = Ept::new(config).unwrap();
    ept.map(gpa(4 * G), hpa(64 * G), PageSize::Size1G, EptAttributes::RAM).unwrap();
    ept.map(gpa(5 * G), hpa(65 * G), PageSize::Size1G, EptAttributes::RAM).unwrap();
    ept.map_range(range(6 * G, 8 * M), hpa(66 * G), EptAttributes::RAM).unwrap();
    ept.map(gpa(7 * G), hpa(70 * G), PageSize::Size4K, EptAttributes::RAM).unwrap();
    ept
}

/// Runs an operation on such tables with each of its allocations failing, and demands that it makes `expected`.
fn each(expected: usize, operation: impl Fn(&mut Ept<Hal>) -> Result<Option<Invalidation<Hal>>, EptError>) {
    for levels in [EptLevels::Four, EptLevels::Five] {
        Hal::scope(256, || {
            let mut ept = tables(levels);
            let before = (dump(&ept), ept.table_frames());
            let allocations = Hal::each_failure(|| match operation(&mut ept) {
                Ok(invalidation) => {
                    if let Some(invalidation) = invalidation {
                        invalidation.waive();
                    }
                }
                Err(error) => {
                    assert_eq!(error, EptError::Alloc(AllocError::NoMemory));
                    assert!((dump(&ept), ept.table_frames()) == before, "the tables changed");
                }
            });
            assert_eq!(allocations, expected);
            assert_eq!(ept.table_frames(), Hal::owned());
        });
    }
}

#[test]
fn mapping_a_page_where_no_table_is() {
    // In another 512 GiB: three tables.
    each(3, |ept| ept.map(gpa(512 * G), hpa(0), PageSize::Size4K, EptAttributes::RAM).map(|()| None));
    each(2, |ept| ept.map(gpa(512 * G), hpa(0), PageSize::Size2M, EptAttributes::RAM).map(|()| None));
    each(1, |ept| ept.map(gpa(512 * G), hpa(0), PageSize::Size1G, EptAttributes::RAM).map(|()| None));
    each(1, |ept| ept.map(gpa(6 * G + 10 * M), hpa(0), PageSize::Size4K, EptAttributes::RAM).map(|()| None));
}

#[test]
fn mapping_ranges() {
    // 4 KiB at both ends, 2 MiB, 1 GiB between: a table in front, where a directory is, and both behind.
    let span = |start: u64, end: u64| (range(start, end - start), hpa(start + 64 * G), EptAttributes::RAM);
    each(3, |ept| {
        ept.map_ranges([span(8 * G - 2 * M - 4 * K, 10 * G + 2 * M + 4 * K)].into_iter()).map(|()| None)
    });
    // Small pages for a part of a gibibyte: a directory and 6 tables.
    each(7, |ept| ept.map_range(range(8 * G + M, 10 * M), hpa(4 * K), EptAttributes::RAM).map(|()| None));
}

#[test]
fn mapping_a_batch_whose_ranges_share_tables() {
    let span = |start: u64, end: u64| (range(start, end - start), hpa(start + 64 * G), EptAttributes::RAM);
    let batch = [
        span(7 * G + 4 * K, 7 * G + 12 * K),         // its table is there
        span(7 * G + 20 * K, 7 * G + 2 * M + 4 * K), // the same, and one more
        span(8 * G, 8 * G + 4 * K),                  // two: a directory and a table
        span(8 * G + 8 * K, 8 * G + 12 * K),         // none: the range before made them
        span(8 * G + 2 * M, 8 * G + 2 * M + 4 * K),  // one: the directory is there
        span(512 * G - 4 * K, 512 * G + 4 * K),      // two before the edge, three behind
    ];
    each(1 + 2 + 1 + 5, move |ept| ept.map_ranges(batch.into_iter()).map(|()| None));
}

#[test]
fn mapping_a_memory_map() {
    let mut map = MemoryMap::<4>::new();
    map.add_usable(8 << 30, 3 << 30).unwrap();
    map.add_usable(16 << 30, 0x1_3000).unwrap();
    map.add_reserved(9 << 30, 0x1000).unwrap();
    // A directory and a table for the gibibyte with the hole, a directory and a table for the tail.
    each(4, move |ept| ept.map_memory_map(&map, EptAttributes::RAM).map(|()| None));
}

#[test]
fn unmapping_parts_of_large_pages() {
    // One 4 KiB page out of a gibibyte: a directory and a table.
    each(2, |ept| ept.unmap_range(range(4 * G + 6 * M, 4 * K)).map(Some));
    // The middle of two gibibytes, cut in a 2 MiB page of each.
    each(4, |ept| ept.unmap_range(range(4 * G + 6 * M + 4 * K, G)).map(Some));
    // Both cuts in one gibibyte.
    each(3, |ept| ept.unmap_range(range(4 * G + 4 * K, 100 * M)).map(Some));
    // Whole pages need no frame.
    each(0, |ept| ept.unmap_range(range(4 * G, 2 * G)).map(Some));
    each(0, |ept| ept.unmap(gpa(7 * G)).map(|(_, invalidation)| Some(invalidation)));
}

#[test]
fn protecting_and_splitting() {
    let ro = EptAttributes::RAM.with_flags(EptFlags::READ);
    each(4, move |ept| ept.protect(range(4 * G + 6 * M + 4 * K, G), ro).map(Some));
    each(0, move |ept| ept.protect(range(4 * G, 2 * G), ro).map(Some));
    each(1, |ept| ept.split(range(4 * G, 4 * K), PageSize::Size2M).map(Some));
    each(2, |ept| ept.split(range(4 * G, 4 * K), PageSize::Size4K).map(Some));
    each(1 + 3, |ept| ept.split(range(4 * G + 5 * M, 4 * M), PageSize::Size4K).map(Some));
    each(2, |ept| ept.split(range(6 * G + 3 * M, 2 * M), PageSize::Size4K).map(Some));
    each(0, |ept| ept.merge(range(0, 8 * G)).map(Some));
}

#[test]
fn what_is_refused_for_another_reason_takes_no_frame() {
    each(0, |ept| {
        assert!(ept.map_range(range(3 * G, 2 * G), hpa(0), EptAttributes::RAM).is_err());
        assert!(ept.protect(range(4 * G + 4 * K, 4 * G), EptAttributes::DEVICE).is_err());
        assert!(ept.map_range(range(8 * G, 2 * G), hpa(1 << 52), EptAttributes::RAM).is_err());
        Ok(None)
    });
}

#[test]
fn the_last_frame_is_enough() {
    // A range that needs exactly as many tables as there are frames.
    Hal::scope(1 + 4, || {
        let mut ept = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
        let too_many =
            ept.map_range(range(2 * M - 4 * K, 4 * M), hpa(64 * G + 2 * M - 4 * K), EptAttributes::RAM);
        assert_eq!(too_many, Ok(()), "a table at each end, a directory, and one above");
        assert_eq!((ept.table_frames(), Hal::owned()), (5, 5));
        assert!(ept.map(gpa(G), hpa(0), PageSize::Size4K, EptAttributes::RAM).is_err());
        ept.unmap_range(range(0, G)).unwrap().waive();
        assert_eq!(Hal::owned(), 1);
    });
}
