//! A number counts only if the allocator did its work: distinct, aligned, in range, nothing lost.

use std::{fmt, ops::Range};

use crate::contender::Contender;

/// What a contender did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It gave up with memory left.
    Exhausted {
        /// Runs it gave before.
        after: usize,
    },
    /// A run outside the arena.
    Outside(usize),
    /// A run that is not aligned to its size.
    Misaligned(usize),
    /// A frame given twice.
    Twice(usize),
    /// It panicked; the message stands on standard error.
    Panicked,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exhausted { after } => write!(f, "gave up after {after} runs with memory left"),
            Self::Outside(at) => write!(f, "{at:#x} lies outside the memory it was given"),
            Self::Misaligned(at) => write!(f, "{at:#x} is not aligned to its size"),
            Self::Panicked => f.write_str("panicked"),
            Self::Twice(at) => write!(f, "the frame {at:#x} was given twice"),
        }
    }
}

impl std::error::Error for Fault {}

/// Takes `frames` frames by ones, then runs of each order, and gives everything back, twice over.
///
/// # Errors
/// The first fault.
pub fn verify<C: Contender>(contender: &C, arena: Range<usize>, frames: usize) -> Result<(), Fault> {
    if !contender.is_real() {
        return Ok(());
    }
    for _ in 0..2 {
        let mut taken = vec![false; arena.len() / 4096];
        let mut held = Vec::new();
        let orders = std::iter::repeat_n(0, frames).chain((1..=9).filter(|&order| contender.can(order)));
        for order in orders {
            let address = contender.alloc(order).ok_or(Fault::Exhausted { after: held.len() })?;
            let size = 4096 << order;
            if !arena.contains(&address) || address + size > arena.end {
                return Err(Fault::Outside(address));
            }
            if address % size != 0 {
                return Err(Fault::Misaligned(address));
            }
            let first = (address - arena.start) / 4096;
            for (i, frame) in taken[first..first + (1 << order)].iter_mut().enumerate() {
                if std::mem::replace(frame, true) {
                    return Err(Fault::Twice(address + i * 4096));
                }
            }
            held.push((address, order));
        }
        for (address, order) in held {
            contender.free(address, order);
        }
    }
    Ok(())
}
