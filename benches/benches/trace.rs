//! What a Linux kernel asked for while the machine compiled Rust, replayed in its order on one thread.
//!
//! `cargo bench -p frame-benches --bench trace`. The recording is the cut that lies in frame-lab; its reader comes from
//! there as it is, because a tool and a benchmark need nothing else in common.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use frame_benches::{
    DISCIPLINES, Scale,
    disciplines::discipline,
    roster, verified,
    work::{Step, Trace},
};

#[allow(dead_code, unused_imports, reason = "the tool uses more of it")]
#[path = "../../crates/frame-lab/src/trace/mod.rs"]
mod trace;

/// The recording, in runs of up to 2 MiB: what every contender can give.
fn recording() -> &'static Trace {
    let program = trace::read(trace::Source::Embedded, |_| ()).expect("the embedded trace is sound").program;
    let ops = program.ops.iter().filter(|op| op.order <= 9);
    let step =
        |op: &trace::Op| Step { slot: op.slot, order: op.order, alloc: op.action == trace::Action::Alloc };
    Box::leak(Box::new(Trace { steps: ops.map(step).collect(), slots: program.slots }))
}

fn real_trace(criterion: &mut Criterion) {
    let recording = recording();
    let scale = Scale { trace: Some(recording), ..Scale::FULL };
    let discipline = &DISCIPLINES[discipline("real trace")];
    let mut group = criterion.benchmark_group("trace/linux-6.18-build");
    group.throughput(Throughput::Elements(recording.steps.len() as u64));
    for entry in roster().iter().filter(|entry| discipline.admits(entry)) {
        let Some(contender) = verified(entry).filter(|c| c.can(discipline.order)) else { continue };
        group.bench_function(entry.name, |bencher| {
            bencher.iter_custom(|iterations| {
                let replays =
                    (0..iterations).map(|_| discipline.run(&*contender, scale, &mut Default::default()));
                replays.map(|sample| sample.time).sum()
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = real_trace
}
criterion_main!(benches);
