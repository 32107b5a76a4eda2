//! What the cache costs beside the least that any allocator of single frames can cost: a bare array stack.
//!
//! `cargo run --release -p frame-percpu --example hot_path`
//!
//! All candidates take turns in one process, so that noise hits them alike; medians of rounds, in nanoseconds for an
//! allocation and a free together, and as ratios to the floor.

use std::{alloc::Layout, cell::Cell, hint::black_box, mem::MaybeUninit};

use frame_core::*;
use frame_percpu::*;
use frame_tree::Tree;

/// 1 GiB from 1 GiB on.
const FRAMES: usize = 1 << 18;
const ROUNDS: usize = 15;

fn region() -> FrameRange {
    FrameRange::new(PhysAddr::from(1 << 30), FRAMES).unwrap()
}

/// One frame at a time: what is measured.
trait Frames {
    fn take(&mut self) -> PhysAddr;
    fn give(&mut self, frame: PhysAddr);
}

/// The cost of the loop itself.
struct Null;
impl Frames for Null {
    #[inline]
    fn take(&mut self) -> PhysAddr {
        black_box(PhysAddr::from(0x1000))
    }
    #[inline]
    fn give(&mut self, frame: PhysAddr) {
        black_box(frame);
    }
}

/// A bare stack of the thread, with a place for every frame.
struct Floor;
struct Stack {
    len: Cell<usize>,
    frames: Cell<*mut PhysAddr>,
}
thread_local!(static STACK: Stack = const { Stack { len: Cell::new(0), frames: Cell::new(std::ptr::null_mut()) } });
impl Frames for Floor {
    #[inline]
    fn take(&mut self) -> PhysAddr {
        STACK.with(|stack| {
            stack.len.set(stack.len.get() - 1);
            // SAFETY: the loops take no more than there are.
            unsafe { *stack.frames.get().add(stack.len.get()) }
        })
    }
    #[inline]
    fn give(&mut self, frame: PhysAddr) {
        STACK.with(|stack| {
            // SAFETY: the loops give no more than they took.
            unsafe { *stack.frames.get().add(stack.len.get()) = frame };
            stack.len.set(stack.len.get() + 1);
        });
    }
}

struct Through<'a, A>(&'a A);
impl<A: FrameAllocator> Frames for Through<'_, A> {
    #[inline]
    fn take(&mut self) -> PhysAddr {
        self.0.alloc_frame().unwrap()
    }
    #[inline]
    fn give(&mut self, frame: PhysAddr) {
        // SAFETY: the loops free what they took.
        unsafe { self.0.dealloc_frame(frame) }.unwrap();
    }
}

/// Through the HAL and the owning type.
struct Owning;
static STATIC: PerCpu<'static, Tree<'static>, ThreadCpus> = PerCpu::new(Tree::new(), ThreadCpus);
struct Hal;
// SAFETY: nothing touches the frames' contents.
unsafe impl GlobalFrames for Hal {
    type Allocator = PerCpu<'static, Tree<'static>, ThreadCpus>;
    fn allocator() -> &'static Self::Allocator {
        &STATIC
    }
    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        VirtAddr::from(paddr.as_usize())
    }
}
impl Frames for Owning {
    #[inline]
    fn take(&mut self) -> PhysAddr {
        PhysFrame::<Hal>::alloc().unwrap().into_raw()
    }
    #[inline]
    fn give(&mut self, frame: PhysAddr) {
        // SAFETY: from `take`.
        drop(unsafe { PhysFrame::<Hal>::from_raw(frame) });
    }
}

/// Nanoseconds that this thread has run: on a busy machine, waiting for a CPU does not count.
fn cpu_time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is written to and nothing else.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Nanoseconds for each pair.
fn time(pairs: usize, work: impl FnOnce()) -> f64 {
    let start = cpu_time();
    work();
    (cpu_time() - start) / pairs as f64
}

#[inline(never)]
fn pair(frames: &mut impl Frames) -> f64 {
    const N: usize = 1 << 20;
    time(N, || {
        for _ in 0..N {
            let frame = black_box(frames.take());
            frames.give(frame);
        }
    })
}

#[inline(never)]
fn burst(frames: &mut impl Frames) -> f64 {
    const N: usize = 1 << 17;
    let mut held = [PhysAddr::from(0); 8];
    time(N * 8, || {
        for _ in 0..N {
            for place in &mut held {
                *place = black_box(frames.take());
            }
            black_box(&mut held);
            for place in &held {
                frames.give(*place);
            }
        }
    })
}

/// A random victim is replaced, with `percent` of the frames held.
#[inline(never)]
fn churn(frames: &mut impl Frames, percent: usize) -> f64 {
    const N: usize = 1 << 19;
    let mut held: Vec<PhysAddr> = (0..FRAMES * percent / 100).map(|_| frames.take()).collect();
    let mut seed = 88172645463325252u64;
    let result = time(N, || {
        for _ in 0..N {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let victim = &mut held[((seed as u128 * (FRAMES * percent / 100) as u128) >> 64) as usize];
            frames.give(*victim);
            *victim = frames.take();
        }
    });
    held.into_iter().for_each(|frame| frames.give(frame));
    result
}

/// Free 2 MiB frames after every frame was replaced 16 times.
fn huge_left(percent: usize) -> usize {
    let cache = PerCpu::new(tree(), ThreadCpus);
    cache.attach(slots()).unwrap();
    let mut held: Vec<PhysAddr> = (0..FRAMES * percent / 100).map(|_| cache.alloc_frame().unwrap()).collect();
    let mut seed = 88172645463325252u64;
    for _ in 0..held.len() * 16 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let victim = ((seed as u128 * held.len() as u128) >> 64) as usize;
        // SAFETY: held.
        unsafe { cache.dealloc_frame(held[victim]) }.unwrap();
        held[victim] = cache.alloc_frame().unwrap();
    }
    cache.drain_local();
    FreeRuns::of(cache.backend()).huge_2m()
}

fn metadata() -> &'static mut [MaybeUninit<u8>] {
    let layout: Layout = <Tree<'static>>::metadata_layout(region());
    // SAFETY: the layout is not empty; the memory is never freed.
    unsafe { std::slice::from_raw_parts_mut(std::alloc::alloc_zeroed(layout).cast(), layout.size()) }
}

fn tree() -> Tree<'static> {
    let tree = Tree::new();
    // SAFETY: the frames are numbers, nobody looks behind them.
    unsafe { tree.add_region(region(), metadata()) }.unwrap();
    tree
}

fn leak<T>(values: Vec<T>) -> &'static mut [T] {
    Box::leak(values.into())
}

fn slots() -> &'static mut [CpuSlot] {
    leak((0..4).map(|_| CpuSlot::new()).collect())
}

fn main() {
    let trusting = PerCpu::new(tree(), ThreadCpus);
    trusting.attach(slots()).unwrap();
    let checked = PerCpu::checked(tree(), ThreadCpus);
    checked.attach_states(region(), leak(vec![MaybeUninit::uninit(); FRAMES])).unwrap();
    checked.attach(slots()).unwrap();
    // SAFETY: as in `tree`.
    unsafe { STATIC.backend().add_region(region(), metadata()) }.unwrap();
    STATIC.attach(slots()).unwrap();
    let bare = tree();

    let names = ["null", "floor", "trusting", "PhysFrame", "checked", "tree"];
    let works = ["pair", "8-burst", "churn 50 %", "churn 90 %"];
    let mut results = vec![vec![Vec::new(); works.len()]; names.len()];
    fn all(results: &mut [Vec<f64>], frames: &mut impl Frames) {
        results[0].push(pair(frames));
        results[1].push(burst(frames));
        results[2].push(churn(frames, 50));
        results[3].push(churn(frames, 90));
    }
    for _ in 0..ROUNDS {
        STACK.with(|stack| {
            stack.frames.set(leak(region().frames().rev().collect::<Vec<_>>()).as_mut_ptr());
            stack.len.set(FRAMES);
        });
        all(&mut results[0], &mut Null);
        all(&mut results[1], &mut Floor);
        all(&mut results[2], &mut Through(&trusting));
        all(&mut results[3], &mut Owning);
        all(&mut results[4], &mut Through(&checked));
        all(&mut results[5], &mut Through(&bare));
    }
    for percent in [50, 90] {
        println!(
            "free 2 MiB frames of {} after churn at {percent} %: {}",
            FRAMES * (100 - percent) / 51200,
            huge_left(percent)
        );
    }
    print!("{:10}", "");
    works.iter().for_each(|work| print!("{work:>20}"));
    println!();
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[if std::env::var("MIN").is_ok() { 0 } else { times.len() / 2 }]
    };
    let floor: Vec<f64> = results[1].iter_mut().map(median).collect();
    for (name, result) in names.iter().zip(&mut results) {
        print!("{name:10}");
        for (times, floor) in result.iter_mut().zip(&floor) {
            let time = median(times);
            print!("{:>11.2} ({:>4.2} ×)", time, time / floor);
        }
        println!();
    }
}
