//! Single frames, one by one and in bulk.
//!
//! A shard serves single frames from one reserved block, row by row. A row that is wanted as a whole is taken by one
//! exchange, whatever it holds: one atomic operation for up to 64 frames. When the block has no more, the next is picked:
//!
//! 1. of the shard's own blocks and nobody's the most broken, the lowest of these: what is broken is used up first;
//! 2. an untouched block, if it lies before the watermark: were all frames packed, it would be in use;
//! 3. of other shards' blocks the emptiest, which becomes the shard's own with most of what is in it;
//! 4. any untouched block; then those that others have reserved.
//!
//! A block belongs to the shard that picked it last. So CPUs that allocate and free at the same time come apart, and each
//! works on cache lines of its own; with one CPU all blocks are its own, or nobody's, and the rule is the first one.
//! A block that the pick itself empties is not reserved.

use frame_core::PhysAddr;

use crate::{
    geometry::{BLOCK_FRAMES, BLOCK_ROWS, Block, Frame, Frames, ROW_FRAMES, Row, bits},
    hints::Band,
    region::BlockRef,
    registry::{Registry, SlotIndex},
    search::{Look, Scope, Whose},
    shard::{Home, Place, Shard},
    sync::{AcqRel, Relaxed},
    watermark::Watermark,
    zone::zones,
};

/// Where taken frames are written.
pub(crate) struct Sink<'s> {
    frames: &'s mut [PhysAddr],
    len: usize,
}

impl<'s> Sink<'s> {
    pub(crate) fn new(frames: &'s mut [PhysAddr]) -> Self {
        Self { frames, len: 0 }
    }

    /// How many frames were written.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many more are wanted.
    #[inline]
    pub(crate) fn wanted(&self) -> usize {
        self.frames.len() - self.len
    }

    /// Writes the frames of a row. There must be room for them.
    #[inline]
    fn push_row(&mut self, row: Row, frames: u64) {
        let first = row.first_frame();
        let room = self.frames[self.len..].iter_mut();
        if frames == !0 {
            for (i, slot) in room.take(ROW_FRAMES).enumerate() {
                *slot = Frame(first.0 + i).addr();
            }
        } else {
            for (slot, bit) in room.zip(bits(frames)) {
                *slot = Frame(first.0 + bit as usize).addr();
            }
        }
        self.len += frames.count_ones() as usize;
    }

    #[inline]
    pub(crate) fn push(&mut self, frame: Frame) {
        if let Some(slot) = self.frames.get_mut(self.len) {
            *slot = frame.addr();
            self.len += 1;
        }
    }
}

impl BlockRef<'_> {
    /// Takes frames from row `from` of the block on, until no more are wanted or the block has no more. Returns the
    /// row where it stopped; 8 at the block's end.
    fn sweep(self, from: usize, sink: &mut Sink<'_>) -> usize {
        for row in from..BLOCK_ROWS {
            while sink.wanted() > 0 {
                let taken = self.take_lowest(row, sink.wanted());
                if taken == 0 {
                    break;
                }
                sink.push_row(self.block.row(row), taken);
            }
            if sink.wanted() == 0 {
                return row;
            }
        }
        BLOCK_ROWS
    }

    /// Whether rows from `from` on have a free frame.
    fn has_free(self, from: usize) -> bool {
        self.rows().is_some_and(|rows| rows[from..].iter().any(|row| row.load(Relaxed) != 0))
    }

    /// Gives a reservation up, and makes the hints say what is left.
    fn leave(self) {
        if self.group.reserved.load(Relaxed) & self.bit != 0 {
            self.group.reserved.fetch_and(!self.bit, AcqRel);
        }
        self.refresh();
    }
}

impl<'r> Scope<'r> {
    /// Takes at least one frame, from a block as the module says. Says from which, and in which row it stopped (8 at the
    /// block's end).
    fn pick(
        self,
        home: Home,
        near: Option<Self>,
        kept: Option<Self>,
        sink: &mut Sink<'_>,
    ) -> Option<(BlockRef<'r>, usize, Picked)> {
        let own = near.and_then(|near| near.pick_open(Band::with(0), Whose::Own(home), sink));
        own.or_else(|| kept?.pick_untouched(sink))
            .or_else(|| self.pick_open(Band::emptiest_first(), Whose::Any, sink))
            .or_else(|| self.pick_untouched(sink))
            .or_else(|| self.pick_open(Band::with(0), Whose::Reserved, sink))
    }

    fn pick_open(
        self,
        bands: impl Iterator<Item = Band>,
        whose: Whose,
        sink: &mut Sink<'_>,
    ) -> Option<(BlockRef<'r>, usize, Picked)> {
        self.search_open(bands, whose, |block| {
            let before = sink.len();
            match (block.sweep(0, sink), sink.len() > before) {
                (_, false) => Look::Nothing,
                (row, true) => Look::Found((block, row, Picked::Open)),
            }
        })
    }

    fn pick_untouched(self, sink: &mut Sink<'_>) -> Option<(BlockRef<'r>, usize, Picked)> {
        let owned = self.claim_lowest()?;
        let first = owned.block().block.first_frame();
        let count = sink.wanted().min(BLOCK_FRAMES);
        for (row, mask) in Frames::new(first, count).rows() {
            sink.push_row(row, mask);
        }
        Some((owned.open_above(count), count / ROW_FRAMES, Picked::Untouched(first.block())))
    }
}

impl<const N: usize> Registry<'_, N> {
    /// Takes one frame from the row that the shard is at.
    #[inline(always)]
    pub(crate) fn take_at_cursor(&self, shard: &Shard) -> Option<Frame> {
        let cursor = shard.cursor(0);
        let place = cursor.load()?;
        let block = self.block_at(place)?;
        for row in place.row.in_block()..BLOCK_ROWS {
            if let Some(bit) = block.take_one(row) {
                let row = block.block.row(row);
                if row != place.row {
                    cursor.store(Place { row, ..place });
                }
                return Some(row.frame(bit));
            }
        }
        None
    }

    /// Fills `sink` from the block that the shard is at.
    #[inline]
    pub(crate) fn sweep_cursor(&self, shard: &Shard, sink: &mut Sink<'_>) {
        let cursor = shard.cursor(0);
        let Some(place) = cursor.load() else { return };
        let Some(block) = self.block_at(place) else { return };
        let row = block.block.row(block.sweep(place.row.in_block(), sink).min(BLOCK_ROWS - 1));
        if sink.wanted() == 0 && row != place.row {
            cursor.store(Place { row, ..place });
        }
    }

    /// Leaves the block where the shard is: it has no more.
    pub(crate) fn leave_cursor(&self, shard: &Shard) {
        let cursor = shard.cursor(0);
        if cursor.load().is_some() {
            if let Some(block) = cursor.clear().and_then(|before| self.block_at(before)) {
                block.leave();
            }
        }
    }

    /// The block of a place, if there is such a place.
    #[inline(always)]
    pub(crate) fn block_at(&self, place: Place) -> Option<BlockRef<'_>> {
        self.get(place.slot)?.block_if(place.row.block())
    }

    /// Picks a block, and takes at least one frame from it. `None` if there is none.
    pub(crate) fn pick(&self, shard: &Shard, watermark: &Watermark, sink: &mut Sink<'_>) -> Option<Picked> {
        for zone in zones(Frames::ALL) {
            let zone = zone.whole_blocks();
            let (near, kept) = (watermark.near_in(zone), watermark.kept_in(zone));
            for (slot, region) in self.iter() {
                let Some(scope) = region.scope(zone) else { continue };
                let picked = scope.pick(shard.home(), region.scope(near), region.scope(kept), sink);
                let Some((block, row, picked)) = picked else { continue };
                block.group.set_home(block.bit, shard.home());
                if row < BLOCK_ROWS && block.has_free(row) {
                    self.move_cursor(shard, slot, block, row);
                } else {
                    block.refresh();
                }
                return Some(picked);
            }
        }
        None
    }

    /// Moves the shard's cursor to row `row` of a block, and leaves the block where it was.
    fn move_cursor(&self, shard: &Shard, slot: SlotIndex, block: BlockRef<'_>, row: usize) {
        block.group.reserved.fetch_or(block.bit, AcqRel);
        let row = block.block.row(row);
        let before = shard.cursor(0).swap(Place { slot, row });
        let elsewhere = |before: &Place| before.slot != slot || before.row.block() != block.block;
        if let Some(block) = before.filter(elsewhere).and_then(|before| self.block_at(before)) {
            block.leave();
        }
    }
}

/// Where a picked block came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Picked {
    /// It was in use already.
    Open,
    /// It was wholly free.
    Untouched(Block),
}
