//! The suite that every backend passes.
//!
//! A case is a public function, generic over the [`Backend`](crate::Backend), which panics when the allocator is at
//! fault. [`conformance_suite!`](crate::conformance_suite) makes a `#[test]` of each; [`run_all`] runs them where
//! there is no test harness. Cases drive the allocator by a [`Judge`](crate::Judge), so that every answer, not just
//! the one that the case is about, is checked against the set of frames that must be free.

mod bad_frees;
mod bulk;
mod counts;
mod exhaustion;
mod frees;
mod model;
mod placement;
mod regions;
mod runs;
#[cfg(feature = "std")]
mod threads;

pub use bad_frees::*;
pub use bulk::*;
pub use counts::*;
pub use exhaustion::*;
pub use frees::*;
pub use model::*;
pub use placement::*;
pub use regions::*;
pub use runs::*;
#[cfg(feature = "std")]
pub use threads::*;

use alloc::vec::Vec;

use frame_core::{FRAME_SIZE, FrameLayout, FrameRange, PhysAddr};

use crate::{firmware, frame_set::range};

/// Expands to a `#[test]` for each case of the [suite](crate::conformance), run on a
/// [`Backend`](crate::Backend).
///
/// `conformance_suite!(Mine)` puts the tests where it stands; `conformance_suite!(mine: Mine)` puts them into a
/// module `mine`, so that one file can test several backends.
#[macro_export]
macro_rules! conformance_suite {
    ($module:ident: $backend:ty) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $crate::conformance_suite!($backend);
        }
    };
    ($backend:ty) => {
        $crate::__for_each_case!(@test $backend);
        $crate::__for_each_threaded_case!(@test $backend);
    };
}

/// Defines a macro that names each case: in a `#[test]`, or one after the other.
macro_rules! cases {
    ($dollar:tt $list:ident: $($case:ident)*) => {
        #[doc(hidden)]
        #[macro_export]
        macro_rules! $list {
            (@test $dollar backend:ty) => {$(
                #[test]
                fn $case() {
                    $dollar crate::conformance::$case::<$dollar backend>();
                }
            )*};
            (@run $dollar backend:ty, $dollar name:ident) => {$(
                $dollar name(stringify!($case));
                $case::<$dollar backend>();
            )*};
            (@names) => {
                &[$(stringify!($case)),*]
            };
        }
    };
}

cases! { $ __for_each_case:
    firmware_frame_counts
    random_map_frame_counts
    exhaustion_frame_by_frame
    exhaustion_of_firmware_maps
    exhaustion_of_random_maps
    runs_of_every_order
    odd_counts_and_alignments
    impossible_layouts_fail
    parts_are_freed_in_any_order
    neighbours_are_freed_together
    neighbouring_regions_are_freed_together
    double_frees_are_refused
    foreign_frees_are_refused
    frees_of_a_wrong_size_are_refused
    misaligned_frees_are_refused
    placed_frames
    placed_frames_across_regions
    windows
    exhausted_windows
    bulk_until_empty
    bulk_frees_go_on_behind_a_bad_frame
    bad_regions_are_refused
    regions_are_added_in_use
    too_many_regions_are_refused
    regions_of_every_shape
    high_addresses
    random_operations_on_small_maps
    random_operations_on_firmware_maps
    fragmented_memory
}

#[cfg(feature = "std")]
cases! { $ __for_each_threaded_case:
    threads_share_single_frames
    threads_share_runs
    threads_free_for_each_other
    threads_exhaust_memory
    threads_look_while_others_work
    threads_use_regions_as_they_come
}

#[cfg(not(feature = "std"))]
cases! { $ __for_each_threaded_case: }

/// The names of the cases that need no threads, in order: what [`run_all`] runs where there is no `std`. Whoever
/// judges such a run from outside demands as many.
pub const CASES: &[&str] = __for_each_case!(@names);

/// Runs every case, without a test harness: in a kernel, say. `name` is told each case's name before it starts; a
/// fault is a panic.
pub fn run_all<B: crate::Backend>(name: &mut dyn FnMut(&'static str)) {
    __for_each_case!(@run B, name);
    __for_each_threaded_case!(@run B, name);
}

/// Ranges of all shapes, 6,613 frames: single frames, ragged edges, ranges that adjoin, one that spans 4 GiB,
/// whole and aligned 4 MiB.
fn ragged() -> Vec<FrameRange> {
    const AT_1G: usize = 1 << 18;
    const AT_4G: usize = 1 << 20;
    [
        (1, 2),
        (3, 159),
        (256, 1256),
        (2048 + 7, 2048 + 520),
        (2048 + 520, 2048 + 1100),
        (AT_1G - 3, AT_1G + 700),
        (AT_4G - 600, AT_4G + 1011),
        (AT_4G + 1013, AT_4G + 1014),
        (AT_4G + 4096, AT_4G + 4096 + 2048),
    ]
    .map(|(start, end)| range(start, end))
    .into()
}

/// The ranges of a built-in firmware map.
fn firmware_ranges(name: &str) -> Vec<FrameRange> {
    firmware::by_name(name).expect("a built-in map").map().frames().collect()
}

/// Below 16 MiB: the memory that old DMA reaches.
fn below(bytes: usize) -> FrameRange {
    range(0, bytes / FRAME_SIZE)
}

fn contiguous(count: usize) -> FrameLayout {
    FrameLayout::contiguous(count).expect("a count of a few frames")
}

fn aligned(count: usize, align: usize) -> FrameLayout {
    FrameLayout::new(count, align).expect("a power of two")
}

fn frame(number: usize) -> PhysAddr {
    PhysAddr::from(number * FRAME_SIZE)
}
