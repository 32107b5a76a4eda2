//! Changing what is mapped in a range: unmap, protect, split.
//!
//! All three walk a range and may meet a large page of which the range covers a part. Such a page is cut: a new table of
//! 512 pieces is filled, changed where the range reaches, and then linked in place of the leaf, in one exchange. As in
//! mapping, a [`Plan`] counts the tables that the cuts need before anything changes.

use core::ops::Range;

use frame_core::{AllocError, FrameHal, FrameStack, FrameTable, TableMut, TableRef};

use super::entry::{
    ACCESSED, DIRTY, ENTRIES, FULL, Slot, classify, index, is_whole, piece, shift, slot_mask, slots,
};
use super::format::Format;
use super::protect::{are_leaves, check_mapped, reprotect, reprotect_run};
use super::vacancy::is_empty;
use super::{Ept, EptConfig, EptError, Invalidation, take_apart};
use crate::{GuestPhysAddr, GuestRange, PageSize};

/// What happens to the pages of a range.
#[derive(Clone, Copy)]
pub(super) enum Change {
    /// They are mapped no more; gaps are passed over.
    Unmap,
    /// They get these attribute bits; a gap is an error.
    Protect(u64),
    /// None is larger than this level; gaps are passed over.
    Split(u32),
}

impl<H: FrameHal> Ept<H> {
    /// Takes all pages of a range out and gives back the tables that map nothing any more. A large page that lies in the
    /// range only in part is cut, and its rest stays mapped. Gaps are passed over.
    ///
    /// # Errors
    /// The range is too wide, or there is no frame for a table that a cut needs.
    pub fn unmap_range(&mut self, range: GuestRange) -> Result<Invalidation<H>, EptError> {
        self.change(range, Change::Unmap)
    }

    /// Cuts pages so that none that reaches into the range is larger than `size`: for dirty logging by 4 KiB, for
    /// instance. Translations stay as they are. Gaps are passed over.
    ///
    /// # Errors
    /// The size is not supported, the range is too wide, or there is no frame for a table.
    pub fn split(&mut self, range: GuestRange, size: PageSize) -> Result<Invalidation<H>, EptError> {
        if !self.config.supports(size) {
            return Err(EptError::PageSize { size });
        }
        self.change(range, Change::Split(size.level()))
    }

    fn change(&mut self, range: GuestRange, change: Change) -> Result<Invalidation<H>, EptError> {
        let (first, last) = self.config.span(range)?;
        let level = self.levels();
        let plan = Plan { config: &self.config, format: &self.format, change };
        let needed = plan.count(self.tree.words(), level, first, last)?;
        let mut changer = Changer::new(&self.config, &self.format, change, FrameStack::alloc(needed)?);
        changer.apply(self.tree.words_mut(), level, first, last)?;
        let (restricted, retired) = self.count_in(changer, needed);
        Ok(self.owed(restricted, retired))
    }

    /// Counts tables in and out. Returns whether an INVEPT is owed, and the tables that are no longer linked.
    pub(super) fn count_in(&mut self, changer: Changer<H>, taken: usize) -> (bool, FrameStack<H>) {
        self.tables += taken - changer.stack.len();
        self.tables -= changer.retired.len();
        if changer.out_of_reach {
            self.distrust();
        }
        (changer.restricted, changer.retired)
    }
}

/// Counts the tables that a change needs for cuts, and finds what stands in its way.
pub(super) struct Plan<'a> {
    pub(super) config: &'a EptConfig,
    pub(super) format: &'a Format,
    pub(super) change: Change,
}

impl Plan<'_> {
    pub(super) fn count<H: FrameHal>(
        &self,
        table: TableRef<'_, H>,
        level: u32,
        first: u64,
        last: u64,
    ) -> Result<usize, EptError> {
        if level == 1 {
            // No leaf of this level is cut.
            if let Change::Protect(_) = self.change {
                check_mapped(self.format, table, first, last)?;
            }
            return Ok(0);
        }
        let mut first = first;
        if let Change::Protect(_) = self.change {
            // Pages that lie in the range whole, as far as there are no others.
            let pages = whole_slots(first, last, level);
            let others = if are_leaves(table, pages.clone(), level) {
                None
            } else {
                pages.clone().find(|&i| !self.format.maps::<H>(table.word(i), level))
            };
            match skip(first, last, level, &pages, others) {
                Some(rest) => first = rest,
                None => return Ok(0),
            }
        }
        let mut needed = 0;
        for (i, start, end) in slots(first, last, level) {
            let whole = is_whole(start, end, level);
            if whole && matches!(self.change, Change::Unmap) {
                continue;
            }
            match classify::<H>(self.config, table.word(i), level) {
                Slot::Table if level == 2 && self.is_full(table.word(i)) => {}
                Slot::Table => {
                    if let Some(child) = table.child(i) {
                        needed += self.count(child, level - 1, start, end)?;
                    }
                }
                Slot::Vacant if matches!(self.change, Change::Protect(_)) => {
                    return Err(EptError::NotMapped { guest: GuestPhysAddr::new(start) });
                }
                Slot::Vacant => {}
                Slot::Leaf => needed += self.cuts(level, start, end),
                Slot::Malformed => {
                    return Err(EptError::Malformed { guest: GuestPhysAddr::new(start), level });
                }
            }
        }
        Ok(needed)
    }

    /// Whether a table of level 1 need not be looked at: every entry maps a page, of which none is cut.
    fn is_full(&self, link: u64) -> bool {
        link & FULL != 0 && matches!(self.change, Change::Protect(_))
    }

    /// Tables that a leaf needs of whose slot the change covers `first..=last`.
    fn cuts(&self, level: u32, first: u64, last: u64) -> usize {
        match self.change {
            Change::Split(to) if level <= to => return 0,
            Change::Split(to) if level - 1 <= to => return 1,
            Change::Unmap | Change::Protect(_) if is_whole(first, last, level) => return 0,
            _ => {}
        }
        // A leaf to be cut has level 2 or 3, so this loops 512 times at most and recurses once.
        1 + slots(first, last, level - 1)
            .map(|(_, start, end)| self.cuts(level - 1, start, end))
            .sum::<usize>()
    }
}

/// Makes a planned change.
pub(super) struct Changer<H: FrameHal> {
    config: EptConfig,
    format: Format,
    change: Change,
    /// Frames for the tables of cuts.
    stack: FrameStack<H>,
    /// Tables that are no longer linked.
    retired: FrameStack<H>,
    /// Whether a processor could hold a translation that is no longer true.
    restricted: bool,
    /// Whether a new table lies where the processor does not reach.
    out_of_reach: bool,
}

impl<H: FrameHal> Changer<H> {
    pub(super) fn new(config: &EptConfig, format: &Format, change: Change, stack: FrameStack<H>) -> Self {
        Self {
            config: *config,
            format: *format,
            change,
            stack,
            retired: FrameStack::new(),
            restricted: false,
            out_of_reach: false,
        }
    }

    /// Changes the part `first..=last` of `table`. Returns whether an entry became vacant. Cannot fail after a plan of the
    /// same change.
    pub(super) fn apply(
        &mut self,
        mut table: TableMut<'_, H>,
        level: u32,
        first: u64,
        last: u64,
    ) -> Result<bool, EptError> {
        let mut first = first;
        if let Change::Protect(bits) = self.change {
            let pages = whole_slots(first, last, level);
            let others = match reprotect_run(&mut table, pages.clone(), level, bits) {
                Some(restricted) => {
                    self.restricted |= restricted;
                    None
                }
                None => pages.clone().find(|&i| {
                    let is_page = self.format.maps::<H>(table.word(i), level);
                    if is_page {
                        self.restricted |= reprotect(&self.format, &mut table, i, level, bits);
                    }
                    !is_page
                }),
            };
            match skip(first, last, level, &pages, others) {
                Some(rest) => first = rest,
                None => return Ok(false),
            }
        }
        let vacant = self.config.vacant();
        let mut cleared = false;
        for (i, start, end) in slots(first, last, level) {
            let whole = is_whole(start, end, level);
            let word = table.word(i);
            match (classify::<H>(&self.config, word, level), self.change) {
                (Slot::Table, Change::Unmap) if whole => {
                    if let Some(child) = table.unlink(i, vacant) {
                        take_apart(child, level - 1, &mut |frame| self.retired.push(frame));
                        cleared = true;
                    }
                }
                (Slot::Table, _) => {
                    if level == 2 && word & FULL != 0 && matches!(self.change, Change::Unmap) {
                        table.words().clear_bits(i, FULL);
                    }
                    let Some(mut child) = table.child(i) else { continue };
                    let cleared_below = self.apply(child.reborrow(), level - 1, start, end)?;
                    if cleared_below && is_empty(&self.format, child.words()) {
                        if let Some(child) = table.unlink(i, vacant) {
                            self.retired.push(child.into_frame());
                            cleared = true;
                        }
                    }
                }
                (Slot::Leaf | Slot::Malformed, Change::Unmap) if whole => {
                    let _ = table.set(i, vacant); // not an owner
                    self.restricted = true;
                    cleared = true;
                }
                (Slot::Leaf, Change::Protect(bits)) if whole => {
                    self.restricted |= reprotect(&self.format, &mut table, i, level, bits);
                }
                (Slot::Leaf, Change::Split(to)) if level <= to => {}
                (Slot::Leaf, _) => self.cut(&mut table, i, level, start, end)?,
                (Slot::Vacant | Slot::Malformed, _) => {}
            }
        }
        Ok(cleared)
    }

    /// Replaces a leaf by a table of 512 pieces, changed where `first..=last` reaches.
    fn cut(
        &mut self,
        table: &mut TableMut<'_, H>,
        i: usize,
        level: u32,
        first: u64,
        last: u64,
    ) -> Result<(), EptError> {
        let word = table.word(i);
        let frame = self.stack.pop().ok_or(AllocError::NoMemory)?;
        self.out_of_reach |= !self.format.reaches(frame.start_paddr());
        let mut pieces = FrameTable::from_fn(frame, |j| piece(word, level, j));
        self.apply(pieces.words_mut(), level - 1, first, last)?;
        if let Ok(old) = table.link(i, pieces, self.config.link()) {
            self.restricted = true;
            // Flags that the processor set in the leaf while the pieces were written belong to all of them.
            let late = old & !word & (ACCESSED | DIRTY);
            if let (true, Some(child)) = (late != 0, table.words().child(i)) {
                mark(&self.config, child, level - 1, late);
            }
        }
        Ok(())
    }
}

/// The slots, from that of `first` on, that `first..=last` covers whole; none if it does not cover the first.
fn whole_slots(first: u64, last: u64, level: u32) -> Range<usize> {
    let (from, to) = (index(first, level), index(last, level));
    if first & slot_mask(level) != 0 {
        return from..from;
    }
    from..if last & slot_mask(level) == slot_mask(level) { to + 1 } else { to }
}

/// What is left of `first..=last` when the slots before `others` are done, or, without others, all of `done`.
fn skip(first: u64, last: u64, level: u32, done: &Range<usize>, others: Option<usize>) -> Option<u64> {
    let count = others.unwrap_or(done.end) - done.start;
    let rest = first + ((count as u64) << shift(level));
    if rest > last { None } else { Some(rest) }
}

/// Sets flags in every leaf of a table.
fn mark<H: FrameHal>(config: &EptConfig, table: TableRef<'_, H>, level: u32, flags: u64) {
    for i in 0..ENTRIES {
        match (classify::<H>(config, table.word(i), level), table.child(i)) {
            (Slot::Leaf, _) => {
                table.set_bits(i, flags);
            }
            (Slot::Table, Some(child)) => mark(config, child, level - 1, flags),
            _ => {}
        }
    }
}
