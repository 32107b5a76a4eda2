//! The two contenders, ours in two ways: a call for each page, with the token that it gives ([`Ours`]), and in a session or
//! a view ([`InSession`]), which is what the peer's cursor is to be compared with.
//!
//! What ours does beside what the peer does: it refuses what is misaligned, too wide or not supported by the processor
//! (the peer rounds and masks); takes an entry that may become dirty by an exchange, for a processor may be setting flags
//! in it; frees a table that becomes empty, and hands it out in the token for the INVEPT that changes owe; leaves the tables as they
//! were when a change fails half-way; has the depth of the tables and the meaning of their bits as data, where the peer
//! has constants. The peer notes the pages for `INVLPG`, until they are too many.

use frame_allocator::{PhysAddr, VirtAddr};
use page_table_entry::x86_64::X64PTE;
use page_table_multiarch::{MappingFlags, PageSize as PeerSize, PageTable64, PagingMetaData};
use vmx_structs::{
    CpuModel, Ept, EptAccess, EptAttributes, EptConfig, EptFlags, EptMemoryType, GuestPhysAddr, GuestRange,
    PageSize,
};

use crate::frames::{Handler, Host};

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
pub(crate) struct InSession(Ours, GuestRange);

impl Tables for InSession {
    const NAME: &'static str = "vmx-structs, session or view";

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
            session.unmap(GuestPhysAddr::new(guest)).expect("mapped");
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
fn host_address(host: u64) -> PhysAddr {
    PhysAddr::from(host as usize)
}

/// x86 paging in the shape of EPT: 4 levels, addresses of 52 bits.
pub(crate) struct Meta;

impl PagingMetaData for Meta {
    const LEVELS: usize = 4;
    const PA_MAX_BITS: usize = 52;
    const VA_MAX_BITS: usize = 48;
    type VirtAddr = VirtAddr;

    #[inline]
    fn flush_tlb(_: Option<VirtAddr>) {}
}

pub(crate) struct Peer(PageTable64<Meta, X64PTE, Handler>);

const ALL: MappingFlags = MappingFlags::READ.union(MappingFlags::WRITE).union(MappingFlags::EXECUTE);

/// One cursor for all pages, as is meant.
impl Tables for Peer {
    const NAME: &'static str = "page_table_multiarch";

    fn new(_: bool, _: u64) -> Self {
        Self(PageTable64::try_new().expect("a frame"))
    }

    #[inline(never)]
    fn map(&mut self, pages: &[Page], size: PageSize) {
        let size = peer_size(size);
        let mut cursor = self.0.cursor();
        for &(guest, host) in pages {
            cursor.map(virt(guest), host_address(host), size, ALL).expect("vacant");
        }
    }

    #[inline(never)]
    fn unmap(&mut self, pages: &[Page]) {
        let mut cursor = self.0.cursor();
        for &(guest, _) in pages {
            cursor.unmap(virt(guest)).expect("mapped");
        }
    }

    #[inline(never)]
    fn protect(&mut self, pages: &[Page]) {
        let mut cursor = self.0.cursor();
        for &(guest, _) in pages {
            cursor.protect(virt(guest), MappingFlags::READ).expect("mapped");
        }
    }

    #[inline(never)]
    fn query(&self, pages: &[Page]) -> u64 {
        let mut sum = 0u64;
        for &(guest, _) in pages {
            let (host, flags, _) = self.0.query(virt(guest)).expect("mapped");
            sum = sum.wrapping_add(host.as_usize() as u64);
            sum = sum.wrapping_add(u64::from(flags.contains(MappingFlags::WRITE)));
        }
        sum
    }

    #[inline(never)]
    fn translate(&self, pages: &[Page]) -> u64 {
        let mut sum = 0u64;
        for &(guest, _) in pages {
            let (host, flags, _) = self.0.query(virt(guest)).expect("mapped");
            assert!(flags.contains(MappingFlags::READ));
            sum = sum.wrapping_add(host.as_usize() as u64);
            sum = sum.wrapping_add(u64::from(flags.contains(MappingFlags::WRITE)));
        }
        sum
    }

    fn map_range(&mut self, guest: u64, host: u64, bytes: u64) {
        let to_host = |at: VirtAddr| host_address(host + (at.as_usize() as u64 - guest));
        let mut cursor = self.0.cursor();
        cursor.map_region(virt(guest), to_host, bytes as usize, ALL, true).expect("vacant");
    }

    fn unmap_range(&mut self, guest: u64, bytes: u64) {
        self.0.cursor().unmap_region(virt(guest), bytes as usize).expect("mapped");
    }

    fn protect_range(&mut self, guest: u64, bytes: u64) {
        self.0.cursor().protect_region(virt(guest), bytes as usize, MappingFlags::READ).expect("mapped");
    }

    fn look(&self, guest: u64) -> Option<(u64, u64, bool)> {
        let (host, flags, size) = self.0.query(virt(guest)).ok()?;
        Some((host.as_usize() as u64, size as u64, flags.contains(MappingFlags::WRITE)))
    }
}

/// The peer with a cursor for each page, as [`Ours`] has a token for each; the rest as [`Peer`].
pub(crate) struct PeerAlone(Peer);

impl Tables for PeerAlone {
    const NAME: &'static str = "page_table_multiarch, alone";

    fn new(flags: bool, span: u64) -> Self {
        Self(Peer::new(flags, span))
    }

    #[inline(never)]
    fn map(&mut self, pages: &[Page], size: PageSize) {
        let size = peer_size(size);
        for &(guest, host) in pages {
            self.0.0.cursor().map(virt(guest), host_address(host), size, ALL).expect("vacant");
        }
    }

    #[inline(never)]
    fn unmap(&mut self, pages: &[Page]) {
        for &(guest, _) in pages {
            self.0.0.cursor().unmap(virt(guest)).expect("mapped");
        }
    }

    #[inline(never)]
    fn protect(&mut self, pages: &[Page]) {
        for &(guest, _) in pages {
            self.0.0.cursor().protect(virt(guest), MappingFlags::READ).expect("mapped");
        }
    }

    fn query(&self, pages: &[Page]) -> u64 {
        self.0.query(pages)
    }

    fn translate(&self, pages: &[Page]) -> u64 {
        self.0.translate(pages)
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

fn peer_size(size: PageSize) -> PeerSize {
    match size {
        PageSize::Size4K => PeerSize::Size4K,
        PageSize::Size2M => PeerSize::Size2M,
        PageSize::Size1G => PeerSize::Size1G,
    }
}

#[inline]
fn virt(guest: u64) -> VirtAddr {
    VirtAddr::from(guest as usize)
}
