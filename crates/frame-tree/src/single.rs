//! Single frames, one by one and in bulk.
//!
//! A shard serves single frames from one reserved block, row by row. A row that is wanted as a whole is taken by one
//! exchange, whatever it holds: one atomic operation for up to 64 frames. When the block has no more, the next is
//! picked: open blocks before untouched ones, the smallest class first, the lowest within it.

use frame_core::PhysAddr;

use crate::{
    geometry::{BLOCK_FRAMES, BLOCK_ROWS, Block, Blocks, Frame, Frames, ROW_FRAMES, Row, bits},
    region::BlockRef,
    registry::{Registry, SlotIndex},
    search::{Look, Reserved},
    shard::{Place, Shard},
    storage::CLASSES,
    sync::{AcqRel, Relaxed},
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

    /// Reserves the block. Whether nobody else had.
    fn reserve(self) -> bool {
        self.group.reserved.fetch_or(self.bit, AcqRel) & self.bit == 0
    }

    /// Gives the reservation up, and makes the hints say what is left.
    fn leave(self) {
        if self.group.reserved.load(Relaxed) & self.bit != 0 {
            self.group.reserved.fetch_and(!self.bit, AcqRel);
        }
        self.refresh();
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
                return Some(Frame(row.first_frame().0 + bit as usize));
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
        let row = block.sweep(place.row.in_block(), sink);
        if row < BLOCK_ROWS {
            let row = place.row.block().row(row);
            if row != place.row {
                cursor.store(Place { row, ..place });
            }
        }
    }

    #[inline(always)]
    fn block_at(&self, place: Place) -> Option<BlockRef<'_>> {
        let region = self.get(place.slot)?;
        let block = place.row.block();
        region.has_block(block).then(|| region.block(block))
    }

    /// Picks a block, and takes at least one frame from it. Whether there was one.
    pub(crate) fn pick(&self, shard: &Shard, sink: &mut Sink<'_>) -> Option<Picked> {
        for zone in zones(Frames::ALL) {
            let zone = zone.whole_blocks();
            let picked = self
                .pick_open(zone, Reserved::Avoid, shard, sink)
                .or_else(|| self.pick_untouched(zone, shard, sink))
                .or_else(|| self.pick_open(zone, Reserved::Only, shard, sink));
            if picked.is_some() {
                return picked;
            }
        }
        None
    }

    fn pick_open(
        &self,
        zone: Blocks,
        reserved: Reserved,
        shard: &Shard,
        sink: &mut Sink<'_>,
    ) -> Option<Picked> {
        for class in 0..CLASSES {
            for (slot, region) in self.iter() {
                let found = region.search_open(zone, class, reserved, |block| {
                    if reserved == Reserved::Avoid && !block.reserve() {
                        return Look::Busy;
                    }
                    let before = sink.len();
                    let row = block.sweep(0, sink);
                    if sink.len() > before {
                        return Look::Found((block, row));
                    }
                    block.leave();
                    Look::Busy
                });
                if let Some((block, row)) = found {
                    self.move_cursor(shard, slot, block, row);
                    return Some(Picked::Open);
                }
            }
        }
        None
    }

    fn pick_untouched(&self, zone: Blocks, shard: &Shard, sink: &mut Sink<'_>) -> Option<Picked> {
        let (slot, block) =
            self.iter().find_map(|(slot, region)| region.claim_lowest(zone).map(|block| (slot, block)))?;
        block.reserve();
        let count = sink.wanted().min(BLOCK_FRAMES);
        for (row, mask) in Frames::new(block.block.first_frame(), count).rows() {
            sink.push_row(row, mask);
        }
        block.open_above(count);
        self.move_cursor(shard, slot, block, (count / ROW_FRAMES).min(BLOCK_ROWS));
        Some(Picked::Untouched(block.block))
    }

    /// Moves the shard's cursor to row `row` (8: past the end) of a block, and leaves the block where it was.
    fn move_cursor(&self, shard: &Shard, slot: SlotIndex, block: BlockRef<'_>, row: usize) {
        let row = block.block.row(row.min(BLOCK_ROWS - 1));
        let before = shard.cursor(0).swap(Place { slot, row });
        let elsewhere = |before: &Place| before.slot != slot || before.row.block() != block.block;
        if let Some(before) = before.filter(elsewhere) {
            if let Some(block) = self.block_at(before) {
                block.leave();
            }
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
