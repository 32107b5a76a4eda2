//! The comparison as a table: all contenders in turn, medians of the processor time that each took, and the ratio.

use std::time::Duration;

use crate::{
    bitmaps,
    tables::{InSession, Ours, Peer, Tables},
    work::{self, LARGE_ROWS, ROWS},
};

/// Rounds of a row; the first is thrown away.
const ROUNDS: usize = 21;

pub(crate) fn print() {
    let picked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |name: &str| picked.is_empty() || picked.iter().any(|word| name.contains(word));
    println!("ns for each page; a ratio above 1 means that vmx-structs is faster than the peer by so much");
    println!("{:<40}{:>14}{:>22}{:>8}", "", "vmx-structs", "page_table_multiarch", "ratio");
    for (row, rounds) in ROWS.iter().map(|row| (row, ROUNDS)).chain(LARGE_ROWS.iter().map(|row| (row, 3))) {
        if !wanted(row.name) {
            continue;
        }
        let pages = row.pages();
        let mut times = [const { Vec::new() }; 3];
        for round in 0..rounds {
            let session = row.together().map(|_| timed::<InSession>(row, &pages));
            let ours = timed::<Ours>(row, &pages);
            let peer = timed::<Peer>(row, &pages);
            if round > 0 {
                times[0].extend(session.map(|time| time.as_nanos()));
                times[1].push(ours.as_nanos());
                times[2].push(peer.as_nanos());
            }
        }
        let [session, ours, peer] =
            times.map(|times| (!times.is_empty()).then(|| median(times) / row.operations() as f64));
        let alone = if session.is_some() { ", alone" } else { "" };
        for (time, by) in [(session, row.together().unwrap_or("")), (ours, alone)] {
            let (Some(time), Some(peer)) = (time, peer) else { continue };
            println!("{:<40}{time:>14.2}{peer:>22.2}{:>8.2}", format!("{}{by}", row.name), peer / time);
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

fn timed<T: Tables>(row: &work::Row, pages: &work::Pages) -> Duration {
    let mut tables = work::prepared::<T>(row, pages);
    let start = processor_time();
    work::run(row, pages, &mut tables);
    processor_time() - start
}

/// What this thread has had of a processor: others on the machine do not count.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place is valid for a write.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(done, 0, "the clock of threads");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
