//! What a pool of zeroed frames saves, and what filling it does to the caches.
//!
//! `cargo run --release -p frame-percpu --example zeroed`

use std::{alloc::Layout, hint::black_box, sync::OnceLock, time::Instant};

use frame_core::*;
use frame_percpu::{CpuSlot, PerCpu, ThreadCpus, ZeroPool};
use frame_tree::Tree;

const FRAMES: usize = 1 << 14;
const POOL: usize = 64;
const ROUNDS: usize = 301;

static FRAMES_OF_HOST: PerCpu<'static, Tree<'static>, ThreadCpus> = PerCpu::new(Tree::new(), ThreadCpus);
static POOLED: ZeroPool<Host, POOL> = ZeroPool::new();

/// Where the pretended physical memory lies: physical address 2 MiB on.
fn memory() -> usize {
    static MEMORY: OnceLock<usize> = OnceLock::new();
    *MEMORY.get_or_init(|| {
        let layout = Layout::from_size_align(FRAMES * FRAME_SIZE, FRAME_SIZE).unwrap();
        // SAFETY: the layout is not empty. Never freed.
        let memory = unsafe { std::alloc::alloc(layout) };
        // SAFETY: just allocated. Every page is touched, so that the host's own clearing is not measured.
        unsafe { memory.write_bytes(1, layout.size()) };
        memory as usize
    })
}

struct Host;
// SAFETY: the allocator was given the frames of `memory`, which nothing else uses.
unsafe impl GlobalFrames for Host {
    type Allocator = PerCpu<'static, Tree<'static>, ThreadCpus>;
    fn allocator() -> &'static Self::Allocator {
        &FRAMES_OF_HOST
    }
    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        VirtAddr::from(memory() + paddr.as_usize() - (2 << 20))
    }
}

/// Nanoseconds that `work` takes, for each of `count`.
fn time(count: usize, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / count as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let region = FrameRange::new(PhysAddr::from(2 << 20), FRAMES).unwrap();
    let layout = <Tree<'static>>::metadata_layout(region);
    // SAFETY: the layout is not empty; the memory is never freed.
    let metadata =
        unsafe { std::slice::from_raw_parts_mut(std::alloc::alloc_zeroed(layout).cast(), layout.size()) };
    // SAFETY: the frames are those of `memory`.
    unsafe { FRAMES_OF_HOST.backend().add_region(region, metadata) }.unwrap();
    FRAMES_OF_HOST.attach(Box::leak(Box::new([const { CpuSlot::new() }; 4]))).unwrap();

    // A working set that fills most of a first-level cache: how long it takes to read again afterwards.
    let set: Vec<u64> = vec![1; 4096];
    let read = || black_box(set.iter().step_by(8).sum::<u64>());
    let mut held = Vec::with_capacity(FRAMES / 2);
    let mut rows: [(&str, Vec<f64>); 5] = [
        ("cleared on the spot", vec![]),
        ("taken from the pool", vec![]),
        ("filling the pool, off the critical path", vec![]),
        ("reading 32 KiB after clearing 64 frames on the spot (whole)", vec![]),
        ("reading 32 KiB after filling the pool with 64 frames (whole)", vec![]),
    ];
    for _ in 0..ROUNDS {
        read();
        rows[0]
            .1
            .push(time(POOL, || held.extend((0..POOL).map(|_| PhysFrame::<Host>::alloc_zero().unwrap()))));
        rows[3].1.push(time(1, || {
            read();
        }));
        read();
        rows[2].1.push(time(POOL, || assert_eq!(POOLED.fill(POOL), POOL)));
        rows[4].1.push(time(1, || {
            read();
        }));
        rows[1].1.push(time(POOL, || held.extend((0..POOL).map(|_| POOLED.alloc_zeroed().unwrap()))));
        if held.len() + 2 * POOL > held.capacity() {
            held.clear();
        }
    }
    println!("nanoseconds for a frame, medians of {ROUNDS} rounds");
    for (name, times) in rows {
        println!("{:>9.1}  {name}", median(times));
    }
}
