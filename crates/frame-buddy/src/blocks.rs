//! Runs cut into blocks.
//!
//! A buddy system knows only *blocks*: a power of two of frames, starting at a multiple of that number. Any
//! run of frames is cut into few of them, at most two of each size: `5..12` is `5`, `6..8`, `8..12`.

use core::ops::Range;

/// Sizes of block that the package keeps, from one frame to [`MAX_BLOCK`] frames. On 32-bit machines no more
/// than there are frames, because the package shifts a `usize` by this.
pub(crate) const ORDERS: usize = if usize::BITS < 64 { 21 } else { 33 };

/// Frames in the largest block: 2^32 (16 TiB).
pub(crate) const MAX_BLOCK: usize = 1 << (ORDERS - 1);

/// Cuts `run` (frame numbers) into the fewest blocks, lowest first: start and size of each.
pub(crate) fn blocks(run: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
    let Range { mut start, end } = run;
    core::iter::from_fn(move || {
        let left = end.checked_sub(start).filter(|&left| left > 0)?;
        let order = left.ilog2().min(start.trailing_zeros()).min(ORDERS as u32 - 1);
        let block = (start, 1 << order);
        start += block.1;
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn blocks_are_aligned_and_few_and_cover_the_run() {
        for start in 0..70 {
            for end in start..140 {
                let cut: Vec<_> = blocks(start..end).collect();
                let mut next = start;
                for &(at, size) in &cut {
                    assert!(at == next && size.is_power_of_two() && at % size == 0);
                    next += size;
                }
                assert_eq!(next, end);
                for size in cut.iter().map(|b| b.1) {
                    assert!(cut.iter().filter(|b| b.1 == size).count() <= 2);
                }
            }
        }
    }

    #[test]
    fn no_block_is_larger_than_the_package_keeps() {
        let cut: Vec<_> = blocks(0..3 * MAX_BLOCK + 1).collect();
        assert_eq!(
            cut,
            [(0, MAX_BLOCK), (MAX_BLOCK, MAX_BLOCK), (2 * MAX_BLOCK, MAX_BLOCK), (3 * MAX_BLOCK, 1)]
        );
    }
}
