//! The suite that every backend passes.

use std::mem::MaybeUninit;

use frame_bitmap::Bitmap;
use frame_core::{FrameRange, RegionError};
use frame_testkit::Backend;

struct Bitmaps;

fn metadata(region: FrameRange) -> Box<[MaybeUninit<u8>]> {
    Box::new_uninit_slice(<Bitmap>::metadata_layout(region).size())
}

impl Backend for Bitmaps {
    const NAME: &'static str = "bitmap";
    type Allocator<'m> = Bitmap<'m>;

    fn with<R>(regions: &[FrameRange], test: impl FnOnce(&Bitmap<'_>) -> R) -> R {
        let mut books: Vec<_> = regions.iter().copied().map(metadata).collect();
        let bitmap = Bitmap::new();
        for (&region, books) in regions.iter().zip(&mut books) {
            // SAFETY: the frames are numbers; nothing touches memory there.
            unsafe { bitmap.add_region(region, books) }.unwrap();
        }
        test(&bitmap)
    }

    fn offer(bitmap: &Bitmap<'_>, region: FrameRange) -> Option<Result<(), RegionError>> {
        // SAFETY: as above. A few regions in all: what they leak is small.
        Some(unsafe { bitmap.add_region(region, Box::leak(metadata(region))) })
    }
}

frame_testkit::conformance_suite!(Bitmaps);
