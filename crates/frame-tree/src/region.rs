//! A region: one range of frames with its words, and the handle of one of its blocks.
//!
//! Start-up touches only the edges: the groups and blocks that lie partly outside. Everything between them is
//! wholly free, which is what zero says.
//!
//! Invariants:
//! - a frame outside the region has a zero bit in its row for ever, so it is never handed out;
//! - a block that lies partly outside is `taken` for ever, so it is never handed out as a whole.

use core::mem::MaybeUninit;

use frame_core::FrameRange;

use crate::{
    geometry::{BLOCK_ROWS, Block, Blocks, Frame, Frames, GROUP_BLOCKS, Group},
    storage::{GroupWords, Rows, Shape, Storage},
    sync::Relaxed,
};

/// One range of frames and what is known about them.
#[derive(Debug)]
pub(crate) struct Region<'m> {
    frames: Frames,
    metadata_bytes: usize,
    pub(crate) storage: Storage<'m>,
}

/// One block of a region, with its group's words and its bit in them. Only a region makes one, of a block that it has
/// looked at, which is why the words are there and the right ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockRef<'r> {
    pub(crate) storage: &'r Storage<'r>,
    pub(crate) group: &'r GroupWords,
    pub(crate) block: Block,
    pub(crate) bit: u64,
    /// Nobody else makes one.
    _of_region: (),
}

impl<'m> Region<'m> {
    /// Takes the frames over, all of them free.
    ///
    /// # Safety
    /// As [`Storage::new`], for the region's shape.
    pub(crate) unsafe fn new(range: FrameRange, metadata: &'m mut [MaybeUninit<u8>], zeroed: bool) -> Self {
        let shape = Shape::of(range);
        // SAFETY: the caller's promise is passed on.
        let storage = unsafe { Storage::new(shape, metadata, zeroed) };
        let region = Self { frames: Frames::of(range), metadata_bytes: shape.layout().size(), storage };
        region.start();
        region
    }

    /// Writes what differs from "wholly free": the edges.
    fn start(&self) {
        let (blocks, whole) = (self.blocks(), self.frames.whole_blocks());
        let last = Block(blocks.hi.0 - 1);
        for group in [blocks.lo.group(), last.group()] {
            self.storage.group(group).taken.store(!whole.group_mask(group), Relaxed);
        }
        for block in [blocks.lo, last] {
            let part = self.frames.and(block.frames());
            if part != block.frames() && !self.storage.is_live(block) {
                let mut rows = [0; BLOCK_ROWS];
                for (row, mask) in part.rows() {
                    rows[row.in_block()] = mask;
                }
                // SAFETY: the region is not published yet, so this thread owns all of it, and `live` is not set.
                unsafe { self.storage.write_first(block, rows) };
                self.block(block).refresh();
            }
        }
    }

    /// The frames of the region.
    #[inline(always)]
    pub(crate) fn frames(&self) -> Frames {
        self.frames
    }

    /// The blocks that hold any of its frames.
    #[inline]
    pub(crate) fn blocks(&self) -> Blocks {
        self.frames.blocks()
    }

    /// Bytes of metadata in use.
    pub(crate) fn metadata_bytes(&self) -> usize {
        self.metadata_bytes
    }

    #[inline(always)]
    pub(crate) fn group(&self, group: Group) -> &GroupWords {
        self.storage.group(group)
    }

    /// A block of the region.
    #[inline(always)]
    pub(crate) fn block(&self, block: Block) -> BlockRef<'_> {
        assert!(self.storage.shape().has(block));
        // SAFETY: the block was just checked.
        unsafe { self.block_unchecked(block) }
    }

    /// A block, if any of its frames are in the region.
    #[inline(always)]
    pub(crate) fn block_if(&self, block: Block) -> Option<BlockRef<'_>> {
        // SAFETY: the block is checked before.
        self.storage.shape().has(block).then(|| unsafe { self.block_unchecked(block) })
    }

    /// The block of a frame, if the frame is in the region.
    #[inline(always)]
    pub(crate) fn block_of(&self, frame: Frame) -> Option<BlockRef<'_>> {
        // SAFETY: the storage was made for the blocks that hold any of the region's frames, and this is one of them.
        self.frames.contains(frame).then(|| unsafe { self.block_unchecked(frame.block()) })
    }

    /// # Safety
    /// The block is one of the storage's.
    #[inline(always)]
    unsafe fn block_unchecked(&self, block: Block) -> BlockRef<'_> {
        // SAFETY: promised by the caller.
        let group = unsafe { self.storage.group_of(block) };
        BlockRef { storage: &self.storage, group, block, bit: block.bit(), _of_region: () }
    }
}

impl<'r> BlockRef<'r> {
    /// Whether the block is wholly free: then its rows count for nothing.
    #[inline(always)]
    pub(crate) fn is_untouched(self) -> bool {
        self.group.taken.load(crate::sync::SeqCst) & self.bit == 0
    }

    /// The rows, if they were ever used.
    #[inline(always)]
    pub(crate) fn rows(self) -> Option<&'r Rows> {
        // SAFETY: the region has looked at the block, and taken its group's words.
        unsafe { self.storage.rows(self.group, self.block) }
    }
}

const _: () = assert!(GROUP_BLOCKS == u64::BITS as usize);
