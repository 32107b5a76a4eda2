//! The memory map of UEFI, in the types of `uefi-raw` 0.17, as a [`MemoryMap`].
//!
//! The map is the one that `ExitBootServices` was called with: until then the firmware changes it. Its descriptors lie
//! `descriptor_size` bytes apart, which is **not** the size of the type: newer firmware appends fields. [`descriptors`]
//! reads them from bytes; the iterator of the crate `uefi` does too.

use frame_core::{FRAME_SIZE, MapError, MemoryMap};
use uefi_raw::table::boot::{MemoryAttribute, MemoryDescriptor, MemoryType};

use super::BootMemory;

/// Adds every descriptor of the firmware's map: conventional memory as usable, code and data of the boot services as
/// `boot` says, all others as reserved. So is memory without the attribute `WRITE_BACK`, and what the firmware says it
/// needs at run time, or keeps for a special purpose.
///
/// The kernel and all that the loader left lie in `LOADER_CODE` and `LOADER_DATA`, which are reserved, as are ACPI
/// tables. With [`BootMemory::Usable`] the kernel must have left the firmware's page tables and stack behind.
///
/// # Errors
/// A descriptor that becomes usable runs past the end of 64-bit addresses, or `map` has no room. The descriptors before
/// it have been added.
pub fn add_memory_map<'d, const N: usize>(
    map: &mut MemoryMap<N>,
    descriptors: impl IntoIterator<Item = &'d MemoryDescriptor>,
    boot: BootMemory,
) -> Result<(), MapError> {
    for descriptor in descriptors {
        let base = descriptor.phys_start;
        let len = descriptor.page_count.checked_mul(FRAME_SIZE as u64);
        match (is_usable(descriptor, boot), len) {
            (true, Some(len)) => map.add_usable(base, len)?,
            (true, None) => return Err(MapError::Overflow { base, len: u64::MAX }),
            (false, len) => map.add_reserved(base, len.unwrap_or(u64::MAX))?,
        }
    }
    Ok(())
}

fn is_usable(descriptor: &MemoryDescriptor, boot: BootMemory) -> bool {
    let kept = MemoryAttribute::RUNTIME | MemoryAttribute::SPECIAL_PURPOSE;
    let is_ram = descriptor.att.contains(MemoryAttribute::WRITE_BACK) && !descriptor.att.intersects(kept);
    is_ram
        && match descriptor.ty {
            MemoryType::CONVENTIONAL => true,
            MemoryType::BOOT_SERVICES_CODE | MemoryType::BOOT_SERVICES_DATA => boot == BootMemory::Usable,
            _ => false,
        }
}

/// The descriptors in the bytes of a map, as the firmware left it, one every `descriptor_size` bytes. `None` when there
/// is no room for a descriptor in so many bytes, or a part of one is left over: it is no such map.
pub fn descriptors(
    map: &[u8],
    descriptor_size: usize,
) -> Option<impl Iterator<Item = MemoryDescriptor> + Clone + '_> {
    if descriptor_size < size_of::<MemoryDescriptor>() || map.len() % descriptor_size != 0 {
        return None;
    }
    Some(map.chunks_exact(descriptor_size).map(|bytes| {
        let word = |at| u64::from_ne_bytes(part(bytes, at));
        MemoryDescriptor {
            ty: MemoryType(u32::from_ne_bytes(part(bytes, 0))),
            phys_start: word(8),
            virt_start: word(16),
            page_count: word(24),
            att: MemoryAttribute::from_bits_retain(word(32)),
            ..MemoryDescriptor::default()
        }
    }))
}

/// `N` bytes of a descriptor, which has them.
fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::adapters::ranges::ranges;

    fn entry(ty: MemoryType, phys_start: u64, page_count: u64) -> MemoryDescriptor {
        let att = MemoryAttribute::WRITE_BACK | MemoryAttribute::WRITE_COMBINE;
        MemoryDescriptor { ty, phys_start, page_count, att, ..MemoryDescriptor::default() }
    }

    /// Unsorted and overlapping, one unaligned, as no firmware should; the last one overflows.
    fn entries() -> Vec<MemoryDescriptor> {
        let with = |att, entry| MemoryDescriptor { att, ..entry };
        let back = MemoryAttribute::WRITE_BACK;
        std::vec![
            entry(MemoryType::CONVENTIONAL, 0x10_0000, 0x100),
            entry(MemoryType::CONVENTIONAL, 0, 0x9f),
            entry(MemoryType::LOADER_DATA, 0x18_0800, 1),
            entry(MemoryType::BOOT_SERVICES_CODE, 0x20_0000, 1),
            entry(MemoryType::BOOT_SERVICES_DATA, 0x20_1000, 1),
            entry(MemoryType(0x7000_0001), 0x11_0000, 1),
            entry(MemoryType::PERSISTENT_MEMORY, 0x30_0000, 0x100),
            with(back | MemoryAttribute::RUNTIME, entry(MemoryType::BOOT_SERVICES_DATA, 0x20_2000, 1)),
            with(back | MemoryAttribute::SPECIAL_PURPOSE, entry(MemoryType::CONVENTIONAL, 0x40_0000, 1)),
            with(MemoryAttribute::UNCACHEABLE, entry(MemoryType::CONVENTIONAL, 0x41_0000, 1)),
            entry(MemoryType::MMIO, 0xffff_ffff_0000_0000, u64::MAX),
        ]
    }

    #[test]
    fn what_is_not_usable_is_reserved() {
        let of = |boot| {
            let mut map = MemoryMap::<8>::new();
            add_memory_map(&mut map, &entries(), boot).unwrap();
            ranges(&map)
        };
        let mut right = std::vec![(0x1000, 0x9e), (0x10_0000, 0x10), (0x11_1000, 0x6f), (0x18_2000, 0x7e)];
        assert_eq!(of(BootMemory::Reserved), right);
        right.last_mut().unwrap().1 += 2; // the boot services' memory adjoins
        assert_eq!(of(BootMemory::Usable), right);
    }

    #[test]
    fn usable_memory_past_the_last_address_is_an_error() {
        for (base, pages) in [(0, 1 << 52), (0x1000, u64::MAX), (u64::MAX - 0xfff, 2)] {
            let mut map = MemoryMap::<8>::new();
            let entries = [
                entry(MemoryType::CONVENTIONAL, 0x1000, 1),
                entry(MemoryType::BOOT_SERVICES_DATA, base, pages),
            ];
            let added = add_memory_map(&mut map, &entries, BootMemory::Usable);
            assert!(matches!(added, Err(MapError::Overflow { base: at, .. }) if at == base), "{added:?}");
            assert_eq!(ranges(&map), [(0x1000, 1)]);
            add_memory_map(&mut map, &entries, BootMemory::Reserved).unwrap();
        }
    }

    #[test]
    fn descriptors_lie_as_far_apart_as_the_firmware_says() {
        for size in [40, 48, 56] {
            let mut bytes = Vec::new();
            for entry in entries() {
                let start = bytes.len();
                bytes.extend(entry.ty.0.to_ne_bytes());
                bytes.extend([0; 4]);
                for word in [entry.phys_start, entry.virt_start, entry.page_count, entry.att.bits()] {
                    bytes.extend(word.to_ne_bytes());
                }
                bytes.resize(start + size, 0xee);
            }
            assert_eq!(descriptors(&bytes, size).unwrap().collect::<Vec<_>>(), entries());
            assert!(descriptors(&bytes[1..], size).is_none());
        }
        for size in [0, 1, 39] {
            assert!(descriptors(&[], size).is_none());
        }
    }
}
