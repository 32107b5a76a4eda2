//! An embedder's allocator that does not do everything: the suite takes it at its word, and no further.

use frame_core::{AllocError, DeallocError, FrameAllocator, FrameLayout, FrameRange, FrameStats, PhysAddr};
use frame_testkit::{Backend, Oracle};

/// No places, no windows, and a bad free is taken in silence.
struct Limited(Oracle);

// SAFETY: as the oracle.
unsafe impl FrameAllocator for Limited {
    fn alloc(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        self.0.alloc(layout)
    }
    unsafe fn dealloc(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
        // SAFETY: passed on.
        let _ = unsafe { self.0.dealloc(start, layout) };
        Ok(())
    }
    fn stats(&self) -> FrameStats {
        self.0.stats()
    }
    fn visit_free(&self, visit: &mut dyn FnMut(FrameRange)) {
        self.0.visit_free(visit);
    }
}

struct LimitedBackend;

impl Backend for LimitedBackend {
    const NAME: &'static str = "limited";
    const SUPPORTS_ALLOC_AT: bool = false;
    const SUPPORTS_ALLOC_IN: bool = false;
    const REFUSES_BAD_FREES: bool = false;
    type Allocator<'m> = Limited;

    fn with<R>(regions: &[FrameRange], test: impl FnOnce(&Limited) -> R) -> R {
        let oracle = Oracle::new();
        regions.iter().for_each(|&region| oracle.add_region(region).unwrap());
        test(&Limited(oracle))
    }
}

#[test]
fn it_passes_and_run_all_names_the_cases_as_it_goes() {
    let mut names = Vec::new();
    frame_testkit::conformance::run_all::<LimitedBackend>(&mut |name| names.push(name));
    assert!(names.len() >= 30, "{names:?}");
    assert_eq!((names[0], names.contains(&"fragmented_memory")), ("firmware_frame_counts", true));
    let mut once = names.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), names.len());
}
