//! Changing what is mapped: unmap, protect, split, remap.
//!
//! All four walk a range and may meet a large page of which the range covers a part. Such a page is cut: a new table of
//! 512 pieces is filled, changed where the range reaches, and then linked in place of the leaf, in one exchange. As in
//! mapping, a [`Plan`] counts the tables that the cuts need before anything changes.

use core::ops::Range;

use frame_core::{AllocError, FrameHal, FrameStack, FrameTable, PhysAddr, TableMut, TableRef};

use super::entry::{
    ACCESSED, ADDRESS, DIRTY, ENTRIES, EptLeaf, Slot, classify, index, is_whole, leaf_word, piece, shift,
    slot_mask, slots,
};
use super::format::Format;
use super::{Ept, EptAttributes, EptConfig, EptError, EptFlags, Invalidation, is_empty, take_apart};
use crate::{GuestPhysAddr, GuestRange, PageSize};

/// What happens to the pages of a range.
#[derive(Clone, Copy)]
enum Change {
    /// They are mapped no more; gaps are passed over.
    Unmap,
    /// They get these attribute bits; a gap is an error.
    Protect(u64),
    /// None is larger than this level; gaps are passed over.
    Split(u32),
}

impl<H: FrameHal> Ept<H> {
    /// Takes one page out. `guest` is its start, whatever its size. Returns the page as it was, and the INVEPT that is
    /// owed.
    ///
    /// # Errors
    /// Nothing is mapped there, or a page that starts elsewhere.
    #[inline]
    pub fn unmap(&mut self, guest: GuestPhysAddr) -> Result<(EptLeaf, Invalidation<H>), EptError> {
        let (address, format) = (guest.as_u64(), self.format);
        if address & format.beyond != 0 {
            return Err(EptError::GuestTooWide { guest, width: self.config.guest_width() });
        }
        let taken = match self.lowest_at(address) {
            (table, 1) => take_leaf(&format, table, guest, 1),
            (table, 2) => take_leaf(&format, table, guest, 2),
            (table, 3) => take_leaf(&format, table, guest, 3),
            _ => Err(EptError::NotMapped { guest }),
        };
        let (leaf, is_last) = taken?;
        let retired = if is_last { self.prune(address) } else { FrameStack::new() };
        Ok((leaf, Invalidation::new(self.pointer, &self.config, true, retired)))
    }

    /// Takes the tables out on the way to an address that map nothing any more.
    #[inline(never)]
    fn prune(&mut self, address: u64) -> FrameStack<H> {
        let mut retired = FrameStack::new();
        prune(&self.format, self.root.words_mut(), self.config.levels().count(), address, &mut retired);
        self.tables -= retired.len();
        retired
    }

    /// Takes all pages of a range out and gives back the tables that map nothing any more. A large page that lies in the
    /// range only in part is cut, and its rest stays mapped. Gaps are passed over.
    ///
    /// # Errors
    /// The range is too wide, or there is no frame for a table that a cut needs.
    pub fn unmap_range(&mut self, range: GuestRange) -> Result<Invalidation<H>, EptError> {
        self.change(range, Change::Unmap)
    }

    /// Gives all pages of a range these attributes. Large pages are cut as in [`unmap_range`](Self::unmap_range).
    /// Accessed and dirty flags stay.
    ///
    /// # Errors
    /// The attributes are not supported, the range is too wide or has a gap, or there is no frame for a table.
    #[inline]
    pub fn protect(
        &mut self,
        range: GuestRange,
        attributes: EptAttributes,
    ) -> Result<Invalidation<H>, EptError> {
        let bits = match self.format.encode(attributes) {
            Some(bits) => bits,
            None => attributes.encode(&self.config)?,
        };
        let (first, last) = self.config.span(range)?;
        if range.count() == 1 {
            let format = self.format;
            let (mut table, level) = self.lowest_at(first);
            let i = index(first, 1);
            if level == 1 && format.is_present(table.word(i)) {
                let restricted = reprotect(&format, &mut table, i, 1, bits);
                return Ok(Invalidation::new(self.pointer, &self.config, restricted, FrameStack::new()));
            }
        }
        let restricted = self.protect_span(first, last, bits)?;
        Ok(Invalidation::new(self.pointer, &self.config, restricted, FrameStack::new()))
    }

    /// Returns whether an INVEPT is owed.
    #[inline(never)]
    fn protect_span(&mut self, first: u64, last: u64, bits: u64) -> Result<bool, EptError> {
        let (config, format, change) = (self.config, self.format, Change::Protect(bits));
        // No table goes, so what lies above the lowest that holds the range need not be looked at.
        let (mut table, level) = self.lowest(first, last);
        let needed =
            Plan { config: &config, format: &format, change }.count(table.words(), level, first, last)?;
        let mut changer = Changer::new(&config, &format, change, FrameStack::alloc(needed)?);
        changer.apply(table.reborrow(), level, first, last)?;
        self.tables += needed - changer.stack.len();
        Ok(changer.restricted)
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

    /// Points one page, which starts at `guest`, at other host memory, with these attributes, in one store: a guest
    /// never sees it unmapped. Accessed and dirty flags start clear.
    ///
    /// # Errors
    /// No page starts there, the host address is misaligned to its size or too wide, or the attributes are not supported.
    pub fn remap(
        &mut self,
        guest: GuestPhysAddr,
        host: PhysAddr,
        attributes: EptAttributes,
    ) -> Result<(EptLeaf, Invalidation<H>), EptError> {
        let bits = attributes.encode(&self.config)?;
        let leaf = self.leaf_at(guest)?;
        let host = self.config.check_host(host, leaf.size().bytes(), leaf.size())?;
        let level = leaf.size().level();
        let mut table = self.root.words_mut();
        for above in (level + 1..=self.config.levels().count()).rev() {
            table =
                table.into_child(index(guest.as_u64(), above)).map_err(|_| EptError::NotMapped { guest })?;
        }
        let word = leaf_word(bits, host, level);
        let old =
            table.swap(index(guest.as_u64(), level), word).map_err(|_| EptError::NotMapped { guest })?;
        let old = EptLeaf::new(guest.as_u64(), level, old).unwrap_or(leaf);
        let invalidation = Invalidation::new(self.pointer, &self.config, true, FrameStack::new());
        Ok((old, invalidation))
    }

    /// The page that starts at an address.
    fn leaf_at(&self, guest: GuestPhysAddr) -> Result<EptLeaf, EptError> {
        let width = self.config.guest_width();
        if guest.as_u64() >> width != 0 {
            return Err(EptError::GuestTooWide { guest, width });
        }
        let leaf = self.query(guest).ok_or(EptError::NotMapped { guest })?;
        if leaf.guest() != guest {
            return Err(EptError::GuestMisaligned { guest, size: leaf.size() });
        }
        Ok(leaf)
    }

    fn change(&mut self, range: GuestRange, change: Change) -> Result<Invalidation<H>, EptError> {
        let (first, last) = self.config.span(range)?;
        let level = self.levels();
        let plan = Plan { config: &self.config, format: &self.format, change };
        let needed = plan.count(self.root.words(), level, first, last)?;
        let mut changer = Changer::new(&self.config, &self.format, change, FrameStack::alloc(needed)?);
        changer.apply(self.root.words_mut(), level, first, last)?;
        Ok(self.finish(changer, needed))
    }

    /// Counts tables in and out.
    fn finish(&mut self, changer: Changer<H>, taken: usize) -> Invalidation<H> {
        self.tables += taken - changer.stack.len();
        self.tables -= changer.retired.len();
        Invalidation::new(self.pointer, &self.config, changer.restricted, changer.retired)
    }
}

/// Counts the tables that a change needs for cuts, and finds what stands in its way.
struct Plan<'a> {
    config: &'a EptConfig,
    format: &'a Format,
    change: Change,
}

impl Plan<'_> {
    fn count<H: FrameHal>(
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
            let others = pages.clone().find(|&i| !self.format.maps::<H>(table.word(i), level));
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
struct Changer<H: FrameHal> {
    config: EptConfig,
    format: Format,
    change: Change,
    /// Frames for the tables of cuts.
    stack: FrameStack<H>,
    /// Tables that are no longer linked.
    retired: FrameStack<H>,
    /// Whether a processor could hold a translation that is no longer true.
    restricted: bool,
}

impl<H: FrameHal> Changer<H> {
    fn new(config: &EptConfig, format: &Format, change: Change, stack: FrameStack<H>) -> Self {
        Self {
            config: *config,
            format: *format,
            change,
            stack,
            retired: FrameStack::new(),
            restricted: false,
        }
    }

    /// Changes the part `first..=last` of `table`. Returns whether an entry became vacant. Cannot fail after a plan of the
    /// same change.
    fn apply(
        &mut self,
        mut table: TableMut<'_, H>,
        level: u32,
        first: u64,
        last: u64,
    ) -> Result<bool, EptError> {
        let mut first = first;
        if let Change::Protect(bits) = self.change {
            let pages = whole_slots(first, last, level);
            let others = pages.clone().find(|&i| {
                let is_page = self.format.maps::<H>(table.word(i), level);
                if is_page {
                    self.restricted |= reprotect(&self.format, &mut table, i, level, bits);
                }
                !is_page
            });
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
                    let Some(mut child) = table.child(i) else { continue };
                    let cleared_below = self.apply(child.reborrow(), level - 1, start, end)?;
                    if cleared_below && is_empty(&self.format, child.words(), index(end, level - 1)) {
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

/// Takes the page that starts at `guest` out of a table, and says whether it was the last one there.
#[inline(always)]
fn take_leaf<H: FrameHal>(
    format: &Format,
    mut table: TableMut<'_, H>,
    guest: GuestPhysAddr,
    level: u32,
) -> Result<(EptLeaf, bool), EptError> {
    let address = guest.as_u64();
    let i = index(address, level);
    let word = table.word(i);
    let Some(mut leaf) = format.leaf(address, level, word) else {
        return Err(EptError::NotMapped { guest });
    };
    if leaf.guest() != guest {
        return Err(EptError::GuestMisaligned { guest, size: leaf.size() });
    }
    if format.may_change(word) {
        // An exchange: a flag that the processor sets at this moment is seen.
        let old = table.swap(i, format.vacant).map_err(|_| EptError::NotMapped { guest })?;
        leaf = EptLeaf::new(address, level, old).unwrap_or(leaf);
    } else {
        table.set(i, format.vacant).map_err(|_| EptError::NotMapped { guest })?;
    }
    Ok((leaf, is_empty(format, table.words(), i)))
}

/// That every entry of `first..=last` in a table of level 1 maps a page.
#[inline]
fn check_mapped<H: FrameHal>(
    format: &Format,
    table: TableRef<'_, H>,
    first: u64,
    last: u64,
) -> Result<(), EptError> {
    let from = index(first, 1);
    match (from..=index(last, 1)).find(|&i| !format.is_present(table.word(i))) {
        None => Ok(()),
        Some(i) => {
            let guest = GuestPhysAddr::new(first + (((i - from) as u64) << shift(1)));
            Err(EptError::NotMapped { guest })
        }
    }
}

/// Gives a leaf other attributes. What the processor sets meanwhile is kept. Returns whether an INVEPT is owed.
#[inline]
fn reprotect<H: FrameHal>(
    format: &Format,
    table: &mut TableMut<'_, H>,
    i: usize,
    level: u32,
    bits: u64,
) -> bool {
    let word = table.word(i);
    let flags = word & (ACCESSED | DIRTY);
    let new = leaf_word(bits, word & ADDRESS, level) | flags;
    let old = if (word ^ new) & !0xff == 0 {
        // Permissions, memory type and ignore-PAT lie in the low byte, accessed and dirty flags do not.
        table.set_low_byte(i, new as u8).map(|()| word)
    } else if format.may_change(word) {
        let old = table.swap(i, new);
        let late = old.map_or(0, |old| old & !new & (ACCESSED | DIRTY));
        if late != 0 {
            table.words().set_bits(i, late);
        }
        old
    } else {
        table.set(i, new).map(|()| word)
    };
    let Ok(old) = old else { return false }; // an owner is no leaf
    let access = EptFlags::RWX.bits();
    let same_page = (old ^ new) & !(access | ACCESSED | DIRTY) == 0;
    let allows_more_only = old & !new & access == 0;
    !(same_page && allows_more_only)
}

/// Unlinks the tables on the way to an address that map nothing, the lowest first.
fn prune<H: FrameHal>(
    format: &Format,
    mut table: TableMut<'_, H>,
    level: u32,
    address: u64,
    retired: &mut FrameStack<H>,
) {
    let i = index(address, level);
    let Some(mut child) = table.child(i) else { return };
    prune(format, child.reborrow(), level - 1, address, retired);
    if is_empty(format, child.words(), index(address, level - 1)) {
        if let Some(child) = table.unlink(i, format.vacant) {
            retired.push(child.into_frame());
        }
    }
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
