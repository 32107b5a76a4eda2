//! Entries of all levels together: permissions are those of every entry used, and the first entry from above that is not
//! present, or misconfigured, decides.

use alloc::{format, vec::Vec};

use vmx_structs::VmxCapabilities;

use super::{Bench, configurations};
use crate::{
    random::Random,
    report::{Outcome, Report},
};

/// How many combinations of each kind.
const ROUNDS: usize = 150;

pub fn compare(report: &mut Report, caps: &VmxCapabilities) -> Outcome {
    for config in configurations(caps)? {
        let mut bench = Bench::new(caps, config)?;
        let mut random = Random::new(0x0065_7074);
        for round in 0..2 * ROUNDS {
            // The page is of 4 KiB, 2 MiB or 1 GiB; above it are tables.
            let leaf = 1 + random.below(3);
            let entries: Vec<(usize, u64)> = (leaf..=4)
                .map(|level| {
                    let word = if level == leaf { bench.page(level) } else { bench.link(level) };
                    // Mostly open, so that many walks get down to the page.
                    let permissions = [7, 7, 7, 5, 1, 3, 4, random.next() & 7][random.below(8)];
                    // In the second half, now and then a bit that is reserved or ignored as well.
                    let bit = [3, 4, 6, 7, 8, 9, 11, 41, 51, 52, 63][random.below(11)];
                    let is_flag = level > 1 || bit != 7;
                    let flip =
                        round >= ROUNDS && random.below(3) == 0 && is_flag && !(level == leaf && bit == 7);
                    (level, word | permissions | if flip { 1 << bit } else { 0 })
                })
                .collect();
            bench.trial(report, &format!("round {round}"), &entries)?;
        }
        bench.end()?;
    }
    Ok(())
}
