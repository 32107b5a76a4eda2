//! Entries as plain words: for tests of processors, and for features that this crate does not know.

use frame_core::{FrameHal, FrameStack, TableRef};

use super::entry::{FULL, LARGE, NOTED, index};
use super::{Ept, EptError, Invalidation};
use crate::GuestPhysAddr;

impl<H: FrameHal> Ept<H> {
    /// The entry of this level (1 to 4 or 5) that translates an address, as the processor reads it; `None` when the walk
    /// ends above or there is no such level.
    pub fn entry(&self, guest: GuestPhysAddr, level: u32) -> Option<u64> {
        let guest = guest.as_u64();
        if guest >> self.config.guest_width() != 0 || level == 0 {
            return None;
        }
        let mut table = self.tree.words();
        let mut at = self.levels();
        while at > level {
            table = table.child(index(guest, at))?;
            at -= 1;
        }
        (at == level).then(|| table.word(index(guest, level)))
    }

    /// Writes an entry as it is told, valid or not: `edit` takes the word and gives the new one. Of an entry that points
    /// to a table the address stays, the mark of ownership (bits 55:52), and the library's own marks (bits 56 and 11).
    /// [`translate`](Self::translate) tells what the processor makes of it.
    ///
    /// This can break the promise that tables hold nothing but what the processor takes; other operations refuse
    /// ([`EptError::Malformed`]) or pass over what they cannot understand.
    ///
    /// # Errors
    /// There is no such entry, or the new word would point to a table: one that is not owned here.
    pub fn edit_entry(
        &mut self,
        guest: GuestPhysAddr,
        level: u32,
        edit: impl FnOnce(u64) -> u64,
    ) -> Result<Invalidation<H>, EptError> {
        let old = self.entry(guest, level).ok_or(EptError::Edit)?;
        let new = edit(old);
        self.distrust();
        let mut table = self.tree.words_mut();
        for above in (level + 1..=self.config.levels().count()).rev() {
            // What the mark of a full table says is not known from now on.
            table.words().clear_bits(index(guest.as_u64(), above), FULL);
            table = table.into_child(index(guest.as_u64(), above)).map_err(|_| EptError::Edit)?;
        }
        let i = index(guest.as_u64(), level);
        if TableRef::<H>::is_link(old) {
            table.words().clear_bits(i, !new & !NOTED | FULL);
            table.words().set_bits(i, new & !(FULL | NOTED));
        } else {
            // A processor follows a present entry above level 1 unless it maps a page or is misconfigured; every entry
            // with one of bits 7:3 is one of these.
            let followed = level > 1 && self.config.is_present(new) && new & (0x78 | LARGE) == 0;
            if followed {
                return Err(EptError::Edit);
            }
            table.set(i, new).map_err(|_| EptError::Edit)?;
        }
        Ok(Invalidation::new(self.pointer, &self.config, true, FrameStack::new()))
    }
}
