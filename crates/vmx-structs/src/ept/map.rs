//! Mapping: one page, a range with the largest pages that fit, several ranges at once.
//!
//! A [`Batch`] is planned (is every slot vacant? how many tables are missing?) over the tables as they are, then its
//! frames are taken, then it is committed. The plan and the commit walk alike, so a commit needs exactly the frames
//! that the plan counted and cannot fail.

use core::cmp::Ordering;

use frame_core::{AllocError, FrameHal, FrameStack, FrameTable, MemoryMap, PhysAddr, TableMut, TableRef};

use super::entry::{ENTRIES, FULL, index, is_whole, leaf_word, shift, slot_mask, slots};
use super::format::Format;
use super::lookup::{lowest, table_at};
use super::{Ept, EptAttributes, EptConfig, EptError};
use crate::{GuestPhysAddr, GuestRange, PageSize};

/// One range that is to be mapped, checked.
#[derive(Clone, Copy)]
struct Mapping {
    first: u64,
    last: u64,
    /// Host address less guest address.
    delta: u64,
    /// Attribute bits of the leaves.
    bits: u64,
    /// Whether a leaf may stand at level 1, 2, 3.
    leaf_at: [bool; 3],
}

impl Mapping {
    fn new(
        config: &EptConfig,
        range: GuestRange,
        host: PhysAddr,
        attributes: EptAttributes,
    ) -> Result<Self, EptError> {
        let bits = attributes.encode(config)?;
        let (first, last) = config.span(range)?;
        let delta = config.check_host(host, last - first + 1, PageSize::Size4K)?.wrapping_sub(first);
        // A page of 2 MiB or 1 GiB fits only where guest and host addresses are alike in their low bits.
        let fits = |size: PageSize| {
            config.supports(size) && size <= config.largest_page() && delta & (size.bytes() - 1) == 0
        };
        Ok(Self { first, last, delta, bits, leaf_at: PageSize::ALL.map(fits) })
    }

    fn leaf_at(&self, level: u32) -> bool {
        self.leaf_at.get(level as usize - 1).copied().unwrap_or(false)
    }

    /// The leaf at a guest address.
    #[inline]
    fn word(&self, guest: u64, level: u32) -> u64 {
        leaf_word(self.bits, guest.wrapping_add(self.delta), level)
    }

    /// Whether the part `first..=last` of a slot becomes one leaf.
    fn is_leaf(&self, first: u64, last: u64, level: u32) -> bool {
        self.leaf_at(level) && is_whole(first, last, level)
    }
}

impl<H: FrameHal> Ept<H> {
    /// Maps one page of this size.
    ///
    /// # Errors
    /// An address is misaligned or too wide, the size or the attributes are not supported, something is mapped there,
    /// or there is no frame for a table.
    #[inline]
    pub fn map(
        &mut self,
        guest: GuestPhysAddr,
        host: PhysAddr,
        size: PageSize,
        attributes: EptAttributes,
    ) -> Result<(), EptError> {
        if self.map_at_once(guest, host, size, attributes) {
            return Ok(());
        }
        self.map_closely(guest, host, size, attributes)
    }

    /// Maps a page if its table is there, as it is more often than not, and nothing is wrong. Returns whether it did.
    #[inline(always)]
    pub(super) fn map_at_once(
        &mut self,
        guest: GuestPhysAddr,
        host: PhysAddr,
        size: PageSize,
        attributes: EptAttributes,
    ) -> bool {
        match size {
            PageSize::Size4K => self.map_fast::<1>(guest, host, attributes),
            PageSize::Size2M => self.map_fast::<2>(guest, host, attributes),
            PageSize::Size1G => self.map_fast::<3>(guest, host, attributes),
        }
    }

    #[inline(always)]
    fn map_fast<const LEVEL: u32>(
        &mut self,
        guest: GuestPhysAddr,
        host: PhysAddr,
        attributes: EptAttributes,
    ) -> bool {
        let (from, to, format) = (guest.as_u64(), host.as_usize() as u64, &self.format);
        if !format.fits(from, to, LEVEL) {
            return false;
        }
        let Some(bits) = format.encode(attributes) else { return false };
        let Some(mut table) = table_at::<LEVEL, H>(&mut self.tree, format, from) else { return false };
        table.set_if_clear(index(from, LEVEL), format.present, leaf_word(bits, to, LEVEL))
    }

    /// As `map`, whatever is there and whatever is wrong.
    #[cold]
    #[inline(never)]
    pub(super) fn map_closely(
        &mut self,
        guest: GuestPhysAddr,
        host: PhysAddr,
        size: PageSize,
        attributes: EptAttributes,
    ) -> Result<(), EptError> {
        let config = &self.config;
        let bits = attributes.encode(config)?;
        if !config.supports(size) {
            return Err(EptError::PageSize { size });
        }
        let (first, last) = config.page(guest, size)?;
        let start = config.check_host(host, size.bytes(), size)?;
        let (table, level) = lowest(&mut self.tree, &self.format, first);
        let is_taken = match level.cmp(&size.level()) {
            // Smaller pages are mapped there.
            Ordering::Less => true,
            Ordering::Equal => self.format.is_present(table.word(index(first, level))),
            // Tables are missing, or a larger page is mapped: the plan will see.
            Ordering::Greater => false,
        };
        if is_taken {
            return Err(EptError::Occupied { guest });
        }
        let leaf_at = PageSize::ALL.map(|other| other == size);
        let delta = start.wrapping_sub(first);
        self.map_all(core::iter::once(Ok(Mapping { first, last, delta, bits, leaf_at })))
    }

    /// Maps a range to contiguous host memory from `host` on, with the largest pages that fit.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn map_range(
        &mut self,
        range: GuestRange,
        host: PhysAddr,
        attributes: EptAttributes,
    ) -> Result<(), EptError> {
        self.map_ranges(core::iter::once((range, host, attributes)))
    }

    /// Maps several ranges, all or none of them, each to contiguous host memory. They come in ascending order, and the
    /// same each time that the iterator is walked.
    ///
    /// # Errors
    /// As [`map`](Self::map), or the ranges overlap or are not in order.
    pub fn map_ranges(
        &mut self,
        ranges: impl Iterator<Item = (GuestRange, PhysAddr, EptAttributes)> + Clone,
    ) -> Result<(), EptError> {
        let config = self.config;
        self.map_all(
            ranges.map(move |(range, host, attributes)| Mapping::new(&config, range, host, attributes)),
        )
    }

    /// Maps every free frame of a memory map to itself: for a guest that owns the machine's memory.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn map_memory_map<const N: usize>(
        &mut self,
        map: &MemoryMap<N>,
        attributes: EptAttributes,
    ) -> Result<(), EptError> {
        let config = self.config;
        self.map_all(map.frames().map(move |frames| {
            let start = GuestPhysAddr::new(frames.start().as_usize() as u64);
            // Of a range of frames: aligned, not empty, and within the address space.
            let range = GuestRange::new(start, frames.count() as u64);
            let range =
                range.map_err(|_| EptError::GuestTooWide { guest: start, width: config.guest_width() })?;
            Mapping::new(&config, range, frames.start(), attributes)
        }))
    }

    fn map_all(
        &mut self,
        mappings: impl Iterator<Item = Result<Mapping, EptError>> + Clone,
    ) -> Result<(), EptError> {
        let level = self.config.levels().count();
        let mut needed = 0;
        let mut before = None;
        for mapping in mappings.clone() {
            let mapping = mapping?;
            if before.is_some_and(|before| mapping.first <= before) {
                return Err(EptError::Unordered { guest: GuestPhysAddr::new(mapping.first) });
            }
            let plan = Plan { config: &self.config, mapping: &mapping, before };
            needed += plan.count(self.tree.words(), level, mapping.first, mapping.last)?;
            before = Some(mapping.last);
        }
        let stack = FrameStack::alloc(needed)?;
        let mut commit = Commit { config: self.config, format: self.format, stack, out_of_reach: false };
        for mapping in mappings {
            let mapping = mapping?;
            commit.fill(self.tree.words_mut(), level, mapping.first, mapping.last, &mapping)?;
        }
        self.tables += needed - commit.stack.len();
        if commit.out_of_reach {
            self.distrust();
        }
        Ok(())
    }
}

/// Counts the tables that one mapping needs, and finds what stands in its way.
struct Plan<'a> {
    config: &'a EptConfig,
    mapping: &'a Mapping,
    /// The last address of the mapping before this one in the batch: the tables that it makes are there already.
    before: Option<u64>,
}

impl Plan<'_> {
    /// Tables needed below `table`, for the part `first..=last` of it.
    fn count<H: FrameHal>(
        &self,
        table: TableRef<'_, H>,
        level: u32,
        first: u64,
        last: u64,
    ) -> Result<usize, EptError> {
        let mut needed = 0;
        for (i, start, end) in slots(first, last, level) {
            if level > 1 {
                if let Some(child) = table.child(i) {
                    needed += self.count(child, level - 1, start, end)?;
                    continue;
                }
            }
            if self.config.is_present(table.word(i)) {
                return Err(EptError::Occupied { guest: GuestPhysAddr::new(start) });
            }
            needed += self.missing(level, start, end);
        }
        Ok(needed)
    }

    /// Tables needed in a vacant slot, for the part `first..=last` of it.
    fn missing(&self, level: u32, first: u64, last: u64) -> usize {
        if self.mapping.is_leaf(first, last, level) {
            return 0;
        }
        let made_before = self.before.is_some_and(|before| before >> shift(level) == first >> shift(level));
        let below = level - 1;
        let (head, tail) = (first | slot_mask(below), last & !slot_mask(below));
        let mut needed = usize::from(!made_before);
        if below == 1 {
            return needed;
        }
        needed += self.missing(below, first, head.min(last));
        if head < last {
            needed += self.missing(below, tail, last);
            // Between the first and the last slot all are whole.
            let whole = ((tail - head - 1) >> shift(below)) as usize;
            needed += whole * self.missing_in_whole(below);
        }
        needed
    }

    fn missing_in_whole(&self, level: u32) -> usize {
        if self.mapping.leaf_at(level) { 0 } else { 1 + ENTRIES * self.missing_in_whole(level - 1) }
    }
}

/// Writes the leaves of planned mappings, into tables from the stack where some are missing.
struct Commit<H: FrameHal> {
    config: EptConfig,
    format: Format,
    stack: FrameStack<H>,
    /// Whether a new table lies where the processor does not reach.
    out_of_reach: bool,
}

impl<H: FrameHal> Commit<H> {
    /// Maps the part `first..=last` of `table`. Cannot fail after a plan of the same mapping.
    fn fill(
        &mut self,
        mut table: TableMut<'_, H>,
        level: u32,
        first: u64,
        last: u64,
        mapping: &Mapping,
    ) -> Result<(), EptError> {
        for (i, start, end) in slots(first, last, level) {
            let unplanned = EptError::Occupied { guest: GuestPhysAddr::new(start) };
            if level == 1 {
                table.set(i, mapping.word(start, level)).map_err(|_| unplanned)?;
            } else if let Some(child) = table.child(i) {
                self.fill(child, level - 1, start, end, mapping)?;
            } else if mapping.is_leaf(start, end, level) {
                table.set(i, mapping.word(start, level)).map_err(|_| unplanned)?;
            } else {
                let child = self.build(level - 1, start, end, mapping)?;
                let is_full = level == 2 && is_whole(start, end, level);
                let flags = self.config.link() | if is_full { FULL } else { 0 };
                table.link(i, child, flags).map_err(|_| unplanned)?;
            }
        }
        Ok(())
    }

    /// A new table of this level that maps `first..=last`, which lies in its slot.
    fn build(
        &mut self,
        level: u32,
        first: u64,
        last: u64,
        mapping: &Mapping,
    ) -> Result<FrameTable<H>, EptError> {
        let frame = self.stack.pop().ok_or(AllocError::NoMemory)?;
        self.out_of_reach |= !self.format.reaches(frame.start_paddr());
        let base = first & !slot_mask(level + 1);
        let vacant = self.config.vacant();
        if !mapping.leaf_at(level) {
            let mut table = FrameTable::from_fn(frame, |_| vacant);
            self.fill(table.words_mut(), level, first, last, mapping)?;
            return Ok(table);
        }
        // Slots that are covered whole are leaves; at most the first and the last are not.
        let covered = first.div_ceil(slot_mask(level) + 1)..(last + 1) >> shift(level);
        let mut table = FrameTable::from_fn(frame, |i| {
            let start = base + ((i as u64) << shift(level));
            if covered.contains(&(start >> shift(level))) { mapping.word(start, level) } else { vacant }
        });
        let head_end = (first | slot_mask(level)).min(last);
        if !is_whole(first, head_end, level) {
            self.fill(table.words_mut(), level, first, head_end, mapping)?;
        }
        let tail = last & !slot_mask(level);
        if tail > first && !is_whole(tail, last, level) {
            self.fill(table.words_mut(), level, tail, last, mapping)?;
        }
        Ok(table)
    }
}
