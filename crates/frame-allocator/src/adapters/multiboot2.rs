//! The memory map of `multiboot2` 0.28 as a [`MemoryMap`].

use frame_core::{MapError, MemoryMap};
use multiboot2::{MemoryAreaType, MemoryMapTag};

/// Adds every area of the boot loader's map: available ones as usable, all others as reserved.
///
/// The kernel, its modules and the boot information lie in available memory: reserve them too.
///
/// # Errors
/// An available area runs past the end of 64-bit addresses, or `map` has no room. The areas before it have been added.
pub fn add_memory_map<const N: usize>(map: &mut MemoryMap<N>, tag: &MemoryMapTag) -> Result<(), MapError> {
    for area in tag.memory_areas() {
        // The end is not used: on ragged maps base plus length overflows there.
        if area.typ() == MemoryAreaType::Available {
            map.add_usable(area.start_address(), area.size())?;
        } else {
            map.add_reserved(area.start_address(), area.size())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use multiboot2::MemoryArea;

    use super::*;
    use crate::adapters::ranges::ranges;

    #[test]
    fn reserved_areas_win_over_available_ones() {
        let tag = MemoryMapTag::new(&[
            MemoryArea::new(0x10_0000, 0x10_0000, MemoryAreaType::Available),
            MemoryArea::new(0x18_0800, 0x1000, MemoryAreaType::Reserved),
            MemoryArea::new(0, 0x9_fc00, MemoryAreaType::Available),
        ]);
        let mut map = MemoryMap::<4>::new();
        add_memory_map(&mut map, &tag).unwrap();
        assert_eq!(ranges(&map), [(0x1000, 0x9e), (0x10_0000, 0x80), (0x18_2000, 0x7e)]);
    }

    #[test]
    fn only_available_areas_that_overflow_are_errors() {
        let add = |kind: MemoryAreaType| {
            let mut map = MemoryMap::<4>::new();
            add_memory_map(&mut map, &MemoryMapTag::new(&[MemoryArea::new(0x1000, u64::MAX, kind)]))
        };
        assert_eq!(add(MemoryAreaType::Available), Err(MapError::Overflow { base: 0x1000, len: u64::MAX }));
        for kind in [MemoryAreaType::Reserved, MemoryAreaType::Custom(77)] {
            assert_eq!(add(kind), Ok(()));
        }
    }
}
