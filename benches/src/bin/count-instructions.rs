//! Work whose instructions callgrind counts: repeatable to the instruction, whatever else the machine does.
//!
//! `cargo xtask counts` runs it and compares what it finds with `counts.toml`. Each piece of work is a function of its own
//! whose name begins with `count_work_`: callgrind collects inside of these alone, and writes a file after each call. A line
//! on standard output for each call, in order, says the work, the contender, and how many operations it were.

use frame_benches::{
    Contender,
    arena::arena,
    ours,
    work::{Random, give_back, occupy, occupy_runs},
    yardstick,
};
use std::hint::black_box;

const MEMORY: usize = 256 << 20;
const FRAMES: usize = MEMORY / 4096;
/// Operations of each piece of work.
const OPERATIONS: usize = 8192;

#[inline(never)]
fn count_work_pair<C: Contender>(contender: &C) {
    for _ in 0..OPERATIONS {
        black_box(contender.pair());
    }
}

#[inline(never)]
fn count_work_pair_of<C: Contender>(contender: &C, order: u32) {
    for _ in 0..OPERATIONS {
        if let Some(address) = contender.alloc(order) {
            contender.free(black_box(address), order);
        }
    }
}

#[inline(never)]
fn count_work_burst<C: Contender>(contender: &C, held: &mut [usize; 8]) {
    for _ in 0..OPERATIONS / 8 {
        for slot in &mut *held {
            *slot = contender.alloc_one().unwrap_or(0);
        }
        for &address in &*held {
            contender.free_one(address);
        }
    }
}

#[inline(never)]
fn count_work_bulk<C: Contender>(contender: &C, held: &mut [usize]) {
    for slot in held {
        *slot = contender.alloc_one().unwrap_or(0);
    }
}

#[inline(never)]
fn count_work_free<C: Contender>(contender: &C, held: &[usize]) {
    for &address in held {
        contender.free_one(address);
    }
}

#[inline(never)]
fn count_work_churn<C: Contender>(contender: &C, held: &mut [usize], victims: &[usize]) {
    for &victim in victims {
        let slot = &mut held[victim];
        contender.free_one(*slot);
        *slot = contender.alloc_one().unwrap_or(0);
    }
}

#[inline(never)]
fn count_work_mixed<C: Contender>(contender: &C, held: &mut [(usize, u32)], steps: &[(usize, u32)]) {
    for &(victim, order) in steps {
        let slot = &mut held[victim];
        contender.free(slot.0, slot.1);
        *slot = (contender.alloc(order).unwrap_or(0), order);
    }
}

/// Everything once for one contender. Each work is done twice, and named after the second time: what a first use sets
/// up is no part of an operation.
fn all<C: Contender>(name: &str, contender: &C) {
    let twice = |work: &str, run: &mut dyn FnMut()| {
        run();
        println!("{work} again {OPERATIONS}");
        run();
        println!("{work} {name} {OPERATIONS}");
    };
    let mut random = Random::new(1);
    twice("pair", &mut || count_work_pair(contender));
    let mut held = [0; 8];
    twice("burst", &mut || count_work_burst(contender, &mut held));

    let mut held = vec![1; OPERATIONS];
    for time in ["again", name] {
        count_work_bulk(contender, &mut held);
        println!("bulk {time} {OPERATIONS}");
        let shuffled: Vec<_> = random.permutation(OPERATIONS).iter().map(|&i| held[i as usize]).collect();
        count_work_free(contender, &shuffled);
        println!("free {time} {OPERATIONS}");
    }

    for (percent, work) in [(50, "churn50"), (90, "churn90")] {
        let mut held = occupy(contender, FRAMES, percent, 1);
        let frames = &mut held.frames[0];
        twice(work, &mut || {
            let victims: Vec<_> = (0..OPERATIONS).map(|_| random.below(frames.len())).collect();
            count_work_churn(contender, frames, &victims);
        });
        give_back(contender, held);
    }

    let mut held = occupy_runs(contender, FRAMES, 50);
    let runs = &mut held.runs;
    twice("mixed", &mut || {
        let mut step = |_| (random.below(runs.len()), (random.bits() >> 54 | 1 << 9).trailing_zeros());
        let steps: Vec<_> = (0..OPERATIONS).map(&mut step).collect();
        count_work_mixed(contender, runs, &steps);
    });
    assert!(runs.iter().all(|run| run.0 != 0), "{name} refused a run with half of memory free");
    give_back(contender, held);
    twice("pair2m", &mut || count_work_pair_of(contender, 9));
}

fn main() {
    // Reserved, never touched.
    let memory = || arena(MEMORY).expect("address space");
    all("null", &yardstick::Null);
    all("floor", &yardstick::Floor::new(memory().start, FRAMES));
    all("percpu-tree", &ours::percpu_tree(memory()));
    all("tree", &ours::tree(memory()));
}
