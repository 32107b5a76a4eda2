//! The timed comparison: every discipline, every contender, interleaved.
//!
//! A round runs each of some disciplines once on each contender in turn, starting with another contender each time: a
//! machine that slows down for a while slows all of them, in one round. Ratios to the floor are taken within a round;
//! what is shown is the median of the rounds with the quartiles beside it. Disciplines that want the same frames held
//! share their rounds; contenders hold them from the first round to the last.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{
    arena::arena,
    contender::Race,
    disciplines::{DISCIPLINES, Scale},
    roster::{Entry, Kind},
    verify::Fault,
    work::{Held, Sample},
};

/// A middle value and its spread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// First quartile.
    pub low: f64,
    /// Third quartile.
    pub high: f64,
}

impl Spread {
    /// Of these values; `None` of none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |share: f64| values[(last as f64 * share).round() as usize];
        Some(Self { median: at(0.5), low: at(0.25), high: at(0.75) })
    }
}

/// What one contender did in one discipline.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Index into the roster.
    pub contender: usize,
    /// Index into [`DISCIPLINES`].
    pub discipline: usize,
    /// Nanoseconds of an operation.
    pub nanoseconds: Spread,
    /// Over the floor in the same round, if there is a floor.
    pub to_floor: Option<Spread>,
    /// Requests that got no memory, in all rounds.
    pub failures: usize,
    /// Requests, in all rounds.
    pub operations: usize,
    /// Nanoseconds of an operation in each round.
    pub rounds: Vec<f64>,
}

/// A contender that was not timed.
#[derive(Clone, Copy, Debug)]
pub struct LeftOut {
    /// Index into the roster.
    pub contender: usize,
    /// Why.
    pub fault: Fault,
}

/// All figures of a comparison.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Of all who were timed.
    pub timed: Vec<Figure>,
    /// Those who failed their verification.
    pub left_out: Vec<LeftOut>,
}

impl Figures {
    /// What a contender did in a discipline, if it took part.
    pub fn of(&self, contender: usize, discipline: usize) -> Option<&Figure> {
        self.timed.iter().find(|f| f.contender == contender && f.discipline == discipline)
    }

    /// The peer with the lowest median in a discipline.
    pub fn best_peer(&self, roster: &[Entry], discipline: usize) -> Option<&Figure> {
        self.timed
            .iter()
            .filter(|f| f.discipline == discipline && roster[f.contender].kind == Kind::Peer)
            .min_by(|a, b| a.nanoseconds.median.total_cmp(&b.nanoseconds.median))
    }

    /// The values of two disciplines or contenders, put together round by round.
    pub fn by_round(a: &Figure, b: &Figure, of: impl Fn(f64, f64) -> f64) -> Option<Spread> {
        Spread::of(a.rounds.iter().zip(&b.rounds).map(|(&a, &b)| of(a, b)).collect())
    }
}

/// Runs the comparison. `progress` is told the steps done, the steps in all, and what is done now.
///
/// Contenders that do not do their work are left out, and named.
///
/// # Errors
/// The operating system has no address space left.
pub fn race(
    roster: &[Entry],
    scale: Scale,
    mut progress: impl FnMut(usize, usize, &str),
) -> std::io::Result<Figures> {
    let steps = DISCIPLINES.len() * scale.rounds;
    let mut contenders: Vec<Option<Box<dyn Race>>> = Vec::new();
    let mut left_out = Vec::new();
    for (number, entry) in roster.iter().enumerate() {
        progress(0, steps, entry.name);
        contenders.push(match verified(entry, scale.memory)? {
            Ok(contender) => Some(contender),
            Err(fault) => {
                left_out.push(LeftOut { contender: number, fault });
                None
            }
        });
    }
    let mut samples = vec![vec![Vec::new(); DISCIPLINES.len()]; roster.len()];
    let takes_part = |who: usize, discipline: usize| {
        let discipline = &DISCIPLINES[discipline];
        let able = |contender: &dyn Race| discipline.admits(&roster[who]) && contender.can(discipline.order);
        contenders[who].as_deref().filter(|contender| able(*contender))
    };
    let mut done = 0;
    for sharing in sharing() {
        let mut held: Vec<Held> = Vec::new();
        for (who, entry) in roster.iter().enumerate() {
            progress(done, steps, entry.name);
            let prepared = takes_part(who, sharing[0]).map(|c| DISCIPLINES[sharing[0]].prepare(c, scale));
            held.push(prepared.unwrap_or_default());
        }
        for round in 0..scale.rounds {
            for &discipline in &sharing {
                progress(done, steps, DISCIPLINES[discipline].name);
                done += 1;
                for turn in 0..roster.len() {
                    let who = (turn + round) % roster.len();
                    let Some(contender) = takes_part(who, discipline) else { continue };
                    let sample = DISCIPLINES[discipline].run(contender, scale, &mut held[who]);
                    if sample.operations > 0 {
                        samples[who][discipline].push(sample);
                    }
                }
            }
        }
        for (who, held) in held.into_iter().enumerate() {
            if let Some(contender) = takes_part(who, sharing[0]) {
                contender.give_back(held);
            }
        }
    }
    Ok(Figures { timed: figures(roster, &samples), left_out })
}

/// Sets a contender up and has it show that it does its work.
///
/// # Errors
/// The outer: no address space. The inner: the contender's fault.
pub fn verified(entry: &Entry, memory: usize) -> std::io::Result<Result<Box<dyn Race>, Fault>> {
    let memory = arena(memory)?;
    // Slow peers are checked with fewer frames: the check is quadratic for them.
    let frames = if entry.bulk { 1 << 14 } else { 1 << 10 };
    let checked = catch_unwind(AssertUnwindSafe(|| {
        let contender = (entry.build)(memory.clone());
        contender.verify(memory, frames).map(|()| contender)
    }));
    Ok(checked.unwrap_or(Err(Fault::Panicked)))
}

/// The disciplines, those together that want the same held.
fn sharing() -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<usize>> = Vec::new();
    for (number, discipline) in DISCIPLINES.iter().enumerate() {
        match all.iter_mut().find(|sharing| DISCIPLINES[sharing[0]].holding == discipline.holding) {
            Some(sharing) => sharing.push(number),
            None => all.push(vec![number]),
        }
    }
    all
}

/// Of each contender, of each discipline: the samples of its rounds.
type Samples = [Vec<Vec<Sample>>];

fn figures(roster: &[Entry], samples: &Samples) -> Vec<Figure> {
    let floor = roster.iter().position(|entry| entry.name == "floor");
    let mut figures = Vec::new();
    for (discipline, _) in DISCIPLINES.iter().enumerate() {
        let rounds_of = |contender: usize| -> Vec<f64> {
            samples[contender][discipline].iter().map(|sample| sample.nanoseconds()).collect()
        };
        let floor = floor.map(rounds_of).unwrap_or_default();
        for (contender, samples) in samples.iter().enumerate() {
            let rounds = rounds_of(contender);
            let Some(nanoseconds) = Spread::of(rounds.clone()) else { continue };
            let all = &samples[discipline];
            figures.push(Figure {
                contender,
                discipline,
                nanoseconds,
                to_floor: Spread::of(rounds.iter().zip(&floor).map(|(time, floor)| time / floor).collect()),
                failures: all.iter().map(|sample| sample.failures).sum(),
                operations: all.iter().map(|sample| sample.operations).sum(),
                rounds,
            });
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disciplines::Holding;

    #[test]
    fn who_shares_rounds_holds_the_same_and_meets_the_same_contenders() {
        let all = sharing();
        let mut seen: Vec<usize> = all.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..DISCIPLINES.len()).collect::<Vec<_>>());
        for sharing in all.iter().filter(|sharing| DISCIPLINES[sharing[0]].holding != Holding::Nothing) {
            for &one in sharing {
                let (first, one) = (&DISCIPLINES[sharing[0]], &DISCIPLINES[one]);
                assert_eq!((first.holding, first.bulk, first.order), (one.holding, one.bulk, one.order));
            }
        }
    }

    #[test]
    fn a_spread_is_of_sorted_values() {
        let spread = Spread::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]).unwrap();
        assert_eq!(spread, Spread { median: 3.0, low: 2.0, high: 4.0 });
        assert_eq!(Spread::of(vec![7.0]).unwrap(), Spread { median: 7.0, low: 7.0, high: 7.0 });
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
