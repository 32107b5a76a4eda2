//! The last frame is handed out, then nothing, and what comes back is whole again.

use alloc::{format, vec::Vec};

use frame_core::{FRAME_SIZE, FrameRange, PhysAddr};

use super::{aligned, contiguous, firmware_ranges, ragged};
use crate::{Backend, Judge, Rng, firmware, random_ranges};

/// One by one to the last: each frame once; then `NoMemory` for all; freed in random order, the memory is whole.
pub fn exhaustion_frame_by_frame<B: Backend>() {
    Judge::run::<B, _>("ragged ranges", &ragged(), |judge| one_by_one(judge, 0));
}

/// The same on random ranges, some of them adjoining.
pub fn exhaustion_of_random_maps<B: Backend>() {
    let seed = Rng::seed_or(2);
    for (i, frames) in [1, 3, 64, 100, 512, 600, 1300, 3000, 3000, 3000].into_iter().enumerate() {
        let seed = seed.wrapping_add(i as u64);
        let ranges = random_ranges(seed, frames);
        Judge::run::<B, _>(&format!("random ranges {seed} of {frames}"), &ranges, |judge| {
            one_by_one(judge, seed)
        });
    }
}

fn one_by_one(judge: &mut Judge<'_>, seed: u64) {
    let largest = largest_run(judge);
    let mut frames = Vec::new();
    while let Ok(frame) = judge.alloc_frame() {
        frames.push(frame);
    }
    assert_eq!(frames.len(), judge.managed().count(), "{}: every frame is handed out", judge.label());
    nothing_is_left(judge);

    Rng::new(seed).shuffle(&mut frames);
    for (i, frame) in frames.into_iter().enumerate() {
        judge.free(frame);
        if i == 0 {
            // What was given back can be had again, at once.
            assert_eq!(judge.alloc_frame(), Ok(frame), "{}: the only free frame", judge.label());
            judge.free(frame);
        }
    }
    judge.check();
    comes_back(judge, largest);
}

/// The largest runs first, then smaller ones, then single frames: millions of frames to the last.
pub fn exhaustion_of_firmware_maps<B: Backend>() {
    for firmware in firmware::maps() {
        Judge::run::<B, _>(firmware.name, &firmware_ranges(firmware.name), |judge| {
            let largest = largest_run(judge);
            let mut runs = Vec::new();
            let mut frames = 0;
            for order in (0..=18).rev() {
                while let Ok(run) = judge.alloc(aligned(1 << order, FRAME_SIZE << order)) {
                    frames += run.count();
                    runs.push(run);
                }
            }
            assert_eq!(frames, firmware.frames, "{}: every frame is handed out", judge.label());
            nothing_is_left(judge);
            Rng::new(frames as u64).shuffle(&mut runs);
            for run in runs {
                judge.free(run);
            }
            judge.check();
            comes_back(judge, largest);
        });
    }
}

fn nothing_is_left(judge: &mut Judge<'_>) {
    judge.check(); // stats and visit_free show nothing free
    assert!(judge.free_set().is_empty());
    for layout in
        [contiguous(1), contiguous(2), contiguous(513), aligned(1, 1 << 21), aligned(1 << 18, 1 << 30)]
    {
        judge.alloc(layout).expect_err("nothing is left");
    }
    judge.alloc_frame().expect_err("nothing is left");
    let mut slots = [PhysAddr::from(0); 3];
    assert_eq!(judge.alloc_bulk(&mut slots), 0);
}

/// The largest run that the allocator gives now. It is at least the largest aligned block, which the judge demands.
fn largest_run(judge: &mut Judge<'_>) -> usize {
    let longest = judge.free_set().longest().expect("frames are free").count();
    let (mut given, mut refused) = (0, longest + 1);
    // The longest run is tried first; most backends give it.
    let mut count = longest;
    while given + 1 < refused {
        match judge.alloc(contiguous(count)) {
            Ok(run) => {
                judge.free(run);
                given = count;
            }
            Err(_) => refused = count,
        }
        count = given.midpoint(refused);
    }
    assert!(given > 0, "{}: not one frame", judge.label());
    given
}

fn comes_back(judge: &mut Judge<'_>, largest: usize) {
    let run: FrameRange = match judge.alloc(contiguous(largest)) {
        Ok(run) => run,
        Err(error) => panic!("{}: gave {largest} frames before, now {error:?}", judge.label()),
    };
    judge.free(run);
}
