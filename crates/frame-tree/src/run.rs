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
    bits,
    geometry::{BLOCK_FRAMES, BLOCK_ROWS, Blocks, Frame, Frames, ROW_FRAMES, mask},
    hints::Band,
    region::BlockRef,
    registry::Registry,
    search::{Look, Scope, Whose},
    shard::{Cursor, Place, Shard},
    sync::{AcqRel, Relaxed},
    zone::zones,
};

/// What a layout means to the tree.
#[derive(Clone, Copy, Debug)]
enum Request {
    /// `count` frames at the start of an aligned run of `order` (0 to 8) inside a block.
    Small { order: usize, count: usize },
    /// `count` frames at the start of `blocks` whole blocks, the first at a multiple of `align` blocks.
    Blocks { blocks: usize, align: usize, count: usize },
}

impl Request {
    #[inline]
    fn of(layout: FrameLayout) -> Self {
        let (count, align) = (layout.count(), layout.align() / FRAME_SIZE);
        let size = count.next_power_of_two().max(align);
        if size < BLOCK_FRAMES {
            return Self::Small { order: size.trailing_zeros() as usize, count };
        }
        Self::Blocks { blocks: count.div_ceil(BLOCK_FRAMES), align: align.div_ceil(BLOCK_FRAMES), count }
    }
}

impl BlockRef<'_> {
    /// Takes the first `count` frames of an aligned free run of `order` (0 to 8) in the block's rows: of a run that
    /// breaks up least, looked for from row `from` on and then from the first.
    #[inline]
    fn take_run(self, from: usize, order: usize, count: usize) -> Option<Frame> {
        match order {
            0 => self.take_from_row::<0>(from, count),
            1 => self.take_from_row::<1>(from, count),
            2 => self.take_from_row::<2>(from, count),
            3 => self.take_from_row::<3>(from, count),
            4 => self.take_from_row::<4>(from, count),
            5 => self.take_from_row::<5>(from, count),
            6 => self.take_from_row::<6>(from, count),
            _ => self.take_rows(order, count),
        }
    }

    fn take_from_row<const ORDER: usize>(self, from: usize, count: usize) -> Option<Frame> {
        let rows = self.rows()?;
        loop {
            let mut found = None;
            // The first row with a run that is no part of a longer one; failing that, the one that breaks least.
            let (mut least, mut row) = (usize::MAX, from);
            for _ in 0..BLOCK_ROWS {
                let free = rows[row].load(Relaxed);
                let starts = bits::runs(free, ORDER);
                let alone = bits::alone(starts, ORDER);
                if alone != 0 {
                    found = Some((row, alone.trailing_zeros(), free));
                    break;
                }
                if starts != 0 {
                    let (class, at) = bits::best_fit(starts, ORDER);
                    if class < least {
                        (least, found) = (class, Some((row, at, free)));
                    }
                }
                row = (row + 1) % BLOCK_ROWS;
            }
            let (row, at, free) = found?;
            let rest = free & !mask(at as usize, count);
            if rows[row].compare_exchange(free, rest, AcqRel, Relaxed).is_ok() {
                return Some(self.block.row(row).frame(at));
            }
            // Somebody changed the row: look again.
        }
    }

    #[inline(never)]
    fn take_rows(self, order: usize, count: usize) -> Option<Frame> {
        let rows = self.rows()?;
        let full =
            rows.iter().enumerate().fold(0u8, |full, (i, row)| full | u8::from(row.load(Relaxed) == !0) << i);
        // The starts of full pairs, and of full quads. A pair had better not break a quad.
        let pairs = full & full >> 1 & 0x55;
        let quads = pairs & pairs >> 2 & 0x11;
        let candidates = if order == 8 { [quads, 0] } else { [pairs & !(quads | quads << 2), quads] };
        for starts in candidates {
            for at in (0..BLOCK_ROWS).filter(|at| starts >> at & 1 == 1) {
                let frames = Frames::new(self.block.row(at).first_frame(), count);
                if self.take_exactly(frames).is_ok() {
                    return Some(frames.lo);
                }
            }
        }
        None
    }
}

impl Scope<'_> {
    /// Takes a small run from an open block, or else from an untouched one.
    fn take_small(self, order: usize, count: usize) -> Option<Frame> {
        let open = |reserved| {
            self.search_open(Band::with(order), reserved, |block| match block.take_run(0, order, count) {
                Some(frame) => Look::Found(frame),
                None => Look::Nothing,
            })
        };
        let untouched = || Some(self.claim_lowest()?.open_above(count).block.first_frame());
        open(Whose::Any).or_else(untouched).or_else(|| open(Whose::Reserved))
    }

    /// Takes `count` frames at the start of an open block with nothing but free frames.
    fn take_whole(self, align: usize, count: usize) -> Option<Frame> {
        let look = |block: BlockRef<'_>| {
            let frames = Frames::new(block.block.first_frame(), count);
            match block.block.0 % align {
                0 if block.take_exactly(frames).is_ok() => Look::Found(frames.lo),
                0 => Look::Nothing,
                _ => Look::Unfit,
            }
        };
        let whole = |reserved| self.search_open(core::iter::once(Band::WHOLE), reserved, look);
        whole(Whose::Any).or_else(|| whole(Whose::Reserved))
    }

    /// Takes `count` frames at the start of whole untouched blocks, and gives the tail back.
    fn take_untouched(self, blocks: usize, align: usize, count: usize) -> Option<Frame> {
        let found = self.claim_highest_run(blocks, align)?.frames();
        let tail = Frames { lo: Frame(found.lo.0 + count), hi: found.hi };
        if !tail.is_empty() {
            let _ = self.region.give(tail);
            self.region.storage.note_returned();
        }
        Some(found.lo)
    }
}

impl<const N: usize> Registry<'_, N> {
    /// Takes a run as `layout` asks, inside `window`.
    #[inline]
    pub(crate) fn take_run(&self, layout: FrameLayout, window: Frames, shard: &Shard) -> Option<Frame> {
        let found = match Request::of(layout) {
            Request::Small { order, count } => {
                let cursor = shard.cursor(order.max(1));
                self.take_at(cursor, order, count, window)
                    .or_else(|| self.take_small(cursor, order, count, window))
            }
            Request::Blocks { blocks: 1, align: 1, count: BLOCK_FRAMES } => self.take_huge(window),
            Request::Blocks { blocks, align, count } => self.take_blocks(blocks, align, count, window),
        };
        found.or_else(|| self.take_first_fit(layout.count(), layout.align() / FRAME_SIZE, window))
    }

    /// Takes a small run from the block where the last one of this order came from.
    #[inline]
    fn take_at(&self, cursor: &Cursor, order: usize, count: usize, window: Frames) -> Option<Frame> {
        let place = cursor.load()?;
        let block = self.block_at(place)?;
        let frames = block.block.frames();
        let inside = window.lo <= frames.lo && frames.hi <= window.hi;
        if inside { block.take_run(place.row.in_block(), order, count) } else { None }
    }

    #[inline(never)]
    fn take_small(&self, cursor: &Cursor, order: usize, count: usize, window: Frames) -> Option<Frame> {
        let take = |zone: Blocks| {
            self.iter().find_map(|(slot, region)| Some((slot, region.scope(zone)?.take_small(order, count)?)))
        };
        let (slot, frame) = zones(window).find_map(|zone| take(zone.whole_blocks()))?;
        cursor.store(Place { slot, row: frame.row() });
        Some(frame)
    }

    /// Takes one whole block: the case that is worth a path of its own.
    #[inline]
    fn take_huge(&self, window: Frames) -> Option<Frame> {
        for zone in zones(window) {
            let zone = zone.whole_blocks();
            for region in self.iter_down() {
                if let Some(owned) = region.scope(zone).and_then(Scope::claim_highest) {
                    return Some(owned.keep().block.first_frame());
                }
            }
            let frame = self.take_open_blocks(zone, 1, 1, BLOCK_FRAMES);
            if frame.is_some() {
                return frame;
            }
        }
        None
    }

    #[inline(never)]
    fn take_blocks(&self, blocks: usize, align: usize, count: usize, window: Frames) -> Option<Frame> {
        zones(window).find_map(|zone| {
            let zone = zone.whole_blocks();
            self.take_untouched(zone, blocks, align, count)
                .or_else(|| self.take_open_blocks(zone, blocks, align, count))
        })
    }

    fn take_untouched(&self, zone: Blocks, blocks: usize, align: usize, count: usize) -> Option<Frame> {
        self.iter_down().find_map(|region| region.scope(zone)?.take_untouched(blocks, align, count))
    }

    /// Blocks that are open with nothing but free frames serve as well: one as it is, several once they are closed.
    #[cold]
    fn take_open_blocks(&self, zone: Blocks, blocks: usize, align: usize, count: usize) -> Option<Frame> {
        let mut scopes = self.iter().filter_map(|(_, region)| region.scope(zone));
        if blocks == 1 {
            return scopes.find_map(|scope| scope.take_whole(align, count));
        }
        let closed = scopes.fold(false, |any, scope| scope.close_all() | any);
        if closed { self.take_untouched(zone, blocks, align, count) } else { None }
    }
}

const _: () = assert!(BLOCK_FRAMES == 8 * ROW_FRAMES);
