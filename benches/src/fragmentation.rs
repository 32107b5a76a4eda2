//! How many 2 MiB frames there are after single frames came and went: 1 GiB, half of it held.
//!
//! All of memory was held first, and a random half of it freed: nothing is whole at the beginning. A count, not a time. Each point starts with fresh memory, so that looking does not change what comes later.

use crate::{arena::arena, roster::Entry};

/// A moment at which the free 2 MiB frames are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Steps of the churn, in times the frames of memory.
    pub times: usize,
    /// Frames freed before as many are allocated.
    pub burst: usize,
}

/// The moments that are shown.
pub const POINTS: [Point; 7] = [
    Point { times: 1, burst: 1 },
    Point { times: 2, burst: 1 },
    Point { times: 4, burst: 1 },
    Point { times: 8, burst: 1 },
    Point { times: 16, burst: 1 },
    Point { times: 4, burst: 64 },
    Point { times: 16, burst: 64 },
];

/// Bytes of memory.
pub const MEMORY: usize = 1 << 30;

/// The most 2 MiB frames that can be free while half of memory is held.
pub const MOST: usize = MEMORY / 2 / (2 << 20);

/// The free 2 MiB frames of a contender at a point.
///
/// # Errors
/// The operating system has no address space left.
pub fn free_huge(entry: &Entry, point: Point) -> std::io::Result<usize> {
    let frames = MEMORY / 4096;
    let memory = arena(MEMORY)?;
    let contender = (entry.build)(memory.clone());
    let mut held = contender.occupy(frames, 50, 1);
    match point.burst {
        1 => _ = contender.churn(point.times * frames, &mut held),
        burst => contender.churn_in_bursts(point.times * frames, burst, &mut held),
    }
    let huge = contender.free_huge();
    contender.give_back(held);
    drop(contender);
    // SAFETY: its contender is gone.
    unsafe { crate::arena::forget(memory) };
    Ok(huge)
}
