//! The tree without a cache in front, as ratios to a floor.
//!
//! The floor is an array stack: pop, push, the least that can hand out frames one by one. All take turns, round by
//! round, so that a noisy machine is noisy for all; medians of the rounds, and ratios of medians. A gibibyte of
//! frames that are not there.
//!
//! `cargo bench -p frame-tree [-- NAME ...]`

use std::{
    hint::black_box,
    mem::MaybeUninit,
    time::{Duration, Instant},
};

use frame_core::{FRAME_SIZE, FrameAllocator, FrameLayout, FrameRange, FreeRuns, PhysAddr};
use frame_tree::Tree;

const FRAMES: usize = 1 << 18;
const FIRST: usize = 1 << 20;
const BULK: usize = 16 << 10;

/// What is measured: single frames, and runs where there are any.
trait Subject: Sync {
    /// Allocates 64 frames and frees them, by the bulk calls where there are any.
    fn bulk(&self, frames: &mut [PhysAddr; 64]) {
        frames.iter_mut().for_each(|slot| *slot = self.alloc());
        frames.iter().for_each(|frame| self.free(*frame));
    }
    fn alloc(&self) -> PhysAddr;
    fn free(&self, frame: PhysAddr);
    fn run(&self, order: u32) -> Option<PhysAddr>;
    fn free_run(&self, start: PhysAddr, order: u32);
}

fn order(order: u32) -> FrameLayout {
    FrameLayout::new(1 << order, FRAME_SIZE << order).unwrap()
}

impl<A: FrameAllocator> Subject for A {
    #[inline]
    fn bulk(&self, frames: &mut [PhysAddr; 64]) {
        assert_eq!(self.alloc_bulk(frames), 64);
        // SAFETY: just allocated.
        unsafe { self.dealloc_bulk(frames) }.unwrap();
    }
    #[inline]
    fn alloc(&self) -> PhysAddr {
        self.alloc_frame().unwrap()
    }
    #[inline]
    fn free(&self, frame: PhysAddr) {
        // SAFETY: the work frees what it allocated.
        unsafe { self.dealloc_frame(frame) }.unwrap();
    }
    #[inline]
    fn run(&self, k: u32) -> Option<PhysAddr> {
        FrameAllocator::alloc(self, order(k)).ok()
    }
    #[inline]
    fn free_run(&self, start: PhysAddr, k: u32) {
        // SAFETY: as above.
        unsafe { self.dealloc(start, order(k)) }.unwrap();
    }
}

/// The floor: an array stack, for one thread.
struct Stack(std::cell::UnsafeCell<Vec<PhysAddr>>);

// SAFETY: measured on one thread.
unsafe impl Sync for Stack {}

impl Stack {
    fn new() -> Self {
        Self(std::cell::UnsafeCell::new(
            (FIRST..FIRST + FRAMES).rev().map(|f| PhysAddr::from(f * 4096)).collect(),
        ))
    }
}

struct Floor(Stack);

impl Subject for Floor {
    #[inline]
    fn alloc(&self) -> PhysAddr {
        // SAFETY: one thread.
        unsafe { (*self.0.0.get()).pop().unwrap() }
    }
    #[inline]
    fn free(&self, frame: PhysAddr) {
        // SAFETY: one thread. There is room: it was there before.
        unsafe { (*self.0.0.get()).push(frame) }
    }
    fn run(&self, _: u32) -> Option<PhysAddr> {
        None
    }
    fn free_run(&self, _: PhysAddr, _: u32) {}
}

#[derive(Clone)]
struct Random(u64);

impl Random {
    #[inline]
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 32) as usize * n) >> 32
    }
    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// The processor time of this thread: what others do on the machine does not count (but for the caches).
fn cpu_time() -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

/// Nanoseconds for each of `ops`.
fn time(ops: usize, work: impl FnOnce()) -> f64 {
    let start = cpu_time();
    work();
    (cpu_time() - start) / ops as f64
}

fn hot<S: Subject + ?Sized>(s: &S) -> f64 {
    time(200_000, || {
        for _ in 0..200_000 {
            s.free(black_box(s.alloc()));
        }
    })
}

fn burst<S: Subject + ?Sized>(s: &S) -> f64 {
    time(200_000, || {
        for _ in 0..25_000 {
            let frames: [PhysAddr; 8] = std::array::from_fn(|_| s.alloc());
            for frame in black_box(frames) {
                s.free(frame);
            }
        }
    })
}

fn bulk<S: Subject + ?Sized>(s: &S) -> (f64, f64) {
    let mut frames = vec![PhysAddr::from(0usize); BULK];
    let (mut alloc, mut free) = (0.0, 0.0);
    for round in 0..8 {
        alloc += time(BULK, || frames.iter_mut().for_each(|slot| *slot = s.alloc()));
        Random(round + 9).shuffle(&mut frames);
        free += time(BULK, || frames.iter().for_each(|frame| s.free(*frame)));
    }
    (alloc / 8.0, free / 8.0)
}

fn bulk_calls<S: Subject + ?Sized>(s: &S) -> f64 {
    let mut frames = [PhysAddr::from(0usize); 64];
    time(64 * 10_000, || {
        for _ in 0..10_000 {
            s.bulk(black_box(&mut frames));
        }
    })
}

/// Frees a random frame and allocates another, `times` times.
fn churn<S: Subject + ?Sized>(s: &S, held: &mut [PhysAddr], random: &mut Random, times: usize) -> f64 {
    let n = held.len();
    time(times, || {
        for _ in 0..times {
            let slot = &mut held[random.below(n)];
            s.free(*slot);
            *slot = s.alloc();
        }
    })
}

fn huge<S: Subject + ?Sized>(s: &S) -> f64 {
    time(50_000, || {
        for _ in 0..50_000 {
            let start = black_box(s.run(9)).unwrap();
            s.free_run(start, 9);
        }
    })
}

/// Orders 0 to 9 in equal frames, at half of the memory.
fn mixed<S: Subject + ?Sized>(s: &S) -> (f64, usize) {
    let mut random = Random(3);
    let mut held = Vec::new();
    let mut used = 0;
    let pick = |random: &mut Random| (random.next() >> 40) as u32 % 10;
    while used < FRAMES / 2 {
        let k = pick(&mut random);
        held.push((s.run(k).unwrap(), k));
        used += 1 << k;
    }
    let mut failed = 0;
    let ns = time(200_000, || {
        for _ in 0..200_000 {
            let i = random.below(held.len());
            let (start, k) = held[i];
            s.free_run(start, k);
            let k = pick(&mut random);
            match s.run(k) {
                Some(start) => held[i] = (start, k),
                None => {
                    failed += 1;
                    held.swap_remove(i);
                }
            }
        }
    });
    for (start, k) in held {
        s.free_run(start, k);
    }
    (ns, failed)
}

fn two_threads<S: Subject>(s: &S, work: fn(&S) -> f64) -> f64 {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(|| work(s))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum::<f64>() / 2.0
    })
}

fn alloc_and_free<S: Subject>(s: &S) -> f64 {
    let (alloc, free) = bulk(s);
    alloc + free
}

fn producer_consumer<S: Subject + ?Sized>(s: &S) -> f64 {
    const N: usize = 400_000;
    let ring: Vec<_> = (0..1024).map(|_| std::sync::atomic::AtomicUsize::new(0)).collect();
    use std::sync::atomic::Ordering::{Acquire, Release};
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..N {
                let slot = &ring[i % 1024];
                while slot.load(Acquire) != 0 {
                    std::hint::spin_loop();
                }
                slot.store(s.alloc().as_usize(), Release);
            }
        });
        scope.spawn(|| {
            for i in 0..N {
                let slot = &ring[i % 1024];
                let frame = loop {
                    match slot.load(Acquire) {
                        0 => std::hint::spin_loop(),
                        frame => break frame,
                    }
                };
                slot.store(0, Release);
                s.free(PhysAddr::from(frame));
            }
        });
    });
    start.elapsed().as_nanos() as f64 / N as f64
}

fn metadata() -> (FrameRange, &'static mut [MaybeUninit<u8>]) {
    let region = FrameRange::new(PhysAddr::from(FIRST * FRAME_SIZE), FRAMES).unwrap();
    (region, frame_testkit::Metadata::leaked(<Tree>::metadata_layout(region)))
}

fn tree() -> Tree<'static> {
    let tree = Tree::new();
    let (region, metadata) = metadata();
    // SAFETY: the frames are numbers.
    unsafe { tree.add_region(region, metadata) }.unwrap();
    tree
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Free 2 MiB frames after churn at half of the memory, of 256: after 0, 4 and 16 times the memory.
fn fragmentation<A: FrameAllocator>(a: &A) -> [usize; 3] {
    let mut held: Vec<_> = (0..FRAMES).map(|_| Subject::alloc(a)).collect();
    let mut random = Random(5);
    random.shuffle(&mut held);
    for frame in held.drain(FRAMES / 2..) {
        Subject::free(a, frame);
    }
    let mut huge = [0; 3];
    for (i, times) in [0, 4, 12].into_iter().enumerate() {
        churn(a, &mut held, &mut random, times * FRAMES);
        huge[i] = FreeRuns::of(a).huge_2m();
    }
    held.iter().for_each(|frame| Subject::free(a, *frame));
    huge
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let want = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str()));
    let rounds: usize = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(7);
    let (floor, tree) = (Floor(Stack::new()), tree());
    let row = |name: &str, work: &dyn Fn() -> [f64; 2]| {
        if !want(name) {
            return;
        }
        let results: Vec<[f64; 2]> = (0..rounds).map(|_| work()).collect();
        let [f, t] = [0, 1].map(|i| median(results.iter().map(|r| r[i]).collect()));
        match f {
            0.0 => println!("{name:<22} floor      - ns | tree {t:7.2} ns"),
            _ => println!("{name:<22} floor {f:6.2} ns | tree {t:7.2} ns = {:5.2} x", t / f),
        }
    };
    row("hot pair", &|| [hot(&floor), hot(&tree)]);
    row("burst of 8", &|| [burst(&floor), burst(&tree)]);
    row("64 in bulk", &|| [bulk_calls(&floor), bulk_calls(&tree)]);
    row("16K: alloc", &|| [bulk(&floor).0, bulk(&tree).0]);
    row("16K: random free", &|| [bulk(&floor).1, bulk(&tree).1]);
    for percent in [50, 90] {
        let name = format!("churn {percent}");
        if !want(&name) {
            continue;
        }
        let n = FRAMES / 100 * percent;
        let take = |s: &dyn Subject| (0..n).map(|_| s.alloc()).collect::<Vec<_>>();
        let mut held = [take(&floor), take(&tree)];
        let mut random = Random(11);
        for frames in &mut held {
            random.shuffle(frames);
        }
        // Into the steady state first.
        churn(&floor, &mut held[0], &mut random, FRAMES);
        churn(&tree, &mut held[1], &mut random, 8 * FRAMES);
        let held = std::cell::RefCell::new(held);
        row(&name, &|| {
            let [f, t] = &mut *held.borrow_mut();
            let random = &mut Random(13);
            const N: usize = 300_000;
            [churn(&floor, f, random, N), churn(&tree, t, random, N)]
        });
        let [f, t] = held.into_inner();
        f.iter().for_each(|frame| floor.free(*frame));
        t.iter().for_each(|frame| Subject::free(&tree, *frame));
    }
    row("2M pair", &|| [0.0, huge(&tree)]);
    row("orders 0-9", &|| [0.0, mixed(&tree).0]);
    if want("orders 0-9") {
        println!("{:<22} {} of 200000", "  failed", mixed(&tree).1);
    }
    row("2 threads: hot pair", &|| [0.0, two_threads(&tree, hot)]);
    row("2 threads: 16K", &|| [0.0, two_threads(&tree, alloc_and_free)]);
    row("producer/consumer", &|| [0.0, producer_consumer(&tree)]);
    if want("fragmentation") {
        println!("{:<22} {:?} of 256", "free 2M, 0x 4x 16x", fragmentation(&self::tree()));
    }
    if want("start") {
        start();
    }
}

/// The cost of taking a region over, with zeroed memory from the system.
fn start() {
    for gib in [1usize, 64, 1024] {
        let region = FrameRange::new(PhysAddr::from(1usize << 40), gib << 18).unwrap();
        let layout = <Tree>::metadata_layout(region);
        let mut took: Vec<Duration> = Vec::new();
        for _ in 0..5 {
            // SAFETY: the size is not 0; fresh pages are zero.
            let bytes = unsafe { std::alloc::alloc_zeroed(layout) };
            // SAFETY: as allocated.
            let metadata =
                unsafe { std::slice::from_raw_parts_mut(bytes.cast::<MaybeUninit<u8>>(), layout.size()) };
            let tree = Tree::<1>::new();
            let start = Instant::now();
            // SAFETY: the frames are numbers.
            unsafe { tree.add_zeroed_region(region, metadata) }.unwrap();
            black_box(tree.alloc_frame().unwrap());
            took.push(start.elapsed());
            // SAFETY: allocated above; the tree is not used any more.
            unsafe { std::alloc::dealloc(bytes, layout) };
        }
        took.sort();
        println!(
            "{:<22} {:?} ({} KiB of metadata)",
            format!("start {gib} GiB"),
            took[2],
            layout.size() >> 10
        );
    }
}
