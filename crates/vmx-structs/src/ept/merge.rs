//! Merging: 512 pages that lie side by side become one large page again.

use frame_core::{FrameHal, FrameStack, TableMut, TableRef};

use super::entry::{ACCESSED, ADDRESS, DIRTY, ENTRIES, LARGE, Slot, classify, leaf_word, shift, slots};
use super::{Ept, EptConfig, EptError, EptFlags, Invalidation};
use crate::{GuestRange, PageSize};

impl<H: FrameHal> Ept<H> {
    /// Makes large pages, of 2 MiB and then of 1 GiB, wherever 512 pages with the same attributes lie side by side in
    /// the guest and, aligned, in the host. Only pages that lie in the range whole are taken. Never larger than
    /// [`EptConfig::largest_page`]. Needs no frame.
    ///
    /// A large page counts as accessed if one of its pieces was; it counts as dirty if it can be written and dirty
    /// flags are on, because a processor may still be setting the flags of the pieces. So read the dirty flags first.
    ///
    /// # Errors
    /// The range is too wide.
    pub fn merge(&mut self, range: GuestRange) -> Result<Invalidation<H>, EptError> {
        let (first, last) = self.config.span(range)?;
        let mut retired = FrameStack::new();
        let level = self.levels();
        merge(&self.config, self.tree.words_mut(), level, first, last, &mut retired);
        self.tables -= retired.len();
        Ok(Invalidation::new(self.pointer, &self.config, false, retired))
    }
}

fn merge<H: FrameHal>(
    config: &EptConfig,
    mut table: TableMut<'_, H>,
    level: u32,
    first: u64,
    last: u64,
    retired: &mut FrameStack<H>,
) {
    if level == 1 {
        return;
    }
    for (i, start, end) in slots(first, last, level) {
        let Some(mut child) = table.child(i) else { continue };
        merge(config, child.reborrow(), level - 1, start, end, retired);
        let whole = super::entry::is_whole(start, end, level);
        let wanted = PageSize::of_level(level)
            .is_some_and(|size| whole && config.supports(size) && size <= config.largest_page());
        if !wanted {
            continue;
        }
        let Some(word) = merged(config, child.words(), level) else { continue };
        if let Some(pieces) = table.unlink(i, word) {
            retired.push(pieces.into_frame());
        }
    }
}

/// The leaf of this level that says the same as the entries of `table`, one level below; `None` when none does.
fn merged<H: FrameHal>(config: &EptConfig, table: TableRef<'_, H>, level: u32) -> Option<u64> {
    const FLAGS: u64 = ACCESSED | DIRTY;
    let first = table.word(0);
    let host = first & ADDRESS;
    if host & ((1 << shift(level)) - 1) != 0 {
        return None;
    }
    let mut flags = 0;
    for j in 0..ENTRIES {
        let word = table.word(j);
        let expected = first + ((j as u64) << shift(level - 1));
        if (word ^ expected) & !FLAGS != 0 || classify::<H>(config, word, level - 1) != Slot::Leaf {
            return None;
        }
        flags |= word & FLAGS;
    }
    if config.accessed_dirty() && first & EptFlags::WRITE.bits() != 0 {
        flags |= FLAGS;
    }
    Some(leaf_word(first & !(ADDRESS | FLAGS | LARGE), host, level) | flags)
}
