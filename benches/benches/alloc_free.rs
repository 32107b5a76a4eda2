//! One thread: pairs, bursts, bulk, churn, runs of mixed orders, 2 MiB frames.
//!
//! `cargo bench -p frame-benches --bench alloc_free`, or with a part of a name behind `--`.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use frame_benches::{DISCIPLINES, Scale, disciplines::Group, roster, verified};

fn alloc_free(criterion: &mut Criterion) {
    for discipline in DISCIPLINES.iter().filter(|d| [Group::Pairs, Group::Held].contains(&d.group)) {
        if discipline.name == "real trace" {
            continue; // a group of its own
        }
        let mut group = criterion.benchmark_group(format!("alloc_free/{}", discipline.name));
        for entry in roster().iter().filter(|entry| discipline.admits(entry)) {
            let Some(contender) = verified(entry).filter(|c| c.can(discipline.order)) else { continue };
            let mut held = discipline.prepare(&*contender, Scale::FULL);
            group.bench_function(entry.name, |bencher| {
                bencher.iter_custom(|iterations| {
                    // At least this many, so that a loop's start-up does not show; scaled back to what was asked.
                    let scale = Scale { operations: (iterations as usize).max(20_000), ..Scale::FULL };
                    let sample = discipline.run(&*contender, scale, &mut held);
                    Duration::from_nanos((sample.nanoseconds() * iterations as f64) as u64)
                });
            });
            contender.give_back(held);
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = alloc_free
}
criterion_main!(benches);
