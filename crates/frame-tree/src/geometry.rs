//! Where a frame lies: rows, blocks, groups and spans, all counted from address 0.
//!
//! ```text
//! frame  4 KiB    one bit
//! row    256 KiB  64 frames   one word
//! block  2 MiB    8 rows      one cache line of words
//! group  128 MiB  64 blocks   one bit a block in the group's words
//! span   8 GiB    64 groups   one bit a group in the summary's words
//! ```
//!
//! The numbers are absolute: frame `n` is the one at address `n * 4096`, whatever region it belongs to. So a block
//! is always an aligned 2 MiB of physical memory, alignment is a property of a number, and two regions agree about
//! where a run lies. Each index is a type of its own.
//!
//! Invariant: `lo <= hi` in every range.

use frame_core::{FRAME_SIZE, FrameRange, PhysAddr};

/// Frames to a row.
pub(crate) const ROW_FRAMES: usize = 64;
/// Rows to a block.
pub(crate) const BLOCK_ROWS: usize = 8;
/// Frames to a block: 2 MiB.
pub(crate) const BLOCK_FRAMES: usize = ROW_FRAMES * BLOCK_ROWS;
/// Blocks to a group: the bits of a word.
pub(crate) const GROUP_BLOCKS: usize = 64;
/// Groups to a span: the bits of a word.
pub(crate) const SPAN_GROUPS: usize = 64;

/// The number of a frame: its address / 4096.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Frame(pub(crate) usize);

/// The number of a row of 64 frames.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Row(pub(crate) usize);

/// The number of a block of 512 frames.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Block(pub(crate) usize);

/// The number of a group of 64 blocks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Group(pub(crate) usize);

/// The number of a span of 64 groups.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Span(pub(crate) usize);

impl Frame {
    /// The frame that holds the byte at `addr`.
    #[inline(always)]
    pub(crate) fn of(addr: PhysAddr) -> Self {
        Self(addr.as_usize() / FRAME_SIZE)
    }

    /// The address of its first byte.
    #[inline(always)]
    pub(crate) fn addr(self) -> PhysAddr {
        PhysAddr::from_usize(self.0 * FRAME_SIZE)
    }

    #[inline(always)]
    pub(crate) const fn row(self) -> Row {
        Row(self.0 / ROW_FRAMES)
    }

    #[inline(always)]
    pub(crate) const fn block(self) -> Block {
        Block(self.0 / BLOCK_FRAMES)
    }

    /// Which of its row's frames it is: 0 to 63.
    #[inline(always)]
    pub(crate) const fn in_row(self) -> u32 {
        (self.0 % ROW_FRAMES) as u32
    }

    /// The frame's bit in the word of its row.
    #[inline(always)]
    pub(crate) const fn bit(self) -> u64 {
        1 << self.in_row()
    }
}

impl Row {
    #[inline(always)]
    pub(crate) const fn first_frame(self) -> Frame {
        Frame(self.0 * ROW_FRAMES)
    }

    /// Frame `bit` (0 to 63) of the row.
    #[inline(always)]
    pub(crate) const fn frame(self, bit: u32) -> Frame {
        Frame(self.0 * ROW_FRAMES + bit as usize)
    }

    #[inline(always)]
    pub(crate) const fn block(self) -> Block {
        Block(self.0 / BLOCK_ROWS)
    }

    /// Which of its block's rows it is: 0 to 7.
    #[inline(always)]
    pub(crate) const fn in_block(self) -> usize {
        self.0 % BLOCK_ROWS
    }
}

impl Block {
    #[inline(always)]
    pub(crate) const fn first_frame(self) -> Frame {
        Frame(self.0 * BLOCK_FRAMES)
    }

    /// Row `row` (0 to 7) of the block.
    #[inline(always)]
    pub(crate) const fn row(self, row: usize) -> Row {
        Row(self.0 * BLOCK_ROWS + row)
    }

    /// All its frames.
    pub(crate) const fn frames(self) -> Frames {
        Frames { lo: self.first_frame(), hi: Block(self.0 + 1).first_frame() }
    }

    #[inline(always)]
    pub(crate) const fn group(self) -> Group {
        Group(self.0 / GROUP_BLOCKS)
    }

    /// The block's bit in the words of its group.
    #[inline(always)]
    pub(crate) const fn bit(self) -> u64 {
        1 << (self.0 % GROUP_BLOCKS)
    }
}

impl Group {
    /// Block `bit` (0 to 63) of the group.
    #[inline(always)]
    pub(crate) const fn block(self, bit: u32) -> Block {
        Block(self.0 * GROUP_BLOCKS + bit as usize)
    }

    /// All its blocks.
    pub(crate) const fn blocks(self) -> Blocks {
        Blocks { lo: Block(self.0 * GROUP_BLOCKS), hi: Block((self.0 + 1) * GROUP_BLOCKS) }
    }

    #[inline(always)]
    pub(crate) const fn span(self) -> Span {
        Span(self.0 / SPAN_GROUPS)
    }

    /// The group's bit in the words of its span.
    #[inline(always)]
    pub(crate) const fn bit(self) -> u64 {
        1 << (self.0 % SPAN_GROUPS)
    }
}

impl Span {
    /// Group `bit` (0 to 63) of the span.
    #[inline(always)]
    pub(crate) const fn group(self, bit: u32) -> Group {
        Group(self.0 * SPAN_GROUPS + bit as usize)
    }
}

/// The frames `lo..hi`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Frames {
    pub(crate) lo: Frame,
    pub(crate) hi: Frame,
}

impl Frames {
    /// Every frame there could be.
    pub(crate) const ALL: Self = Self { lo: Frame(0), hi: Frame(usize::MAX / FRAME_SIZE) };

    /// The `count` frames from `lo` on.
    pub(crate) const fn new(lo: Frame, count: usize) -> Self {
        Self { lo, hi: Frame(lo.0 + count) }
    }

    pub(crate) const fn of(range: FrameRange) -> Self {
        Self::new(Frame(range.start().as_usize() / FRAME_SIZE), range.count())
    }

    /// The same as a [`FrameRange`]; `None` if it is empty.
    pub(crate) fn to_range(self) -> Option<FrameRange> {
        FrameRange::new(self.lo.addr(), self.count()).ok()
    }

    #[inline(always)]
    pub(crate) const fn count(self) -> usize {
        self.hi.0 - self.lo.0
    }

    #[inline(always)]
    pub(crate) const fn is_empty(self) -> bool {
        self.lo.0 >= self.hi.0
    }

    #[inline(always)]
    pub(crate) const fn contains(self, frame: Frame) -> bool {
        frame.0.wrapping_sub(self.lo.0) < self.count()
    }

    /// The frames in both; empty at `lo` if there are none.
    pub(crate) fn and(self, other: Self) -> Self {
        let lo = self.lo.max(other.lo);
        Self { lo, hi: self.hi.min(other.hi).max(lo) }
    }

    /// The blocks that lie wholly inside.
    pub(crate) const fn whole_blocks(self) -> Blocks {
        let lo = self.lo.0.div_ceil(BLOCK_FRAMES);
        let hi = self.hi.0 / BLOCK_FRAMES;
        Blocks { lo: Block(lo), hi: Block(if hi < lo { lo } else { hi }) }
    }

    /// The blocks that hold any of the frames.
    pub(crate) const fn blocks(self) -> Blocks {
        Blocks { lo: self.lo.block(), hi: Block(self.hi.0.div_ceil(BLOCK_FRAMES)) }
    }

    /// Which of `row`'s frames are in the range, as a mask of the row's word.
    pub(crate) fn row_mask(self, row: Row) -> u64 {
        let part = self.and(Frames::new(row.first_frame(), ROW_FRAMES));
        mask(part.lo.0 % ROW_FRAMES, part.count())
    }

    /// The range row by row: the row, and which of its frames are meant (never none of them).
    pub(crate) fn rows(self) -> impl Iterator<Item = (Row, u64)> {
        let (first, end) = (self.lo.row().0, self.hi.0.div_ceil(ROW_FRAMES));
        let end = if self.is_empty() { first } else { end };
        (first..end).map(move |row| {
            let from = if row == first { !0 << (self.lo.0 % ROW_FRAMES) } else { !0 };
            let to = if row + 1 == end { !0 >> (self.hi.0.wrapping_neg() % ROW_FRAMES) } else { !0 };
            (Row(row), from & to)
        })
    }
}

/// The blocks `lo..hi`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Blocks {
    pub(crate) lo: Block,
    pub(crate) hi: Block,
}

impl Blocks {
    /// The `count` blocks from `lo` on.
    pub(crate) const fn new(lo: Block, count: usize) -> Self {
        Self { lo, hi: Block(lo.0 + count) }
    }

    #[inline(always)]
    pub(crate) const fn is_empty(self) -> bool {
        self.lo.0 >= self.hi.0
    }

    pub(crate) const fn frames(self) -> Frames {
        Frames { lo: self.lo.first_frame(), hi: self.hi.first_frame() }
    }

    /// The blocks in both; empty at `lo` if there are none.
    #[inline]
    pub(crate) fn and(self, other: Self) -> Self {
        let lo = self.lo.max(other.lo);
        Self { lo, hi: self.hi.min(other.hi).max(lo) }
    }

    pub(crate) fn iter(self) -> impl DoubleEndedIterator<Item = Block> {
        (self.lo.0..self.hi.0).map(Block)
    }

    /// The groups that hold any of the blocks.
    #[inline]
    pub(crate) fn groups(self) -> impl DoubleEndedIterator<Item = Group> + ExactSizeIterator {
        (self.lo.group().0..self.hi.0.div_ceil(GROUP_BLOCKS).max(self.lo.group().0)).map(Group)
    }

    /// Which of `group`'s blocks are in the range, as a mask of the group's words.
    #[inline]
    pub(crate) fn group_mask(self, group: Group) -> u64 {
        let part = self.and(group.blocks());
        mask(part.lo.0 % GROUP_BLOCKS, part.hi.0 - part.lo.0)
    }

    /// Which of `span`'s groups hold any of the blocks, as a mask of the span's words.
    #[inline]
    pub(crate) fn span_mask(self, span: Span) -> u64 {
        let lo = self.lo.group().0.max(span.0 * SPAN_GROUPS);
        let hi = self.hi.0.div_ceil(GROUP_BLOCKS).min((span.0 + 1) * SPAN_GROUPS);
        mask(lo % SPAN_GROUPS, hi.saturating_sub(lo))
    }
}

/// `count` ones from bit `at` on; `at + count` is at most 64.
#[inline(always)]
pub(crate) const fn mask(at: usize, count: usize) -> u64 {
    if count == 0 { 0 } else { (!0 >> (64 - count)) << at }
}

/// The bits of `word`, lowest first.
#[inline]
pub(crate) fn bits(mut word: u64) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        (word != 0).then(|| {
            let bit = word.trailing_zeros();
            word &= word - 1;
            bit
        })
    })
}

const _: () = assert!(BLOCK_FRAMES * FRAME_SIZE == 2 << 20);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn frames(lo: usize, hi: usize) -> Frames {
        Frames { lo: Frame(lo), hi: Frame(hi) }
    }

    #[test]
    fn rows_of_a_range_are_exactly_its_frames() {
        for (lo, hi) in [(0, 0), (5, 5), (5, 6), (63, 65), (64, 128), (1, 511), (500, 1100)] {
            let mut seen = std::vec::Vec::new();
            for (row, mask) in frames(lo, hi).rows() {
                assert_ne!(mask, 0);
                seen.extend(bits(mask).map(|bit| row.first_frame().0 + bit as usize));
            }
            assert!(seen.into_iter().eq(lo..hi), "{lo}..{hi}");
        }
    }

    #[test]
    fn block_ranges() {
        assert_eq!(frames(1, 511).whole_blocks(), Blocks::new(Block(1), 0));
        assert_eq!(frames(1, 1025).whole_blocks(), Blocks::new(Block(1), 1));
        assert_eq!(frames(0, 1024).whole_blocks(), Blocks::new(Block(0), 2));
        assert_eq!(frames(511, 513).blocks(), Blocks::new(Block(0), 2));
        let blocks = Blocks { lo: Block(62), hi: Block(130) };
        assert!(blocks.groups().eq([Group(0), Group(1), Group(2)]));
        assert_eq!(blocks.group_mask(Group(0)), 3 << 62);
        assert_eq!(blocks.group_mask(Group(1)), !0);
        assert_eq!(blocks.group_mask(Group(2)), 3);
        assert_eq!(blocks.group_mask(Group(3)), 0);
        assert_eq!(blocks.span_mask(Span(0)), 7);
        assert_eq!(Blocks::new(Block(64 * 63), 65).span_mask(Span(0)), 1 << 63);
        assert_eq!(Blocks::new(Block(64 * 63), 65).span_mask(Span(1)), 1);
        assert_eq!(Blocks::new(Block(7), 0).groups().len(), 1); // harmless: its mask is empty
        assert_eq!(Blocks::new(Block(7), 0).group_mask(Group(0)), 0);
    }
}
