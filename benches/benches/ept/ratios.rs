//! The comparison as a table: all contenders in turn, medians of the processor time that each took, and the ratio.

use std::time::Duration;

use crate::{
    bitmaps,
    peer::Peer,
    tables::{InSession, Ours, Tables},
    work::{self, LARGE_ROWS, ROWS},
};

/// Rounds of a row; the first is thrown away.
const ROUNDS: usize = 21;

/// Pages that are enough for the clock.
const ENOUGH: u64 = 1 << 14;

/// Runs a row once.
type Run = fn(&work::Row, &work::Pages) -> Duration;

pub(crate) fn print() {
    let picked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |name: &str| picked.is_empty() || picked.iter().any(|word| name.contains(word));
    println!("ns for each page; a ratio above 1 means that vmx-structs is faster than the peer by so much");
    println!("{:<40}{:>14}{:>22}{:>8}", "", "vmx-structs", "page_table_multiarch", "ratio");
    for (row, rounds) in ROWS.iter().map(|row| (row, ROUNDS)).chain(LARGE_ROWS.iter().map(|row| (row, 3))) {
        if !wanted(row.name) {
            continue;
        }
        let (pages, pairs) = (row.pages(), pairs(row));
        let mut times = vec![[const { Vec::new() }; 2]; pairs.len()];
        for round in 0..rounds {
            for ((_, ours, peer), times) in pairs.iter().zip(&mut times) {
                let both = [ours(row, &pages), peer(row, &pages)];
                if round > 0 {
                    times.iter_mut().zip(both).for_each(|(times, time)| times.push(time.as_nanos()));
                }
            }
        }
        for ((way, ..), times) in pairs.iter().zip(times) {
            let [ours, peer] = times.map(|times| median(times) / row.operations() as f64);
            println!("{:<40}{ours:>14.2}{peer:>22.2}{:>8.2}", format!("{}{way}", row.name), peer / ours);
        }
    }
    for (name, set_up) in bitmaps::ROWS.iter().filter(|(name, _)| wanted(name)) {
        let times = (0..1000).map(|_| {
            let start = processor_time();
            set_up();
            (processor_time() - start).as_nanos()
        });
        println!("{name:<40}{:>14.2}", median(times.collect()));
    }
}

fn median(mut times: Vec<u128>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2] as f64
}

/// The time of one run of a row. What is done soon is done to several tables in turn: to read the clock takes as long as
/// some hundred pages.
fn timed<T: Tables>(row: &work::Row, pages: &work::Pages) -> Duration {
    let copies = ENOUGH.div_ceil(row.operations()) as u32;
    let mut tables: Vec<T> = (0..copies).map(|_| work::prepared::<T>(row)).collect();
    let start = processor_time();
    for tables in &mut tables {
        work::run(row, pages, tables);
    }
    (processor_time() - start) / copies
}

/// The ways in which a row is done: what each is called, ours, and what it is compared with.
fn pairs(row: &work::Row) -> Vec<(&'static str, Run, Run)> {
    let alone: (_, Run, Run) = (", alone", timed::<Ours>, timed::<Peer<true>>);
    match row.work {
        work::Work::Unmap => vec![
            (", in a session", timed::<InSession<false>>, timed::<Peer<false>>),
            (", discarded in a session", timed::<InSession<true>>, timed::<Peer<false>>),
            alone,
        ],
        work::Work::Map | work::Work::Protect => {
            vec![(", in a session", timed::<InSession<false>>, timed::<Peer<false>>), alone]
        }
        work::Work::Query | work::Work::Translate => {
            vec![
                (", in a view", timed::<InSession<false>>, timed::<Peer<false>>),
                (", alone", timed::<Ours>, timed::<Peer<false>>),
            ]
        }
        work::Work::MapRange | work::Work::UnmapRange | work::Work::ProtectRange => {
            vec![("", timed::<Ours>, timed::<Peer<false>>)]
        }
    }
}

/// What this thread has had of a processor: others on the machine do not count.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place is valid for a write.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(done, 0, "the clock of threads");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
