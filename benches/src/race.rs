//! The whole comparison: every discipline, every contender, interleaved.
//!
//! A round runs one discipline once on each contender in turn, so that a machine which slows down slows all of them;
//! the next round starts with another contender. The result is the median of the rounds, with the quartiles beside
//! it, and its ratio to the floor of the same discipline in the same run.

use crate::{
    arena::arena,
    contender::Race,
    roster::{Entry, Kind},
    verify::Fault,
    work::{Churn, Sample},
};

/// How much work a comparison does.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Rounds of each discipline.
    pub rounds: usize,
    /// Operations in a round, for those that can choose.
    pub operations: usize,
    /// Bytes of memory managed.
    pub memory: usize,
}

impl Scale {
    /// Minutes, for figures to be quoted.
    pub const FULL: Self = Self { rounds: 15, operations: 200_000, memory: 1 << 30 };
    /// Seconds, for a look.
    pub const QUICK: Self = Self { rounds: 3, operations: 40_000, memory: 1 << 30 };

    fn churn(self, percent: usize) -> Churn {
        Churn { frames: self.memory / 4096, percent, steps: self.operations, seed: 1 }
    }
}

/// One kind of work.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "a row of a table")]
pub struct Discipline {
    /// A short name, for columns and JSON.
    pub name: &'static str,
    /// What an operation is.
    pub explained: &'static str,
    /// The highest order of its requests.
    pub order: u32,
    /// Whether only those take part whose cost does not grow with what is held.
    pub bulk: bool,
    run: fn(&dyn Race, Scale) -> Sample,
}

impl Discipline {
    /// Whether an entry takes part.
    pub fn admits(&self, entry: &Entry) -> bool {
        (entry.bulk || !self.bulk) && (entry.runs || self.order == 0 || !self.bulk)
    }
}

/// All disciplines, in the order of tables.
pub const DISCIPLINES: [Discipline; 11] = [
    Discipline {
        name: "4K pair",
        explained: "allocate one frame and free it",
        order: 0,
        bulk: false,
        run: |race, scale| race.pair(0, scale.operations),
    },
    Discipline {
        name: "8-burst",
        explained: "a pair, in bursts of 8",
        order: 0,
        bulk: false,
        run: |race, scale| race.burst(8, scale.operations),
    },
    Discipline {
        name: "2M pair",
        explained: "allocate 2 MiB and free it",
        order: 9,
        bulk: false,
        run: |race, scale| race.pair(9, scale.operations / 20),
    },
    Discipline {
        name: "bulk alloc",
        explained: "one of 16,384 frames allocated in a row",
        order: 0,
        bulk: true,
        run: |race, _| race.bulk(1 << 14, 1).0,
    },
    Discipline {
        name: "random free",
        explained: "one of 16,384 frames freed in random order",
        order: 0,
        bulk: true,
        run: |race, _| race.bulk(1 << 14, 1).1,
    },
    Discipline {
        name: "churn 50 %",
        explained: "free a random frame and allocate one, half of memory held",
        order: 0,
        bulk: true,
        run: |race, scale| race.churn(&scale.churn(50)),
    },
    Discipline {
        name: "churn 90 %",
        explained: "the same with nine tenths held",
        order: 0,
        bulk: true,
        run: |race, scale| race.churn(&scale.churn(90)),
    },
    Discipline {
        name: "orders 0-9",
        explained: "free a random run and allocate one of a random order, half of memory held",
        order: 9,
        bulk: true,
        run: |race, scale| race.mixed(&scale.churn(50)),
    },
    Discipline {
        name: "2 threads pair",
        explained: "a 4K pair of one of two threads",
        order: 0,
        bulk: true,
        run: |race, scale| race.threads(2, scale.operations),
    },
    Discipline {
        name: "2 threads bulk",
        explained: "a frame of one of two threads, allocated and freed among 8,192",
        order: 0,
        bulk: true,
        run: |race, _| race.threads_bulk(2, 1 << 13),
    },
    Discipline {
        name: "pass on",
        explained: "a frame allocated by one thread and freed by another",
        order: 0,
        bulk: true,
        run: |race, scale| race.producer_consumer(scale.operations / 2),
    },
];

/// What one contender did in one discipline.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Index into the roster.
    pub contender: usize,
    /// Index into [`DISCIPLINES`].
    pub discipline: usize,
    /// Median nanoseconds of an operation.
    pub median: f64,
    /// First and third quartile.
    pub quartiles: (f64, f64),
    /// Requests that got no memory, in all rounds.
    pub failures: usize,
    /// Requests, in all rounds.
    pub operations: usize,
    /// The median over that of the floor in this discipline, if the floor takes part in it.
    pub to_floor: Option<f64>,
}

/// Why there is no comparison.
#[derive(Debug)]
#[non_exhaustive]
pub enum RaceError {
    /// The operating system gave no address space.
    Memory(std::io::Error),
    /// A contender failed its verification.
    Fault {
        /// Who.
        name: &'static str,
        /// How.
        fault: Fault,
    },
}

impl std::fmt::Display for RaceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory(error) => write!(f, "no address space for the contenders: {error}"),
            Self::Fault { name, fault } => {
                write!(f, "{name} failed verification, nothing was timed: {fault}")
            }
        }
    }
}

impl std::error::Error for RaceError {}

/// Runs the comparison. `progress` is told the rounds done and the rounds in all.
///
/// # Errors
/// No address space, or a contender that does not do its work.
pub fn race(
    roster: &[Entry],
    scale: Scale,
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<Figure>, RaceError> {
    let mut contenders = Vec::new();
    for entry in roster {
        let memory = arena(scale.memory).map_err(RaceError::Memory)?;
        let contender = (entry.build)(memory.clone());
        // Slow peers are checked with fewer frames: the check is quadratic for them.
        let frames = if entry.bulk { 1 << 14 } else { 1 << 10 };
        contender.verify(memory, frames).map_err(|fault| RaceError::Fault { name: entry.name, fault })?;
        contenders.push(contender);
    }
    let mut figures = Vec::new();
    for (number, discipline) in DISCIPLINES.iter().enumerate() {
        let racing: Vec<usize> = (0..roster.len())
            .filter(|&i| discipline.admits(&roster[i]) && contenders[i].can(discipline.order))
            .collect();
        let mut samples = vec![Vec::new(); roster.len()];
        for round in 0..scale.rounds {
            for turn in 0..racing.len() {
                let who = racing[(turn + round) % racing.len()];
                samples[who].push((discipline.run)(&*contenders[who], scale));
            }
            progress(number * scale.rounds + round + 1, DISCIPLINES.len() * scale.rounds);
        }
        figures.extend(racing.iter().map(|&who| figure(who, number, &samples[who])));
    }
    for discipline in 0..DISCIPLINES.len() {
        let is_floor = |f: &&Figure| f.discipline == discipline && roster[f.contender].name == "floor";
        let Some(floor) = figures.iter().find(is_floor).map(|f| f.median) else { continue };
        for figure in figures.iter_mut().filter(|f| f.discipline == discipline) {
            figure.to_floor = Some(figure.median / floor);
        }
    }
    Ok(figures)
}

fn figure(contender: usize, discipline: usize, samples: &[Sample]) -> Figure {
    let mut times: Vec<f64> = samples.iter().map(|sample| sample.nanoseconds()).collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    Figure {
        contender,
        discipline,
        median: at(0.5),
        quartiles: (at(0.25), at(0.75)),
        failures: samples.iter().map(|sample| sample.failures).sum(),
        operations: samples.iter().map(|sample| sample.operations).sum(),
        to_floor: None,
    }
}

/// The best peer of a discipline: its index into the roster and its median.
pub fn best_peer(roster: &[Entry], figures: &[Figure], discipline: usize) -> Option<(usize, f64)> {
    let peers =
        figures.iter().filter(|f| f.discipline == discipline && roster[f.contender].kind == Kind::Peer);
    peers.map(|f| (f.contender, f.median)).min_by(|a, b| a.1.total_cmp(&b.1))
}
