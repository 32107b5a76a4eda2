//! One thread: pairs, bursts, bulk, churn, runs of mixed orders, 2 MiB frames.
//!
//! `cargo bench -p frame-benches --bench alloc_free`, or with a contender's name behind `--`.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use frame_benches::{
    Race, roster, verified,
    work::{Churn, Sample},
};

const GIB: usize = 1 << 30;
const FRAMES: usize = GIB / 4096;

/// Has criterion time `run`, told how many operations to do, for everybody whom `takes_part` names.
fn group(
    criterion: &mut Criterion,
    name: &str,
    takes_part: impl Fn(&frame_benches::Entry) -> bool,
    order: u32,
    run: impl Fn(&dyn Race, usize) -> Sample,
) {
    let mut group = criterion.benchmark_group(name);
    for entry in roster().into_iter().filter(takes_part) {
        let Some(contender) = verified(&entry).filter(|contender| contender.can(order)) else { continue };
        group.bench_function(entry.name, |bencher| {
            bencher.iter_custom(|iterations| {
                // At least this many, so that a loop's start-up does not show; scaled back to what was asked.
                let operations = (iterations as usize).max(10_000);
                let sample = run(&*contender, operations);
                Duration::from_nanos((sample.nanoseconds() * iterations as f64) as u64)
            });
        });
    }
    group.finish();
}

fn pairs(criterion: &mut Criterion) {
    group(criterion, "alloc_free/pair_4k", |_| true, 0, |race, n| race.pair(0, n));
    group(criterion, "alloc_free/burst_8", |_| true, 0, |race, n| race.burst(8, n));
    group(criterion, "alloc_free/pair_2m", |_| true, 9, |race, n| race.pair(9, n.min(20_000)));
}

fn bulk(criterion: &mut Criterion) {
    group(criterion, "alloc_free/bulk_alloc", |entry| entry.bulk, 0, |race, n| race.bulk(1 << 14, n, 1).0);
    group(
        criterion,
        "alloc_free/bulk_random_free",
        |entry| entry.bulk,
        0,
        |race, n| race.bulk(1 << 14, n, 1).1,
    );
}

fn churn(criterion: &mut Criterion) {
    for percent in [50, 90] {
        group(
            criterion,
            &format!("alloc_free/churn_{percent}"),
            |entry| entry.bulk,
            0,
            |race, n| race.churn(&Churn { frames: FRAMES, percent, steps: n, burst: 1, seed: 1 }),
        );
    }
    group(
        criterion,
        "alloc_free/orders_0_to_9",
        |entry| entry.bulk && entry.runs,
        9,
        |race, n| race.mixed(&Churn { frames: FRAMES, percent: 50, steps: n, burst: 1, seed: 1 }),
    );
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = pairs, bulk, churn
}
criterion_main!(benches);
