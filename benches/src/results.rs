//! Everything that one comparison measures, for whoever shows it.

use crate::{
    disciplines::Scale,
    fragmentation::{self, POINTS},
    race::{Figures, Spread, race},
    roster::{Entry, Kind},
    start::{self, SIZES},
};

/// The outcome of a comparison.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "a roster has none")]
pub struct Results {
    /// Who took part; the rows below are indices into it.
    pub roster: Vec<Entry>,
    /// How much was done.
    pub scale: Scale,
    /// Times of operations.
    pub figures: Figures,
    /// Free 2 MiB frames at each of [`POINTS`].
    pub fragmentation: Vec<(usize, [usize; POINTS.len()])>,
    /// Microseconds to take over each of [`SIZES`].
    pub start: Vec<(usize, [Option<Spread>; SIZES.len()])>,
}

impl Results {
    /// The index of the contender with this name, if it takes part.
    pub fn contender(&self, name: &str) -> Option<usize> {
        self.roster.iter().position(|entry| entry.name == name)
    }

    /// Contenders of this project that failed their verification.
    pub fn faults_of_ours(&self) -> impl Iterator<Item = String> {
        let of_ours = |who: usize| self.roster[who].kind == Kind::Ours;
        let faults = self.figures.left_out.iter().filter(move |left| of_ours(left.contender));
        faults.map(|left| {
            format!("{} failed its verification: {}", self.roster[left.contender].name, left.fault)
        })
    }
}

/// Measures everything. `progress` is told the share that is done, and what is done now.
///
/// # Errors
/// The operating system has no address space left.
pub fn measure(
    roster: Vec<Entry>,
    scale: Scale,
    mut progress: impl FnMut(f64, &str),
) -> std::io::Result<Results> {
    /// Share of the time that the timed part takes.
    const TIMED: f64 = 0.8;
    let figures = race(&roster, scale, |done, all, what| progress(TIMED * done as f64 / all as f64, what))?;
    let sound = |who: usize| !figures.left_out.iter().any(|left| left.contender == who);
    let (mut fragmentation, mut starts) = (Vec::new(), Vec::new());
    for (who, entry) in roster.iter().enumerate().filter(|&(who, _)| sound(who)) {
        let share = TIMED + (1.0 - TIMED) * who as f64 / roster.len() as f64;
        if entry.kind == Kind::Yardstick {
            continue;
        }
        if entry.bulk && entry.two_mib {
            progress(share, &format!("{}: free 2 MiB frames", entry.name));
            let mut row = [0; POINTS.len()];
            for (count, point) in row.iter_mut().zip(POINTS) {
                *count = fragmentation::free_huge(entry, point)?;
            }
            fragmentation.push((who, row));
        }
        progress(share, &format!("{}: start", entry.name));
        let row = start::start(entry, scale.rounds.max(5))?;
        if row.iter().any(Option::is_some) {
            starts.push((who, row));
        }
    }
    Ok(Results { roster, scale, figures, fragmentation, start: starts })
}
