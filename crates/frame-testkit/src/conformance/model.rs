//! Random operations against a model: what no case above thought of.
//!
//! Everything is mixed: single frames, runs, windows, places, bulk; frees of wholes, parts and unions; bad frees.
//! The judge checks each answer, and on small maps all free frames after each operation.

use alloc::{format, vec, vec::Vec};

use frame_core::{FRAME_SIZE, FrameRange, PhysAddr};

use super::{aligned, contiguous, firmware_ranges};
use crate::{
    Backend, Judge, Rng, firmware,
    frame_set::{numbers, range},
    random_ranges,
};

/// Maps of up to 3,000 frames with holes and ragged edges; everything that is free is compared after each
/// operation.
pub fn random_operations_on_small_maps<B: Backend>() {
    let seed = Rng::seed_or(7);
    let sizes = [1, 5, 64, 130, 600, 1100, 2000, 3000];
    for (i, frames) in sizes.repeat(Rng::effort()).into_iter().enumerate() {
        let seed = seed.wrapping_add(i as u64);
        let ranges = random_ranges(seed, frames);
        Judge::run::<B, _>(&format!("random ranges {seed} of {frames} frames"), &ranges, |judge| {
            let mut play = Play::<B>::new(judge, seed, 600);
            for _ in 0..600 {
                play.step();
                play.judge.check();
            }
        });
    }
}

/// The built-in firmware maps: gibibytes, many orders; all that is free is compared now and then.
pub fn random_operations_on_firmware_maps<B: Backend>() {
    let seed = Rng::seed_or(8);
    for firmware in firmware::maps() {
        Judge::run::<B, _>(
            &format!("{}, seed {seed}", firmware.name),
            &firmware_ranges(firmware.name),
            |judge| {
                let mut play = Play::<B>::new(judge, seed, 1 << 18);
                for step in 0..800 * Rng::effort() {
                    play.step();
                    if step % 200 == 0 {
                        play.judge.check();
                    }
                }
            },
        );
    }
}

/// Every second frame, every second pair and so on is taken: a run that fits nowhere is refused, singles are found.
pub fn fragmented_memory<B: Backend>() {
    Judge::run::<B, _>("one range of 4,096 frames", &[range(4096, 8192)], |judge| {
        for order in 0..6 {
            while judge.alloc_frame().is_ok() {}
            let step = 1 << order;
            for start in (4096..8192).step_by(2 * step) {
                judge.free(range(start, start + step));
            }
            judge.check();
            judge.alloc(contiguous(step + 1)).expect_err("no run is longer");
            judge.alloc(aligned(step, 2 * step * 2 * FRAME_SIZE)).expect("every second block is aligned so");
            let mut given = 1;
            while judge.alloc(contiguous(step)).is_ok() {
                given += 1;
            }
            assert_eq!(given, 2048 / step, "{}: every run of {step}", judge.label());
            judge.free_all();
        }
    });
}

struct Play<'j, 'a, B> {
    judge: &'j mut Judge<'a>,
    rng: Rng,
    owned: Vec<FrameRange>,
    longest: usize,
    _backend: core::marker::PhantomData<B>,
}

impl<'j, 'a, B: Backend> Play<'j, 'a, B> {
    fn new(judge: &'j mut Judge<'a>, seed: u64, longest: usize) -> Self {
        Self { judge, rng: Rng::new(seed), owned: Vec::new(), longest, _backend: core::marker::PhantomData }
    }

    fn step(&mut self) {
        match self.rng.below(16) {
            0..=2 => self.owned.extend(self.judge.alloc_frame().ok()),
            3..=5 => {
                let layout = self.layout();
                self.owned.extend(self.judge.alloc(layout).ok());
            }
            6 if B::SUPPORTS_ALLOC_IN => {
                let (layout, window) = (self.layout(), self.somewhere());
                self.owned.extend(self.judge.alloc_in(layout, window).ok());
            }
            7 if B::SUPPORTS_ALLOC_AT => {
                let place = self.somewhere();
                if self.judge.alloc_at(place).is_ok() {
                    self.owned.push(place);
                }
            }
            8 => {
                let mut frames = vec![PhysAddr::from(0); self.rng.between(1, 100)];
                let given = self.judge.alloc_bulk(&mut frames);
                self.owned
                    .extend(frames[..given].iter().map(|&frame| FrameRange::new(frame, 1).expect("a frame")));
            }
            9 => {
                let mut frames = Vec::new();
                while let Some(run) = self.rng.take(&mut self.owned) {
                    frames.extend(run.frames().take(100));
                    self.owned.extend(run.count().checked_sub(101).map(|_| {
                        let (start, end) = numbers(run);
                        range(start + 100, end)
                    }));
                    if frames.len() >= 50 {
                        break;
                    }
                }
                self.rng.shuffle(&mut frames);
                self.judge.free_bulk(&frames);
            }
            10..=12 => match self.rng.take(&mut self.owned) {
                Some(run) if run.count() == 1 && self.rng.chance(1, 2) => self.judge.free_frame(run.start()),
                Some(run) => self.judge.free(run),
                None => {}
            },
            13 => self.free_part(),
            14 => self.free_union(),
            _ => self.free_badly(),
        }
    }

    fn layout(&mut self) -> frame_core::FrameLayout {
        let bits = self.rng.between(0, self.longest.ilog2() as usize + 1);
        let count = match self.rng.below(3) {
            0 => (1 << bits).min(self.longest),
            _ => self.rng.between(1, (1 << bits).min(self.longest)),
        };
        let align = FRAME_SIZE << if self.rng.chance(1, 2) { 0 } else { self.rng.below(12) };
        aligned(count, align)
    }

    /// A range that touches managed memory, and often more.
    fn somewhere(&mut self) -> FrameRange {
        let runs: Vec<FrameRange> = self.judge.managed().runs().collect();
        let (start, end) = numbers(runs[self.rng.below(runs.len())]);
        let at = self.rng.between(start, end - 1);
        let first = at - self.rng.below(at.min(40) + 1);
        let most = 1 << self.rng.below(11);
        range(first, at + self.rng.between(1, most))
    }

    fn free_part(&mut self) {
        let Some(run) = self.rng.take(&mut self.owned) else { return };
        let (start, end) = numbers(run);
        let from = self.rng.between(start, end - 1);
        let to = self.rng.between(from + 1, end);
        self.judge.free(range(from, to));
        for (start, end) in [(start, from), (to, end)] {
            if start < end {
                self.owned.push(range(start, end));
            }
        }
    }

    /// Frees an allocation with all owned neighbours behind it.
    fn free_union(&mut self) {
        let Some(run) = self.rng.take(&mut self.owned) else { return };
        let (start, mut end) = numbers(run);
        while let Some(next) = self.owned.iter().position(|run| numbers(*run).0 == end) {
            end = numbers(self.owned.swap_remove(next)).1;
        }
        self.judge.free(range(start, end));
    }

    fn free_badly(&mut self) {
        let run = self.somewhere();
        let align = FRAME_SIZE << if self.rng.chance(1, 2) { 0 } else { self.rng.below(12) };
        let layout = aligned(run.count(), align);
        let bad = self.judge.faults_of(run.start(), layout).iter().any(Option::is_some);
        if B::REFUSES_BAD_FREES && bad {
            self.judge.refuse(run.start(), layout);
        }
    }
}
