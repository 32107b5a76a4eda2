//! What the contenders can do, and ours in several ways: a call for each page, with the token that it gives ([`Ours`]), and
//! all in one session, or one view ([`InSession`]).
//!
//! What ours does beside what the [`peer`](crate::peer) does: it refuses what is misaligned, too wide or not supported by the
//! processor (the peer rounds and masks); takes an entry that may become dirty by an exchange, for a processor may be
//! setting flags in it; frees a table that becomes empty, and hands it out in the token for the INVEPT that changes owe;
//! leaves the tables as they were when a change fails half-way; has the depth of the tables and the meaning of their bits
//! as data, where the peer has constants. The peer notes the pages for `INVLPG`, until they are too many.

use frame_allocator::PhysAddr;
use vmx_structs::{
    CpuModel, Ept, EptAccess, EptAttributes, EptConfig, EptFlags, EptMemoryType, GuestPhysAddr, GuestRange,
    PageSize,
};

use crate::frames::Host;

/// A mapping of a page: guest and host address.
pub(crate) type Page = (u64, u64);

/// What both can do.
pub(crate) trait Tables: Sized {
    const NAME: &'static str;

    /// Empty. `flags`: the processor sets accessed and dirty flags, which ours then keeps. `span`: bytes of guest memory.
    fn new(flags: bool, span: u64) -> Self;
    fn map(&mut self, pages: &[Page], size: PageSize);
    fn unmap(&mut self, pages: &[Page]);
    /// Makes them read-only.
    fn protect(&mut self, pages: &[Page]);
    /// The sum of the host addresses of these addresses.
    fn query(&self, pages: &[Page]) -> u64;
    /// As `query`, with a check that a read is allowed.
    fn translate(&self, pages: &[Page]) -> u64;
    fn map_range(&mut self, guest: u64, host: u64, bytes: u64);
    fn unmap_range(&mut self, guest: u64, bytes: u64);
    fn protect_range(&mut self, guest: u64, bytes: u64);
    /// Host address, size, and whether it can be written.
    fn look(&self, guest: u64) -> Option<(u64, u64, bool)>;
}

pub(crate) struct Ours(Ept<Host>);

impl Tables for Ours {
    const NAME: &'static str = "vmx-structs";

    fn new(flags: bool, _: u64) -> Self {
        let newest = CpuModel::by_id("everything").expect("a model of this name").capabilities();
        let config = EptConfig::new(&newest).expect("EPT").with_accessed_dirty(flags).expect("flags");
        Self(Ept::new(config).expect("a frame"))
    }

    #[inline(never)]
    fn map(&mut self, pages: &[Page], size: PageSize) {
        for &(guest, host) in pages {
            let mapped = self.0.map(GuestPhysAddr::new(guest), host_address(host), size, EptAttributes::RAM);
            mapped.expect("vacant");
        }
    }

    #[inline(never)]
    fn unmap(&mut self, pages: &[Page]) {
        for &(guest, _) in pages {
            let (_, invalidation) = self.0.unmap(GuestPhysAddr::new(guest)).expect("mapped");
            invalidation.waive();
        }
    }

    #[inline(never)]
    fn protect(&mut self, pages: &[Page]) {
        for &(guest, _) in pages {
            let page = GuestRange::new(GuestPhysAddr::new(guest), 1).expect("a page");
            self.0.protect(page, READ_ONLY).expect("mapped").waive();
        }
    }

    #[inline(never)]
    fn query(&self, pages: &[Page]) -> u64 {
        let mut sum = 0u64;
        for &(guest, _) in pages {
            let leaf = self.0.query(GuestPhysAddr::new(guest)).expect("mapped");
            sum = sum.wrapping_add(leaf.host_at(GuestPhysAddr::new(guest)).as_usize() as u64);
            sum = sum.wrapping_add(u64::from(leaf.flags().contains(EptFlags::WRITE)));
        }
        sum
    }

    #[inline(never)]
    fn translate(&self, pages: &[Page]) -> u64 {
        let mut sum = 0u64;
        for &(guest, _) in pages {
            let seen = self.0.translate(GuestPhysAddr::new(guest), EptAccess::READ).expect("allowed");
            sum = sum.wrapping_add(seen.host.as_usize() as u64);
            sum = sum.wrapping_add(u64::from(seen.flags.contains(EptFlags::WRITE)));
        }
        sum
    }

    fn map_range(&mut self, guest: u64, host: u64, bytes: u64) {
        self.0.map_range(range(guest, bytes), host_address(host), EptAttributes::RAM).expect("vacant");
    }

    fn unmap_range(&mut self, guest: u64, bytes: u64) {
        self.0.unmap_range(range(guest, bytes)).expect("frames").waive();
    }

    fn protect_range(&mut self, guest: u64, bytes: u64) {
        self.0.protect(range(guest, bytes), READ_ONLY).expect("mapped").waive();
    }

    fn look(&self, guest: u64) -> Option<(u64, u64, bool)> {
        let leaf = self.0.query(GuestPhysAddr::new(guest))?;
        let attributes = leaf.attributes()?;
        assert!(
            attributes.flags.contains(EptFlags::READ) && attributes.memory_type == EptMemoryType::WriteBack
        );
        let offset = guest & (leaf.size().bytes() - 1);
        let writable = attributes.flags.contains(EptFlags::WRITE);
        Some((leaf.host().as_usize() as u64 + offset, leaf.size().bytes(), writable))
    }
}

/// Ours with one session for all pages, as the peer has one cursor, or one view of the guest's memory; the rest as
/// [`Ours`].
///
/// Where pages are discarded, what a processor sets in an entry just then is lost, as it is by the peer.
pub(crate) struct InSession<const DISCARD: bool>(Ours, GuestRange);

impl<const DISCARD: bool> Tables for InSession<DISCARD> {
    const NAME: &'static str =
        if DISCARD { "vmx-structs, discarding" } else { "vmx-structs, session or view" };

    fn new(flags: bool, span: u64) -> Self {
        Self(Ours::new(flags, span), range(0, span))
    }

    #[inline(never)]
    fn map(&mut self, pages: &[Page], size: PageSize) {
        let mut session = self.0.0.session();
        for &(guest, host) in pages {
            let mapped = session.map(GuestPhysAddr::new(guest), host_address(host), size, EptAttributes::RAM);
            mapped.expect("vacant");
        }
        session.finish().waive();
    }

    #[inline(never)]
    fn unmap(&mut self, pages: &[Page]) {
        let mut session = self.0.0.session();
        for &(guest, _) in pages {
            let guest = GuestPhysAddr::new(guest);
            if DISCARD { session.discard(guest) } else { session.unmap(guest) }.expect("mapped");
        }
        session.finish().waive();
    }

    #[inline(never)]
    fn protect(&mut self, pages: &[Page]) {
        let mut session = self.0.0.session();
        for &(guest, _) in pages {
            let page = GuestRange::new(GuestPhysAddr::new(guest), 1).expect("a page");
            session.protect(page, READ_ONLY).expect("mapped");
        }
        session.finish().waive();
    }

    #[inline(never)]
    fn query(&self, pages: &[Page]) -> u64 {
        let view = self.0.0.view(self.1).expect("a range of the guest");
        let mut sum = 0u64;
        for &(guest, _) in pages {
            let guest = GuestPhysAddr::new(guest);
            let leaf = view.query(guest).expect("mapped");
            sum = sum.wrapping_add(leaf.host_at(guest).as_usize() as u64);
            sum = sum.wrapping_add(u64::from(leaf.flags().contains(EptFlags::WRITE)));
        }
        sum
    }

    #[inline(never)]
    fn translate(&self, pages: &[Page]) -> u64 {
        let view = self.0.0.view(self.1).expect("a range of the guest");
        let mut sum = 0u64;
        for &(guest, _) in pages {
            let seen = view.translate(GuestPhysAddr::new(guest), EptAccess::READ).expect("allowed");
            sum = sum.wrapping_add(seen.host.as_usize() as u64);
            sum = sum.wrapping_add(u64::from(seen.flags.contains(EptFlags::WRITE)));
        }
        sum
    }

    fn map_range(&mut self, guest: u64, host: u64, bytes: u64) {
        self.0.map_range(guest, host, bytes);
    }

    fn unmap_range(&mut self, guest: u64, bytes: u64) {
        self.0.unmap_range(guest, bytes);
    }

    fn protect_range(&mut self, guest: u64, bytes: u64) {
        self.0.protect_range(guest, bytes);
    }

    fn look(&self, guest: u64) -> Option<(u64, u64, bool)> {
        self.0.look(guest)
    }
}

const READ_ONLY: EptAttributes = EptAttributes::RAM.with_flags(EptFlags::READ);

fn range(guest: u64, bytes: u64) -> GuestRange {
    GuestRange::new(GuestPhysAddr::new(guest), bytes / 4096).expect("a range of frames")
}

#[inline]
pub(crate) fn host_address(host: u64) -> PhysAddr {
    PhysAddr::from(host as usize)
}
