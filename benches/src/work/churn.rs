//! A steady state: a fixed share of memory is held, each step frees something and allocates something.
//!
//! What is held was scattered first: all of memory was allocated, then a random part of it freed, so that hardly a
//! 2 MiB block is whole. That is how a machine looks that was short of memory once; an allocator that then takes frames
//! by their addresses repairs it while it works, one that takes what was freed last does not.

use super::{Random, Sample, clock::Moment};
use crate::contender::Contender;

/// What is held between the timed runs of a churn.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Single frames, a list for each thread.
    pub frames: Vec<Vec<usize>>,
    /// Runs: address and order.
    pub runs: Vec<(usize, u32)>,
    /// Runs done so far: each has its own random choices.
    pub rounds: u64,
}

impl Held {
    fn random(&mut self) -> Random {
        self.rounds += 1;
        Random::new(self.rounds)
    }
}

/// Holds this share of `frames` frames, scattered, in as many lists of the same length.
pub fn occupy<C: Contender>(contender: &C, frames: usize, percent: usize, lists: usize) -> Held {
    let all: Vec<usize> = (0..frames).map_while(|_| contender.alloc_one()).collect();
    let mut order = Random::new(0).permutation(all.len()).into_iter().map(|i| all[i as usize]);
    let each = frames / 100 * percent / lists;
    let frames = (0..lists).map(|_| order.by_ref().take(each).collect()).collect();
    order.for_each(|address| contender.free_one(address));
    Held { frames, ..Held::default() }
}

/// Gives back what is held.
pub fn give_back<C: Contender>(contender: &C, held: Held) {
    held.frames.into_iter().flatten().for_each(|address| contender.free_one(address));
    held.runs.into_iter().for_each(|(address, order)| contender.free(address, order));
}

/// Single frames at a fixed occupancy: each step frees a random frame and allocates one. An operation is the step.
pub fn churn<C: Contender>(contender: &C, steps: usize, held: &mut Held) -> Sample {
    let random = held.random();
    held.frames
        .first_mut()
        .map_or_else(Sample::default, |frames| churn_list(contender, steps, frames, random))
}

#[inline(never)]
pub(super) fn churn_list<C: Contender>(
    contender: &C,
    steps: usize,
    held: &mut Vec<usize>,
    mut random: Random,
) -> Sample {
    let mut failures = 0;
    let start = Moment::now();
    for _ in 0..steps {
        let victim = random.below(held.len());
        let Some(slot) = held.get_mut(victim) else { break };
        contender.free_one(*slot);
        match contender.alloc_one() {
            Some(address) => *slot = address,
            None => {
                failures += 1;
                held.swap_remove(victim);
            }
        }
    }
    Sample { time: start.elapsed(), operations: steps, failures }
}

/// [`churn`] in bursts: as many frees, then as many allocations. Not timed.
pub fn churn_in_bursts<C: Contender>(contender: &C, steps: usize, burst: usize, held: &mut Held) {
    let mut random = held.random();
    let Some(frames) = held.frames.first_mut() else { return };
    for _ in 0..steps / burst {
        for _ in 0..burst.min(frames.len()) {
            contender.free_one(frames.swap_remove(random.below(frames.len())));
        }
        frames.extend((0..burst).map_while(|_| contender.alloc_one()));
    }
}

/// How many 2 MiB runs can be had: takes all, gives them back.
pub fn free_huge<C: Contender>(contender: &C) -> usize {
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

/// Holds this share of `frames` frames in runs of random orders, as they come.
pub fn occupy_runs<C: Contender>(contender: &C, frames: usize, percent: usize) -> Held {
    let mut random = Random::new(0);
    let mut held = Held::default();
    let mut room = frames / 100 * percent;
    while room >= 512 {
        let order = random_order(&mut random);
        let Some(address) = contender.alloc(order) else { break };
        held.runs.push((address, order));
        room -= 1 << order;
    }
    held
}

/// Runs of orders 0 to 9 at a fixed occupancy: each step frees a random one and allocates one of a random order, small
/// ones twice as likely as the next. An operation is the step.
#[inline(never)]
pub fn mixed<C: Contender>(contender: &C, steps: usize, held: &mut Held) -> Sample {
    let mut random = held.random();
    let held = &mut held.runs;
    let mut failures = 0;
    let start = Moment::now();
    for _ in 0..steps {
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
    Sample { time: start.elapsed(), operations: steps, failures }
}
