//! Real threads, with an owner for each frame: nothing is handed out twice, nothing is lost.

mod common;

use std::{
    mem::MaybeUninit,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::*},
    },
    time::{Duration, Instant},
};

use common::*;
use frame_core::*;
use frame_percpu::*;

const WORDS: usize = 40;
const TOTAL: usize = WORDS * 64;

/// Allocates, frees, passes frames to the other threads, drains and asks for drains; leaves nothing behind.
fn worker<A: FrameAllocator, P: Policy>(
    cache: &PerCpu<'_, A, ThreadCpus, P>,
    owned: &[AtomicBool],
    passed: &Mutex<Vec<PhysAddr>>,
    mut seed: u64,
    rounds: usize,
) {
    let gain = |frame: PhysAddr| assert!(!owned[number(frame) - 64].swap(true, AcqRel), "two owners");
    let lose = |frame: PhysAddr| assert!(owned[number(frame) - 64].swap(false, AcqRel), "no owner");
    let free = |frames: &[PhysAddr]| {
        frames.iter().for_each(|&frame| lose(frame));
        match *frames {
            // SAFETY: owned until now.
            [frame] => unsafe { cache.dealloc_frame(frame) }.unwrap(),
            // SAFETY: owned until now.
            _ => unsafe { cache.dealloc_bulk(frames) }.unwrap(),
        }
    };
    let mut held = Vec::new();
    for _ in 0..rounds {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let n = (seed >> 40) as usize;
        match (seed >> 32) % 64 {
            0..24 => {
                if let Ok(frame) = cache.alloc_frame() {
                    gain(frame);
                    held.push(frame);
                }
            }
            24..26 => {
                let mut frames = vec![PhysAddr::from(0); n % 100];
                let got = cache.alloc_bulk(&mut frames);
                frames[..got].iter().for_each(|&frame| gain(frame));
                held.extend(&frames[..got]);
            }
            26..28 => passed.lock().unwrap().extend(held.drain(held.len() / 2..)),
            28..30 => held.append(&mut passed.lock().unwrap()),
            30..32 => free(&held.split_off(held.len() - n.min(held.len()).min(n % 150))),
            32 => {
                cache.drain_local();
            }
            33 if n % 16 == 0 => cache.request_drain(),
            _ => {
                if !held.is_empty() {
                    free(&[held.swap_remove(n % held.len())]);
                }
            }
        }
    }
    free(&held);
}

fn stress<A: FrameAllocator, P: Policy>(cache: &PerCpu<'_, A, ThreadCpus, P>) {
    let owned: Vec<AtomicBool> = (0..TOTAL).map(|_| AtomicBool::new(false)).collect();
    let passed = Mutex::new(Vec::new());
    // Threads come and go, so that indices and slots change hands; some find no slot.
    for generation in 0..4 {
        std::thread::scope(|scope| {
            for thread in 0..6 {
                let (owned, passed) = (&owned, &passed);
                scope.spawn(move || worker(cache, owned, passed, generation * 10 + thread, 40_000));
            }
        });
    }
    for frame in passed.into_inner().unwrap() {
        // SAFETY: the threads have ended; it is nobody's.
        unsafe { cache.dealloc_frame(frame) }.unwrap();
    }
    assert_eq!(cache.stats().free_frames, TOTAL);
    // What lies in the slots of threads that ended can be had: all frames, and not one more. (A thread that was joined
    // may yet hold its index for a moment.)
    let mut all = vec![PhysAddr::from(0); TOTAL + 1];
    let (mut got, deadline) = (0, Instant::now() + Duration::from_secs(10));
    while got < TOTAL && Instant::now() < deadline {
        got += cache.alloc_bulk(&mut all[got..]);
    }
    assert_eq!((got, cache.alloc_frame()), (TOTAL, Err(AllocError::NoMemory)));
    // SAFETY: just allocated.
    unsafe { cache.dealloc_bulk(&all[..TOTAL]) }.unwrap();
}

#[test]
fn trusting() {
    let mut slots = slots(5);
    let backend = AtomicBackend::new(64, WORDS);
    let cache = PerCpu::new(&backend, ThreadCpus);
    cache.attach(&mut slots).unwrap();
    stress(&cache);
    drop(cache);
    assert_eq!(backend.free_count(), TOTAL);
}

#[test]
fn checked() {
    let mut slots = slots(5);
    let mut states = vec![MaybeUninit::uninit(); TOTAL];
    let cache = PerCpu::checked(AtomicBackend::new(64, WORDS), ThreadCpus);
    cache.attach_states(range(64, TOTAL), &mut states).unwrap();
    cache.attach(&mut slots).unwrap();
    stress(&cache);
}

/// Here allocated, there freed: frames travel from slot to slot through the backend in batches.
#[test]
fn producer_and_consumer() {
    let mut slots = slots(8);
    let cache = PerCpu::new(AtomicBackend::new(64, WORDS), ThreadCpus);
    cache.attach(&mut slots).unwrap();
    let (send, receive) = std::sync::mpsc::sync_channel::<PhysAddr>(256);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for frame in receive {
                // SAFETY: the producer gave it away.
                unsafe { cache.dealloc_frame(frame) }.unwrap();
            }
            // At least 32 frames went with each call of the backend.
            let stats = cache.cpu_stats(ThreadCpus.pin().0).unwrap();
            assert!(stats.spills > 100 && stats.spilled_frames >= 32 * stats.spills, "{stats:?}");
        });
        for _ in 0..50_000 {
            send.send(cache.alloc_frame().expect("at most 256 + 2 slots are under way")).unwrap();
        }
        drop(send);
    });
    assert_eq!(cache.stats().free_frames, TOTAL);
}
