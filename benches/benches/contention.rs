//! Several threads on one allocator: pairs, bulk, allocate here and free there, and more threads than processors.
//!
//! `cargo bench -p frame-benches --bench contention`

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use frame_benches::{Race, roster, verified, work::Sample};

fn group(criterion: &mut Criterion, name: &str, run: impl Fn(&dyn Race) -> Sample) {
    let mut group = criterion.benchmark_group(name);
    for entry in roster().into_iter().filter(|entry| entry.bulk) {
        let Some(contender) = verified(&entry) else { continue };
        group.bench_function(entry.name, |bencher| {
            bencher.iter_custom(|iterations| {
                Duration::from_nanos((run(&*contender).nanoseconds() * iterations as f64) as u64)
            });
        });
    }
    group.finish();
}

fn contention(criterion: &mut Criterion) {
    for threads in [1, 2, 8] {
        group(criterion, &format!("contention/pair_{threads}_threads"), |race| race.threads(threads, 50_000));
        group(criterion, &format!("contention/bulk_{threads}_threads"), |race| {
            race.threads_bulk(threads, 4096, 20_000)
        });
    }
    group(criterion, "contention/producer_consumer", |race| race.producer_consumer(50_000));
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300));
    targets = contention
}
criterion_main!(benches);
