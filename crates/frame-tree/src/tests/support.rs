//! Trees over frames that are not there: the tree never touches them.

use std::{alloc, mem::MaybeUninit, slice, vec::Vec};

use frame_core::{FRAME_SIZE, FrameLayout, FrameRange, PhysAddr};

use crate::Tree;

pub(super) fn at(frame: usize) -> PhysAddr {
    PhysAddr::from(frame * FRAME_SIZE)
}

pub(super) fn range(first: usize, count: usize) -> FrameRange {
    FrameRange::new(at(first), count).unwrap()
}

pub(super) fn layout(count: usize, align_frames: usize) -> FrameLayout {
    FrameLayout::new(count, align_frames * FRAME_SIZE).unwrap()
}

/// Metadata on the heap, full of rubbish at first.
pub(super) struct Metadata {
    pointer: *mut u8,
    layout: alloc::Layout,
}

impl Metadata {
    pub(super) fn new(region: FrameRange, byte: u8) -> Self {
        let layout = <Tree>::metadata_layout(region);
        // SAFETY: the size is not 0.
        let pointer = unsafe { alloc::alloc(layout) };
        assert!(!pointer.is_null());
        // SAFETY: just allocated with that size.
        unsafe { pointer.write_bytes(byte, layout.size()) };
        Self { pointer, layout }
    }

    pub(super) fn bytes(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: the memory is ours, and borrowed as long as `self`.
        unsafe { slice::from_raw_parts_mut(self.pointer.cast(), self.layout.size()) }
    }
}

// SAFETY: the memory is owned, as a `Box` would.
unsafe impl Send for Metadata {}

impl Drop for Metadata {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { alloc::dealloc(self.pointer, self.layout) };
    }
}

/// Runs `test` with a tree over these regions: first frame and count of each.
pub(super) fn with_tree<R>(regions: &[(usize, usize)], test: impl FnOnce(&Tree<'_>) -> R) -> R {
    let regions: Vec<_> = regions.iter().map(|(first, count)| range(*first, *count)).collect();
    // Rubbish for every other region, zeroes that are declared as such for the rest.
    let mut metadata: Vec<_> =
        regions.iter().enumerate().map(|(i, region)| Metadata::new(*region, [0xa5, 0][i % 2])).collect();
    let tree = Tree::new();
    for (i, (region, metadata)) in regions.iter().zip(&mut metadata).enumerate() {
        // SAFETY: nobody uses the frames, which are not even there.
        unsafe {
            match i % 2 {
                0 => tree.add_region(*region, metadata.bytes()).unwrap(),
                _ => tree.add_zeroed_region(*region, metadata.bytes()).unwrap(),
            }
        }
    }
    test(&tree)
}

/// A small generator of numbers (xorshift64*).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }
}
