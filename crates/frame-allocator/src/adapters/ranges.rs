//! For tests of the adapters: what a map leaves.

use std::vec::Vec;

use frame_core::MemoryMap;

/// Where the ranges start, and how many frames each has.
pub(crate) fn ranges<const N: usize>(map: &MemoryMap<N>) -> Vec<(usize, usize)> {
    map.frames().map(|range| (range.start().as_usize(), range.count())).collect()
}
