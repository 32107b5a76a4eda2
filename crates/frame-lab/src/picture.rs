//! The picture of memory: how full each 2 MiB block is, at moments spread over the replay.
//!
//! Most of a machine's memory is never touched by a short trace, so a [`Column`] notes only the blocks that are in use, and
//! the picture shows only those that ever were.

use std::ops::Range;

use crate::ledger::{BLOCK_FRAMES, Block, Ledger};

/// Columns that a picture has at most.
const COLUMNS: usize = 160;

/// Memory at one moment.
#[derive(Debug)]
pub(crate) struct Column {
    /// Of each block in use, in the order of their addresses: its index in the ledger, and the frames in use.
    used: Vec<(u32, u16)>,
}

impl Column {
    pub(crate) fn of(ledger: &Ledger) -> Self {
        let blocks = ledger.blocks().iter().enumerate().filter(|(_, block)| block.used > 0);
        Self { used: blocks.map(|(i, block)| (i as u32, block.used)).collect() }
    }
}

/// How full a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fill {
    Free,
    /// Less than a quarter in use: what keeps a huge frame from being had for little.
    Sparse,
    Partly,
    /// More than three quarters.
    Dense,
    Full,
}

impl Fill {
    pub(crate) fn of(block: &Block) -> Self {
        let (used, managed) = (usize::from(block.used), usize::from(block.managed));
        match used {
            0 => Self::Free,
            _ if used == managed => Self::Full,
            _ if used * 4 < BLOCK_FRAMES => Self::Sparse,
            _ if used * 4 <= BLOCK_FRAMES * 3 => Self::Partly,
            _ => Self::Dense,
        }
    }
}

/// Memory over time.
#[derive(Debug)]
pub(crate) struct Picture {
    pub(crate) columns: Vec<Column>,
    /// The blocks of the machine, as they are at the end.
    pub(crate) blocks: Vec<Block>,
    /// Indices of the blocks that were in use in some column, in order.
    pub(crate) touched: Vec<u32>,
}

impl Picture {
    pub(crate) fn new(columns: Vec<Column>, ledger: &Ledger) -> Self {
        let mut touched: Vec<u32> =
            columns.iter().flat_map(|column| column.used.iter().map(|&(i, _)| i)).collect();
        touched.sort_unstable();
        touched.dedup();
        Self { columns, blocks: ledger.blocks().to_vec(), touched }
    }

    /// Which of `samples` samples become columns: evenly spread, the last among them.
    pub(crate) fn column_samples(samples: usize) -> Vec<usize> {
        let step = samples.div_ceil(COLUMNS).max(1);
        (0..samples).rev().step_by(step).collect()
    }

    /// The rows of the picture: for each touched block, the ranges of columns over which its fill stays the same.
    pub(crate) fn rows(&self) -> Vec<Vec<(Range<usize>, Fill)>> {
        let mut rows: Vec<Vec<(Range<usize>, Fill)>> = vec![Vec::new(); self.touched.len()];
        for (x, column) in self.columns.iter().enumerate() {
            let mut used = column.used.iter().peekable();
            for (row, &index) in rows.iter_mut().zip(&self.touched) {
                let now = used.next_if(|&&(i, _)| i == index).map_or(0, |&(_, frames)| frames);
                let fill = Fill::of(&Block { used: now, ..self.blocks[index as usize] });
                match row.last_mut() {
                    Some((range, last)) if *last == fill => range.end = x + 1,
                    _ => row.push((x..x + 1, fill)),
                }
            }
        }
        rows
    }

    /// Blocks that are in use at the end, and of these those that are full.
    pub(crate) fn used_and_full(&self) -> (usize, usize) {
        let count = |is: fn(&Fill) -> bool| self.blocks.iter().map(Fill::of).filter(is).count();
        (count(|fill| *fill != Fill::Free), count(|fill| *fill == Fill::Full))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use frame_core::{FRAME_SIZE, FrameLayout, FrameRange, PhysAddr};

    #[test]
    fn rows_join_what_stays_the_same() {
        let mut ledger = Ledger::new(&[FrameRange::new(PhysAddr::from(2 << 20), 2048).unwrap()]);
        let frame = |i: usize| PhysAddr::from((512 + i) * FRAME_SIZE);
        let mut columns = vec![Column::of(&ledger)];
        ledger.give(frame(512), FrameLayout::HUGE_2M);
        columns.push(Column::of(&ledger));
        ledger.give(frame(1024), FrameLayout::SINGLE);
        columns.push(Column::of(&ledger));
        ledger.take(frame(512), FrameLayout::HUGE_2M);
        columns.push(Column::of(&ledger));
        let picture = Picture::new(columns, &ledger);
        assert_eq!(picture.touched, [1, 2]);
        let rows = picture.rows();
        assert_eq!(rows[0], [(0..1, Fill::Free), (1..3, Fill::Full), (3..4, Fill::Free)]);
        assert_eq!(rows[1], [(0..2, Fill::Free), (2..4, Fill::Sparse)]);
        assert_eq!(picture.used_and_full(), (1, 0));
    }

    #[test]
    fn columns_are_few_and_end_at_the_end() {
        for samples in [0, 1, 2, 159, 160, 161, 513] {
            let columns = Picture::column_samples(samples);
            assert!(columns.len() <= COLUMNS);
            assert_eq!(columns.contains(&samples.wrapping_sub(1)), samples > 0);
        }
    }
}
