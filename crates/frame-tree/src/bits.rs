//! Runs of free frames inside one row: pure functions on a word whose ones are free frames.
//!
//! A run of order `k` is `2^k` free frames at a multiple of `2^k`. [`runs`] folds a word onto itself: after step `k`
//! a bit is one if it starts a run of order `k + 1`. Every longer run contains two of the next shorter ones, so the
//! folds are nested: once one is zero, all later ones are.

use crate::geometry::{BLOCK_ROWS, ROW_FRAMES};

/// Orders of runs that fit in a row: 0 to 6.
pub(crate) const ROW_ORDER: usize = 6;

/// `ALIGNED[k]`: the multiples of `2^k`.
const ALIGNED: [u64; ROW_ORDER + 1] = [
    !0,
    0x5555_5555_5555_5555,
    0x1111_1111_1111_1111,
    0x0101_0101_0101_0101,
    0x0001_0001_0001_0001,
    0x0000_0001_0000_0001,
    1,
];

/// One fold: from the starts of the runs of order `order` to those of the next order.
#[inline(always)]
const fn fold(starts: u64, order: usize) -> u64 {
    starts & (starts >> (1 << order)) & ALIGNED[order + 1]
}

/// The starts of all free runs of `order` (0 to 6).
#[inline(always)]
pub(crate) const fn runs(row: u64, order: usize) -> u64 {
    let (mut starts, mut k) = (row, 0);
    while k < order {
        starts = fold(starts, k);
        k += 1;
    }
    starts
}

/// The order of the largest free run, 0 to 6; 0 too if nothing is free.
///
/// All the folds, no branch: a mispredicted branch costs more than all of them together.
#[inline(always)]
pub(crate) const fn largest(row: u64) -> usize {
    let a = fold(row, 0);
    let b = fold(a, 1);
    let c = fold(b, 2);
    let d = fold(c, 3);
    let e = fold(d, 4);
    let f = fold(e, 5);
    (a != 0) as usize
        + (b != 0) as usize
        + (c != 0) as usize
        + (d != 0) as usize
        + (e != 0) as usize
        + (f != 0) as usize
}

/// The order of the free run around bit `bit` of a row in which that bit is free and some other is not: 0 to 5.
///
/// A run of order `k` around `bit` holds the frames whose numbers differ from `bit` in their lowest `k` bits only. Such
/// runs are nested and have no gaps, so the nearest frame in use on either side decides: the highest bit in which it
/// differs is the order.
#[inline(always)]
pub(crate) const fn order_around(row: u64, bit: u32) -> usize {
    let used = !row;
    // Where nothing is used on a side, the bit put in is so far off that the other side decides.
    let above = bit + (used >> bit | 1 << (ROW_FRAMES - 1)).trailing_zeros();
    let below = bit.wrapping_sub((used << (ROW_FRAMES as u32 - 1 - bit) | 1).leading_zeros());
    let (above, below) = (above ^ bit, below ^ bit);
    let nearest = if above < below { above } else { below };
    (nearest | 1).ilog2() as usize
}

/// The order of the largest free run in any of the rows; `None` if nothing is free.
pub(crate) fn largest_of(rows: [u64; BLOCK_ROWS]) -> Option<usize> {
    let any = |rows: [u64; BLOCK_ROWS]| rows.iter().fold(0, |any, row| any | row) != 0;
    if !any(rows) {
        return None;
    }
    // All rows one fold at a time, as far as any of them goes: broken blocks are cheap.
    let (mut starts, mut order) = (rows, 0);
    while order < ROW_ORDER {
        starts = starts.map(|starts| fold(starts, order));
        if !any(starts) {
            break;
        }
        order += 1;
    }
    Some(order)
}

/// Of the starts of runs of `order`, those whose run is not part of a longer one.
#[inline(always)]
pub(crate) const fn alone(starts: u64, order: usize) -> u64 {
    if order == ROW_ORDER {
        return starts;
    }
    let pairs = fold(starts, order);
    starts & !(pairs | pairs << (1 << order))
}

/// Of the free runs of `order`, whose starts are `starts` (not 0), one that breaks up as little as can be: the order of
/// the largest run around it, and where it starts, lowest first.
#[inline]
pub(crate) fn best_fit(mut starts: u64, order: usize) -> (usize, u32) {
    for k in order..ROW_ORDER {
        let alone = alone(starts, k);
        if alone != 0 {
            return (k, alone.trailing_zeros());
        }
        starts = fold(starts, k);
    }
    (ROW_ORDER, 0)
}

/// The lowest `count` ones of `row` (all of them, if there are no more).
#[inline]
pub(crate) fn lowest(row: u64, count: usize) -> u64 {
    if count >= ROW_FRAMES {
        return row;
    }
    let mut rest = row;
    for _ in 0..count.min(row.count_ones() as usize) {
        rest &= rest - 1;
    }
    row & !rest
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::geometry::mask;
    use proptest::prelude::*;

    fn naive_runs(row: u64, order: usize) -> u64 {
        let size = 1 << order;
        (0..64).step_by(size).filter(|at| row & mask(*at, size) == mask(*at, size)).map(|at| 1 << at).sum()
    }

    fn rows() -> impl Strategy<Value = u64> {
        // Dense and sparse words, and words made of whole runs.
        prop_oneof![
            any::<u64>(),
            (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(a, b, c)| a | b | c),
            prop::collection::vec((0usize..64, 1usize..=64), 1..4)
                .prop_map(|parts| parts.iter().fold(0, |row, (at, n)| row | mask(*at, (*n).min(64 - at)))),
            Just(0),
            Just(!0),
        ]
    }

    proptest! {
        #[test]
        fn folding_finds_every_run(row in rows()) {
            for order in 0..=ROW_ORDER {
                prop_assert_eq!(runs(row, order), naive_runs(row, order));
            }
            let largest_naive = (0..=ROW_ORDER).rev().find(|k| naive_runs(row, *k) != 0).unwrap_or(0);
            prop_assert_eq!(largest(row), largest_naive);
        }

        #[test]
        fn around_a_frame_the_nearest_in_use_decide(row in rows(), bit in 0..ROW_FRAMES) {
            let row = row | 1 << bit;
            prop_assume!(row != !0);
            let free = |k: &usize| row & mask(bit >> k << k, 1 << k) == mask(bit >> k << k, 1 << k);
            prop_assert_eq!(order_around(row, bit as u32), (0..ROW_ORDER).rev().find(free).unwrap());
        }

        #[test]
        fn of_several_rows_the_best_counts(rows in prop::array::uniform8(rows()), sparse in any::<bool>()) {
            let rows = if sparse { rows.map(|row| row & 0x1111_0401_0000_0300) } else { rows };
            let naive = rows.into_iter().filter(|row| *row != 0).map(largest).max();
            prop_assert_eq!(largest_of(rows), naive);
        }

        #[test]
        fn best_fit_breaks_the_smallest_run(row in rows(), order in 0..=ROW_ORDER) {
            // The order of the largest free run around each start.
            let around = |at: usize| (order..=ROW_ORDER)
                .rev()
                .find(|k| row & mask(at >> k << k, 1 << k) == mask(at >> k << k, 1 << k));
            let naive = bits_of(naive_runs(row, order)).filter_map(|at| Some((around(at)?, at as u32))).min();
            let starts = runs(row, order);
            prop_assert_eq!((starts != 0).then(|| best_fit(starts, order)), naive);
            let alone_naive = bits_of(naive_runs(row, order)).filter(|at| around(*at) == Some(order));
            prop_assert!(bits_of(alone(starts, order)).eq(alone_naive));
        }

        #[test]
        fn lowest_takes_from_the_bottom(row in rows(), count in 0usize..=64) {
            let taken = lowest(row, count);
            prop_assert_eq!(taken.count_ones() as usize, count.min(row.count_ones() as usize));
            prop_assert!(bits_of(row).take(count).eq(bits_of(taken)));
        }
    }

    fn bits_of(word: u64) -> impl Iterator<Item = usize> {
        (0..64).filter(move |bit| word >> bit & 1 == 1)
    }
}
