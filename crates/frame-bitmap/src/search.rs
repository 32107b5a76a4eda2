//! The lowest run of free frames that fits.
//!
//! A candidate is looked at from its end: the last used frame found there rules out all starts up to it, so a search
//! reads less the longer the run. Chunks, blocks and rows that are wholly free or used are stepped over, and a run that
//! must hold a wholly free block starts no lower than the next one allows. No frame is looked at more than twice, so
//! "no such run" is certain, and its time is bounded by the frames there are.
//!
//! A run may cross from one region into another that adjoins it: the search is over a *chain* of such regions.

use core::ops::Range;

use crate::{chunk::BLOCK, region::Region};

/// The lowest start of `count` free frames that lie in `window`, at a multiple of `align` frames, in a chain of regions
/// (at least one, each beginning where the one before ends).
pub(crate) fn lowest_run(
    chain: &[Region<'_>],
    window: &Range<usize>,
    count: usize,
    align: usize,
) -> Option<usize> {
    let end = window.end.min(chain.last()?.frames().end);
    let mut from = window.start.max(chain.first()?.frames().start);
    // Of 1,023 frames 512 are a block, wherever they begin; of 512 only if they begin with it. Not so where a seam may
    // divide the block.
    let holds_block = count >= 2 * BLOCK - 1 || (count >= BLOCK && align >= BLOCK);
    let holds_block = holds_block && chain.len() == 1;
    loop {
        from = first_free(chain, from..end)?;
        if holds_block {
            let block = chain[0].next_free_block(from)?;
            from = from.max(if align >= BLOCK { block } else { block.saturating_sub(BLOCK - 1) });
        }
        let start = from.checked_next_multiple_of(align)?;
        let stop = start.checked_add(count).filter(|&stop| stop <= end)?;
        match last_used(chain, start..stop) {
            None => return Some(start),
            Some(used) => from = used + 1,
        }
    }
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
