//! One thread: pairs, bursts, bulk.

use std::hint::black_box;

use super::{Random, Sample, clock::Moment, warm};
use crate::contender::Contender;

/// Allocate and free one run, again and again. An operation is the pair.
#[inline(never)]
pub fn pair<C: Contender>(contender: &C, order: u32, rounds: usize) -> Sample {
    warm(contender);
    let mut failures = 0;
    let start = Moment::now();
    if order == 0 {
        for _ in 0..rounds {
            failures += usize::from(!contender.pair());
        }
    } else {
        for _ in 0..rounds {
            match contender.alloc(order) {
                Some(address) => contender.free(black_box(address), order),
                None => failures += 1,
            }
        }
    }
    Sample { time: start.elapsed(), operations: rounds, failures }
}

/// Allocate `burst` frames, free them in the order of their allocation. An operation is a pair.
#[inline(never)]
pub fn burst<C: Contender>(contender: &C, burst: usize, rounds: usize) -> Sample {
    warm(contender);
    let mut held = vec![0; burst];
    let mut failures = 0;
    let start = Moment::now();
    for _ in 0..rounds / burst {
        for slot in &mut held {
            *slot = contender.alloc_one().unwrap_or(0);
        }
        for &address in &held {
            if address == 0 {
                failures += 1;
            } else {
                contender.free_one(address);
            }
        }
    }
    Sample { time: start.elapsed(), operations: rounds / burst * burst, failures }
}

/// Allocate `frames` frames, then free them in random order, as often as makes about `operations` of each: two
/// samples, an operation is a frame.
#[inline(never)]
pub fn bulk<C: Contender>(contender: &C, frames: usize, operations: usize, seed: u64) -> (Sample, Sample) {
    warm(contender);
    let order = Random::new(seed).permutation(frames);
    let mut held = touched(frames);
    let mut shuffled = touched(frames);
    let (mut allocated, mut freed) = (Sample::default(), Sample::default());
    for _ in 0..(operations / frames).max(1) {
        let start = Moment::now();
        let failures = fill(contender, &mut held);
        allocated += Sample { time: start.elapsed(), operations: frames, failures };
        for (slot, &i) in shuffled.iter_mut().zip(&order) {
            *slot = held[i as usize];
        }
        let start = Moment::now();
        for &address in &shuffled {
            if address != 0 {
                contender.free_one(address);
            }
        }
        freed += Sample { time: start.elapsed(), operations: frames - failures, failures: 0 };
    }
    (allocated, freed)
}

/// A list whose pages exist: the first touch of a page costs more than an allocation.
pub(super) fn touched(len: usize) -> Vec<usize> {
    let mut list = Vec::with_capacity(len);
    list.resize(len, black_box(1));
    list
}

/// A frame for each place; 0 where there was none. Returns how many there were none for.
#[inline]
pub(super) fn fill<C: Contender>(contender: &C, held: &mut [usize]) -> usize {
    let mut failures = 0;
    for slot in held {
        *slot = contender.alloc_one().unwrap_or_else(|| {
            failures += 1;
            0
        });
    }
    failures
}
