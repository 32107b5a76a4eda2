//! The test HAL finds what it is there to find. Each fault is made on purpose, and the panic must name it.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
};

use frame_core::{AllocError, FrameHal, FrameLayout, FrameRange, PhysAddr, PhysFrame, PhysFrames};
use frame_testkit::{Oracle, OracleBackend, TestHal, test_hal};

/// The message of the panic that `fault` ends with.
fn panic_of(fault: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(fault)).expect_err("the fault was not found");
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => match payload.downcast::<&str>() {
            Ok(message) => (*message).into(),
            Err(payload) => resume_unwind(payload),
        },
    }
}

#[track_caller]
fn assert_names(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

fn run(count: usize) -> FrameLayout {
    FrameLayout::contiguous(count).unwrap()
}

#[test]
fn a_clean_test_passes_and_returns_its_result() {
    test_hal! { struct Hal }
    let sum = Hal::scope(8, || {
        let frames: Vec<_> = (0..8).map(|_| PhysFrame::<Hal>::alloc().unwrap()).collect();
        assert_eq!((Hal::owned(), Hal::allocs()), (8, 8));
        assert!(PhysFrame::<Hal>::alloc().is_err(), "there are 8 frames");
        frames.len()
    });
    assert_eq!((sum, Hal::owned()), (8, 0));
    // Scope after scope: the counts start again.
    Hal::scope(1, || assert_eq!(Hal::allocs(), 0));
}

#[test]
fn leaks_are_listed() {
    test_hal! { struct Hal }
    let message = panic_of(|| {
        Hal::scope(32, || {
            mem::forget(PhysFrame::<Hal>::alloc().unwrap());
            drop(PhysFrame::<Hal>::alloc().unwrap());
            mem::forget(PhysFrames::<Hal>::alloc(run(3)).unwrap());
        });
    });
    assert_names(&message, &["Hal: 4 frames leaked", "0x1000000, from allocation 1"]);
    assert_names(&message, &["0x1001000 and 2 more, from allocation 3"]);
    Hal::scope(1, || ()); // the next test on this HAL starts clean
}

#[test]
fn bad_frees_are_found() {
    test_hal! { struct Hal }
    let free = |paddr: usize| {
        // SAFETY: none: this is the fault that must be found before it does harm.
        unsafe { Hal::dealloc_frame(PhysAddr::from(paddr)) }
    };
    let message = panic_of(|| {
        Hal::scope(8, || {
            let frame = PhysFrame::<Hal>::alloc().unwrap().into_raw().as_usize();
            free(frame);
            free(frame);
        });
    });
    assert_names(&message, &["0x1000000 is freed twice", "allocation 1"]);
    let message = panic_of(|| Hal::scope(8, || free(0x1003000)));
    assert_names(&message, &["0x1003000", "never allocated"]);
    let message = panic_of(|| Hal::scope(8, || free(0x8000)));
    assert_names(&message, &["0x8000", "no memory of this HAL"]);
    let message = panic_of(|| Hal::scope(8, || free(0x1000010)));
    assert_names(&message, &["bad free", "not aligned"]);
    let message = panic_of(|| free(0x1000000));
    assert_names(&message, &["0x1000000", "outside of a scope"]);
    // A run with one frame that is free already.
    let message = panic_of(|| {
        Hal::scope(8, || {
            let frames = PhysFrames::<Hal>::alloc(run(4)).unwrap().into_raw();
            free(frames.start().as_usize() + 0x2000);
            // SAFETY: as in `free`.
            let _ = unsafe { Hal::dealloc_frames(frames.start(), run(4)) };
        });
    });
    assert_names(&message, &["0x1002000 is freed twice"]);
}

#[test]
fn frames_are_poisoned_and_writes_after_the_free_are_found() {
    test_hal! { struct Hal }
    Hal::scope(8, || {
        let frame = PhysFrame::<Hal>::alloc().unwrap();
        assert!(frame.as_bytes().iter().all(|&byte| byte == 0xa5), "unzeroed memory shows");
        drop(frame);
        let again = PhysFrame::<Hal>::alloc_zero().unwrap();
        assert!(again.as_bytes().iter().all(|&byte| byte == 0));
    });
    let write_after_free = |offset: usize| {
        let frame = PhysFrame::<Hal>::alloc().unwrap();
        let stale = frame.as_mut_ptr();
        drop(frame);
        // SAFETY: none in the model of the HAL; on the host the memory is still mapped.
        unsafe { stale.add(offset).write(1) };
    };
    // Found by the next owner, or in the end of the scope.
    let message = panic_of(|| {
        Hal::scope(8, || {
            write_after_free(0x123);
            let _next = PhysFrame::<Hal>::alloc();
        });
    });
    assert_names(&message, &["0x1000000 was written to after it was freed", "0x123"]);
    let message = panic_of(|| Hal::scope(8, || write_after_free(4095)));
    assert_names(&message, &["0x1000000 was written to after it was freed", "0xfff"]);
    // Past the end of a frame, into one that nobody owns.
    let message = panic_of(|| {
        Hal::scope(8, || {
            let frame = PhysFrame::<Hal>::alloc().unwrap();
            // SAFETY: as above.
            unsafe { frame.as_mut_ptr().add(4096).write(1) };
        });
    });
    assert_names(&message, &["0x1001000 was written to though it was never allocated", "0x0"]);
}

#[test]
fn frames_that_nobody_owns_cannot_be_reached() {
    test_hal! { struct Hal }
    let message = panic_of(|| {
        Hal::scope(8, || {
            let frame = PhysFrame::<Hal>::alloc().unwrap();
            let start = frame.start_paddr();
            assert_eq!(Hal::phys_to_virt(start).as_mut_ptr(), frame.as_mut_ptr());
            assert_eq!(Hal::phys_to_virt(start + 7).as_mut_ptr(), frame.as_mut_ptr().wrapping_add(7));
            drop(frame);
            Hal::phys_to_virt(start);
        });
    });
    assert_names(&message, &["0x1000000 is reached, but nobody owns", "freed"]);
    let message = panic_of(|| Hal::scope(8, || _ = Hal::phys_to_virt(PhysAddr::from(0xfff))));
    assert_names(&message, &["0xfff", "no memory of this HAL"]);
    let message = panic_of(|| _ = Hal::phys_to_virt(PhysAddr::from(0x1000000)));
    assert_names(&message, &["outside of a scope"]);
    let message = panic_of(|| drop(PhysFrame::<Hal>::alloc()));
    assert_names(&message, &["outside of a scope"]);
    let message = panic_of(|| Hal::scope(8, || Hal::scope(8, || ())));
    assert_names(&message, &["a scope inside a scope"]);
}

#[test]
fn a_fault_on_another_thread_fails_the_scope_too() {
    test_hal! { struct Hal }
    let message = panic_of(|| {
        Hal::scope(8, || {
            // SAFETY: none: the fault that must be found.
            let thread = thread::spawn(|| unsafe { Hal::dealloc_frame(PhysAddr::from(0x1003000)) });
            thread.join().expect_err("the thread panics, and nobody cares");
        });
    });
    assert_names(&message, &["0x1003000", "never allocated"]);
}

#[test]
fn a_failing_test_gives_its_frames_back_and_keeps_its_own_message() {
    test_hal! { struct Hal }
    let message = panic_of(|| {
        Hal::scope(8, || {
            let _frame = PhysFrame::<Hal>::alloc().unwrap();
            panic!("the test's own failure");
        });
    });
    assert_eq!(message, "the test's own failure");
    Hal::scope(1, || drop(PhysFrame::<Hal>::alloc().unwrap()));
}

#[test]
fn chosen_allocations_fail() {
    test_hal! { struct Hal }
    let works = || PhysFrame::<Hal>::alloc().is_ok();
    Hal::scope(8, || {
        Hal::fail_nth(3);
        assert_eq!([works(), works(), works(), works()], [true, true, false, true]);
        Hal::fail_after(2);
        assert_eq!([works(), works(), works(), works()], [true, true, false, false]);
        assert_eq!(PhysFrames::<Hal>::try_alloc(run(2)).unwrap_err(), AllocError::NoMemory);
        Hal::fail_never();
        assert!(works() && PhysFrames::<Hal>::try_alloc(run(2)).is_ok());
        Hal::fail_nth(1);
    });
    Hal::scope(8, || assert!(works(), "a plan ends with its scope"));
}

#[test]
fn each_allocation_fails_in_turn() {
    test_hal! { struct Hal }
    Hal::scope(16, || {
        let kept = PhysFrame::<Hal>::alloc().unwrap();
        let mut results = Vec::new();
        let allocations = Hal::each_failure(|| {
            let attempt = || -> Result<_, AllocError> {
                let one = PhysFrame::<Hal>::try_alloc()?;
                let run = PhysFrames::<Hal>::try_alloc(run(3))?;
                let two = PhysFrame::<Hal>::try_alloc()?;
                Ok((one, run, two))
            };
            results.push(attempt().is_ok());
        });
        assert_eq!((allocations, results.as_slice()), (3, &[false, false, false, true][..]));
        drop(kept);
    });
    // An attempt that leaks when its second allocation fails.
    let message = panic_of(|| {
        Hal::scope(16, || {
            Hal::each_failure(|| {
                let Ok(first) = PhysFrame::<Hal>::alloc() else { return };
                let first = first.into_raw();
                if let Ok(second) = PhysFrame::<Hal>::alloc() {
                    // SAFETY: from `into_raw`.
                    drop((second, unsafe { PhysFrame::<Hal>::from_raw(first) }));
                }
            });
        });
    });
    assert_names(&message, &["allocation 2 of the attempt failed"]);
}

#[test]
fn runs_are_adjacent_on_the_host_across_ranges_that_adjoin() {
    test_hal! { struct Hal }
    let range = |start: usize, count| FrameRange::new(PhysAddr::from(start), count).unwrap();
    // The second run lies above 4 GiB, where a truncated address would show.
    Hal::scope_in::<OracleBackend, _>(&[range(0x4000, 2), range(0x6000, 2), range(5 << 32, 4)], || {
        let low: Vec<_> = (0..4).map(|_| PhysFrame::<Hal>::alloc().unwrap()).collect();
        let mut high = PhysFrames::<Hal>::alloc(run(4)).unwrap();
        assert_eq!(high.start_paddr().as_usize(), 5 << 32);
        high.as_bytes_mut()[4 * 4096 - 1] = 9;
        for pair in low.windows(2) {
            assert_eq!(pair[0].as_mut_ptr().wrapping_add(4096), pair[1].as_mut_ptr());
        }
    });
}

#[test]
fn threads_share_a_scope() {
    test_hal! { struct Hal }
    Hal::scope(64, || {
        thread::scope(|scope| {
            for id in 1..=4 {
                scope.spawn(move || {
                    for round in 0..500 {
                        let Ok(mut frame) = PhysFrame::<Hal>::alloc() else { continue };
                        let run = PhysFrames::<Hal>::alloc(run(1 + round % 7));
                        frame.fill(id);
                        drop(run);
                        assert!(frame.as_bytes().iter().all(|&byte| byte == id));
                    }
                });
            }
        });
        assert_eq!(Hal::owned(), 0);
    });
}

#[test]
fn scopes_of_one_hal_wait_for_each_other() {
    test_hal! { struct Hal }
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    Hal::scope(3, || {
                        assert_eq!((Hal::owned(), Hal::allocs()), (0, 0));
                        let frames = [(); 3].map(|()| PhysFrame::<Hal>::alloc().unwrap());
                        assert_eq!(Hal::owned(), frames.len());
                    });
                }
            });
        }
    });
}

#[test]
fn sixty_four_gibibytes_cost_nothing() {
    test_hal! { struct Hal }
    Hal::scope(64 << 18, || {
        let run = PhysFrames::<Hal>::alloc(FrameLayout::HUGE_1G).unwrap();
        drop(run);
    });
}

/// An allocator that hands out the same frame for ever.
mod broken {
    use super::*;
    use frame_core::{DeallocError, FrameAllocator, FrameStats};
    use frame_testkit::Backend;

    pub(super) struct Same(Oracle);
    // SAFETY: none: the fault that must be found before memory is touched.
    unsafe impl FrameAllocator for Same {
        fn alloc(&self, _: FrameLayout) -> Result<PhysAddr, AllocError> {
            Ok(PhysAddr::from(0x1002000))
        }
        unsafe fn dealloc(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
            // SAFETY: passed on; the oracle refuses what it has not handed out.
            unsafe { self.0.dealloc(start, layout) }
        }
        fn stats(&self) -> FrameStats {
            self.0.stats()
        }
        fn visit_free(&self, visit: &mut dyn FnMut(FrameRange)) {
            self.0.visit_free(visit);
        }
    }

    pub(super) struct SameBackend;
    impl Backend for SameBackend {
        const NAME: &'static str = "same";
        type Allocator<'m> = Same;
        fn with<R>(regions: &[FrameRange], test: impl FnOnce(&Same) -> R) -> R {
            OracleBackend::with(regions, |_| test(&Same(Oracle::new())))
        }
    }
}

#[test]
fn faults_of_the_allocator_are_told_from_faults_of_the_test() {
    test_hal! { struct Hal }
    let message = panic_of(|| {
        Hal::scope_on::<broken::SameBackend, _>(8, || {
            let first = mem::ManuallyDrop::new(PhysFrame::<Hal>::alloc().unwrap());
            let _second = PhysFrame::<Hal>::alloc();
            drop(mem::ManuallyDrop::into_inner(first));
        });
    });
    assert_names(&message, &["the allocator gave frame", "0x1002000, which allocation 1 owns"]);
    let message = panic_of(|| Hal::scope_on::<broken::SameBackend, _>(8, || drop(PhysFrame::<Hal>::alloc())));
    assert_names(&message, &["the allocator refuses frames that are owned", "0x1002000"]);
    let message = panic_of(|| Hal::scope_on::<broken::SameBackend, _>(2, || drop(PhysFrame::<Hal>::alloc())));
    assert_names(&message, &["0x1002000", "outside of its regions"]);
}
