//! What it takes to take memory over: 1 GiB, 64 GiB, 1 TiB of addresses.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use crate::{
    arena::{arena, forget},
    race::Spread,
    roster::{Entry, Start},
};

/// The sizes, in bytes.
pub const SIZES: [usize; 3] = [1 << 30, 64 << 30, 1 << 40];

/// Microseconds that an entry takes for each of [`SIZES`]; `None` where it cannot manage as much, or has no start of
/// its own.
///
/// # Errors
/// The operating system has no address space left.
pub fn start(entry: &Entry, rounds: usize) -> std::io::Result<[Option<Spread>; SIZES.len()]> {
    if matches!(entry.start, Start::None) {
        return Ok([None; SIZES.len()]);
    }
    let memory = arena(entry.most.min(SIZES[SIZES.len() - 1]))?;
    let mut rows = [None; SIZES.len()];
    for (row, size) in rows.iter_mut().zip(SIZES).filter(|(_, size)| *size <= entry.most) {
        let part = memory.start..memory.start + size;
        let times = (0..rounds).map(|_| once(entry, part.clone()).as_secs_f64() * 1e6).collect();
        *row = Spread::of(times);
    }
    Ok(rows)
}

fn once(entry: &Entry, memory: Range<usize>) -> Duration {
    let time = match entry.start {
        Start::None => Duration::ZERO,
        Start::Alone(start) => start(memory.clone()),
        Start::Built => {
            let start = Instant::now();
            let contender = (entry.build)(memory.clone());
            let time = start.elapsed();
            drop(contender);
            time
        }
    };
    // What was written into the arena goes, so that the next start finds it as the first one did.
    // SAFETY: the contender is gone.
    unsafe { forget(memory) };
    time
}
