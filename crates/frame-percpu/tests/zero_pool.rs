//! Frames from the pool are zero, owned once, and come back. The HAL poisons what it hands out and fails on leaks.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::*},
    time::{Duration, Instant},
};

use frame_core::{AllocError, FrameHal, PhysFrame};
use frame_percpu::ZeroPool;
use frame_testkit::{TestHal, test_hal};

fn is_zero<H: FrameHal>(frame: &PhysFrame<H>) -> bool {
    frame.as_bytes().iter().all(|&byte| byte == 0)
}

#[test]
fn frames_are_zero_whether_from_the_pool_or_not() {
    test_hal! { struct Hal }
    Hal::scope(16, || {
        let pool = ZeroPool::<Hal, 4>::new();
        assert!(
            !is_zero(&PhysFrame::<Hal>::alloc().unwrap()),
            "the test needs frames that are not zero by themselves"
        );
        assert_eq!((pool.fill(3), pool.len()), (3, 3));
        assert_eq!((pool.fill(3), pool.len()), (1, 4), "there are four places");
        assert_eq!(Hal::owned(), 4);
        let mut frames: Vec<_> = (0..6).map(|_| pool.alloc_zeroed().unwrap()).collect();
        assert!(frames.iter().all(is_zero));
        assert_eq!(pool.hits_and_misses(), (4, 2));
        assert!(pool.is_empty());
        // A frame that was written to and freed goes to the HAL, not to the pool.
        frames.iter_mut().for_each(|frame| frame.fill(0xff));
        drop(frames);
        assert_eq!(pool.fill(4), 4);
        assert!((0..4).all(|_| is_zero(&pool.alloc_zeroed().unwrap())));
        // What lies in it at the end is given back: the scope fails on leaks.
        assert_eq!(pool.fill(2), 2);
    });
}

#[test]
fn exhausted_memory_gives_the_pool_first_and_then_an_error() {
    test_hal! { struct Hal }
    Hal::scope(5, || {
        let pool = ZeroPool::<Hal, 8>::new();
        assert_eq!(pool.fill(8), 5, "the HAL has five");
        assert_eq!(pool.fill(1), 0);
        let held: Vec<_> = (0..5).map(|_| pool.alloc_zeroed().unwrap()).collect();
        assert_eq!(pool.alloc_zeroed().unwrap_err(), AllocError::NoMemory);
        drop(held);
        assert_eq!(pool.fill(3), 3);
        assert_eq!((pool.drain(), pool.len(), Hal::owned()), (3, 0, 0));
    });
}

/// Some fill, some take, some drain: every frame has one owner and is zero when it comes.
#[test]
fn threads_fill_and_take() {
    test_hal! { struct Hal }
    Hal::scope(64, || {
        let pool = ZeroPool::<Hal, 16>::new();
        let (stop, taken) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (pool, stop, taken) = (&pool, &stop, &taken);
                scope.spawn(move || {
                    while !stop.load(Relaxed) {
                        if thread < 2 {
                            pool.fill(3);
                            if thread == 1 && taken.load(Relaxed) % 64 == 0 {
                                pool.drain();
                            }
                        } else if let Ok(mut frame) = pool.alloc_zeroed() {
                            assert!(is_zero(&frame), "not zero");
                            // Whoever else had it would see this, or the HAL would.
                            frame.fill(0xee);
                            taken.fetch_add(1, Relaxed);
                        }
                    }
                });
            }
            // On a loaded machine those who fill may get their turn late.
            let (start, limit) = (Instant::now(), Duration::from_secs(60));
            let enough = || taken.load(Relaxed) >= 2000 && pool.hits_and_misses().0 > 0;
            while !enough() && start.elapsed() < limit {
                std::thread::sleep(Duration::from_micros(100));
            }
            stop.store(true, Relaxed);
        });
        let (hits, misses) = pool.hits_and_misses();
        assert!(hits > 0 && hits + misses >= 2000);
    });
}
