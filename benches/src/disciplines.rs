//! The kinds of work that are compared, and how much of each is done.

use crate::{
    contender::Race,
    roster::Entry,
    work::{Held, Sample, Trace},
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
    /// What a real kernel asked for, if there is a recording of it.
    pub trace: Option<&'static Trace>,
}

impl Scale {
    /// Minutes, for figures to be quoted.
    pub const FULL: Self = Self { rounds: 25, operations: 200_000, memory: 1 << 30, trace: None };
    /// Seconds, for a look.
    pub const QUICK: Self = Self { rounds: 5, operations: 40_000, memory: 1 << 30, trace: None };

    fn frames(self) -> usize {
        self.memory / 4096
    }
}

/// Disciplines that belong together, as the tables show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// One thread, nothing held.
    Pairs,
    /// One thread, many frames held.
    Held,
    /// Two threads.
    Threads,
    /// What [`Threads`](Self::Threads) do, by one thread: what their scaling is reckoned from.
    Alone,
}

/// What is held while the work runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// Nothing.
    Nothing,
    /// Single frames, scattered over memory.
    Frames {
        /// Of memory.
        percent: usize,
        /// Of the same length.
        lists: usize,
    },
    /// Runs of orders 0 to 9.
    Runs {
        /// Of memory.
        percent: usize,
    },
}

/// One kind of work.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "a row of a table")]
pub struct Discipline {
    /// A short name, for columns and JSON.
    pub name: &'static str,
    /// What an operation is.
    pub explained: &'static str,
    /// Where it is shown.
    pub group: Group,
    /// The highest order of its requests.
    pub order: u32,
    /// Whether only those take part whose cost does not grow with what is held.
    pub bulk: bool,
    /// What is held.
    pub holding: Holding,
    run: fn(&dyn Race, Scale, &mut Held) -> Sample,
}

impl Discipline {
    /// Whether an entry takes part.
    pub fn admits(&self, entry: &Entry) -> bool {
        (entry.bulk || !self.bulk) && (entry.runs || self.order < 9 || !self.bulk)
    }

    /// Has a contender hold what this work wants held.
    pub fn prepare(&self, contender: &dyn Race, scale: Scale) -> Held {
        match self.holding {
            Holding::Nothing => Held::default(),
            Holding::Frames { percent, lists } => contender.occupy(scale.frames(), percent, lists),
            Holding::Runs { percent } => contender.occupy_runs(scale.frames(), percent),
        }
    }

    /// One timed run; of no operations if there is nothing to replay.
    pub fn run(&self, contender: &dyn Race, scale: Scale, held: &mut Held) -> Sample {
        (self.run)(contender, scale, held)
    }
}

/// Index of the discipline with this name.
///
/// # Panics
/// There is none: a mistake of the caller.
pub fn discipline(name: &str) -> usize {
    DISCIPLINES.iter().position(|discipline| discipline.name == name).expect("a discipline of the table")
}

const BULK: usize = 1 << 14;
const BULK_OF_THREADS: usize = 1 << 13;

/// All disciplines, in the order of tables.
pub const DISCIPLINES: [Discipline; 16] = [
    Discipline {
        name: "4K pair",
        explained: "allocate one frame and free it",
        group: Group::Pairs,
        order: 0,
        bulk: false,
        holding: Holding::Nothing,
        run: |race, scale, _| race.pair(0, scale.operations),
    },
    Discipline {
        name: "8-burst",
        explained: "a pair, in bursts of 8",
        group: Group::Pairs,
        order: 0,
        bulk: false,
        holding: Holding::Nothing,
        run: |race, scale, _| race.burst(8, scale.operations),
    },
    Discipline {
        name: "2M pair",
        explained: "allocate 2 MiB and free it",
        group: Group::Pairs,
        order: 9,
        bulk: false,
        holding: Holding::Nothing,
        run: |race, scale, _| race.pair(9, scale.operations / 20),
    },
    Discipline {
        name: "bulk alloc",
        explained: "one of 16,384 frames allocated in a row",
        group: Group::Held,
        order: 0,
        bulk: true,
        holding: Holding::Nothing,
        run: |race, scale, _| race.bulk(BULK, scale.operations, 1).0,
    },
    Discipline {
        name: "random free",
        explained: "one of 16,384 frames freed in random order",
        group: Group::Held,
        order: 0,
        bulk: true,
        holding: Holding::Nothing,
        run: |race, scale, _| race.bulk(BULK, scale.operations, 1).1,
    },
    Discipline {
        name: "churn 50 %",
        explained: "free a random frame and allocate one, half of memory held",
        group: Group::Held,
        order: 0,
        bulk: true,
        holding: Holding::Frames { percent: 50, lists: 1 },
        run: |race, scale, held| race.churn(scale.operations, held),
    },
    Discipline {
        name: "churn 90 %",
        explained: "the same with nine tenths held",
        group: Group::Held,
        order: 0,
        bulk: true,
        holding: Holding::Frames { percent: 90, lists: 1 },
        run: |race, scale, held| race.churn(scale.operations, held),
    },
    Discipline {
        name: "orders 0-9",
        explained: "free a random run and allocate one of a random order, half of memory held",
        group: Group::Held,
        order: 9,
        bulk: true,
        holding: Holding::Runs { percent: 50 },
        run: |race, scale, held| race.mixed(scale.operations, held),
    },
    Discipline {
        name: "real trace",
        explained: "a request of a Linux kernel while it compiled Rust, replayed in its order",
        group: Group::Held,
        order: 1,
        bulk: true,
        holding: Holding::Nothing,
        run: |race, scale, _| scale.trace.map_or_else(Sample::default, |trace| race.replay(trace)),
    },
    Discipline {
        name: "2T pair",
        explained: "a 4K pair of one of two threads",
        group: Group::Threads,
        order: 0,
        bulk: true,
        holding: Holding::Nothing,
        run: |race, scale, _| race.threads(2, scale.operations),
    },
    Discipline {
        name: "2T churn",
        explained: "a step of one of two threads, a quarter of memory held by each",
        group: Group::Threads,
        order: 0,
        bulk: true,
        holding: Holding::Frames { percent: 50, lists: 2 },
        run: |race, scale, held| race.threads_churn(2, scale.operations, held),
    },
    Discipline {
        name: "2T bulk",
        explained: "a frame of one of two threads, allocated and freed in random order among 8,192",
        group: Group::Threads,
        order: 0,
        bulk: true,
        holding: Holding::Nothing,
        run: |race, scale, _| race.threads_bulk(2, BULK_OF_THREADS, scale.operations),
    },
    Discipline {
        name: "pass on",
        explained: "a frame allocated by one thread and freed by another",
        group: Group::Threads,
        order: 0,
        bulk: true,
        holding: Holding::Nothing,
        run: |race, scale, _| race.producer_consumer(scale.operations / 2),
    },
    Discipline {
        name: "1T pair",
        explained: "a 4K pair of a thread alone",
        group: Group::Alone,
        order: 0,
        bulk: true,
        holding: Holding::Nothing,
        run: |race, scale, _| race.threads(1, scale.operations),
    },
    Discipline {
        name: "1T churn",
        explained: "a step of a thread alone, a quarter of memory held",
        group: Group::Alone,
        order: 0,
        bulk: true,
        holding: Holding::Frames { percent: 50, lists: 2 },
        run: |race, scale, held| race.threads_churn(1, scale.operations, held),
    },
    Discipline {
        name: "1T bulk",
        explained: "a frame of a thread alone, allocated and freed in random order among 8,192",
        group: Group::Alone,
        order: 0,
        bulk: true,
        holding: Holding::Nothing,
        run: |race, scale, _| race.threads_bulk(1, BULK_OF_THREADS, scale.operations),
    },
];
