//! EPT tables beside the page tables of `page_table_multiarch`, the nearest peer, and the set-up of bitmaps.
//!
//! `cargo bench -p frame-benches --bench ept` runs it under criterion. On a machine that others use too, rather
//! `cargo bench -p frame-benches --bench ept -- --ratios`: all are run in turn, and the table that it prints has the
//! median of each and the ratio. A word behind that picks rows.
//!
//! Both take their tables from the same allocator, map the same pages with the same permissions, and before anything is
//! timed [`verify`](work::verify) checks that both translate alike. What differs is what they do: see
//! [`tables`].

mod bitmaps;
mod frames;
mod peer;
mod ratios;
mod tables;
mod work;

use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput};

use peer::Peer;
use tables::{InSession, Ours, Tables};
use work::{ROWS, Row, Work};

fn main() {
    frames::start();
    work::verify::<Ours, Peer<false>>();
    work::verify::<InSession<false>, Peer<false>>();
    work::verify::<InSession<true>, Peer<true>>();
    if std::env::args().any(|arg| arg == "--ratios") {
        ratios::print();
        return;
    }
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500))
        .configure_from_args();
    for row in ROWS {
        let mut group = criterion.benchmark_group(format!("ept/{}", row.name));
        group.throughput(Throughput::Elements(row.operations()));
        one::<Ours>(&mut group, row);
        one::<Peer<false>>(&mut group, row);
        match row.work {
            Work::MapRange | Work::UnmapRange | Work::ProtectRange => {}
            Work::Query | Work::Translate => one::<InSession<false>>(&mut group, row),
            Work::Map | Work::Protect => {
                one::<InSession<false>>(&mut group, row);
                one::<Peer<true>>(&mut group, row);
            }
            Work::Unmap => {
                one::<InSession<false>>(&mut group, row);
                one::<InSession<true>>(&mut group, row);
                one::<Peer<true>>(&mut group, row);
            }
        }
        group.finish();
    }
    let mut group = criterion.benchmark_group("bitmaps");
    for (name, set_up) in bitmaps::ROWS {
        group.bench_function(*name, |bencher| {
            bencher.iter_batched(|| (), |()| set_up(), BatchSize::SmallInput)
        });
    }
    group.finish();
    criterion.final_summary();
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn one<T: Tables>(group: &mut Group<'_>, row: &Row) {
    let pages = row.pages();
    group.bench_function(T::NAME, |bencher| {
        bencher.iter_custom(|iterations| (0..iterations).map(|_| timed::<T>(row, &pages)).sum());
    });
}

/// The time of one run of a row, without what it starts from and leaves behind.
fn timed<T: Tables>(row: &Row, pages: &work::Pages) -> Duration {
    let mut tables = work::prepared::<T>(row);
    let start = Instant::now();
    work::run(row, pages, &mut tables);
    start.elapsed()
}
