//! The walk over all rows: what statistics are made of, and the last resort of an allocation.
//!
//! Hints may miss a run, and they know nothing of runs that are not aligned to their own size or that reach over the
//! end of a region into the next. The walk reads the authority itself, so when nothing else runs it finds every run
//! that there is: an allocator that answers `NoMemory` is right. It costs a look at every row in use: microseconds
//! for a gigabyte, and only where the answer would have been `NoMemory` otherwise.
//!
//! While others run, one of them may hold frames for a moment that it does not keep: a block that it is about to open,
//! a claim that fails half-way. To a walk they look used. Each time such frames come back a counter says so, and a walk
//! that found nothing is repeated if the counter moved. What remains is a holder that was stopped in the middle for as
//! long as the whole walk: then its frames count as used, and `NoMemory` is the answer.

use core::ops::ControlFlow;

use frame_core::AllocError;

use crate::{
    geometry::{Block, Frame, Frames, GROUP_BLOCKS, ROW_FRAMES, bits},
    region::Region,
    registry::Registry,
    sync::Acquire,
};

impl Region<'_> {
    /// Calls `visit` with the free frames of `window`, in pieces, lowest first.
    pub(crate) fn walk<B>(
        &self,
        window: Frames,
        visit: &mut impl FnMut(Frames) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let window = window.and(self.frames());
        if window.is_empty() {
            return ControlFlow::Continue(());
        }
        for group in window.blocks().groups() {
            let taken = self.group(group).taken.load(Acquire);
            let inside = window.blocks().group_mask(group);
            if taken & inside == 0 && inside == !0 {
                visit(group.blocks().frames().and(window))?;
                continue;
            }
            for bit in bits(inside) {
                self.walk_block(group.block(bit), window, visit)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn walk_block<B>(
        &self,
        block: Block,
        window: Frames,
        visit: &mut impl FnMut(Frames) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let handle = self.block(block);
        if handle.is_untouched() {
            return visit(block.frames().and(window));
        }
        let Some(rows) = handle.rows() else { return ControlFlow::Continue(()) };
        for (row, word) in rows.iter().enumerate() {
            let free = word.load(Acquire);
            if free == 0 {
                continue;
            }
            let row = block.row(row);
            let mut free = free & window.row_mask(row);
            while free != 0 {
                let lo = free.trailing_zeros() as usize;
                let length = (free >> lo).trailing_ones() as usize;
                visit(Frames::new(Frame(row.first_frame().0 + lo), length))?;
                free &= !crate::geometry::mask(lo, length);
            }
        }
        ControlFlow::Continue(())
    }
}

impl<const N: usize> Registry<'_, N> {
    /// Calls `visit` with the free frames of `window`, lowest first, pieces that adjoin joined.
    pub(crate) fn walk_runs(&self, window: Frames, visit: &mut dyn FnMut(Frames)) {
        let mut run = Frames::new(window.lo, 0);
        for (_, region) in self.iter() {
            let _ = region.walk::<()>(window, &mut |piece| {
                if piece.lo == run.hi {
                    run.hi = piece.hi;
                } else {
                    if !run.is_empty() {
                        visit(run);
                    }
                    run = piece;
                }
                ControlFlow::Continue(())
            });
        }
        if !run.is_empty() {
            visit(run);
        }
    }

    /// Takes any `count` adjoining free frames of `window`, the first at a multiple of `align` frames, lowest first,
    /// over the borders of blocks and regions.
    #[cold]
    #[inline(never)]
    pub(crate) fn take_first_fit(&self, count: usize, align: usize, window: Frames) -> Option<Frame> {
        /// Walks at most: each but the first because another thread came to an end of something.
        const WALKS: usize = 16;
        for _ in 0..WALKS {
            let before = self.times_returned();
            let found = self.walk_for(count, align, window);
            // Frames that another thread held for a moment may have come back behind the walk's back.
            if found.is_some() || self.times_returned() == before {
                return found;
            }
        }
        None
    }

    /// How often frames came back that were held for a moment.
    fn times_returned(&self) -> u64 {
        self.iter().fold(0, |sum, (_, region)| sum.wrapping_add(region.storage.times_returned()))
    }

    fn walk_for(&self, count: usize, align: usize, window: Frames) -> Option<Frame> {
        // Where a run could start, and how far it reaches.
        let mut run = Frames::new(window.lo, 0);
        for (_, region) in self.iter() {
            let found = region.walk(window, &mut |piece| {
                run = if piece.lo == run.hi { Frames { lo: run.lo, hi: piece.hi } } else { piece };
                loop {
                    let start = run.lo.0.next_multiple_of(align);
                    if start + count > run.hi.0 {
                        return ControlFlow::Continue(());
                    }
                    let frames = Frames::new(Frame(start), count);
                    match self.take_exactly(frames) {
                        Ok(()) => return ControlFlow::Break(frames),
                        // Somebody else was faster: go on above.
                        Err((_, missing)) => run.lo = Frame(missing.0 + 1),
                    }
                }
            });
            if let ControlFlow::Break(frames) = found {
                self.refresh_edges(frames);
                return Some(frames.lo);
            }
        }
        None
    }

    /// The hints did not know of these frames: make them know what is left around.
    fn refresh_edges(&self, frames: Frames) {
        for frame in [frames.lo, Frame(frames.hi.0 - 1)] {
            if let Some(region) = self.find(frame) {
                region.block(frame.block()).refresh();
            }
        }
    }

    /// Takes exactly `frames`, over the borders of regions.
    ///
    /// # Errors
    /// A frame is not managed, or not free: the error says which. Nothing is taken then.
    pub(crate) fn take_exactly(&self, frames: Frames) -> Result<(), (AllocError, Frame)> {
        self.check_managed(frames).map_err(|foreign| (AllocError::NotManaged, foreign))?;
        for (part, region) in self.parts(frames) {
            if let Err(missing) = region.take_exactly(part) {
                let done = Frames { lo: frames.lo, hi: part.lo };
                if !done.is_empty() {
                    let _ = self.give(done);
                    region.storage.note_returned();
                }
                return Err((AllocError::InUse, missing));
            }
        }
        Ok(())
    }

    /// Gives back `frames`, over the borders of regions.
    ///
    /// # Errors
    /// A frame that was free already. The others were given back all the same.
    pub(crate) fn give(&self, frames: Frames) -> Result<(), Frame> {
        let mut result = Ok(());
        for (part, region) in self.parts(frames) {
            result = result.and(region.give(part));
        }
        result
    }

    /// The parts of `frames` that lie in a region, lowest first.
    pub(crate) fn parts(&self, frames: Frames) -> impl Iterator<Item = (Frames, &Region<'_>)> {
        self.iter().filter_map(move |(_, region)| {
            let part = frames.and(region.frames());
            (!part.is_empty()).then_some((part, region))
        })
    }

    /// Whether all of `frames` are managed; if not, the lowest that is not.
    pub(crate) fn check_managed(&self, frames: Frames) -> Result<(), Frame> {
        let mut next = frames.lo;
        for (part, _) in self.parts(frames) {
            if part.lo != next {
                break;
            }
            next = part.hi;
        }
        if next == frames.hi { Ok(()) } else { Err(next) }
    }
}

const _: () = assert!(GROUP_BLOCKS == 64 && ROW_FRAMES == 64);
