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

    /// Runs of up to `2^LARGEST_ORDER` frames must be found wherever an aligned power-of-two block of one region that
    /// holds them is free. Larger ones may fail, and so may those that fit only across the seam of two regions that
    /// adjoin (which `dealloc` and `alloc_at` must serve all the same).
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

/// Declares a [`Backend`] for an allocator with the usual faces: `new()`, and `add_region(range)` or, with the word
/// `metadata`, `metadata_layout(range)` and `add_region(range, bytes)`. In the type, `'m` is the life of the metadata.
///
/// ```
/// use frame_testkit::{Oracle, TestHal, backend, frame_core::PhysFrame, test_hal};
///
/// # mod tree { // stands for a backend crate
/// #   use std::{alloc::Layout, mem::MaybeUninit, marker::PhantomData};
/// #   use frame_testkit::{Oracle, frame_core::*};
/// #   pub struct Tree<'m>(Oracle, PhantomData<&'m ()>);
/// #   impl<'m> Tree<'m> {
/// #     pub const fn new() -> Self { Self(Oracle::new(), PhantomData) }
/// #     pub const fn metadata_layout(_: FrameRange) -> Layout { Layout::new::<u64>() }
/// #     pub unsafe fn add_region(&self, region: FrameRange, metadata: &'m mut [MaybeUninit<u8>])
/// #     -> Result<(), RegionError> { assert_eq!(metadata.len(), 8); self.0.add_region(region) }
/// #   }
/// #   unsafe impl FrameAllocator for Tree<'_> {
/// #     fn alloc(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> { self.0.alloc(layout) }
/// #     unsafe fn dealloc(&self, a: PhysAddr, l: FrameLayout) -> Result<(), DeallocError> { unsafe { self.0.dealloc(a, l) } }
/// #     fn stats(&self) -> FrameStats { self.0.stats() }
/// #     fn visit_free(&self, visit: &mut dyn FnMut(FrameRange)) { self.0.visit_free(visit) }
/// #   }
/// # }
/// # use tree::Tree;
/// backend! { struct Trees("tree"): Tree<'m>, metadata }
/// backend! { struct Oracles("oracle"): Oracle }
///
/// test_hal! { struct Hal }
/// Hal::scope_on::<Trees, _>(100, || drop(PhysFrame::<Hal>::alloc()));
/// Hal::scope_on::<Oracles, _>(100, || drop(PhysFrame::<Hal>::alloc()));
/// ```
#[macro_export]
macro_rules! backend {
    ($(#[$attribute:meta])* $vis:vis struct $name:ident($label:literal): $allocator:ty, metadata $(;)?) => {
        $(#[$attribute])*
        #[derive(Debug)]
        $vis struct $name;

        impl $crate::Backend for $name {
            const NAME: &'static str = $label;
            type Allocator<'m> = $allocator;

            fn with<R>(
                regions: &[$crate::frame_core::FrameRange],
                test: impl FnOnce(&Self::Allocator<'_>) -> R,
            ) -> R {
                let metadata = |region| $crate::Metadata::new(<Self::Allocator<'_>>::metadata_layout(region));
                let mut all = regions.iter().copied().map(metadata).collect::<$crate::__Vec<_>>();
                let allocator = <Self::Allocator<'_>>::new();
                for (region, metadata) in regions.iter().zip(&mut all) {
                    // SAFETY: the frames are simulated memory, or numbers, that nobody else uses.
                    let added = unsafe { allocator.add_region(*region, metadata.bytes()) };
                    added.expect("regions that are disjoint, without frame 0");
                }
                test(&allocator)
            }

            fn offer(
                allocator: &Self::Allocator<'_>,
                region: $crate::frame_core::FrameRange,
            ) -> Option<Result<(), $crate::frame_core::RegionError>> {
                let metadata = $crate::Metadata::leaked(<Self::Allocator<'_>>::metadata_layout(region));
                // SAFETY: as in `with`.
                Some(unsafe { allocator.add_region(region, metadata) })
            }
        }
    };
    ($(#[$attribute:meta])* $vis:vis struct $name:ident($label:literal): $allocator:ty $(;)?) => {
        $(#[$attribute])*
        #[derive(Debug)]
        $vis struct $name;

        impl $crate::Backend for $name {
            const NAME: &'static str = $label;
            type Allocator<'m> = $allocator;

            fn with<R>(
                regions: &[$crate::frame_core::FrameRange],
                test: impl FnOnce(&Self::Allocator<'_>) -> R,
            ) -> R {
                let allocator = <Self::Allocator<'_>>::new();
                for region in regions {
                    // SAFETY: the frames are simulated memory, or numbers, that nobody else uses.
                    #[allow(unused_unsafe)]
                    let added = unsafe { allocator.add_region(*region) };
                    added.expect("regions that are disjoint, without frame 0");
                }
                test(&allocator)
            }

            fn offer(
                allocator: &Self::Allocator<'_>,
                region: $crate::frame_core::FrameRange,
            ) -> Option<Result<(), $crate::frame_core::RegionError>> {
                // SAFETY: as in `with`.
                #[allow(unused_unsafe)]
                Some(unsafe { allocator.add_region(region) })
            }
        }
    };
}
