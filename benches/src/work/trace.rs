//! What a real kernel asked for, in its order.

use std::hint::black_box;

use super::{Sample, clock::Moment};
use crate::contender::Contender;

/// One operation of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Names the allocation: an index below [`Trace::slots`].
    pub slot: u32,
    /// Of the run; at most 9.
    pub order: u8,
    /// Whether it allocates into the slot, or frees what is in it.
    pub alloc: bool,
}

/// A recording, ready for replay: each slot is allocated, freed, allocated again.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// In the order of the recording.
    pub steps: Vec<Step>,
    /// Slots that the steps name.
    pub slots: usize,
}

/// Replays a trace; what is live at its end is given back behind the timed part. An operation is a step.
#[inline(never)]
pub fn replay<C: Contender>(contender: &C, trace: &Trace) -> Sample {
    let mut held = Vec::new();
    // Written, so that its pages exist.
    held.resize(trace.slots, (black_box(0), 0u8));
    let mut failures = 0;
    let start = Moment::now();
    for step in &trace.steps {
        let Some(slot) = held.get_mut(step.slot as usize) else { continue };
        if step.alloc {
            let address = contender.alloc(u32::from(step.order)).unwrap_or_else(|| {
                failures += 1;
                0
            });
            *slot = (address, step.order);
        } else if slot.0 != 0 {
            contender.free(slot.0, u32::from(slot.1));
            slot.0 = 0;
        }
    }
    let time = start.elapsed();
    for (address, order) in held.into_iter().filter(|&(address, _)| address != 0) {
        contender.free(address, u32::from(order));
    }
    Sample { time, operations: trace.steps.len(), failures }
}
