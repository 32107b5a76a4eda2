//! The lowest run of free frames that fits, wherever it begins.
//!
//! Aligned powers of two up to 2 MiB are found by the summary. This is for the rest: other counts and
//! alignments, and windows. A candidate is looked at from its end: the last used frame found there rules out
//! all starts up to it, so a search reads less the longer the run. Chunks, blocks and rows that are wholly
//! free are stepped over, and blocks and chunks that are of too low a class for any part of the run. No frame
//! is looked at more than twice, so "no such run" is certain, and the time is bounded by the frames there
//! are.
//!
//! A run may cross from one region into another that adjoins it: the search is over a *chain* of such
//! regions.

use core::ops::Range;

use crate::{chunk::CLASSES, region::Region};

/// The lowest start of `count` free frames that lie in `window`, at a multiple of `align` frames, in a chain
/// of regions (at least one, each beginning where the one before ends).
pub(crate) fn lowest_run(
    chain: &[Region<'_>],
    window: &Range<usize>,
    count: usize,
    align: usize,
) -> Option<usize> {
    let end = window.end.min(chain.last()?.frames().end);
    let mut from = window.start.max(chain.first()?.frames().start);
    let (order, before) = part(count, align);
    loop {
        from = first_free(chain, from..end)?;
        // A seam may divide the block that holds the part.
        if let [region] = chain {
            from = from.max(region.next_block(from, order)?.saturating_sub(before));
        }
        // Frame numbers, counts and alignments are far below `usize::MAX`: these sums cannot overflow.
        let start = (from + align - 1) & !(align - 1);
        if start + count > end {
            return None;
        }
        match last_used(chain, start..start + count) {
            None => return Some(start),
            Some(used) => from = used + 1,
        }
    }
}

/// Every run of this layout has an aligned part of 2^`order` frames, up to 512, with at most so many frames
/// before it.
fn part(count: usize, align: usize) -> (usize, usize) {
    let limit = |order: u32| (order as usize).min(CLASSES - 1);
    // The run begins with one, or, wherever it begins, has one of at least a quarter of its length.
    let first = limit(count.min(align).ilog2());
    let within = limit(count.div_ceil(2).ilog2());
    if first >= within { (first, 0) } else { (within, (1 << within) - 1) }
}

/// The lowest free frame of `run` in the chain.
fn first_free(chain: &[Region<'_>], run: Range<usize>) -> Option<usize> {
    chain.iter().find_map(|region| region.first_free(common(region, &run)))
}

/// The highest used frame of `run`, which lies in the chain.
fn last_used(chain: &[Region<'_>], run: Range<usize>) -> Option<usize> {
    chain.iter().rev().find_map(|region| {
        let part = common(region, &run);
        if part.is_empty() { None } else { region.last_used(part) }
    })
}

/// The frames of `run` in a region; may be empty.
fn common(region: &Region<'_>, run: &Range<usize>) -> Range<usize> {
    let frames = region.frames();
    run.start.max(frames.start)..run.end.min(frames.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_has_the_part() {
        for count in 1..1200_usize {
            for align in [1, 2, 4, 64, 512, 1024] {
                let (order, before) = part(count, align);
                for start in (0..2048).step_by(align) {
                    let first = usize::next_multiple_of(start, 1 << order);
                    assert!(first - start <= before && first + (1 << order) <= start + count);
                }
            }
        }
    }
}
