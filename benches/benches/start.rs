//! Taking memory over: 1 GiB, 64 GiB, 1 TiB of addresses.
//!
//! `cargo bench -p frame-benches --bench start`

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use frame_benches::{arena::arena, ours};

fn start(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("start/tree");
    for gib in [1, 64, 1024] {
        let memory = arena(gib << 30).expect("address space");
        group.bench_function(format!("{gib} GiB"), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut time = Duration::ZERO;
                for _ in 0..iterations {
                    // Fresh zeroes from the operating system, as in a kernel that has cleared its memory: not timed.
                    let tree = ours::UnstartedTree::new(memory.clone());
                    let start = Instant::now();
                    let started = tree.start();
                    time += start.elapsed();
                    drop(started);
                }
                time
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300));
    targets = start
}
criterion_main!(benches);
