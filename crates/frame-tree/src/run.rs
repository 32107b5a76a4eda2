//! Contiguous runs: any count, any alignment.
//!
//! | asked | taken from |
//! |---|---|
//! | up to 256 frames, alignment up to 1 MiB | an aligned run inside a block: the smallest that suffices |
//! | more | wholly free blocks, highest first; the tail is given back |
//! | either, if there is none | any free run at all, found by the walk |
//!
//! A count that is no power of two is looked for as the next power of two, but only the count is taken.

use frame_core::{FRAME_SIZE, FrameLayout};

use crate::{
    bits::{self, ROW_ORDER},
    geometry::{BLOCK_FRAMES, BLOCK_ROWS, Blocks, Frame, Frames, ROW_FRAMES, mask},
    region::BlockRef,
    registry::Registry,
    search::{Look, Reserved},
    shard::{Place, Shard},
    storage::{CLASSES, WHOLE},
    sync::{AcqRel, Relaxed},
    zone::zones,
};

/// What a layout means to the tree.
#[derive(Clone, Copy, Debug)]
enum Request {
    /// An aligned run of `order` (0 to 8) inside a block.
    Small { order: usize },
    /// Whole blocks, the first at a multiple of `align` blocks.
    Blocks { blocks: usize, align: usize },
}

impl Request {
    fn of(layout: FrameLayout) -> Self {
        let align = layout.align() / FRAME_SIZE;
        let size = layout.count().next_power_of_two().max(align);
        if size < BLOCK_FRAMES {
            return Self::Small { order: size.trailing_zeros() as usize };
        }
        Self::Blocks { blocks: layout.count().div_ceil(BLOCK_FRAMES), align: align.div_ceil(BLOCK_FRAMES) }
    }
}

impl BlockRef<'_> {
    /// Takes the first `count` frames of an aligned free run of `order` (0 to 8) in the block's rows: of the run
    /// that breaks up least.
    fn take_run(self, order: usize, count: usize) -> Option<Frame> {
        if order <= ROW_ORDER { self.take_from_row(order, count) } else { self.take_rows(order, count) }
    }

    fn take_from_row(self, order: usize, count: usize) -> Option<Frame> {
        let rows = self.rows()?;
        loop {
            // The best row: the smallest class, then the lowest.
            let mut best: Option<(usize, usize, usize, u64)> = None;
            for (row, word) in rows.iter().enumerate() {
                let free = word.load(Relaxed);
                let Some((class, at)) = bits::best_fit(free, order) else { continue };
                if best.is_none_or(|(least, ..)| class < least) {
                    best = Some((class, row, at, free));
                    if class == order {
                        break;
                    }
                }
            }
            let (_, row, at, free) = best?;
            let taken = free & !mask(at, count);
            if rows[row].compare_exchange(free, taken, AcqRel, Relaxed).is_ok() {
                return Some(Frame(self.block.row(row).first_frame().0 + at));
            }
            // Somebody changed the row: look again.
        }
    }

    fn take_rows(self, order: usize, count: usize) -> Option<Frame> {
        let rows = self.rows()?;
        let length = 1 << (order - ROW_ORDER);
        let is_full = |row: usize| rows[row].load(Relaxed) == !0;
        let runs = || (0..BLOCK_ROWS).step_by(length).filter(|at| (*at..at + length).all(is_full));
        // A run of order 7 had better not break one of order 8.
        let breaks = |at: &usize| {
            let half = at & !3;
            (half..half + 4).all(is_full)
        };
        for may_break in [false, true] {
            for at in runs().filter(|at| may_break || order == 8 || !breaks(at)) {
                let frames = Frames::new(self.block.row(at).first_frame(), count);
                if self.take_exactly(frames).is_ok() {
                    return Some(frames.lo);
                }
            }
        }
        None
    }
}

impl<const N: usize> Registry<'_, N> {
    /// Takes a run as `layout` asks, inside `window`.
    pub(crate) fn take_run(&self, layout: FrameLayout, window: Frames, shard: &Shard) -> Option<Frame> {
        let count = layout.count();
        let found = match Request::of(layout) {
            Request::Small { order } => self.take_small(order, count, window, shard),
            Request::Blocks { blocks, align } => self.take_blocks(blocks, align, count, window),
        };
        found.or_else(|| self.take_first_fit(count, layout.align() / FRAME_SIZE, window))
    }

    fn take_small(&self, order: usize, count: usize, window: Frames, shard: &Shard) -> Option<Frame> {
        let cursor = shard.cursor(order.max(1));
        if let Some(place) = cursor.load() {
            // Where the last run of this order came from.
            let block = place.row.block();
            let inside = window.and(block.frames()) == block.frames();
            let frame = self.get(place.slot).filter(|region| inside && region.has_block(block));
            if let Some(frame) = frame.and_then(|region| region.block(block).take_run(order, count)) {
                return Some(frame);
            }
        }
        for zone in zones(window) {
            let zone = zone.whole_blocks();
            let open = |reserved| {
                for class in order..CLASSES {
                    for (slot, region) in self.iter() {
                        let found = region.search_open(zone, class, reserved, |block| {
                            match block.take_run(order, count) {
                                Some(frame) => Look::Found((block.block, frame)),
                                None => Look::Nothing,
                            }
                        });
                        if let Some((block, frame)) = found {
                            cursor.store(Place::block(slot, block));
                            return Some(frame);
                        }
                    }
                }
                None
            };
            let untouched = || {
                let (slot, block) = self
                    .iter()
                    .find_map(|(slot, region)| region.claim_lowest(zone).map(|block| (slot, block)))?;
                block.open_above(count);
                cursor.store(Place::block(slot, block.block));
                Some(block.block.first_frame())
            };
            let found = open(Reserved::Avoid).or_else(untouched).or_else(|| open(Reserved::Only));
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn take_blocks(&self, blocks: usize, align: usize, count: usize, window: Frames) -> Option<Frame> {
        for zone in zones(window) {
            let zone = zone.whole_blocks();
            let untouched = || {
                let claim = |region: &crate::region::Region<'_>| {
                    let found = region.claim_highest(zone, blocks, align)?;
                    let last = Blocks::new(crate::geometry::Block(found.hi.0 - 1), 1);
                    let used = count - (blocks - 1) * BLOCK_FRAMES;
                    if used < BLOCK_FRAMES {
                        region.block(last.lo).open_above(used);
                    }
                    Some(found.lo.first_frame())
                };
                self.iter_down().find_map(claim)
            };
            if let Some(frame) = untouched() {
                return Some(frame);
            }
            if blocks == 1 {
                // An open block with nothing but free frames serves as well.
                let whole = |reserved| {
                    self.iter().find_map(|(_, region)| {
                        region.search_open(zone, WHOLE, reserved, |block| {
                            let frames = Frames::new(block.block.first_frame(), count);
                            let aligned = block.block.0 % align == 0;
                            match aligned.then(|| block.take_exactly(frames)) {
                                Some(Ok(())) => Look::Found(frames.lo),
                                Some(Err(_)) => Look::Nothing,
                                None => Look::Busy,
                            }
                        })
                    })
                };
                if let Some(frame) = whole(Reserved::Avoid).or_else(|| whole(Reserved::Only)) {
                    return Some(frame);
                }
            } else {
                let mut any = false;
                for (_, region) in self.iter() {
                    any |= region.close_all(zone);
                }
                if let Some(frame) = any.then(untouched).flatten() {
                    return Some(frame);
                }
            }
        }
        None
    }
}

const _: () = assert!(BLOCK_FRAMES == 8 * ROW_FRAMES);
