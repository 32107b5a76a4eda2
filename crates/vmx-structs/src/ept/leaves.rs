//! Iteration over what is mapped, lowest guest address first.

use core::fmt;

use frame_core::{FrameHal, PhysAddr, TableRef};

use super::entry::{ACCESSED, ADDRESS, DIRTY, LARGE, Slot, classify, index, shift, slot_mask};
use super::{Ept, EptAttributes, EptConfig, EptError, EptLeaf};
use crate::{GuestPhysAddr, GuestRange, PageSize};

/// Levels of the deepest tree.
const MAX_LEVELS: usize = 5;

impl<H: FrameHal> Ept<H> {
    /// Every page that is mapped.
    pub fn leaves(&self) -> EptLeaves<'_, H> {
        let last = (1 << self.config().guest_width()) - 1;
        EptLeaves::new(self, 0, last)
    }

    /// Every page of which a part lies in a range.
    ///
    /// # Errors
    /// The range is wider than the tables translate.
    pub fn leaves_in(&self, range: GuestRange) -> Result<EptLeaves<'_, H>, EptError> {
        let (first, last) = self.config().span(range)?;
        Ok(EptLeaves::new(self, first, last))
    }

    /// What is mapped, with pages that follow each other, in the guest and in the host, and look alike, taken
    /// together: for people.
    pub fn runs(&self) -> EptRuns<'_, H> {
        EptRuns { leaves: self.leaves(), next: None }
    }
}

/// The iterator of [`Ept::leaves`] and [`Ept::leaves_in`].
pub struct EptLeaves<'a, H: FrameHal> {
    config: &'a EptConfig,
    /// The tables on the way to `next`: place `l - 1` is that of level `l`. Those below `level` are stale.
    path: [Option<TableRef<'a, H>>; MAX_LEVELS],
    /// The level to look at.
    level: u32,
    /// The address to look at; `None` when all is done.
    next: Option<u64>,
    last: u64,
}

impl<'a, H: FrameHal> EptLeaves<'a, H> {
    fn new(ept: &'a Ept<H>, first: u64, last: u64) -> Self {
        let level = ept.levels();
        let mut path = [None; MAX_LEVELS];
        path[level as usize - 1] = Some(ept.tree.words());
        Self { config: ept.config(), path, level, next: Some(first), last }
    }

    /// Goes on behind the slot of `address`, in the lowest table that holds what comes there.
    fn advance(&mut self, address: u64) {
        let end = address | slot_mask(self.level);
        self.next = if end >= self.last { None } else { Some(end + 1) };
        while let Some(next) = self.next {
            let table_is_done = index(next, self.level) == 0;
            if !table_is_done || self.level as usize == MAX_LEVELS || self.path[self.level as usize].is_none()
            {
                return;
            }
            self.level += 1;
        }
    }
}

impl<H: FrameHal> Iterator for EptLeaves<'_, H> {
    type Item = EptLeaf;

    fn next(&mut self) -> Option<EptLeaf> {
        loop {
            let address = self.next?;
            let table = self.path[self.level as usize - 1]?;
            let i = index(address, self.level);
            if self.level > 1 {
                if let Some(child) = table.child(i) {
                    self.level -= 1;
                    self.path[self.level as usize - 1] = Some(child);
                    continue;
                }
            }
            let (word, level) = (table.word(i), self.level);
            self.advance(address);
            if classify::<H>(self.config, word, level) == Slot::Leaf {
                return EptLeaf::new(address, level, word);
            }
        }
    }
}

impl<H: FrameHal> Clone for EptLeaves<'_, H> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<H: FrameHal> fmt::Debug for EptLeaves<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

/// Pages that follow each other and look alike.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EptRun {
    first: EptLeaf,
    last: u64,
}

impl EptRun {
    /// The first guest-physical address.
    pub const fn guest(&self) -> GuestPhysAddr {
        self.first.guest()
    }

    /// The last guest-physical address.
    pub const fn guest_last(&self) -> GuestPhysAddr {
        GuestPhysAddr::new(self.last)
    }

    /// The first host-physical address.
    pub fn host(&self) -> PhysAddr {
        self.first.host()
    }

    /// The size of each page.
    pub const fn page_size(&self) -> PageSize {
        self.first.size()
    }

    /// Pages of this size.
    pub const fn pages(&self) -> u64 {
        (self.last - self.first.guest().as_u64() + 1) >> shift(self.first.size().level())
    }

    /// Permissions, memory type and the rest; `None` for a reserved memory type, which an edited entry may have.
    pub const fn attributes(&self) -> Option<EptAttributes> {
        self.first.attributes()
    }
}

impl fmt::Debug for EptRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:#x}..={:#x} -> {:#x} in {} pages of {}",
            self.guest(),
            self.last,
            self.host(),
            self.pages(),
            self.page_size()
        )?;
        match self.attributes() {
            Some(EptAttributes { flags, memory_type }) => {
                write!(f, ", {:?} {flags}", memory_type, flags = Flags(flags))
            }
            None => f.write_str(", reserved memory type"),
        }
    }
}

struct Flags(super::EptFlags);

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (name, _) in self.0.iter_names() {
            if !first {
                f.write_str("|")?;
            }
            first = false;
            f.write_str(name)?;
        }
        Ok(())
    }
}

/// The iterator of [`Ept::runs`].
pub struct EptRuns<'a, H: FrameHal> {
    leaves: EptLeaves<'a, H>,
    next: Option<EptLeaf>,
}

impl<H: FrameHal> Iterator for EptRuns<'_, H> {
    type Item = EptRun;

    fn next(&mut self) -> Option<EptRun> {
        let first = self.next.take().or_else(|| self.leaves.next())?;
        let alike = |leaf: &EptLeaf| leaf.word() & !(ADDRESS | ACCESSED | DIRTY | LARGE);
        let mut last = first.last();
        loop {
            self.next = self.leaves.next();
            let Some(leaf) = self.next else { break };
            let (guest, host) = (leaf.guest().as_u64(), leaf.host().as_usize() as u64);
            let follows = last.checked_add(1) == Some(guest)
                && guest.wrapping_sub(first.guest().as_u64())
                    == host.wrapping_sub(first.host().as_usize() as u64);
            if !follows || leaf.size() != first.size() || alike(&leaf) != alike(&first) {
                break;
            }
            last = leaf.last();
        }
        Some(EptRun { first, last })
    }
}

impl<H: FrameHal> fmt::Debug for EptRuns<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EptRuns").field("leaves", &self.leaves).finish()
    }
}
