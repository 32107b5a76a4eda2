//! The suite that every backend passes.

use frame_buddy::Buddy;
use frame_core::{FrameRange, RegionError};
use frame_testkit::Backend;

struct Buddies;

impl Backend for Buddies {
    const NAME: &'static str = "buddy";
    type Allocator<'m> = Buddy;

    fn with<R>(regions: &[FrameRange], test: impl FnOnce(&Buddy) -> R) -> R {
        let buddy = Buddy::new();
        for &region in regions {
            // SAFETY: the frames are numbers; nothing touches memory there.
            unsafe { buddy.add_region(region) }.unwrap();
        }
        test(&buddy)
    }

    fn offer(buddy: &Buddy, region: FrameRange) -> Option<Result<(), RegionError>> {
        // SAFETY: as above.
        Some(unsafe { buddy.add_region(region) })
    }
}

frame_testkit::conformance_suite!(Buddies);
