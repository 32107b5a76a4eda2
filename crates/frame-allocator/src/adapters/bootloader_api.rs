//! The memory map of `bootloader_api` 0.11 as a [`MemoryMap`].

use bootloader_api::info::{MemoryRegion, MemoryRegionKind};
use frame_core::{MapError, MemoryMap};

/// Adds every region of the boot loader's map (`&boot_info.memory_regions`): usable ones as usable, all others as
/// reserved. What the boot loader itself uses (`Bootloader`) holds the page tables that the kernel runs on, the kernel
/// and the boot information, so it is reserved for good.
///
/// # Errors
/// A usable region ends before it starts, or `map` has no room. The regions before it have been added.
pub fn add_memory_map<const N: usize>(
    map: &mut MemoryMap<N>,
    regions: &[MemoryRegion],
) -> Result<(), MapError> {
    for region in regions {
        // A region that ends before it starts has a length that runs past the last address: an error for a usable one.
        let len = region.end.wrapping_sub(region.start);
        match region.kind {
            MemoryRegionKind::Usable => map.add_usable(region.start, len)?,
            _ => map.add_reserved(region.start, len)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::ranges::ranges;

    const fn region(start: u64, end: u64, kind: MemoryRegionKind) -> MemoryRegion {
        MemoryRegion { start, end, kind }
    }

    #[test]
    fn what_is_not_usable_is_reserved() {
        // Unsorted, overlapping, unaligned; the last one ends before it starts.
        let regions = [
            region(0x10_0000, 0x20_0000, MemoryRegionKind::Usable),
            region(0x1000, 0x9_fc00, MemoryRegionKind::Usable),
            region(0x18_0800, 0x18_1800, MemoryRegionKind::Bootloader),
            region(0x1f_f000, 0x1f_f001, MemoryRegionKind::UnknownUefi(9)),
            region(0x10_0000, 0x10_0800, MemoryRegionKind::UnknownBios(77)),
            region(0x5000, 0x5000, MemoryRegionKind::UnknownBios(2)),
            region(0xffff_ffff_0000_0000, 0x1000, MemoryRegionKind::Bootloader),
        ];
        let mut map = MemoryMap::<8>::new();
        add_memory_map(&mut map, &regions).unwrap();
        assert_eq!(ranges(&map), [(0x1000, 0x9e), (0x10_1000, 0x7f), (0x18_2000, 0x7d)]);
    }

    #[test]
    fn a_usable_region_that_ends_before_it_starts_is_an_error() {
        let mut map = MemoryMap::<8>::new();
        for (start, end) in [(0x5000, 0x4fff), (u64::MAX, 1), (2, 1)] {
            let added = add_memory_map(
                &mut map,
                &[
                    region(0x1000, 0x2000, MemoryRegionKind::Usable),
                    region(start, end, MemoryRegionKind::Usable),
                ],
            );
            assert!(matches!(added, Err(MapError::Overflow { base, .. }) if base == start), "{added:?}");
            assert_eq!(ranges(&map), [(0x1000, 1)]);
        }
    }
}
