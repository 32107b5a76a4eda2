//! The suite that every backend passes.
#![cfg(not(loom))]

use frame_core::{FrameRange, RegionError};
use frame_testkit::{Backend, Metadata};
use frame_tree::Tree;

struct Trees;

impl Backend for Trees {
    const NAME: &'static str = "tree";
    type Allocator<'m> = Tree<'m, 64>;

    fn with<R>(regions: &[FrameRange], test: impl FnOnce(&Tree<'_, 64>) -> R) -> R {
        let mut metadata: Vec<_> =
            regions.iter().map(|region| Metadata::new(<Tree>::metadata_layout(*region))).collect();
        let tree = Tree::new();
        for (region, metadata) in regions.iter().zip(&mut metadata) {
            // SAFETY: the frames are numbers; nothing touches memory there.
            unsafe { tree.add_region(*region, metadata.bytes()) }.unwrap();
        }
        test(&tree)
    }

    fn offer(tree: &Tree<'_, 64>, region: FrameRange) -> Option<Result<(), RegionError>> {
        // SAFETY: as above. A few regions in all: what they leak is small.
        Some(unsafe { tree.add_region(region, Metadata::leaked(<Tree>::metadata_layout(region))) })
    }
}

frame_testkit::conformance_suite!(Trees);
