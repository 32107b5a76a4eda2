//! Zeroed frames: cleared when they are needed, or ahead of need by an idle loop.
//!
//! `cargo bench -p frame-benches --bench zeroed`. Frames are taken from 256 MiB in turn, so that none is in a cache.
//!
//! - `zeroed/needed`: from the request to the frame in hand; filling the pool is the idle loop's time, not counted.
//! - `zeroed/cleared`: what clearing costs, by ordinary stores and by the pool past the caches.
//! - `zeroed/then 1 MiB is read`: what is left of a working set after 2,048 frames (8 MiB) were cleared.

use std::{
    hint::black_box,
    mem::forget,
    ops::Range,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use frame_allocator::{FrameHal, PhysAddr, PhysFrame, VirtAddr, percpu::ZeroPool};
use frame_benches::arena::arena;

const MEMORY: usize = 256 << 20;
const FRAME: usize = 4096;
/// 8 MiB: more than the second-level cache of today's processors.
const MANY: usize = 2048;

static NEXT: AtomicUsize = AtomicUsize::new(0);
static POOL: ZeroPool<Rotation, MANY> = ZeroPool::new();

fn memory() -> &'static Range<usize> {
    static MEMORY_RANGE: OnceLock<Range<usize>> = OnceLock::new();
    MEMORY_RANGE.get_or_init(|| {
        let range = arena(MEMORY).expect("address space");
        for at in range.clone().step_by(FRAME) {
            // SAFETY: mapped, writable, ours; every page exists from now on.
            unsafe { std::ptr::with_exposed_provenance_mut::<u8>(at).write(1) };
        }
        range
    })
}

/// Hands out the frames of the memory in turn: allocation costs next to nothing, and each frame was last touched 256 MiB
/// ago. What is measured holds at most 2,048 of them at a time.
struct Rotation;

// SAFETY: a frame comes round again after 65,536 others, and no benchmark holds one for that long. Addresses are
// pointers to mapped memory.
unsafe impl FrameHal for Rotation {
    fn alloc_frame() -> Option<PhysAddr> {
        let turn = NEXT.fetch_add(1, Relaxed) % (MEMORY / FRAME);
        Some(PhysAddr::from(memory().start + turn * FRAME))
    }

    unsafe fn dealloc_frame(_: PhysAddr) {}

    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        VirtAddr::from(paddr.as_usize())
    }
}

/// Times `work` as often as asked, after `prepare`, which is not counted.
fn timed(iterations: u64, mut prepare: impl FnMut(), mut work: impl FnMut()) -> Duration {
    let mut time = Duration::ZERO;
    for _ in 0..iterations {
        prepare();
        let start = Instant::now();
        work();
        time += start.elapsed();
    }
    time
}

fn clear_ordinarily(frames: usize) {
    for _ in 0..frames {
        forget(black_box(PhysFrame::<Rotation>::alloc_zero()));
    }
}

fn clear_ahead(frames: usize) {
    assert_eq!(POOL.fill(frames), frames);
}

fn take(frames: usize) {
    for _ in 0..frames {
        forget(black_box(POOL.alloc_zeroed()));
    }
}

fn zeroed(criterion: &mut Criterion) {
    const FRAMES: usize = 256;
    memory();
    let per_frame = |time: Duration| time / FRAMES as u32;

    let mut group = criterion.benchmark_group("zeroed/needed");
    group.bench_function("cleared on the spot", |bencher| {
        bencher.iter_custom(|n| per_frame(timed(n, || (), || clear_ordinarily(FRAMES))));
    });
    group.bench_function("from the pool", |bencher| {
        bencher.iter_custom(|n| per_frame(timed(n, || clear_ahead(FRAMES), || take(FRAMES))));
    });
    group.finish();

    let mut group = criterion.benchmark_group("zeroed/cleared");
    group.bench_function("by ordinary stores", |bencher| {
        bencher.iter_custom(|n| per_frame(timed(n, || (), || clear_ordinarily(FRAMES))));
    });
    group.bench_function("past the caches", |bencher| {
        bencher.iter_custom(|n| per_frame(timed(n, || _ = POOL.drain(), || clear_ahead(FRAMES))));
    });
    group.finish();

    let working_set = vec![1u64; (1 << 20) / size_of::<u64>()];
    let read = || black_box(working_set.iter().step_by(8).fold(0, |sum: u64, word| sum.wrapping_add(*word)));
    let mut group = criterion.benchmark_group("zeroed/then 1 MiB is read");
    let after = |clear: &dyn Fn()| {
        POOL.drain();
        read();
        clear();
    };
    group.bench_function("nothing was cleared", |bencher| {
        bencher.iter_custom(|n| timed(n, || after(&|| ()), || _ = read()));
    });
    group.bench_function("after ordinary stores", |bencher| {
        bencher.iter_custom(|n| timed(n, || after(&|| clear_ordinarily(MANY)), || _ = read()));
    });
    group.bench_function("after clearing past the caches", |bencher| {
        bencher.iter_custom(|n| timed(n, || after(&|| clear_ahead(MANY)), || _ = read()));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = zeroed
}
criterion_main!(benches);
