//! Hints: which blocks are worth a look for a run of a given order.
//!
//! The *class* of a block is the order of the largest aligned free run in its rows: 0 to 8, or 9 if all rows are
//! full. `has[k]` of a group has the bits of the blocks of class `k` or more, and the summary of a span, class `k`,
//! has the bits of the groups where some block is of class `k` exactly.
//!
//! A hint may be wrong in either direction at any time; what it costs is a look at a block that has nothing, or one
//! that is missed until the last resort, the walk over all rows. But wrong hints do not last:
//!
//! - **too high** after frames were taken: found out by the next search that looks, which calls [`refresh`].
//! - **too low** after frames were freed: never, when nothing runs. A free changes the row, *then* reads the hint;
//!   `refresh` clears the hint, *then* reads the rows. All four are sequentially consistent, so at least one of the
//!   two sees the other: either the free finds the hint cleared and sets it, or `refresh` finds the frames.
//!
//! The summary follows its group by the same rule. Hints are nested: they are set from the top down and cleared from the
//! bottom up, so whoever finds a high one set may rely on the lower ones.
//!
//! [`refresh`]: BlockRef::refresh

#[cfg(all(test, not(loom)))]
use crate::tests::steps::{Step, reached};
use crate::{
    bits::{self, ROW_ORDER},
    geometry::{BLOCK_ROWS, Block, Group},
    region::{BlockRef, Region},
    storage::{CLASSES, Rows, Storage, WHOLE},
    sync::{AtomicU64, Relaxed, SeqCst},
};

/// Sets `bit`, by a write only if it is not set yet.
#[inline]
fn set(word: &AtomicU64, bit: u64) {
    if word.load(SeqCst) & bit == 0 {
        word.fetch_or(bit, SeqCst);
    }
}

/// Clears `bit`, by a write only if it is set. Whether it was.
#[inline]
fn clear(word: &AtomicU64, bit: u64) -> bool {
    word.load(Relaxed) & bit != 0 && word.fetch_and(!bit, SeqCst) & bit != 0
}

/// Classes `lo..=hi` that a search treats alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Band {
    pub(crate) lo: usize,
    pub(crate) hi: usize,
}

impl Band {
    /// Nothing but free frames.
    pub(crate) const WHOLE: Self = Self { lo: WHOLE, hi: WHOLE };

    /// From dust to whole blocks: what is in an earlier band is broken first.
    const ALL: [Self; 4] = [Self { lo: 0, hi: 3 }, Self { lo: 4, hi: 6 }, Self { lo: 7, hi: 8 }, Self::WHOLE];

    /// All bands, what is broken last.
    pub(crate) fn emptiest_first() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().rev()
    }

    /// The bands of the blocks that have a run of `order`.
    #[inline]
    pub(crate) fn with(order: usize) -> impl Iterator<Item = Self> {
        let clip = move |band: Self| Self { lo: band.lo.max(order), hi: band.hi };
        Self::ALL.into_iter().map(clip).filter(|band| band.lo <= band.hi)
    }
}

/// How far hints are raised for a run that came free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Raise {
    /// To its class.
    Exactly,
    /// To the top of its class's band. Whoever frees many single frames fills one row after another, and would raise the
    /// block's hint by one class after another, each time in a line that all CPUs read.
    ToItsBand,
}

impl Raise {
    #[inline]
    fn class(self, class: usize) -> usize {
        let top = || Band::ALL.iter().map(|band| band.hi).find(|top| class <= *top);
        match self {
            Self::Exactly => class,
            Self::ToItsBand => top().unwrap_or(class),
        }
    }
}

/// What the rows of a block were at some time, each by itself.
fn snapshot(rows: &Rows) -> [u64; BLOCK_ROWS] {
    core::array::from_fn(|row| rows[row].load(SeqCst))
}

/// The class of a block with these rows; `None` if they have no free frame.
pub(crate) fn class_of(rows: [u64; BLOCK_ROWS]) -> Option<usize> {
    let full = rows.iter().enumerate().fold(0u8, |full, (i, row)| full | u8::from(*row == !0) << i);
    if full != 0 {
        let pairs = full & full >> 1 & 0x55;
        let quads = pairs & pairs >> 2 & 0x11;
        return Some(match (pairs, quads) {
            _ if full == !0 => WHOLE,
            (0, _) => ROW_ORDER,
            (_, 0) => ROW_ORDER + 1,
            _ => ROW_ORDER + 2,
        });
    }
    bits::largest_of(rows)
}

impl BlockRef<'_> {
    /// The rows as they are now: zero if the block is untouched.
    #[inline]
    fn snapshot(self) -> [u64; BLOCK_ROWS] {
        self.rows().map_or([0; BLOCK_ROWS], snapshot)
    }

    /// The class of the block as its rows have it now; `None` if they have no free frame.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn class(self) -> Option<usize> {
        class_of(self.snapshot())
    }

    /// Whether the hint says that the block is of `class` or more.
    #[inline(always)]
    pub(crate) fn is_hinted(self, class: usize) -> bool {
        self.group.has[class].load(SeqCst) & self.bit != 0
    }

    /// Says that a run of `class` is free in the block's rows. Called after the row was changed.
    #[inline(always)]
    pub(crate) fn raise(self, class: usize, how: Raise) {
        if !self.is_hinted(class) {
            raise_to(self.storage, self.block, how.class(class));
        }
    }

    /// Makes the hints say what the rows say.
    #[inline(never)]
    pub(crate) fn refresh(self) {
        let seen = self.snapshot();
        let class = class_of(seen);
        let above = class.map_or(0, |class| class + 1);
        let mut cleared = false;
        for word in &self.group.has[above..] {
            cleared |= clear(word, self.bit);
        }
        #[cfg(all(test, not(loom)))]
        reached(Step::HintsCleared);
        if cleared {
            // Again: a free between the look and the clearing found its hint set, and left it to us.
            let now = self.snapshot();
            if now != seen {
                // All of them: that free may have found a lower hint still set and set a higher one since.
                if let Some(class) = class_of(now) {
                    raise_to(self.storage, self.block, class);
                }
                // What is left of the hints may be of a class that the summary does not know of.
                if let Some(class) = (0..CLASSES).rev().find(|class| self.is_hinted(*class)) {
                    self.set_summary(class);
                }
                return;
            }
        }
        match class {
            Some(class) if self.is_hinted(class) => self.set_summary(class),
            Some(class) => raise_to(self.storage, self.block, class),
            None => {}
        }
    }

    #[inline]
    fn set_summary(self, class: usize) {
        let group = self.block.group();
        set(self.storage.summary(class, group.span()), group.bit());
    }
}

/// Says what is free in the rows of a block, as they are now. Takes what fits into registers, as [`raise_to`].
#[inline(never)]
pub(crate) fn raise_as_seen(storage: &Storage<'_>, block: Block, rows: &Rows) {
    let class = class_of(snapshot(rows)).unwrap_or(0);
    if storage.group(block.group()).has[class].load(SeqCst) & block.bit() == 0 {
        raise_to(storage, block, class);
    }
}

/// Sets the hints up to `class`. Takes what fits into registers: a block passed by reference would have to be written to
/// memory by every free.
#[cold]
#[inline(never)]
fn raise_to(storage: &Storage<'_>, block: Block, class: usize) {
    let (group, bit) = (block.group(), block.bit());
    let has = &storage.group(group).has;
    // From the top down, for `refresh` clears from the bottom up: so no higher hint is left over a lower one that is not set.
    for word in has[..=class].iter().rev() {
        #[cfg(all(test, not(loom)))]
        reached(Step::HintRaised);
        set(word, bit);
    }
    let mut summary = class..class + 1;
    if has[class].load(SeqCst) & bit == 0 {
        // Cleared already. What is left of the hints is of some lower class.
        summary.start = 0;
    }
    summary.for_each(|class| set(storage.summary(class, group.span()), group.bit()));
}

impl Region<'_> {
    /// The blocks of a group whose class is in `band`, as the hints have it. Quietens the summary if there are none.
    #[inline(always)]
    pub(crate) fn blocks_of(&self, group: Group, band: Band) -> u64 {
        let words = self.group(group);
        let above = if band.hi < WHOLE { words.has[band.hi + 1].load(SeqCst) } else { 0 };
        let found = words.has[band.lo].load(SeqCst) & !above;
        if found == 0 {
            self.quieten(group, band);
        }
        found
    }

    #[cold]
    #[inline(never)]
    fn quieten(&self, group: Group, band: Band) {
        for class in band.lo..=band.hi {
            let word = self.storage.summary(class, group.span());
            if clear(word, group.bit()) {
                // Again: whoever raised a hint in between found the summary set, and left it to us.
                let words = self.group(group);
                let above = if class < WHOLE { words.has[class + 1].load(SeqCst) } else { 0 };
                if words.has[class].load(SeqCst) & !above != 0 {
                    set(word, group.bit());
                }
            }
        }
    }

    /// The wholly free blocks of a group. Notes in the summary if there are none.
    #[inline]
    pub(crate) fn untouched(&self, group: Group) -> u64 {
        let words = self.group(group);
        let found = !words.taken.load(SeqCst);
        if found == 0 {
            let word = self.storage.full(group.span());
            set(word, group.bit());
            if words.taken.load(SeqCst) != !0 {
                clear(word, group.bit());
            }
        }
        found
    }

    /// Says that the group has a wholly free block again. Called after `taken` was changed.
    #[inline]
    pub(crate) fn untouched_again(&self, group: Group) {
        let word = self.storage.full(group.span());
        if word.load(SeqCst) & group.bit() != 0 {
            word.fetch_and(!group.bit(), SeqCst);
        }
    }
}

const _: () = assert!(CLASSES == 10);
