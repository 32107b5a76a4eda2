//! What is on the disk. The host made it by the same rule, and works out on its own what it must be in the end.

use core::ops::Range;

use virtio_drivers::device::blk::SECTOR_SIZE;

/// Words of 8 bytes in a sector.
const WORDS: usize = SECTOR_SIZE / 8;

/// Which writes have been made to a sector.
#[derive(Clone, Copy)]
pub enum Age {
    /// None: it is as the host made it.
    Old,
    /// The kernel's.
    New,
}

/// The word at `index`, counted from the start of the disk: the mixer of splitmix64, so that no two places look alike.
fn word(age: Age, index: usize) -> u64 {
    let mut x = (index as u64 | (age as u64) << 63).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Fills `sectors`, the first of which is number `first`, with what the kernel writes.
pub fn fill(first: usize, sectors: &mut [u8]) {
    for (bytes, index) in sectors.chunks_exact_mut(8).zip(first * WORDS..) {
        bytes.copy_from_slice(&word(Age::New, index).to_le_bytes());
    }
}

/// Whether these sectors are what they must be: `age` says it for each sector's number.
pub fn right(first: usize, sectors: &[u8], age: impl Fn(usize) -> Age) -> bool {
    sectors.chunks_exact(SECTOR_SIZE).zip(first..).all(|(bytes, sector)| {
        let age = age(sector);
        bytes
            .chunks_exact(8)
            .zip(sector * WORDS..)
            .all(|(bytes, index)| bytes == word(age, index).to_le_bytes())
    })
}

/// The ranges of `7:2,100:1`: two sectors from number 7 on, and one.
pub fn ranges(plan: &str) -> impl Iterator<Item = Range<usize>> + Clone {
    plan.split(',').filter_map(|range| {
        let (first, count) = range.split_once(':')?;
        let (first, count): (usize, usize) = (first.parse().ok()?, count.parse().ok()?);
        Some(first..first + count)
    })
}
