//! The metadata of a region in the caller's bytes: the one place that turns bytes into words.
//!
//! ```text
//! metadata   | group words, 256 bytes a group | rows, 64 bytes a block | summary, 88 bytes a span, and a counter |
//!              zeroed by the start-up           left as they are         zeroed by the start-up
//! ```
//!
//! Zero means "free" wherever that is possible, so bytes that are zero already need no start-up at all. The rows,
//! 94 % of the bytes, need none in either case: a block's rows are read only once its bit in `live` is set, and they
//! are written before that by the thread that claimed the block first.
//!
//! Invariants:
//! - group words and summary were zeroed before the first reference to them was made;
//! - a block's rows are initialised if its bit in `live` is set; the bit is set with release after the rows were
//!   written and read with acquire before they are read; it is never cleared.
//! - words are reached by the numbers of blocks and groups themselves, through pointers to where number 0 would be. Such a
//!   pointer is never followed as it is: adding the number of a block of this storage brings it back into the metadata.

use core::alloc::Layout;

use frame_core::FrameRange;

use crate::{
    geometry::{BLOCK_ROWS, Block, Blocks, Frames, Group, Span},
    sync::{AcqRel, Acquire, AtomicU64, Release},
};

/// Classes of blocks by their largest free run: orders 0 to 8, and 9 for a block whose rows are all full.
pub(crate) const CLASSES: usize = 10;
/// The class of a block whose rows are all full.
pub(crate) const WHOLE: usize = CLASSES - 1;
/// Summary words of a span: one for each class, and one for "no block of the group is untouched".
const SUMMARY_WORDS: usize = CLASSES + 1;
/// Bits of a shard's number.
pub(crate) const HOME_BITS: usize = 6;
/// Words of a cache line.
const LINE_WORDS: usize = 8;

/// The rows of a block: a one is a free frame.
pub(crate) type Rows = [AtomicU64; BLOCK_ROWS];

/// What is known about 64 blocks, one bit for each: three cache lines, the first of which serves every free.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct GroupWords {
    /// Authority. Zero: the block is wholly free and its rows count for nothing. One: its rows say what is free.
    /// One too for blocks that do not lie wholly in the region.
    pub(crate) taken: AtomicU64,
    /// The rows are initialised.
    live: AtomicU64,
    /// Hints, `has[k]`: a free run of order `k` or more may be in the block's rows.
    pub(crate) has: [AtomicU64; CLASSES],
    /// Hint: somebody serves single frames from the block, so others had better look elsewhere.
    pub(crate) reserved: AtomicU64,
    /// Hint: frames in use when they were last counted.
    pub(crate) used: AtomicU64,
    /// Hint: the shard that served single frames from the block last, a bit of its number in each word.
    pub(crate) home: [AtomicU64; HOME_BITS],
    /// Hint: a shard picked the block since the group was last counted. Homes of others are forgotten then.
    pub(crate) picked: AtomicU64,
}

/// How much metadata a region has, and where each word lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    blocks: Blocks,
}

impl Shape {
    pub(crate) const fn of(region: FrameRange) -> Self {
        Self { blocks: Frames::of(region).blocks() }
    }

    const fn first_group(self) -> Group {
        self.blocks.lo.group()
    }

    const fn first_span(self) -> Span {
        self.first_group().span()
    }

    pub(crate) const fn block_count(self) -> usize {
        self.blocks.hi.0 - self.blocks.lo.0
    }

    /// Whether a block has rows here, and its group words.
    #[inline(always)]
    pub(crate) const fn has(self, block: Block) -> bool {
        block.0.wrapping_sub(self.blocks.lo.0) < self.block_count()
    }

    pub(crate) const fn group_count(self) -> usize {
        Block(self.blocks.hi.0 - 1).group().0 + 1 - self.first_group().0
    }

    pub(crate) const fn span_count(self) -> usize {
        Block(self.blocks.hi.0 - 1).group().span().0 + 1 - self.first_span().0
    }

    const fn rows_offset(self) -> usize {
        self.group_count() * size_of::<GroupWords>()
    }

    const fn summary_offset(self) -> usize {
        self.rows_offset() + self.block_count() * size_of::<Rows>()
    }

    /// Words of the summary, and one on a line of its own that counts.
    const fn summary_count(self) -> usize {
        (self.span_count() * SUMMARY_WORDS).next_multiple_of(LINE_WORDS) + LINE_WORDS
    }

    pub(crate) const fn layout(self) -> Layout {
        // Not the size of the model checker's atomics, which lie elsewhere.
        let size = self.summary_offset() + self.summary_count() * size_of::<u64>();
        match Layout::from_size_align(size, align_of::<GroupWords>()) {
            Ok(layout) => layout,
            // 64 bytes for 2 MiB: a region that fills the address space needs far less than `isize::MAX`.
            Err(_) => unreachable!(),
        }
    }

    #[cfg(loom)]
    fn block_index(self, block: Block) -> usize {
        block.0.wrapping_sub(self.blocks.lo.0)
    }

    fn group_index(self, group: Group) -> usize {
        group.0.wrapping_sub(self.first_group().0)
    }

    fn summary_index(self, class: usize, span: Span) -> usize {
        class * self.span_count() + span.0.wrapping_sub(self.first_span().0)
    }
}

#[cfg(not(loom))]
mod imp {
    use super::*;
    use core::{marker::PhantomData, mem::MaybeUninit, ptr::NonNull, slice};

    /// The words of one region.
    #[derive(Debug)]
    pub(crate) struct Storage<'m> {
        pub(super) shape: Shape,
        groups: &'m [GroupWords],
        summary: &'m [AtomicU64],
        /// Where the words of group 0 would be, in the provenance of `groups`.
        group_0: *const GroupWords,
        /// Where the rows of block 0 would be. The `shape.block_count()` rows are exclusively ours for `'m`.
        block_0: *mut Rows,
        _metadata: PhantomData<&'m mut [MaybeUninit<u8>]>,
    }

    // SAFETY: the pointers stand for memory that was lent exclusively for `'m`, as a `&'m mut` would (which is `Send`), and
    // for `groups`. The other fields are `Send`.
    unsafe impl Send for Storage<'_> {}
    // SAFETY: through a shared `Storage` the rows are reached as atomics only, or by `write_first`, whose caller
    // promises that nobody else reaches them then.
    unsafe impl Sync for Storage<'_> {}

    impl<'m> Storage<'m> {
        /// Takes the metadata over. Unless `zeroed`, clears the group words and the summary.
        ///
        /// # Safety
        /// `metadata` has at least the size and the alignment of `shape.layout()`. If `zeroed`, those bytes are
        /// initialised and zero.
        pub(crate) unsafe fn new(shape: Shape, metadata: &'m mut [MaybeUninit<u8>], zeroed: bool) -> Self {
            debug_assert!(metadata.len() >= shape.layout().size());
            let size = shape.layout().size();
            let (rows_at, summary_at) = (shape.rows_offset(), shape.summary_offset());
            if !zeroed {
                metadata[..rows_at].fill(MaybeUninit::new(0));
                metadata[summary_at..size].fill(MaybeUninit::new(0));
            }
            let base = NonNull::from(metadata).cast::<u8>();
            // SAFETY: the offsets lie inside the metadata. The bytes before `rows_at` and from `summary_at` on are
            // initialised: cleared above, or promised to be zero; zero is a valid `AtomicU64`. The base is aligned
            // for `GroupWords`; `rows_at` is a multiple of its 128 bytes and `summary_at` of 64, so the other parts
            // are aligned too. The three parts do not overlap, and the memory is lent for `'m`.
            let (groups, summary, rows): (&[GroupWords], _, NonNull<Rows>) = unsafe {
                (
                    slice::from_raw_parts(base.cast().as_ptr(), shape.group_count()),
                    slice::from_raw_parts(base.add(summary_at).cast().as_ptr(), shape.summary_count()),
                    base.add(rows_at).cast(),
                )
            };
            Self {
                shape,
                groups,
                summary,
                group_0: groups.as_ptr().wrapping_sub(shape.first_group().0),
                block_0: rows.as_ptr().wrapping_sub(shape.blocks.lo.0),
                _metadata: PhantomData,
            }
        }

        #[inline(always)]
        pub(crate) fn group(&self, group: Group) -> &GroupWords {
            &self.groups[self.shape.group_index(group)]
        }

        #[inline]
        pub(crate) fn summary(&self, class: usize, span: Span) -> &AtomicU64 {
            &self.summary[self.shape.summary_index(class, span)]
        }

        pub(super) fn returned(&self) -> &AtomicU64 {
            &self.summary[self.shape.summary_count() - LINE_WORDS]
        }

        /// The words of a block's group.
        ///
        /// # Safety
        /// The block is one of this storage's ([`Shape::has`]).
        #[inline(always)]
        pub(crate) unsafe fn group_of(&self, block: Block) -> &GroupWords {
            // SAFETY: the group of such a block is one of the `group_count()` whose words `groups` holds, and `group_0`
            // is so far before them as the number of the first says.
            unsafe { &*self.group_0.wrapping_add(block.group().0) }
        }

        /// The rows of a block, if they are initialised.
        ///
        /// # Safety
        /// The block is one of this storage's ([`Shape::has`]), and `words` are those of its group.
        #[inline(always)]
        pub(crate) unsafe fn rows(&self, words: &GroupWords, block: Block) -> Option<&Rows> {
            if words.live.load(Acquire) & block.bit() == 0 {
                return None;
            }
            // SAFETY: the block is one of the `block_count()` whose rows lie in the metadata, and `block_0` is so far
            // before them as the number of the first says. `live` was set, and seen with acquire, after the rows were
            // initialised (the only place that sets it is `write_first`); from then on they are reached as atomics only.
            Some(unsafe { &*self.block_0.wrapping_add(block.0) })
        }

        /// Initialises the rows of a block.
        ///
        /// # Safety
        /// The calling thread claimed the block (its bit in `taken` went from zero to one by this thread, or the
        /// region is not published yet), still owns all of its frames, and `live` is not set.
        pub(crate) unsafe fn write_first(&self, block: Block, values: [u64; BLOCK_ROWS]) {
            assert!(self.shape.has(block));
            // SAFETY: the block was just checked, so the pointer is to its `Rows`, which are layout-compatible with the
            // array. Nobody reads these bytes before `live` is set, and nobody else writes them: only the owner of the
            // block's frames does, and `taken` made this thread the only one.
            unsafe { self.block_0.wrapping_add(block.0).cast::<[u64; BLOCK_ROWS]>().write(values) };
            self.group(block.group()).live.fetch_or(block.bit(), Release);
        }

        /// Asks the processor to fetch the row's line for writing. Only a hint.
        #[inline(always)]
        pub(crate) fn prefetch(&self, block: Block) {
            #[cfg(target_arch = "x86_64")]
            {
                let line = self.block_0.wrapping_add(block.0);
                // SAFETY: a prefetch has no effect that the program can see, whatever the address.
                unsafe {
                    core::arch::asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
                }
            }
            let _ = block;
        }
    }
}

#[cfg(loom)]
mod imp {
    use super::*;
    use core::{marker::PhantomData, mem::MaybeUninit};
    use std::{boxed::Box, vec::Vec};

    /// The same with the model checker's atomics, which cannot live in the caller's bytes.
    #[derive(Debug)]
    pub(crate) struct Storage<'m> {
        pub(super) shape: Shape,
        groups: Box<[GroupWords]>,
        summary: Box<[AtomicU64]>,
        rows: Box<[Rows]>,
        _metadata: PhantomData<&'m ()>,
    }

    fn words() -> AtomicU64 {
        AtomicU64::new(0)
    }

    impl<'m> Storage<'m> {
        pub(crate) unsafe fn new(shape: Shape, _: &'m mut [MaybeUninit<u8>], _: bool) -> Self {
            let group = |_| GroupWords {
                taken: words(),
                live: words(),
                has: core::array::from_fn(|_| words()),
                reserved: words(),
                used: words(),
                home: core::array::from_fn(|_| words()),
                picked: words(),
            };
            let rows = |_| core::array::from_fn(|_| words());
            Self {
                shape,
                groups: (0..shape.group_count()).map(group).collect::<Vec<_>>().into(),
                summary: (0..shape.summary_count()).map(|_| words()).collect::<Vec<_>>().into(),
                rows: (0..shape.block_count()).map(rows).collect::<Vec<_>>().into(),
                _metadata: PhantomData,
            }
        }

        pub(crate) fn group(&self, group: Group) -> &GroupWords {
            &self.groups[self.shape.group_index(group)]
        }

        pub(crate) unsafe fn group_of(&self, block: Block) -> &GroupWords {
            self.group(block.group())
        }

        pub(crate) fn summary(&self, class: usize, span: Span) -> &AtomicU64 {
            &self.summary[self.shape.summary_index(class, span)]
        }

        pub(super) fn returned(&self) -> &AtomicU64 {
            &self.summary[self.shape.summary_count() - LINE_WORDS]
        }

        pub(crate) unsafe fn rows(&self, words: &GroupWords, block: Block) -> Option<&Rows> {
            let live = words.live.load(Acquire) & block.bit() != 0;
            live.then(|| &self.rows[self.shape.block_index(block)])
        }

        pub(crate) unsafe fn write_first(&self, block: Block, values: [u64; BLOCK_ROWS]) {
            let rows = &self.rows[self.shape.block_index(block)];
            for (row, value) in rows.iter().zip(values) {
                row.store(value, crate::sync::Relaxed);
            }
            self.group(block.group()).live.fetch_or(block.bit(), Release);
        }

        pub(crate) fn prefetch(&self, _: Block) {}
    }
}

pub(crate) use imp::Storage;

impl Storage<'_> {
    /// How much there is.
    #[inline(always)]
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// Whether the rows of a block are initialised.
    #[inline(always)]
    pub(crate) fn is_live(&self, block: Block) -> bool {
        self.group(block.group()).live.load(Acquire) & block.bit() != 0
    }

    /// Notes that frames are free again that an operation had held for a moment, to no avail or by the way.
    #[inline]
    pub(crate) fn note_returned(&self) {
        self.returned().fetch_add(1, AcqRel);
    }

    /// How often that happened.
    pub(crate) fn times_returned(&self) -> u64 {
        self.returned().load(Acquire)
    }

    /// The summary word of a span whose ones are groups without a wholly free block.
    #[inline]
    pub(crate) fn full(&self, span: Span) -> &AtomicU64 {
        self.summary(CLASSES, span)
    }
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<GroupWords>() == 256 && align_of::<GroupWords>() == 128);
    assert!(size_of::<Rows>() == 64);
    // `taken`, `live` and the hints of orders 0 to 5 share the first line.
    assert!(core::mem::offset_of!(GroupWords, has) == 16);
};
