//! Frames at a given address, and frames in a window of addresses.
//!
//! A backend that cannot ([`Backend::SUPPORTS_ALLOC_AT`], [`Backend::SUPPORTS_ALLOC_IN`]) must say so.

use alloc::vec::Vec;

use frame_core::{AllocError, FRAME_SIZE, FrameRange};

use super::{aligned, below, contiguous, firmware_ranges, ragged};
use crate::{Backend, Judge, frame_set::range};

/// Exactly these frames, if all are free and managed; else the right error and no frame taken.
pub fn placed_frames<B: Backend>() {
    if !B::SUPPORTS_ALLOC_AT {
        return Judge::run::<B, _>("ragged ranges", &ragged(), |judge| {
            let answer = judge.allocator().alloc_at(range(300, 301));
            assert_eq!(answer, Err(AllocError::Unsupported), "{}", judge.label());
        });
    }
    Judge::run::<B, _>("ragged ranges", &ragged(), |judge| {
        let block = (1 << 20) + 4096;
        // Single frames, runs inside a word, across words, across 2 MiB, a whole range.
        for (start, end) in [
            (1, 2),
            (3, 4),
            (158, 159),
            (2048 + 63, 2048 + 65),
            (300, 900),
            (1000, 1256),
            (block, block + 512),
            (block + 700, block + 1500),
            (block + 1536, block + 2048),
        ] {
            let run = range(start, end);
            assert_eq!(judge.alloc_at(run), Ok(()));
            judge.check();
            assert_eq!(judge.alloc_at(run), Err(AllocError::InUse), "{}", judge.label());
            // One frame of many is in use, or not managed.
            let around = range(start.saturating_sub(1).max(1), end + 1);
            judge.alloc_at(around).expect_err("a frame of it is in use");
            judge.check();
        }
        for (start, end) in [(2, 3), (159, 160), (1256, 1300), (2040, 2060), (1 << 30, (1 << 30) + 5)] {
            assert_eq!(judge.alloc_at(range(start, end)), Err(AllocError::NotManaged), "{}", judge.label());
        }
        assert_eq!(judge.alloc_at(range(0, 1)), Err(AllocError::NotManaged), "{}: frame 0", judge.label());
        judge.check();
        // What was placed is freed like any other, in parts.
        judge.free(range(500, 600));
        judge.free(range(300, 500));
        assert_eq!(judge.alloc_at(range(400, 600)), Ok(()));
        judge.check();
    });
}

/// Over a hole: refused whole. Over the seam of two regions that adjoin: given.
pub fn placed_frames_across_regions<B: Backend>() {
    if !B::SUPPORTS_ALLOC_AT {
        return;
    }
    let ranges = [range(64, 200), range(201, 700), range(700, 1400)];
    Judge::run::<B, _>("ranges with a hole and a seam", &ranges, |judge| {
        assert_eq!(judge.alloc_at(range(190, 210)), Err(AllocError::NotManaged), "{}", judge.label());
        judge.check();
        assert_eq!(judge.alloc_at(range(650, 750)), Ok(()), "{}: the seam of two regions", judge.label());
        judge.check();
        assert_eq!(judge.alloc_at(range(600, 651)), Err(AllocError::InUse), "{}", judge.label());
        assert_eq!(judge.alloc_at(range(749, 1400)), Err(AllocError::InUse), "{}", judge.label());
        judge.check();
        judge.free(range(650, 750));
        assert_eq!(judge.alloc_at(range(201, 1400)), Ok(()), "{}: all of two regions", judge.label());
        assert_eq!(judge.alloc_at(range(64, 200)), Ok(()));
        judge.check();
    });
}

/// Below 16 MiB, below 4 GiB, in the middle: inside the window, whatever the layout.
pub fn windows<B: Backend>() {
    if !B::SUPPORTS_ALLOC_IN {
        return Judge::run::<B, _>("ragged ranges", &ragged(), |judge| {
            let answer = judge.allocator().alloc_in(contiguous(1), range(300, 400));
            assert_eq!(answer, Err(AllocError::Unsupported), "{}", judge.label());
        });
    }
    let windows = [
        below(16 << 20),
        below(4 << 30),
        range(1 << 20, 1 << 22),            // 4 GiB to 16 GiB
        range(12_345, 23_456),              // unaligned, inside a range
        range(0x9f000 / 4096 - 3, 256 + 5), // the end of low memory, the hole, the start of the next range
        range(5000, 5001),
    ];
    Judge::run::<B, _>("qemu-q35-seabios", &firmware_ranges("qemu-q35-seabios"), |judge| {
        for window in windows {
            let mut runs = Vec::new();
            for count in [1, 1, 2, 3, 5, 64, 100, 512, 1000, 5000] {
                for align in [FRAME_SIZE, 16 * FRAME_SIZE, 2 << 20] {
                    runs.extend(judge.alloc_in(aligned(count, align), window).ok());
                }
            }
            judge.check();
            assert!(!runs.is_empty());
            for run in runs {
                judge.free(run);
            }
        }
        judge.check();
    });
    // Windows on small ranges, whose edges cut words and blocks.
    Judge::run::<B, _>("ragged ranges", &ragged(), |judge| {
        for (start, end) in
            [(1, 2), (100, 130), (300, 301), (319, 321), (1000, 2100), (2060, 2600), (0, 1 << 40)]
        {
            for count in [1, 2, 7, 20, 64, 512] {
                if let Ok(run) = judge.alloc_in(contiguous(count), range(start, end)) {
                    judge.check();
                    judge.free(run);
                }
            }
        }
        // Windows without a managed frame.
        for window in [range(0, 1), range(159, 256), range(1256, 2048), range(1 << 30, 1 << 31)] {
            assert_eq!(judge.alloc_in(contiguous(1), window), Err(AllocError::NoMemory), "{}", judge.label());
        }
        judge.check();
    });
}

/// A window without a free frame is `NoMemory` though there is memory elsewhere; a freed frame of it is found again.
pub fn exhausted_windows<B: Backend>() {
    if !B::SUPPORTS_ALLOC_IN {
        return;
    }
    Judge::run::<B, _>("vmware-bios", &firmware_ranges("vmware-bios"), |judge| {
        let window = below(16 << 20);
        let inside: usize = judge.free_set().runs_in(window).map(FrameRange::count).sum();
        let mut frames = Vec::new();
        while let Ok(frame) = judge.alloc_in(contiguous(1), window) {
            frames.push(frame);
        }
        assert_eq!(frames.len(), inside, "{}: every frame of the window", judge.label());
        judge.check();
        let freed = frames[frames.len() / 2];
        judge.free(freed);
        assert_eq!(judge.alloc_in(contiguous(1), window), Ok(freed), "{}", judge.label());
        judge.alloc_frame().expect("memory elsewhere is free");
        // Memory above is short, below it is not: requests without a window find it.
        for frame in frames {
            judge.free(frame);
        }
        judge.check();
    });
}
