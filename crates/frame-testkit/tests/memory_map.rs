//! `MemoryMap` and `EarlyAllocator` against an oracle that looks at every byte of every frame.

use std::{alloc::Layout, collections::BTreeSet};

use frame_core::{EarlyAllocator, EarlyError, FRAME_SIZE, FrameRange, MapError, MemoryMap, PhysAddr};
use frame_testkit::{FrameSet, random_map};
use proptest::{collection::vec, prelude::*};

const FRAME: u64 = FRAME_SIZE as u64;

fn ranges<const N: usize>(map: &MemoryMap<N>) -> Vec<(u64, u64)> {
    map.frames().map(|range| (range.start().as_usize() as u64, range.end().as_usize() as u64)).collect()
}

fn map_of(usable: &[(u64, u64)], reserved: &[(u64, u64)]) -> MemoryMap<64> {
    let mut map = MemoryMap::new();
    usable.iter().for_each(|&(base, len)| map.add_usable(base, len).unwrap());
    reserved.iter().for_each(|&(base, len)| map.add_reserved(base, len).unwrap());
    map
}

/// Whether a byte lies in an entry.
fn holds(entries: &[(u64, u64)], byte: u64) -> bool {
    entries.iter().any(|&(base, len)| byte.checked_sub(base).is_some_and(|offset| offset < len))
}

/// Whether a frame is free, by its definition: all bytes usable, none reserved, not frame 0. Bytes change their kind at
/// the ends of entries only, so these are looked at, with the first and last byte of the frame.
fn is_free(usable: &[(u64, u64)], reserved: &[(u64, u64)], frame: u64) -> bool {
    let start = frame * FRAME;
    let ends = usable.iter().chain(reserved).flat_map(|&(base, len)| {
        let end = base.saturating_add(len);
        [base, base.saturating_sub(1), end, end.saturating_sub(1)]
    });
    let bytes = ends.filter(|byte| byte / FRAME == frame).chain([start, start + (FRAME - 1)]);
    frame != 0 && bytes.into_iter().all(|byte| holds(usable, byte) && !holds(reserved, byte))
}

/// Everything that is promised about `frames`, for frames up to `frames`.
fn check(usable: &[(u64, u64)], reserved: &[(u64, u64)], frames: u64) -> Result<(), TestCaseError> {
    let map = map_of(usable, reserved);
    let right: BTreeSet<u64> = (0..frames).filter(|&frame| is_free(usable, reserved, frame)).collect();
    let got: Vec<FrameRange> = map.frames().collect();
    for pair in got.windows(2) {
        prop_assert!(pair[0].end() < pair[1].start(), "unsorted, or no gap: {got:?}");
    }
    let given: BTreeSet<u64> =
        got.iter().flat_map(|range| range.frames()).map(|frame| frame.as_usize() as u64 / FRAME).collect();
    prop_assert_eq!(&given, &right);
    prop_assert_eq!(map.frame_count(), right.len());
    Ok(())
}

/// Entries in 64 frames, cut at any byte, so that they overlap, touch and nest.
fn entries() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let at = prop_oneof![0..64 * FRAME, (0_u64..64).prop_map(|frame| frame * FRAME)];
    let len =
        prop_oneof![0..3_u64, 0..2 * FRAME, (0_u64..20).prop_map(|frames| frames * FRAME), 0..64 * FRAME];
    vec((at, len), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_are_those_that_the_rules_leave(usable in entries(), reserved in entries()) {
        check(&usable, &reserved, 130)?;
    }

    #[test]
    fn the_order_of_entries_does_not_matter(
        (usable, reserved) in (entries(), entries()),
        seed in any::<u64>(),
    ) {
        let map = map_of(&usable, &reserved);
        let mut all: Vec<_> = usable.iter().map(|e| (true, *e)).chain(reserved.iter().map(|e| (false, *e))).collect();
        frame_testkit::Rng::new(seed).shuffle(&mut all);
        let mut shuffled = MemoryMap::<64>::new();
        for (is_usable, (base, len)) in all {
            if is_usable { shuffled.add_usable(base, len) } else { shuffled.add_reserved(base, len) }.unwrap();
        }
        prop_assert_eq!(ranges(&map), ranges(&shuffled));
        // Telling it the same again changes nothing.
        usable.iter().for_each(|&(base, len)| shuffled.add_usable(base, len).unwrap());
        prop_assert_eq!(ranges(&map), ranges(&shuffled));
    }

    #[test]
    fn a_map_that_is_too_small_says_so_and_stays_as_it_was(usable in entries(), reserved in entries()) {
        let mut small = MemoryMap::<3>::new();
        let mut taken = (Vec::new(), Vec::new());
        for (is_usable, (base, len)) in
            usable.iter().map(|e| (true, *e)).chain(reserved.iter().map(|e| (false, *e)))
        {
            let before = ranges(&small);
            let added = if is_usable { small.add_usable(base, len) } else { small.add_reserved(base, len) };
            match added {
                Ok(()) if is_usable => taken.0.push((base, len)),
                Ok(()) => taken.1.push((base, len)),
                Err(error) => {
                    prop_assert_eq!(error, MapError::TooManyEntries { limit: 3 });
                    prop_assert_eq!(ranges(&small), before);
                    // It was right to refuse: joined, the entries of this kind are more than three spans.
                    let kind = if is_usable { &taken.0 } else { &taken.1 };
                    prop_assert!(spans(kind.iter().copied().chain([(base, len)]), is_usable) > 3);
                }
            }
            prop_assert_eq!(ranges(&small), ranges(&map_of(&taken.0, &taken.1)));
        }
    }

    #[test]
    fn early_memory_is_the_highest_that_fits(
        (usable, reserved) in (entries(), entries()),
        asked in vec((prop_oneof![1 => Just(0), 4 => 0_usize..5 * FRAME_SIZE], 0_u32..16, 0_usize..80 * FRAME_SIZE), 1..6),
    ) {
        let mut map = map_of(&usable, &reserved);
        for (size, align, below) in asked {
            let layout = Layout::from_size_align(size, 1 << align).unwrap();
            let free: FrameSet = map.frames().collect();
            let count = size.div_ceil(FRAME_SIZE).max(1);
            let align = layout.align().max(FRAME_SIZE);
            // Every place, highest first.
            let place = (0..200_usize)
                .rev()
                .filter_map(|frame| FrameRange::new(PhysAddr::from(frame * FRAME_SIZE), count).ok())
                .find(|place| {
                    place.start().as_usize() % align == 0
                        && place.end().as_usize() <= below
                        && free.contains_range(*place)
                });
            let got = EarlyAllocator::new(&mut map).alloc(layout, PhysAddr::from(below));
            match (place, got) {
                (Some(place), Ok(taken)) => {
                    prop_assert_eq!(taken, place);
                    let mut rest = free;
                    rest.remove(taken).unwrap();
                    prop_assert_eq!(map.frames().collect::<FrameSet>(), rest);
                }
                (None, Err(error)) => {
                    let below = PhysAddr::from(below);
                    prop_assert_eq!(error, EarlyError::NoMemory { count, align, below });
                    prop_assert_eq!(map.frames().collect::<FrameSet>(), free);
                }
                (place, got) => prop_assert!(false, "right is {place:?}, got {got:?}"),
            }
        }
    }
}

/// How many spans the entries are once those that overlap or touch are joined.
fn spans(entries: impl Iterator<Item = (u64, u64)>, usable: bool) -> usize {
    let round = |(base, len): (u64, u64)| match usable {
        true => (base, base + len),
        false => (base & !(FRAME - 1), (base + len).next_multiple_of(FRAME)),
    };
    let mut entries: Vec<_> = entries.filter(|&(_, len)| len > 0).map(round).collect();
    entries.sort_unstable();
    let mut count = 0;
    let mut end = None;
    for (start, last) in entries {
        if end.is_none_or(|end| start > end) {
            count += 1;
        }
        end = end.max(Some(last));
    }
    count
}

#[test]
fn reported_faults_of_others_do_not_come_back() {
    // Unaligned entries (base 0x1fe41810, length 0xee7f0).
    assert_eq!(ranges(&map_of(&[(0x1fe4_1810, 0xe_e7f0)], &[])), [(0x1fe4_2000, 0x1ff3_0000)]);
    // An unsorted reserved list, one that overlaps several usable entries.
    let map = map_of(
        &[(0x8000, 0x4000), (0x1000, 0x4000), (0x10000, 0x1000)],
        &[(0xa000, 0x100), (0x2000, 0x9000), (0x3000, 1)],
    );
    assert_eq!(ranges(&map), [(0x1000, 0x2000), (0xb000, 0xc000), (0x10000, 0x11000)]);
    // Frame 0 is never there, however it is described.
    for usable in [(0, 0x3000), (0, 0x1000), (0x800, 0x2800)] {
        assert!(ranges(&map_of(&[usable], &[])).iter().all(|range| range.0 != 0));
    }
    assert_eq!(map_of(&[(0, FRAME)], &[]).frame_count(), 0);
    // Entries that meet inside a frame make it whole.
    assert_eq!(ranges(&map_of(&[(0x1000, 0x800), (0x1800, 0x800)], &[])), [(0x1000, 0x2000)]);
    assert_eq!(map_of(&[(0x1000, 0x800), (0x1801, 0x7ff)], &[]).frame_count(), 0);
    // One reserved byte takes its frame.
    assert_eq!(ranges(&map_of(&[(0x1000, 0x3000)], &[(0x2fff, 1)])), [(0x1000, 0x2000), (0x3000, 0x4000)]);
}

#[test]
fn the_end_of_64_bit_addresses() {
    let top = !(FRAME - 1); // the last frame
    let mut map = MemoryMap::<4>::new();
    for (base, len) in [(u64::MAX, 2), (2, u64::MAX), (top, FRAME + 1), (0x1000, u64::MAX)] {
        assert_eq!(map.add_usable(base, len), Err(MapError::Overflow { base, len }));
    }
    assert_eq!(map.frame_count(), 0);
    for (base, len) in [(u64::MAX, 0), (0, 0), (5, 0)] {
        map.add_usable(base, len).unwrap();
        map.add_reserved(base, len).unwrap();
    }
    assert_eq!(map.frame_count(), 0);
    // Up to the last byte: a range has an end that is an address, so the last frame is left out.
    map.add_usable(top - 2 * FRAME, 3 * FRAME).unwrap();
    assert_eq!(ranges(&map), [(top - 2 * FRAME, top)]);
    map.add_reserved(u64::MAX, 1).unwrap();
    assert_eq!(ranges(&map), [(top - 2 * FRAME, top)]);
    map.add_reserved(top - FRAME, 1).unwrap();
    assert_eq!(ranges(&map), [(top - 2 * FRAME, top - FRAME)]);
    // All of it, and all of it reserved.
    let mut map = MemoryMap::<1>::new();
    map.add_usable(0, u64::MAX).unwrap();
    assert_eq!(ranges(&map), [(FRAME, top)]);
    map.add_reserved(0x5000, u64::MAX - 0x5000).unwrap();
    assert_eq!(ranges(&map), [(FRAME, 0x5000)]);
    map.add_reserved(0, 0x5000).unwrap();
    assert_eq!(ranges(&map), []);
}

#[test]
fn a_reserved_entry_that_overflows_reserves_up_to_the_last_byte() {
    for (base, len, left) in
        [(0x5000, u64::MAX, 4), (0x5001, u64::MAX - 0x5000, 4), (0x4fff, u64::MAX, 3), (u64::MAX, 2, 7)]
    {
        let mut map = MemoryMap::<1>::new();
        map.add_usable(0x1000, 0x7000).unwrap();
        map.add_reserved(base, len).unwrap();
        assert_eq!((map.frame_count(), ranges(&map)[0].0), (left, 0x1000), "{base:#x}, {len:#x}");
    }
}

#[test]
fn a_full_map_still_takes_what_joins() {
    let mut map = MemoryMap::<2>::new();
    map.add_usable(0x1000, 0x1000).unwrap();
    map.add_usable(0x5000, 0x1000).unwrap();
    assert_eq!(map.add_usable(0x9000, 0x1000), Err(MapError::TooManyEntries { limit: 2 }));
    map.add_usable(0x2000, 0x1000).unwrap(); // touches the first
    map.add_usable(0x2800, 0x2900).unwrap(); // joins both
    assert_eq!(ranges(&map), [(0x1000, 0x6000)]);
    map.add_usable(0x9000, 0x1000).unwrap(); // there is room again
    assert_eq!(map.frame_count(), 6);
}

#[test]
fn early_memory_keeps_below_its_limit_and_leaves_the_rest() {
    let mut map = random_map(5, 20_000);
    let mut left = map.frame_count();
    let limit = PhysAddr::from(64 << 20);
    let mut taken = FrameSet::new();
    while let Ok(range) = EarlyAllocator::new(&mut map).alloc(Layout::new::<[u64; 1024]>(), limit) {
        assert!(range.end() <= limit && range.count() == 2);
        taken.insert(range).expect("not given before");
        left -= 2;
        assert_eq!(map.frame_count(), left);
    }
    assert!(!taken.is_empty());
    assert!(map.frames().all(|range| taken.first_present(range).is_none()));
    // A map without room for another reservation: what joins the one that is there is taken, the rest refused.
    let mut map = MemoryMap::<1>::new();
    map.add_usable(0x1000, 0x9000).unwrap();
    map.add_reserved(0x3000, 1).unwrap();
    let mut alloc_below =
        |below: usize| EarlyAllocator::new(&mut map).alloc(Layout::new::<u8>(), PhysAddr::from(below));
    assert_eq!(alloc_below(0x3000).unwrap().start().as_usize(), 0x2000);
    assert_eq!(alloc_below(0xa000), Err(EarlyError::Map(MapError::TooManyEntries { limit: 1 })));
    assert_eq!(ranges(&map), [(0x1000, 0x2000), (0x4000, 0xa000)]);
    // Sizes that cannot be.
    let huge = Layout::from_size_align(isize::MAX as usize - 4095, 1).unwrap();
    let error = EarlyAllocator::new(&mut map).alloc(huge, PhysAddr::from(usize::MAX)).unwrap_err();
    assert!(matches!(error, EarlyError::NoMemory { .. }), "{error:?}");
    let aligned = Layout::from_size_align(1, 1 << 62).unwrap();
    let error = EarlyAllocator::new(&mut map).alloc(aligned, PhysAddr::from(usize::MAX)).unwrap_err();
    assert!(matches!(error, EarlyError::NoMemory { .. }), "{error:?}");
}
