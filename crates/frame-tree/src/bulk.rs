//! Giving many single frames back: each to its row, neighbours in one row together.
//!
//! What comes from a cache lies anywhere, so the usual frame shares its row with neither the one before nor the one after:
//! that way is kept short. While one frame is given back the line of a later one is fetched.

use frame_core::{DeallocError, DeallocErrorKind, FRAME_SIZE, PhysAddr};

use crate::{
    geometry::Frame,
    hints::Raise,
    region::{BlockRef, Region},
    registry::Registry,
    tree::not_allocated,
};

/// How many frames ahead a row's line is fetched.
const PREFETCH: usize = 8;

impl<const N: usize> Registry<'_, N> {
    /// Gives single frames back.
    ///
    /// # Errors
    /// The first that was refused. The others were given back all the same.
    pub(crate) fn give_many(&self, frames: &[PhysAddr]) -> Result<(), DeallocError> {
        let (mut rest, mut result) = (frames, Ok(()));
        while let Some((&addr, others)) = rest.split_first() {
            let refusal = if addr.as_usize() % FRAME_SIZE != 0 {
                DeallocErrorKind::Misaligned
            } else if let Some(region) = self.find(Frame::of(addr)) {
                rest = region.give_many(rest, &mut result);
                continue;
            } else {
                DeallocErrorKind::NotManaged
            };
            result = result.and(Err(DeallocError::new(addr, refusal)));
            rest = others;
        }
        result
    }
}

/// Gives back those frames of a row that are not free already; which of them are, if any.
fn give_all(block: BlockRef<'_>, row: usize, mask: u64) -> Option<u64> {
    let mut rest = mask;
    while rest != 0 {
        match block.give_row(row, rest) {
            Ok(()) => break,
            Err(free) => rest &= !free,
        }
    }
    (rest != mask).then_some(mask & !rest)
}

impl Region<'_> {
    /// Gives frames back up to one that is not aligned or not in the region; what is left from there on. The first
    /// refusal goes into `result`, unless there is one already.
    fn give_many<'f>(&self, frames: &'f [PhysAddr], result: &mut Result<(), DeallocError>) -> &'f [PhysAddr] {
        let last = frames.len() - 1;
        let mut at = 0;
        while let Some(&addr) = frames.get(at) {
            let frame = Frame::of(addr);
            let Some(block) = self.block_of(frame).filter(|_| addr.as_usize() % FRAME_SIZE == 0) else {
                break;
            };
            self.storage.prefetch(Frame::of(frames[last.min(at + PREFETCH)]).block());
            at += 1;
            let row = frame.row().in_block();
            let (joined, count) = self.joined(frame, &frames[at..]);
            if count == 0 {
                if block.give_one(row, frame.in_row(), Raise::ToItsBand).is_err() {
                    *result = result.and(Err(not_allocated(frame)));
                }
                continue;
            }
            let together = &frames[at - 1..at + count];
            at += count;
            if let Some(refused) = give_all(block, row, frame.bit() | joined) {
                let bad =
                    together.iter().map(|addr| Frame::of(*addr)).find(|frame| refused & frame.bit() != 0);
                *result = result.and(bad.map_or(Ok(()), |bad| Err(not_allocated(bad))));
            }
        }
        &frames[at..]
    }

    /// Those of the next frames that lie in the same row as `frame`, up to one that does not or that must be looked at by
    /// itself: their bits, each once, and how many they are.
    #[inline(always)]
    fn joined(&self, frame: Frame, next: &[PhysAddr]) -> (u64, usize) {
        let (mut joined, mut count) = (0, 0);
        for &addr in next {
            let other = Frame::of(addr);
            if other.row() != frame.row() {
                break;
            }
            let seen = (joined | frame.bit()) & other.bit() != 0;
            if seen || addr.as_usize() % FRAME_SIZE != 0 || !self.frames().contains(other) {
                break;
            }
            joined |= other.bit();
            count += 1;
        }
        (joined, count)
    }
}
