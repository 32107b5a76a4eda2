//! A HAL for tests: it fails the test when a frame leaks, is freed twice, is written after it was freed, or is
//! reached though nobody owns it.
//!
//! [`test_hal!`](crate::test_hal) declares a type with a state of its own. Inside a [scope](TestHal::scope) it hands
//! out frames of [`SimMemory`](crate::SimMemory), from the oracle or from any [`Backend`], so that one test can run on
//! every allocator. Frames are poisoned when they are handed out and when they come back: code that forgets to clear
//! a frame reads `0xa5`, and code that goes on using a freed one is found.

mod ledger;
mod scope;
mod state;

pub use state::{HalState, SimHal};

use std::{eprintln, thread};

use frame_core::{FrameHal, FrameRange, PhysAddr};

use crate::{Backend, OracleBackend};

/// What the scopes without a map have: frames from 16 MiB on, so that the addresses are ordinary.
const BASE: usize = 16 << 20;

/// Declares a HAL for tests, a type that implements [`FrameHal`] and [`TestHal`].
///
/// ```
/// use frame_testkit::{TestHal, frame_core::PhysFrame, test_hal};
///
/// test_hal! { struct MyHal }
///
/// MyHal::scope(16, || {
///     let frame = PhysFrame::<MyHal>::alloc_zero().unwrap();
///     assert_eq!(MyHal::owned(), 1);
///     drop(frame); // without this line, nothing changes; with `mem::forget`, the scope panics and names the frame
/// });
/// ```
///
/// The second form expands to no `unsafe` code, for crates that forbid it:
/// ```
/// #![forbid(unsafe_code)]
/// frame_testkit::test_hal! { type MyHal = SimHal<MyTag> }
/// # use frame_testkit::TestHal;
/// MyHal::scope(16, || assert_eq!(MyHal::owned(), 0));
/// ```
#[macro_export]
macro_rules! test_hal {
    ($(#[$attribute:meta])* $vis:vis struct $name:ident $(;)?) => {
        $(#[$attribute])*
        #[derive(Debug)]
        $vis struct $name;

        $crate::__hal_state!($name);

        // SAFETY: `HalState` keeps the promises of a HAL, and every call goes there.
        unsafe impl $crate::frame_core::FrameHal for $name {
            fn alloc_frame() -> Option<$crate::frame_core::PhysAddr> {
                <Self as $crate::HalTag>::state().alloc($crate::frame_core::FrameLayout::SINGLE).ok()
            }
            unsafe fn dealloc_frame(paddr: $crate::frame_core::PhysAddr) {
                <Self as $crate::HalTag>::state().dealloc(paddr, $crate::frame_core::FrameLayout::SINGLE);
            }
            fn phys_to_virt(paddr: $crate::frame_core::PhysAddr) -> $crate::frame_core::VirtAddr {
                <Self as $crate::HalTag>::state().phys_to_virt(paddr)
            }
            fn alloc_frames(
                layout: $crate::frame_core::FrameLayout,
            ) -> Result<$crate::frame_core::PhysAddr, $crate::frame_core::AllocError> {
                <Self as $crate::HalTag>::state().alloc(layout)
            }
            unsafe fn dealloc_frames(
                start: $crate::frame_core::PhysAddr,
                layout: $crate::frame_core::FrameLayout,
            ) -> Result<(), $crate::frame_core::DeallocError> {
                <Self as $crate::HalTag>::state().dealloc(start, layout);
                Ok(())
            }
        }
    };
    ($(#[$attribute:meta])* $vis:vis type $name:ident = SimHal<$tag:ident> $(;)?) => {
        #[doc(hidden)]
        #[derive(Debug)]
        $vis struct $tag;

        $crate::__hal_state!($tag);

        $(#[$attribute])*
        $vis type $name = $crate::SimHal<$tag>;
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __hal_state {
    ($name:ident) => {
        impl $crate::HalTag for $name {
            fn state() -> &'static $crate::HalState {
                static STATE: $crate::HalState = $crate::HalState::new(stringify!($name));
                &STATE
            }
        }
    };
}

/// Names the state of a HAL; [`test_hal!`](crate::test_hal) implements it.
pub trait HalTag: 'static {
    /// The state, the same each time.
    fn state() -> &'static HalState;
}

/// What a test does with its HAL. All is static, as the HAL is.
pub trait TestHal: FrameHal + HalTag {
    /// Runs a test with `frames` frames from the [`Oracle`](crate::Oracle), in one range from 16 MiB on.
    ///
    /// Scopes of one HAL wait for each other, so tests that share it run one after the other; give each test file, or
    /// each test, its own.
    ///
    /// # Panics
    /// Frames are still owned in the end: the message lists them, with the number of the allocation that gave them
    /// (and where it was, with `FRAME_TRACE=1` in the environment). Or one of the faults happened that
    /// [`HalState`] names.
    #[track_caller]
    fn scope<R>(frames: usize, test: impl FnOnce() -> R) -> R {
        Self::scope_on::<OracleBackend, R>(frames, test)
    }

    /// As [`scope`](Self::scope), with the frames of another allocator.
    #[track_caller]
    fn scope_on<B: Backend, R>(frames: usize, test: impl FnOnce() -> R) -> R {
        let range = FrameRange::new(PhysAddr::from(BASE), frames).expect("at least one frame");
        Self::scope_in::<B, R>(&[range], test)
    }

    /// As [`scope`](Self::scope), with the frames of these ranges (disjoint, sorted, without frame 0).
    #[track_caller]
    fn scope_in<B: Backend, R>(ranges: &[FrameRange], test: impl FnOnce() -> R) -> R {
        Self::state().scope::<B, R>(ranges, test)
    }

    /// The `n`-th allocation from now fails, and no other; 1 is the next one. A run is one allocation.
    fn fail_nth(n: usize) {
        Self::state().faults().fail_nth(n);
    }

    /// The next `n` allocations succeed and all after them fail.
    fn fail_after(n: usize) {
        Self::state().faults().fail_after(n);
    }

    /// Nothing fails any more, unless memory is exhausted.
    fn fail_never() {
        Self::state().faults().fail_never();
    }

    /// Allocations tried in this scope, those that failed included.
    fn allocs() -> usize {
        Self::state().faults().calls()
    }

    /// Frames that are owned now.
    fn owned() -> usize {
        Self::state().owned()
    }

    /// Runs `attempt` again and again, with its first allocation failing, then its second, and so on, until one run
    /// needs no more. Returns how many allocations that run made.
    ///
    /// After each run with a failure there must be as many owned frames as before it: a failure leaks nothing. What
    /// the last run keeps is not looked at.
    ///
    /// ```
    /// # use frame_testkit::{TestHal, frame_core::PhysFrame, test_hal};
    /// test_hal! { struct MyHal }
    ///
    /// let pair = || Ok::<_, frame_core::AxError>((PhysFrame::<MyHal>::alloc()?, PhysFrame::<MyHal>::alloc()?));
    /// let allocations = MyHal::scope(16, || MyHal::each_failure(|| drop(pair())));
    /// assert_eq!(allocations, 2);
    /// ```
    #[track_caller]
    fn each_failure(mut attempt: impl FnMut()) -> usize {
        let faults = Self::state().faults();
        let mut n = 1;
        loop {
            let (owned, calls, injected) = (Self::owned(), faults.calls(), faults.injected());
            Self::fail_nth(n);
            let told = Told { n };
            attempt();
            drop(told);
            Self::fail_never();
            if faults.injected() == injected {
                return faults.calls() - calls;
            }
            let left = Self::owned();
            assert_eq!(left, owned, "frames owned after allocation {n} of the attempt failed, and before it");
            n += 1;
        }
    }
}

impl<H: FrameHal + HalTag> TestHal for H {}

/// Says in a failing test which allocation was made to fail.
struct Told {
    n: usize,
}

impl Drop for Told {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("allocation {} of the attempt was made to fail", self.n);
        }
    }
}
