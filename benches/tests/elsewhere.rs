//! Allocators that are not in the roster: measured like the others if they do their work, left out if they do not.

use std::{
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use frame_benches::{
    Books, Contender, DISCIPLINES, Entry, Kind, Scale, Start,
    disciplines::discipline,
    race::race,
    results::measure,
    roster,
    targets::{Verdict, targets},
    verify::Fault,
    work::{Step, Trace},
};

/// Small: what is tested is who takes part and what is reckoned, not how fast anybody is.
const SCALE: Scale = Scale { rounds: 2, operations: 400, memory: 128 << 20, trace: None };

/// Takes the lowest free run.
struct Lowest {
    base: usize,
    taken: Mutex<Vec<bool>>,
}

impl Lowest {
    fn new(arena: Range<usize>) -> Self {
        Self { base: arena.start, taken: Mutex::new(vec![false; arena.len() / 4096]) }
    }
}

impl Contender for Lowest {
    fn alloc(&self, order: u32) -> Option<usize> {
        let mut taken = self.taken.lock().unwrap();
        let run = taken.chunks_mut(1 << order).position(|run| !run.contains(&true))?;
        taken[run << order..(run + 1) << order].fill(true);
        Some(self.base + (run << order) * 4096)
    }

    fn free(&self, address: usize, order: u32) {
        let first = (address - self.base) / 4096;
        self.taken.lock().unwrap()[first..first + (1 << order)].fill(false);
    }
}

/// Hands everything out twice.
struct Liar {
    next: AtomicUsize,
    base: usize,
}

impl Contender for Liar {
    fn alloc(&self, order: u32) -> Option<usize> {
        Some(self.base + self.next.fetch_add(1, Relaxed) / 2 * (4096 << order))
    }

    fn free(&self, _: usize, _: u32) {}
}

/// Has a bug that it notices itself.
struct Panicky;

impl Contender for Panicky {
    fn alloc(&self, _: u32) -> Option<usize> {
        panic!("this is what the test wants to see caught")
    }

    fn free(&self, _: usize, _: u32) {}
}

const fn entry(name: &'static str, kind: Kind) -> Entry {
    Entry {
        name,
        package: "",
        kind,
        build: |arena| Box::new(Lowest::new(arena)),
        bulk: false,
        runs: false,
        two_mib: true,
        start: Start::None,
        most: 1 << 30,
        books: || Books::told(""),
    }
}

fn with(mut others: Vec<Entry>) -> Vec<Entry> {
    let mut everybody = roster();
    everybody.retain(|entry| ["null", "floor", "percpu-tree", "tree"].contains(&entry.name));
    everybody.append(&mut others);
    everybody
}

/// Runs a test with room on its stack, a part of which is the floor's thread-local stack of frames.
fn with_room(test: fn()) {
    std::thread::Builder::new().stack_size(16 << 20).spawn(test).unwrap().join().unwrap();
}

#[test]
fn a_peer_from_elsewhere_is_measured_and_the_targets_are_reckoned() {
    with_room(measured_and_reckoned);
}

fn measured_and_reckoned() {
    let steps = |slot, alloc| Step { slot, order: 1, alloc };
    let trace = Trace { steps: vec![steps(0, true), steps(1, true), steps(0, false)], slots: 2 };
    let scale = Scale { trace: Some(Box::leak(Box::new(trace))), ..SCALE };
    let results = measure(with(vec![entry("elsewhere", Kind::Peer)]), scale, |_, _| ()).unwrap();
    assert!(results.figures.left_out.is_empty());

    let who = results.contender("elsewhere").unwrap();
    let pair = results.figures.of(who, discipline("4K pair")).expect("it takes part in pairs");
    assert_eq!((pair.rounds.len(), pair.operations, pair.failures), (2, 800, 0));
    assert!(
        pair.nanoseconds.low <= pair.nanoseconds.median && pair.nanoseconds.median <= pair.nanoseconds.high
    );
    assert!(results.figures.of(who, discipline("bulk alloc")).is_none(), "it said that it is slow in bulk");
    let best = results.figures.best_peer(&results.roster, discipline("4K pair")).unwrap();
    assert_eq!(best.contender, who, "the only peer");

    let ours = results.contender("percpu-tree").unwrap();
    for (number, discipline) in DISCIPLINES.iter().enumerate() {
        let figure = results.figures.of(ours, number).unwrap_or_else(|| panic!("no {}", discipline.name));
        assert_eq!(figure.failures, 0, "{}", discipline.name);
        assert!(figure.to_floor.is_some(), "{}", discipline.name);
    }
    // A locked search of a list is no match on the hot pair, in any build; metadata is a fact.
    let targets = targets(&results);
    let verdict =
        |wanted: &str| targets.iter().find(|t| t.wanted.contains(wanted)).expect("a target").verdict;
    assert_eq!(verdict("<= 41 KiB"), Verdict::Met);
    assert_eq!(verdict("no failure"), Verdict::Met);
    let bulk = targets.iter().find(|target| target.work == "bulk alloc").unwrap();
    assert_eq!(bulk.verdict, Verdict::NotMeasured, "no peer took part in it");
}

#[test]
fn who_lies_is_left_out_and_named_and_the_others_are_measured() {
    with_room(left_out_and_named);
}

fn left_out_and_named() {
    let liar = Entry {
        build: |arena| Box::new(Liar { next: AtomicUsize::new(0), base: arena.start }),
        ..entry("liar", Kind::Peer)
    };
    let panicky = Entry { build: |_| Box::new(Panicky), ..entry("panicky", Kind::Ours) };
    let roster = with(vec![liar, panicky]);
    let figures = race(&roster, Scale { rounds: 1, ..SCALE }, |_, _, _| ()).unwrap();
    let left_out: Vec<_> =
        figures.left_out.iter().map(|left| (roster[left.contender].name, left.fault)).collect();
    assert!(
        matches!(left_out[..], [("liar", Fault::Twice(_)), ("panicky", Fault::Panicked)]),
        "{left_out:?}"
    );
    for left in &figures.left_out {
        assert!((0..DISCIPLINES.len()).all(|number| figures.of(left.contender, number).is_none()));
    }
    let floor = roster.iter().position(|entry| entry.name == "floor").unwrap();
    assert_eq!(figures.of(floor, discipline("4K pair")).unwrap().to_floor.unwrap().median, 1.0);
}

#[test]
#[cfg(feature = "peers")]
fn everybody_in_the_roster_does_their_work() {
    with_room(everybody);
}

#[cfg(feature = "peers")]
fn everybody() {
    for entry in roster() {
        let verified = frame_benches::race::verified(&entry, 128 << 20).unwrap();
        assert!(verified.is_ok(), "{}: {}", entry.name, verified.err().unwrap());
    }
}
