//! Contiguous runs: exact count, aligned start, tails not lost.

use alloc::vec::Vec;

use frame_core::{AllocError, FRAME_SIZE, FrameLayout};

use super::{aligned, contiguous, firmware_ranges, ragged};
use crate::{Backend, Judge, Rng};

/// Every order from 4 KiB to 1 GiB, naturally aligned and not, on 24 GiB: exactly as many frames as asked.
pub fn runs_of_every_order<B: Backend>() {
    Judge::run::<B, _>("cloud-vm", &firmware_ranges("cloud-vm"), |judge| {
        let mut runs = Vec::new();
        for order in 0..=18 {
            let all = judge.free_set().count();
            for align in [FRAME_SIZE, FRAME_SIZE << order] {
                runs.push(judge.alloc(aligned(1 << order, align)).expect("24 GiB are free"));
            }
            assert_eq!(judge.allocator().stats().free_frames, all - (2 << order), "{}", judge.label());
        }
        judge.check();
        Rng::new(3).shuffle(&mut runs);
        for run in runs {
            judge.free(run);
        }
        judge.check();
    });
}

/// Counts that are no powers of two, with alignments above and below the count: the tail stays free.
pub fn odd_counts_and_alignments<B: Backend>() {
    let counts = [1, 2, 3, 5, 7, 9, 31, 33, 63, 65, 100, 127, 129, 500, 511, 513, 700, 1023, 1025];
    Judge::run::<B, _>("ragged ranges", &ragged(), |judge| {
        for count in counts {
            for shift in [0, 1, 2, 3, 5, 6, 7, 9, 10, 11] {
                let layout = aligned(count, FRAME_SIZE << shift);
                // Several at once, until memory is short; the judge knows when a refusal is wrong.
                let mut runs = Vec::new();
                while runs.len() < 4 {
                    match judge.alloc(layout) {
                        Ok(run) => runs.push(run),
                        Err(_) => break,
                    }
                }
                judge.check();
                for run in runs {
                    judge.free(run);
                }
                judge.check();
            }
        }
    });
    // An alignment far above the count, on a large machine: 4 GiB.
    Judge::run::<B, _>("qemu-q35-seabios", &firmware_ranges("qemu-q35-seabios"), |judge| {
        for align in [1 << 30, 2 << 30, 4 << 30, 8 << 30] {
            let frame = judge.alloc(aligned(1, align)).expect("an aligned frame is free");
            judge.free(frame);
        }
    });
}

/// What cannot be is `NoMemory`, soon and without a panic: runs longer than memory, alignments beyond every address.
pub fn impossible_layouts_fail<B: Backend>() {
    const TOP: u32 = usize::BITS - 1;
    let most = usize::MAX / FRAME_SIZE;
    Judge::run::<B, _>("ragged ranges", &ragged(), |judge| {
        let all = judge.managed().count();
        for count in [all, all + 1, 1 << 20, 1 << 30, most / 2, most / 2 + 1, most - 1, most] {
            assert_eq!(judge.alloc(contiguous(count)), Err(AllocError::NoMemory));
        }
        for align in [1 << (TOP - 1), 1 << TOP] {
            for count in [1, 5, most] {
                let layout = FrameLayout::new(count, align).expect("a layout");
                assert_eq!(judge.alloc(layout), Err(AllocError::NoMemory));
            }
        }
        judge.check();
    });
}
