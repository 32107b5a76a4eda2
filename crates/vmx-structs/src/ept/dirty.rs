//! Accessed and dirty flags: which pages a guest used, and which it wrote (SDM 28.3.5).
//!
//! Live migration reads and clears the dirty flags round by round; working-set estimates do so with the accessed flags.
//! A flag is cleared by an atomic operation, so none that a processor sets at the same time is lost. But a processor
//! that has a translation cached sets a flag only once: after clearing, an INVEPT is owed, or writes go unseen.

use frame_core::{FrameHal, FrameStack, TableRef};

use super::entry::{ACCESSED, DIRTY, EptLeaf, Slot, classify, slots};
use super::{Ept, EptConfig, EptError, Invalidation};
use crate::GuestRange;

impl<H: FrameHal> Ept<H> {
    /// Clears the dirty flags of a range and calls `visit` with each page that had one, as it was, lowest first. A large
    /// page that reaches into the range counts as a whole.
    ///
    /// # Errors
    /// The flags are off, or the range is too wide.
    pub fn take_dirty(
        &mut self,
        range: GuestRange,
        visit: impl FnMut(EptLeaf),
    ) -> Result<Invalidation<H>, EptError> {
        self.take(range, DIRTY, visit)
    }

    /// Clears the accessed flags of a range and calls `visit` with each page that had one, as it was, lowest first. The
    /// flags of entries that point to tables stay.
    ///
    /// # Errors
    /// The flags are off, or the range is too wide.
    pub fn take_accessed(
        &mut self,
        range: GuestRange,
        visit: impl FnMut(EptLeaf),
    ) -> Result<Invalidation<H>, EptError> {
        self.take(range, ACCESSED, visit)
    }

    fn take(
        &mut self,
        range: GuestRange,
        flag: u64,
        mut visit: impl FnMut(EptLeaf),
    ) -> Result<Invalidation<H>, EptError> {
        if !self.config.accessed_dirty() {
            return Err(EptError::NoAccessedDirty);
        }
        let (first, last) = self.config.span(range)?;
        let mut any = false;
        take(&self.config, self.tree.words(), self.levels(), (first, last), flag, &mut |leaf| {
            any = true;
            visit(leaf);
        });
        Ok(Invalidation::new(self.pointer, &self.config, any, FrameStack::new()))
    }
}

fn take<H: FrameHal>(
    config: &EptConfig,
    table: TableRef<'_, H>,
    level: u32,
    (first, last): (u64, u64),
    flag: u64,
    visit: &mut impl FnMut(EptLeaf),
) {
    for (i, start, end) in slots(first, last, level) {
        let word = table.word(i);
        match (classify::<H>(config, word, level), table.child(i)) {
            (Slot::Table, Some(child)) => take(config, child, level - 1, (start, end), flag, visit),
            (Slot::Leaf, _) if word & flag != 0 => {
                let word = table.clear_bits(i, flag);
                if let Some(leaf) = EptLeaf::new(start, level, word) {
                    visit(leaf);
                }
            }
            _ => {}
        }
    }
}
