//! Repeatable chance: a small generator, and memory maps made by it.
//!
//! Every random case has a seed that stands in its failure message. With `std`, two environment variables change what
//! the cases do: `FRAME_SEED` (decimal) replaces the seeds, `FRAME_EFFORT` (default 1) multiplies the work, for long
//! runs.

use alloc::vec::Vec;

use frame_core::{FRAME_SIZE, FrameRange, MemoryMap};

use crate::frame_set::range;

/// SplitMix64: enough for tests, the same numbers everywhere.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator that starts at `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed of a random case: `default`, or what `FRAME_SEED` says.
    pub fn seed_or(default: u64) -> u64 {
        #[cfg(feature = "std")]
        if let Some(seed) = std::env::var("FRAME_SEED").ok().and_then(|seed| seed.parse().ok()) {
            return seed;
        }
        default
    }

    /// How many times the usual work the random cases do: 1, or what `FRAME_EFFORT` says.
    pub fn effort() -> usize {
        #[cfg(feature = "std")]
        if let Some(effort) = std::env::var("FRAME_EFFORT").ok().and_then(|effort| effort.parse().ok()) {
            return effort;
        }
        1
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which must not be 0.
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next_u64()) * limit as u128) >> 64) as usize
    }

    /// A number of `low..=high`.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// Whether something of a chance of `part` in `whole` happens.
    pub fn chance(&mut self, part: usize, whole: usize) -> bool {
        self.below(whole) < part
    }

    /// Takes one of the items out, if there are any.
    pub fn take<T>(&mut self, items: &mut Vec<T>) -> Option<T> {
        if items.is_empty() {
            return None;
        }
        let index = self.below(items.len());
        Some(items.swap_remove(index))
    }

    /// Puts the items in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// A firmware-like map with about `frames` frames: ragged edges, holes of all sizes, single frames, entries unsorted
/// and overlapping, reservations inside usable memory, memory above 4 GiB.
pub fn random_map(seed: u64, frames: usize) -> MemoryMap<64> {
    let mut rng = Rng::new(seed);
    let mut spans = Vec::new();
    let mut reserved = Vec::new();
    let mut at = if rng.chance(1, 2) { 0 } else { rng.below(64 * FRAME_SIZE) };
    let mut left = frames.max(1) * FRAME_SIZE;
    while left > 0 && spans.len() < 24 {
        let len = match rng.below(6) {
            0 => FRAME_SIZE,
            1 => rng.between(1, 4 * FRAME_SIZE),
            2 => 512 * FRAME_SIZE,
            _ => rng.between(1, left.max(2)),
        };
        let len = len.min(left);
        spans.push((at, len));
        if rng.chance(1, 3) {
            // An entry again, shifted: overlapping.
            spans.push((at + rng.below(len), len));
        }
        if rng.chance(1, 3) {
            reserved.push((at + rng.below(len), rng.between(1, 8 * FRAME_SIZE)));
        }
        left -= len;
        at += len;
        at += match rng.below(6) {
            0 => 0,
            1 => rng.below(FRAME_SIZE),
            2 => FRAME_SIZE,
            3 => 512 * FRAME_SIZE - at % (512 * FRAME_SIZE),
            4 => rng.below(64 << 20),
            _ => (4 << 30) - at % (4 << 30),
        };
    }
    rng.shuffle(&mut spans);
    let mut map = MemoryMap::new();
    for (base, len) in spans {
        map.add_usable(base as u64, len as u64).expect("room for all spans");
    }
    for (base, len) in reserved {
        map.add_reserved(base as u64, len as u64).expect("room for all spans");
    }
    if map.frame_count() == 0 {
        map.add_usable(0x3000_0000_0000, FRAME_SIZE as u64).expect("room for another");
    }
    map
}

/// Disjoint, sorted ranges with exactly `frames` frames in all. Some adjoin, as regions do that were added one after
/// the other.
pub fn random_ranges(seed: u64, frames: usize) -> Vec<FrameRange> {
    let mut rng = Rng::new(seed);
    let mut ranges = Vec::new();
    let mut at = rng.between(1, 700);
    let mut left = frames;
    while left > 0 {
        let count = match rng.below(4) {
            0 => 1,
            1 => rng.between(1, 70),
            _ => rng.between(1, left),
        };
        let count = if ranges.len() < 15 { count.min(left) } else { left };
        ranges.push(range(at, at + count));
        left -= count;
        at += count;
        at += match rng.below(5) {
            0 => 0,
            1 => 1,
            2 => rng.between(1, 600),
            3 => 512 - at % 512,
            _ => (1 << 20) - at % (1 << 20) + rng.below(3),
        };
    }
    ranges
}
