//! The memory map of the Limine boot protocol as a [`MemoryMap`].
//!
//! [`add_memory_map`] takes the entries of `limine` 0.5. [`add_entries`] takes the words of the protocol, so it serves
//! any binding; that of `limine` 0.6, for one, which builds only with a nightly compiler and so cannot be a dependency
//! here:
//!
//! ```text
//! let entries = MEMMAP.response().unwrap().entries().iter();
//! add_entries(&mut map, entries.map(|entry| (entry.base, entry.length, entry.type_)), BootMemory::Reserved)?;
//! ```
//!
//! The kernel, its modules and the frame buffer have types of their own and come out reserved.

use frame_core::{MapError, MemoryMap};
use limine::memory_map::{Entry, EntryType};

use super::BootMemory;

const USABLE: u64 = 0;
const BOOTLOADER_RECLAIMABLE: u64 = 5;

/// Adds every entry of the boot loader's map: usable ones as usable, "bootloader reclaimable" ones as `boot` says, all
/// others as reserved.
///
/// # Errors
/// As [`add_entries`].
pub fn add_memory_map<const N: usize>(
    map: &mut MemoryMap<N>,
    entries: &[&Entry],
    boot: BootMemory,
) -> Result<(), MapError> {
    let kind = |entry: &Entry| match entry.entry_type {
        EntryType::USABLE => USABLE,
        EntryType::BOOTLOADER_RECLAIMABLE => BOOTLOADER_RECLAIMABLE,
        _ => u64::MAX, // whatever it is, it is neither
    };
    add_entries(map, entries.iter().map(|entry| (entry.base, entry.length, kind(entry))), boot)
}

/// Adds entries, each a base, a length and a type as the protocol counts types (`LIMINE_MEMMAP_USABLE` is 0). Types
/// that this crate does not know are reserved.
///
/// # Errors
/// An entry that becomes usable runs past the end of 64-bit addresses, or `map` has no room. The entries before it have
/// been added.
pub fn add_entries<const N: usize>(
    map: &mut MemoryMap<N>,
    entries: impl IntoIterator<Item = (u64, u64, u64)>,
    boot: BootMemory,
) -> Result<(), MapError> {
    for (base, length, kind) in entries {
        match kind {
            USABLE => map.add_usable(base, length)?,
            BOOTLOADER_RECLAIMABLE if boot == BootMemory::Usable => map.add_usable(base, length)?,
            _ => map.add_reserved(base, length)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::ranges::ranges;

    /// Unsorted, overlapping, unaligned; the last entry overflows.
    const ENTRIES: [(u64, u64, EntryType); 7] = [
        (0x10_0000, 0x10_0000, EntryType::USABLE),
        (0x1_0000, 0x8_fc00, EntryType::USABLE),
        (0x18_0800, 0x1000, EntryType::EXECUTABLE_AND_MODULES),
        (0x20_0000, 0x2000, EntryType::BOOTLOADER_RECLAIMABLE),
        (0x1f_f000, 0x800, EntryType::ACPI_RECLAIMABLE),
        (0x20_1800, 0x100, EntryType::FRAMEBUFFER),
        (0xffff_ffff_0000_0000, u64::MAX, EntryType::RESERVED),
    ];

    fn map(boot: BootMemory) -> MemoryMap<8> {
        let entries = ENTRIES.map(|(base, length, entry_type)| Entry { base, length, entry_type });
        let mut map = MemoryMap::new();
        add_memory_map(&mut map, &entries.each_ref(), boot).unwrap();
        map
    }

    #[test]
    fn what_is_not_usable_is_reserved() {
        let mut right = std::vec![(0x1_0000, 0x8f), (0x10_0000, 0x80), (0x18_2000, 0x7d)];
        assert_eq!(ranges(&map(BootMemory::Reserved)), right);
        right.push((0x20_0000, 1));
        assert_eq!(ranges(&map(BootMemory::Usable)), right);
    }

    #[test]
    fn words_of_the_protocol_say_the_same() {
        for boot in [BootMemory::Reserved, BootMemory::Usable] {
            let kinds = [0, 0, 6, 5, 2, 7, 1];
            let words = ENTRIES.iter().zip(kinds).map(|(entry, kind)| (entry.0, entry.1, kind));
            let mut by_words = MemoryMap::<8>::new();
            add_entries(&mut by_words, words, boot).unwrap();
            assert_eq!(ranges(&by_words), ranges(&map(boot)));
        }
        // Types of a later protocol.
        let mut map = MemoryMap::<8>::new();
        let entries = [(0x1000, 0x4000, 0), (0x2000, 1, 8), (0x4000, 1, u64::MAX)];
        add_entries(&mut map, entries, BootMemory::Usable).unwrap();
        assert_eq!(ranges(&map), [(0x1000, 1), (0x3000, 1)]);
    }

    #[test]
    fn usable_memory_past_the_last_address_is_an_error() {
        let mut map = MemoryMap::<8>::new();
        let (base, len) = (u64::MAX - 0xfff, 0x1001);
        for (kind, boot) in [(0, BootMemory::Reserved), (5, BootMemory::Usable)] {
            let added = add_entries(&mut map, [(0x1000, 0x1000, 0), (base, len, kind)], boot);
            assert_eq!(added, Err(MapError::Overflow { base, len }));
            assert_eq!(ranges(&map), [(0x1000, 1)]);
        }
        add_entries(&mut map, [(base, len, 5)], BootMemory::Reserved).unwrap();
    }
}
