//! Several threads at once, with an ownership check around the allocator ([`Watch`]): no frame has two owners, and in
//! the end all are back.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
    vec,
    vec::Vec,
};

use frame_core::{FRAME_SIZE, FrameAllocator, FrameLayout, FrameRange, PhysAddr};

use super::{aligned, contiguous, ragged};
use crate::{
    Backend, FrameSet, Rng, Watch,
    frame_set::{numbers, range},
};

type Watched<'a> = Watch<&'a dyn FrameAllocator>;

/// Builds the backend, watches it, runs `work` on each thread, and sees that everything is back afterwards.
fn on_threads<B: Backend>(regions: &[FrameRange], threads: usize, work: impl Fn(&Watched<'_>, usize) + Sync) {
    B::with(regions, |allocator| {
        let watch = Watch::new(allocator as &dyn FrameAllocator, regions);
        thread::scope(|scope| {
            for id in 0..threads {
                let (watch, work) = (&watch, &work);
                scope.spawn(move || work(watch, id));
            }
        });
        B::settle(allocator);
        assert_eq!(watch.owned(), 0, "{}: the case freed all", B::NAME);
        watch.check();
        let free = FrameSet::free_in(allocator);
        assert_eq!(free, regions.iter().copied().collect(), "{}: all frames are back", B::NAME);
    });
}

/// What a thread does at random: another thing on each thread.
fn random(case: u64, thread: usize) -> Rng {
    Rng::new(Rng::seed_or(case).wrapping_add(thread as u64))
}

fn free(watch: &Watched<'_>, run: FrameRange) {
    let layout = contiguous(run.count());
    // SAFETY: the run was allocated from `watch` and is given up here; nothing uses memory there.
    unsafe { watch.dealloc(run.start(), layout) }.expect("a good free");
}

fn run(start: PhysAddr, layout: FrameLayout) -> FrameRange {
    FrameRange::new(start, layout.count()).expect("a run that was given")
}

/// Pairs, bursts and batches of single frames on four threads.
pub fn threads_share_single_frames<B: Backend>() {
    on_threads::<B>(&ragged(), 4, |watch, id| {
        let mut rng = random(0, id);
        let mut owned = Vec::new();
        for _ in 0..4000 * Rng::effort() {
            match rng.below(6) {
                0..=2 => owned.extend(watch.alloc_frame().ok()),
                3 => {
                    let mut frames = vec![PhysAddr::from(0); rng.between(1, 70)];
                    let given = watch.alloc_bulk(&mut frames);
                    owned.extend(&frames[..given]);
                }
                4 => {
                    let from = owned.len() - rng.below(owned.len().min(70) + 1);
                    // SAFETY: the frames are owned and given up here.
                    unsafe { watch.dealloc_bulk(&owned[from..]) }.expect("a good free");
                    owned.truncate(from);
                }
                _ => {
                    if let Some(frame) = rng.take(&mut owned) {
                        // SAFETY: the frame is owned and given up here.
                        unsafe { watch.dealloc_frame(frame) }.expect("a good free");
                    }
                }
            }
        }
        // SAFETY: the frames are owned and given up here.
        unsafe { watch.dealloc_bulk(&owned) }.expect("a good free");
    });
}

/// Runs of all sizes up to 1,024 frames, aligned and not, in windows and at places; freed whole and in parts.
pub fn threads_share_runs<B: Backend>() {
    on_threads::<B>(&[range(77, 5000), range(8192, 8192 + 4096)], 3, |watch, id| {
        let mut rng = random(100, id);
        let mut owned: Vec<FrameRange> = Vec::new();
        for _ in 0..2500 * Rng::effort() {
            let layout = aligned(rng.between(1, 1 << rng.clone().below(11)), FRAME_SIZE << rng.below(4));
            match rng.below(8) {
                0..=2 => owned.extend(watch.alloc(layout).ok().map(|start| run(start, layout))),
                3 if B::SUPPORTS_ALLOC_IN => {
                    let window = range(1000, 1000 + rng.between(1, 9000));
                    owned.extend(watch.alloc_in(layout, window).ok().map(|start| run(start, layout)));
                }
                4 if B::SUPPORTS_ALLOC_AT => {
                    let at = rng.between(77, 4000);
                    let place = range(at, at + rng.between(1, 300));
                    owned.extend(watch.alloc_at(place).ok().map(|()| place));
                }
                5 => {
                    if let Some(run) = rng.take(&mut owned) {
                        let (start, end) = numbers(run);
                        let cut = rng.between(start + 1, end);
                        free(watch, range(start, cut));
                        if cut < end {
                            owned.push(range(cut, end));
                        }
                    }
                }
                _ => {
                    if let Some(run) = rng.take(&mut owned) {
                        free(watch, run);
                    }
                }
            }
        }
        for run in owned {
            free(watch, run);
        }
    });
}

/// What one thread allocates, others free: frames wander through a common pool.
pub fn threads_free_for_each_other<B: Backend>() {
    let pool = Mutex::new(Vec::new());
    let running = AtomicUsize::new(4);
    on_threads::<B>(&ragged(), 4, |watch, id| {
        let mut rng = random(200, id);
        for _ in 0..4000 * Rng::effort() {
            // Even threads allocate more than they free, odd ones free more.
            if rng.chance(3 - 2 * (id % 2), 4) {
                let layout = contiguous(if rng.chance(1, 8) { rng.between(1, 100) } else { 1 });
                if let Ok(start) = watch.alloc(layout) {
                    pool.lock().expect("no thread panicked").push(run(start, layout));
                }
            } else {
                let taken = rng.take(&mut pool.lock().expect("no thread panicked"));
                if let Some(run) = taken {
                    free(watch, run);
                }
            }
        }
        // The last one frees the rest, most of it allocated elsewhere.
        if running.fetch_sub(1, SeqCst) == 1 {
            for run in pool.lock().expect("no thread panicked").drain(..) {
                free(watch, run);
            }
        }
    });
}

/// All threads allocate to the last frame, again and again: together they get every frame, none twice.
pub fn threads_exhaust_memory<B: Backend>() {
    const THREADS: usize = 3;
    let regions = [range(3, 600), range(1024, 1700)];
    let total: usize = regions.iter().map(|region| region.count()).sum();
    for round in 0..20 * Rng::effort() as u64 {
        let got = AtomicUsize::new(0);
        let emptied = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        on_threads::<B>(&regions, THREADS, |watch, id| {
            let _guard = TellOnPanic(&failed);
            let mut owned = Vec::new();
            // With caches, frames may lie on another thread for a moment: try until all are out.
            wait_until("every frame is handed out", &failed, || {
                while let Ok(frame) = watch.alloc_frame() {
                    got.fetch_add(1, SeqCst);
                    owned.push(frame);
                }
                got.load(SeqCst) == total
            });
            // Nobody frees before all have seen the end.
            emptied.fetch_add(1, SeqCst);
            wait_until("all threads are done", &failed, || emptied.load(SeqCst) == THREADS);
            Rng::new(round * THREADS as u64 + id as u64).shuffle(&mut owned);
            for frame in owned {
                // SAFETY: the frame is owned and given up here.
                unsafe { watch.dealloc_frame(frame) }.expect("a good free");
            }
        });
    }
}

/// While two threads allocate and free, a third reads `stats` and `visit_free`: what it sees may be old, but lies in
/// the regions, is sorted, and is no more than there is.
pub fn threads_look_while_others_work<B: Backend>() {
    let regions = ragged();
    let managed: FrameSet = regions.iter().copied().collect();
    let working = AtomicUsize::new(2);
    on_threads::<B>(&regions, 3, |watch, id| {
        if id == 0 {
            loop {
                let last = working.load(SeqCst) == 0;
                let stats = watch.stats();
                assert_eq!(stats.total_frames, managed.count(), "{}: frames managed", B::NAME);
                assert!(stats.free_frames <= stats.total_frames, "{}: {stats:?}", B::NAME);
                let free = FrameSet::free_in(watch); // sorted and disjoint
                for run in free.runs() {
                    assert!(managed.contains_range(run), "{}: {run} is shown, and not managed", B::NAME);
                }
                if last {
                    return;
                }
                thread::sleep(PAUSE);
            }
        }
        let _done = OnDrop(|| _ = working.fetch_sub(1, SeqCst));
        let mut rng = random(300, id);
        let mut owned = Vec::new();
        for _ in 0..3000 * Rng::effort() {
            if rng.chance(1, 2) {
                let layout = contiguous(if rng.chance(1, 4) { rng.between(1, 600) } else { 1 });
                owned.extend(watch.alloc(layout).ok().map(|start| run(start, layout)));
            } else if let Some(run) = rng.take(&mut owned) {
                free(watch, run);
            }
        }
        for run in owned {
            free(watch, run);
        }
    });
}

/// Regions are added while others allocate: their frames are handed out once, and all come back.
pub fn threads_use_regions_as_they_come<B: Backend>() {
    // Adjoining ones, single frames, aligned blocks; out of order.
    let all: Vec<FrameRange> = (0..12)
        .map(|n| n * 5 % 12)
        .map(|n: usize| range(1000 + 700 * n, 1000 + 700 * n + [700, 1, 512, 699][n % 4]))
        .collect();
    let (first, rest) = all.split_first().expect("12 regions");
    B::with(&[*first], |allocator| {
        let mut sorted = all.clone();
        sorted.sort_unstable();
        let watch = Watch::over(allocator as &dyn FrameAllocator, &sorted);
        let adding = AtomicBool::new(true);
        let at_work = AtomicUsize::new(0);
        let added = thread::scope(|scope| {
            for id in 0..2 {
                let (watch, adding, at_work) = (&watch, &adding, &at_work);
                scope.spawn(move || {
                    let mut rng = random(400, id);
                    let mut owned = Vec::new();
                    while adding.load(SeqCst) || owned.len() < 100 {
                        let layout = contiguous(rng.between(1, 9));
                        match watch.alloc(layout) {
                            Ok(start) => {
                                owned.push(run(start, layout));
                                at_work.fetch_max(id + 1, SeqCst);
                            }
                            // Full: what is there must come back.
                            Err(_) => owned.drain(..).for_each(|run| free(watch, run)),
                        }
                        if !adding.load(SeqCst) && owned.is_empty() {
                            break;
                        }
                    }
                    owned.into_iter().for_each(|run| free(watch, run));
                });
            }
            let _done = OnDrop(|| adding.store(false, SeqCst));
            wait_until("the others are at work", &AtomicBool::new(false), || at_work.load(SeqCst) > 0);
            rest.iter().all(|region| {
                let answer = B::offer(allocator, *region);
                assert!(!matches!(answer, Some(Err(_))), "{}: {region} gave {answer:?}", B::NAME);
                answer.is_some()
            })
        });
        B::settle(allocator);
        assert_eq!(watch.owned(), 0, "{}: the case freed all", B::NAME);
        if added {
            watch.check();
            let free = FrameSet::free_in(allocator);
            assert_eq!(free, all.iter().copied().collect(), "{}: all frames are back", B::NAME);
        }
    });
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Between two looks at what other threads do. A pause, not a yield: on a busy machine, a thread that yields in a loop may
/// not run again for seconds.
const PAUSE: Duration = Duration::from_micros(100);

/// Waits for other threads, but not for ever: a frame may be lost, or a thread.
fn wait_until(what: &str, failed: &AtomicBool, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(!failed.load(SeqCst), "another thread failed");
        assert!(start.elapsed() < Duration::from_secs(60), "waited 60 s until {what}: a frame was lost");
        thread::sleep(PAUSE);
    }
}

struct TellOnPanic<'a>(&'a AtomicBool);

impl Drop for TellOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, SeqCst);
        }
    }
}
