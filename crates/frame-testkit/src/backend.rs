//! How the suite builds the allocator that it tests.

use frame_core::{FrameAllocator, FrameRange, RegionError};

/// An allocator that the kit can build: what [`conformance_suite!`](crate::conformance_suite) runs on, and what a
/// [`TestHal`](crate::TestHal) can stand on.
///
/// ```
/// use frame_testkit::{Backend, Oracle, frame_core::FrameRange};
///
/// struct Mine;
/// impl Backend for Mine {
///     const NAME: &'static str = "mine";
///     type Allocator<'m> = Oracle;
///     fn with<R>(regions: &[FrameRange], test: impl FnOnce(&Oracle) -> R) -> R {
///         let allocator = Oracle::new();
///         for &region in regions {
///             allocator.add_region(region).unwrap();
///         }
///         test(&allocator)
///     }
/// }
/// # mod suite { use super::*;
/// frame_testkit::conformance_suite!(Mine);
/// # }
/// # fn main() {}
/// ```
pub trait Backend {
    /// The name in messages.
    const NAME: &'static str;

    /// Whether `alloc_at` works. Cases that need it do nothing otherwise.
    const SUPPORTS_ALLOC_AT: bool = true;

    /// Whether `alloc_in` works. Cases that need it do nothing otherwise.
    const SUPPORTS_ALLOC_IN: bool = true;

    /// Whether a free of a frame that is not allocated is refused at once. A cache that trusts its callers says
    /// `false`: it notices later.
    const REFUSES_BAD_FREES: bool = true;

    /// Runs of up to `2^LARGEST_ORDER` frames must be found wherever an aligned power-of-two block that holds them
    /// is free; larger ones may fail.
    const LARGEST_ORDER: u32 = 18;

    /// The allocator.
    type Allocator<'m>: FrameAllocator;

    /// Builds the allocator over these ranges and runs `test` with it. They are disjoint, sorted and without frame
    /// 0; they may adjoin. Every frame of them is to be handed out: metadata lies elsewhere, on the host's heap.
    fn with<R>(regions: &[FrameRange], test: impl FnOnce(&Self::Allocator<'_>) -> R) -> R;

    /// Empties caches, so that `visit_free` sees every free frame. Called when nothing else runs.
    fn settle(allocator: &Self::Allocator<'_>) {
        let _ = allocator;
    }

    /// Adds a region to an allocator in use. `None` where this type of test cannot do that.
    fn offer(allocator: &Self::Allocator<'_>, region: FrameRange) -> Option<Result<(), RegionError>> {
        let _ = (allocator, region);
        None
    }
}
