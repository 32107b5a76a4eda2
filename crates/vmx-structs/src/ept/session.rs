//! Many changes, one INVEPT: a session.
//!
//! An INVEPT stops every processor that runs the guest, so whoever changes many pages one by one, a balloon for
//! instance, wants to owe one for all of them. A session makes changes as [`Ept`] does, all or nothing each, and gathers
//! what they owe: whether an INVEPT is needed, and the tables that became free. [`finish`](EptSession::finish) gives it
//! out as one [`Invalidation`].
//!
//! A session also puts off what need not be done for every page: it notes the tables that it took pages out of, and
//! looks whether they are empty when it goes on to another part of the guest (another gibibyte, where pages of 4 KiB are
//! taken out), or before anything that has to know.
//!
//! What a session owes that was not finished, the next one owes. Dropped, it logs an error, and the tables that it had
//! unlinked leak. Forgotten ([`core::mem::forget`]), it leaks them too, and tables that map nothing may stay linked until
//! the next session, which a map of a larger page in their place finds occupied.
//!
//! # Invariants
//!
//! - a table that may be empty is among the [`Suspects`], and an INVEPT is owed; no table is empty that is not;
//! - tables that are no longer linked lie in `retired`: they are not freed before the INVEPT.

use core::{fmt, mem};

use frame_core::{FrameHal, FrameStack, PhysAddr};
use log::error;

use super::entry::{FULL, NOTED};
use super::lookup::change_link;
use super::page::take_page;
use super::protect::restricts;
use super::vacancy::Suspects;
use super::{Ept, EptAttributes, EptError, EptLeaf, Invalidation};
use crate::{GuestPhysAddr, GuestRange, PageSize};

/// Changes of EPT tables that owe one [`Invalidation`] together: see [`Ept::session`].
#[must_use = "finish it: processors may go on using the old translations"]
pub struct EptSession<'a, H: FrameHal> {
    ept: &'a mut Ept<H>,
    retired: FrameStack<H>,
}

impl<H: FrameHal> Ept<H> {
    /// Begins a session: changes that owe one INVEPT together.
    ///
    /// ```
    /// # use frame_core::FrameHal;
    /// # use vmx_structs::*;
    /// /// Takes pages that the guest gave back out of its memory.
    /// fn inflate<H: FrameHal>(
    ///     ept: &mut Ept<H>,
    ///     pages: &[GuestPhysAddr],
    /// ) -> (Invalidation<H>, Result<(), EptError>) {
    ///     let mut session = ept.session();
    ///     let done = pages.iter().try_for_each(|&page| session.discard(page).map(|_| ()));
    ///     (session.finish(), done) // what was done before an error owes its INVEPT all the same
    /// }
    /// ```
    #[inline]
    pub fn session(&mut self) -> EptSession<'_, H> {
        EptSession { ept: self, retired: FrameStack::new() }
    }
}

impl<H: FrameHal> EptSession<'_, H> {
    /// As [`Ept::map`].
    ///
    /// # Errors
    /// As there. What the session did before stays.
    #[inline]
    pub fn map(
        &mut self,
        guest: GuestPhysAddr,
        host: PhysAddr,
        size: PageSize,
        attributes: EptAttributes,
    ) -> Result<(), EptError> {
        if self.ept.map_at_once(guest, host, size, attributes) {
            return Ok(());
        }
        self.settle();
        self.ept.map_closely(guest, host, size, attributes)
    }

    /// As [`Ept::map_range`].
    ///
    /// # Errors
    /// As there. What the session did before stays.
    pub fn map_range(
        &mut self,
        range: GuestRange,
        host: PhysAddr,
        attributes: EptAttributes,
    ) -> Result<(), EptError> {
        self.settle();
        self.ept.map_range(range, host, attributes)
    }

    /// As [`Ept::unmap`]: takes one page out and returns it as it was, its dirty flag included.
    ///
    /// # Errors
    /// As there. What the session did before stays.
    #[inline]
    pub fn unmap(&mut self, guest: GuestPhysAddr) -> Result<EptLeaf, EptError> {
        self.take::<true>(guest)
    }

    /// As [`unmap`](Self::unmap), of a page that nobody will look into any more, as of one that the guest gave back: a
    /// write that comes just now may be missing from the dirty flag that is returned. To be sure of it, `unmap` needs a
    /// locked exchange for each page that is clean and can be written; this is a plain store.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn discard(&mut self, guest: GuestPhysAddr) -> Result<EptLeaf, EptError> {
        self.take::<false>(guest)
    }

    #[inline(always)]
    fn take<const EXACT: bool>(&mut self, guest: GuestPhysAddr) -> Result<EptLeaf, EptError> {
        let address = guest.as_u64();
        let Ept { tree, format, suspects, .. } = &mut *self.ept;
        let taken = take_page::<EXACT, H>(tree, format, address, |level, link, _| {
            link & NOTED != 0 || level == 3 && suspects.has_region(address)
        });
        match taken {
            Some((leaf, None)) => Ok(leaf),
            Some((leaf, Some(level))) => {
                self.suspect(address, level);
                Ok(leaf)
            }
            None => Err(self.ept.no_page(guest)),
        }
    }

    /// As [`Ept::unmap_range`].
    ///
    /// # Errors
    /// As there. What the session did before stays.
    pub fn unmap_range(&mut self, range: GuestRange) -> Result<(), EptError> {
        self.settle();
        let owed = self.ept.unmap_range(range)?;
        self.take_over(owed);
        Ok(())
    }

    /// As [`Ept::protect`].
    ///
    /// # Errors
    /// As there. What the session did before stays.
    #[inline]
    pub fn protect(&mut self, range: GuestRange, attributes: EptAttributes) -> Result<(), EptError> {
        // Tables that may be empty are gaps like vacant entries above them: the same is refused.
        match self.ept.protect_page(range, attributes) {
            // If one is owed already, it need not be found out.
            Some((old, new)) => {
                if !self.ept.session_owes && restricts(old, new) {
                    self.ept.session_owes = true;
                }
            }
            None => self.ept.session_owes |= self.ept.protect_closely(range, attributes)?,
        }
        Ok(())
    }

    /// As [`Ept::remap`].
    ///
    /// # Errors
    /// As there. What the session did before stays.
    pub fn remap(
        &mut self,
        guest: GuestPhysAddr,
        host: PhysAddr,
        attributes: EptAttributes,
    ) -> Result<EptLeaf, EptError> {
        let (leaf, owed) = self.ept.remap(guest, host, attributes)?;
        self.take_over(owed);
        Ok(leaf)
    }

    /// As [`Ept::split`].
    ///
    /// # Errors
    /// As there. What the session did before stays.
    pub fn split(&mut self, range: GuestRange, size: PageSize) -> Result<(), EptError> {
        let owed = self.ept.split(range, size)?;
        self.take_over(owed);
        Ok(())
    }

    /// As [`Ept::merge`].
    ///
    /// # Errors
    /// As there. What the session did before stays.
    pub fn merge(&mut self, range: GuestRange) -> Result<(), EptError> {
        let owed = self.ept.merge(range)?;
        self.take_over(owed);
        Ok(())
    }

    /// The tables as they are: to look up, or walk. They may have tables that map nothing, until the session ends.
    #[inline]
    pub fn ept(&self) -> &Ept<H> {
        self.ept
    }

    /// Ends the session. Gives the INVEPT that its changes owe, if one is, and the tables that it frees.
    #[inline]
    pub fn finish(mut self) -> Invalidation<H> {
        self.settle();
        let (needed, retired) = (mem::take(&mut self.ept.session_owes), mem::take(&mut self.retired));
        self.ept.owed(needed, retired)
    }

    /// Takes in what a change owes.
    fn take_over(&mut self, owed: Invalidation<H>) {
        let (needed, retired) = owed.into_parts();
        self.ept.session_owes |= needed;
        self.retired.append(retired);
    }

    /// Notes a table. Where others were noted that lie below another table, it first looks whether those are empty.
    #[cold]
    #[inline(never)]
    fn suspect(&mut self, address: u64, level: u32) {
        self.ept.session_owes = true;
        if !self.ept.suspects.note(address, level) {
            self.settle();
            self.ept.suspects.note(address, level);
        }
        change_link(&mut self.ept.tree, &self.ept.format, address, level, FULL, NOTED);
    }

    /// Unlinks the tables that were noted and are empty.
    fn settle(&mut self) {
        if self.ept.suspects.is_empty() {
            return;
        }
        let (level, addresses) = mem::replace(&mut self.ept.suspects, Suspects::NONE).addresses();
        let mut gone = None;
        for address in addresses {
            if let Some(table) = self.ept.take_empty(level, address) {
                self.retired.push(table);
                gone = Some(address);
            }
        }
        // The tables above them may be empty now as well.
        if let Some(address) = gone {
            self.retired.append(self.ept.prune(address));
        }
    }
}

impl<H: FrameHal> Drop for EptSession<'_, H> {
    /// A session that was not finished: what it did is done, and its INVEPT is owed, by the next session.
    #[inline]
    fn drop(&mut self) {
        self.settle();
        if self.ept.session_owes || !self.retired.is_empty() {
            self.leak();
        }
    }
}

impl<H: FrameHal> EptSession<'_, H> {
    #[cold]
    fn leak(&mut self) {
        error!("{self:?} was dropped and not finished: its tables leak");
        mem::forget(mem::take(&mut self.retired));
    }
}

impl<H: FrameHal> fmt::Debug for EptSession<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EptSession")
            .field("ept", &self.ept.pointer())
            .field("needed", &self.ept.session_owes)
            .field("retired_tables", &self.retired.len())
            .finish()
    }
}
