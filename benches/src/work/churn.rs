//! A steady state: a fixed share of memory is held, each step frees something and allocates something.

use std::time::Instant;

use super::{Random, Sample};
use crate::contender::Contender;

/// How long and how full a churn is.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    /// Frames of memory in all.
    pub frames: usize,
    /// Share of them that is held, in percent.
    pub percent: usize,
    /// Steps: free a random run, allocate another.
    pub steps: usize,
    /// Steps whose frees come before all of their allocations: 1 is one by one.
    pub burst: usize,
    /// Of the random choices.
    pub seed: u64,
}

/// Single frames at a fixed occupancy: each step frees a random frame and allocates one. An operation is the step.
pub fn churn<C: Contender>(contender: &C, churn: &Churn) -> Sample {
    let mut held = occupy(contender, churn);
    let sample = steps(contender, churn, &mut held);
    give_back(contender, held);
    sample
}

/// [`churn`], and how many 2 MiB runs there are while its frames are still held.
pub fn free_huge_after<C: Contender>(contender: &C, churn: &Churn) -> usize {
    let mut held = occupy(contender, churn);
    if churn.burst > 1 {
        bursts(contender, churn, &mut held);
    } else {
        steps(contender, churn, &mut held);
    }
    let huge = free_huge(contender);
    give_back(contender, held);
    huge
}

/// The frames that are held, allocated in a row.
pub(super) fn occupy<C: Contender>(contender: &C, churn: &Churn) -> Vec<usize> {
    let mut held = Vec::with_capacity(churn.frames / 100 * churn.percent);
    held.extend((0..held.capacity()).map_while(|_| contender.alloc(0)));
    held
}

pub(super) fn give_back<C: Contender>(contender: &C, held: Vec<usize>) {
    held.into_iter().for_each(|address| contender.free(address, 0));
}

/// The timed part of [`churn`].
#[inline(never)]
pub(super) fn steps<C: Contender>(contender: &C, churn: &Churn, held: &mut Vec<usize>) -> Sample {
    let mut random = Random::new(churn.seed);
    let mut failures = 0;
    let start = Instant::now();
    for _ in 0..churn.steps {
        let victim = random.below(held.len());
        let Some(slot) = held.get_mut(victim) else { break };
        contender.free(*slot, 0);
        match contender.alloc(0) {
            Some(address) => *slot = address,
            None => {
                failures += 1;
                held.swap_remove(victim);
            }
        }
    }
    Sample { time: start.elapsed(), operations: churn.steps, failures }
}

/// As [`steps`], in bursts: as many frees, then as many allocations. Not timed.
fn bursts<C: Contender>(contender: &C, churn: &Churn, held: &mut Vec<usize>) {
    let mut random = Random::new(churn.seed);
    for _ in 0..churn.steps / churn.burst {
        for _ in 0..churn.burst.min(held.len()) {
            contender.free(held.swap_remove(random.below(held.len())), 0);
        }
        held.extend((0..churn.burst).map_while(|_| contender.alloc(0)));
    }
}

/// How many 2 MiB runs there are: takes all, gives them back.
fn free_huge<C: Contender>(contender: &C) -> usize {
    contender.settle();
    let held: Vec<usize> = std::iter::from_fn(|| contender.alloc(9)).collect();
    held.iter().for_each(|&address| contender.free(address, 9));
    held.len()
}

/// A random order from 0 to 9: each is half as likely as the one below it.
#[inline]
fn random_order(random: &mut Random) -> u32 {
    (random.bits() >> 54 | 1 << 9).trailing_zeros()
}

/// Runs of orders 0 to 9 at a fixed occupancy: each step frees one and allocates one of a random order, small ones
/// twice as likely as the next. An operation is the step.
#[inline(never)]
pub fn mixed<C: Contender>(contender: &C, churn: &Churn) -> Sample {
    let mut random = Random::new(churn.seed);
    let mut held: Vec<(usize, u32)> = Vec::new();
    let mut room = churn.frames / 100 * churn.percent;
    while room >= 512 {
        let order = random_order(&mut random);
        let Some(address) = contender.alloc(order) else { break };
        held.push((address, order));
        room -= 1 << order;
    }
    let mut failures = 0;
    let start = Instant::now();
    for _ in 0..churn.steps {
        let victim = random.below(held.len());
        let Some(slot) = held.get_mut(victim) else { break };
        contender.free(slot.0, slot.1);
        let order = random_order(&mut random);
        match contender.alloc(order) {
            Some(address) => *slot = (address, order),
            None => {
                failures += 1;
                held.swap_remove(victim);
            }
        }
    }
    let time = start.elapsed();
    held.into_iter().for_each(|(address, order)| contender.free(address, order));
    Sample { time, operations: churn.steps, failures }
}
