//! Several threads, with a map of who owns each frame.

use std::{
    sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
    thread,
    vec::Vec,
};

use frame_core::{AllocError, FrameAllocator, FreeRuns, PhysAddr};

use super::{
    invariants,
    support::{Metadata, Random, at, layout, range, with_tree},
};
use crate::Tree;

const FIRST: usize = 5000;

/// Who owns each frame: 0 nobody, else the thread.
struct Owners(Vec<AtomicU32>);

impl Owners {
    fn new(frames: usize) -> Self {
        Self((0..frames).map(|_| AtomicU32::new(0)).collect())
    }

    fn take(&self, start: PhysAddr, count: usize, me: u32) {
        let first = start.as_usize() / 4096 - FIRST;
        for owner in &self.0[first..first + count] {
            assert_eq!(owner.swap(me, SeqCst), 0, "handed out twice");
        }
    }

    fn give(&self, start: PhysAddr, count: usize, me: u32) {
        let first = start.as_usize() / 4096 - FIRST;
        for owner in &self.0[first..first + count] {
            assert_eq!(owner.swap(0, SeqCst), me, "taken away");
        }
    }
}

/// `threads` threads allocate and free runs of `counts` frames at random for a while.
fn stress(frames: usize, threads: u32, rounds: usize, counts: &[usize]) {
    with_tree(&[(FIRST, frames)], |tree| {
        let owners = &Owners::new(frames);
        thread::scope(|scope| {
            for me in 1..=threads {
                scope.spawn(move || worker(tree, owners, me, rounds, counts));
            }
        });
        invariants::check(tree);
        assert_eq!(tree.stats().free_frames, frames, "nothing is lost");
        assert_eq!(FreeRuns::of(tree).longest(), frames);
        tree.alloc_at(range(FIRST, frames)).unwrap();
    });
}

fn worker(tree: &Tree<'_>, owners: &Owners, me: u32, rounds: usize, counts: &[usize]) {
    let mut random = Random(u64::from(me) * 0x9e37_79b9 + 1);
    let mut mine: Vec<(PhysAddr, usize)> = Vec::new();
    let give = |start: PhysAddr, count: usize| {
        owners.give(start, count, me);
        // SAFETY: the map says that it is ours.
        unsafe { tree.dealloc(start, layout(count, 1)) }.unwrap();
    };
    for round in 0..rounds {
        match random.below(10) {
            0..=4 => {
                let count = counts[random.below(counts.len())];
                match tree.alloc(layout(count, count.next_power_of_two().min(1024))) {
                    Ok(start) => {
                        owners.take(start, count, me);
                        mine.push((start, count));
                    }
                    Err(error) => assert_eq!(error, AllocError::NoMemory),
                }
            }
            5..=7 if !mine.is_empty() => {
                // The whole of it, or a part first.
                let at = random.below(mine.len());
                let (start, count) = mine.swap_remove(at);
                let part = random.below(count + 1);
                if part > 0 {
                    give(start, part);
                }
                if part < count {
                    mine.push((start + part * 4096, count - part));
                }
            }
            8 => {
                let mut bulk = [at(0); 70];
                let got = tree.alloc_bulk(&mut bulk[..random.below(71)]);
                bulk[..got].iter().for_each(|frame| owners.take(*frame, 1, me));
                if round % 2 == 0 {
                    mine.extend(bulk[..got].iter().map(|frame| (*frame, 1)));
                } else {
                    bulk[..got].iter().for_each(|frame| owners.give(*frame, 1, me));
                    // SAFETY: allocated above.
                    unsafe { tree.dealloc_bulk(&bulk[..got]) }.unwrap();
                }
            }
            _ => {
                let (first, count) = (FIRST + random.below(owners.0.len()), 1 + random.below(100));
                if tree.alloc_at(range(first, count)).is_ok() {
                    owners.take(at(first), count, me);
                    mine.push((at(first), count));
                }
            }
        }
    }
    for (start, count) in mine {
        give(start, count);
    }
}

#[test]
fn small_memory_many_threads() {
    stress(3000, 4, 4000, &[1, 1, 1, 2, 3, 4, 8, 16, 31, 64]);
}

#[test]
fn rows_in_contention() {
    // Runs of 128 and 256 frames, where a claim that fails must give back all of it and nothing else.
    stress(4 * 512, 4, 4000, &[128, 256, 100, 200, 64, 1]);
}

#[test]
fn huge_frames_in_contention() {
    stress(20 * 512, 4, 2000, &[512, 1024, 700, 2048, 256, 1]);
}

#[test]
fn frames_freed_by_another_thread() {
    let frames = 4096;
    with_tree(&[(FIRST, frames)], |tree| {
        let owners = &Owners::new(frames);
        let (send, receive) = std::sync::mpsc::sync_channel::<PhysAddr>(256);
        thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..30_000 {
                    let frame = loop {
                        match tree.alloc_frame() {
                            Ok(frame) => break frame,
                            Err(_) => thread::yield_now(),
                        }
                    };
                    owners.take(frame, 1, 1);
                    send.send(frame).unwrap();
                }
            });
            scope.spawn(move || {
                for frame in receive {
                    owners.give(frame, 1, 1);
                    // SAFETY: handed over by the other thread.
                    unsafe { tree.dealloc_frame(frame) }.unwrap();
                }
            });
        });
        invariants::check(tree);
        assert_eq!(tree.stats().free_frames, frames);
    });
}

#[test]
fn regions_are_added_while_others_allocate() {
    let parts: Vec<_> = (0..24).map(|i| (FIRST + i * 700, 650)).collect();
    let mut metadata: Vec<_> =
        parts.iter().map(|(first, count)| Metadata::new(range(*first, *count), 0x5a)).collect();
    let tree = &Tree::<'_, 24>::new();
    let owners = &Owners::new(24 * 700);
    let done = &AtomicUsize::new(0);
    thread::scope(|scope| {
        // Three threads add a third each; the regions of one thread lie between those of the others.
        let mut rest = &mut metadata[..];
        let mut shares: Vec<Vec<_>> = (0..3).map(|_| Vec::new()).collect();
        for (i, part) in parts.iter().enumerate() {
            let (one, others) = rest.split_first_mut().unwrap();
            rest = others;
            shares[i % 3].push((*part, one));
        }
        for share in shares {
            scope.spawn(move || {
                for ((first, count), metadata) in share {
                    // SAFETY: nobody uses the frames.
                    unsafe { tree.add_region(range(first, count), metadata.bytes()) }.unwrap();
                    thread::yield_now();
                }
                done.fetch_add(1, SeqCst);
            });
        }
        scope.spawn(move || {
            let mut mine = Vec::new();
            while done.load(SeqCst) < 3 {
                if let Ok(start) = tree.alloc(layout(20, 1)) {
                    owners.take(start, 20, 1);
                    mine.push(start);
                }
            }
            for start in mine {
                owners.give(start, 20, 1);
                // SAFETY: allocated above.
                unsafe { tree.dealloc(start, layout(20, 1)) }.unwrap();
            }
        });
    });
    assert_eq!(tree.regions().count(), 24);
    assert_eq!(tree.stats().free_frames, 24 * 650);
    invariants::check(tree);
}

#[test]
fn of_two_regions_that_overlap_one_is_taken() {
    for _ in 0..200 {
        let mut metadata: Vec<_> = (0..2).map(|_| Metadata::new(range(1000, 100), 0)).collect();
        let [a, b] = &mut metadata[..] else { unreachable!() };
        let tree = &Tree::<4>::new();
        let results = thread::scope(|scope| {
            // SAFETY: nobody uses the frames.
            let add = |first, metadata| unsafe { tree.add_region(range(first, 100), metadata) };
            let a = scope.spawn(move || add(1000, a.bytes()));
            let b = scope.spawn(move || add(1050, b.bytes()));
            [a.join().unwrap(), b.join().unwrap()]
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert_eq!(tree.stats().free_frames, 100);
    }
}
