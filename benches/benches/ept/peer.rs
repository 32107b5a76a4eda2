//! The nearest peer: the 64-bit page tables of `page_table_multiarch`.

use frame_allocator::VirtAddr;
use page_table_entry::x86_64::X64PTE;
use page_table_multiarch::{MappingFlags, PageSize as PeerSize, PageTable64, PagingMetaData};
use vmx_structs::PageSize;

use crate::frames::Handler;
use crate::tables::{Page, Tables, host_address};

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

/// All pages by one cursor, as is meant, or each by one of its own, as [`Ours`](crate::tables::Ours) has a token for each.
pub(crate) struct Peer<const ALONE: bool>(PageTable64<Meta, X64PTE, Handler>);

const ALL: MappingFlags = MappingFlags::READ.union(MappingFlags::WRITE).union(MappingFlags::EXECUTE);

impl<const ALONE: bool> Tables for Peer<ALONE> {
    const NAME: &'static str = if ALONE { "page_table_multiarch, alone" } else { "page_table_multiarch" };

    fn new(_: bool, _: u64) -> Self {
        Self(PageTable64::try_new().expect("a frame"))
    }

    #[inline(never)]
    fn map(&mut self, pages: &[Page], size: PageSize) {
        let size = peer_size(size);
        if ALONE {
            for &(guest, host) in pages {
                self.0.cursor().map(virt(guest), host_address(host), size, ALL).expect("vacant");
            }
            return;
        }
        let mut cursor = self.0.cursor();
        for &(guest, host) in pages {
            cursor.map(virt(guest), host_address(host), size, ALL).expect("vacant");
        }
    }

    #[inline(never)]
    fn unmap(&mut self, pages: &[Page]) {
        if ALONE {
            for &(guest, _) in pages {
                self.0.cursor().unmap(virt(guest)).expect("mapped");
            }
            return;
        }
        let mut cursor = self.0.cursor();
        for &(guest, _) in pages {
            cursor.unmap(virt(guest)).expect("mapped");
        }
    }

    #[inline(never)]
    fn protect(&mut self, pages: &[Page]) {
        if ALONE {
            for &(guest, _) in pages {
                self.0.cursor().protect(virt(guest), MappingFlags::READ).expect("mapped");
            }
            return;
        }
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
