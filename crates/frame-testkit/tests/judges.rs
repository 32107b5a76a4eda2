//! The judges judged: the set of frames against bits, the random maps, the watch, injected faults.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    thread,
};

use frame_core::{
    AllocError, DeallocError, DeallocErrorKind, FRAME_SIZE, FrameAllocator, FrameLayout, FrameRange,
    FrameStats, PhysAddr,
};
use frame_testkit::{FaultInjecting, FrameSet, Oracle, Rng, Watch, random_map, random_ranges};

fn range(start: usize, count: usize) -> FrameRange {
    FrameRange::new(PhysAddr::from(start * FRAME_SIZE), count).unwrap()
}

fn layout(count: usize) -> FrameLayout {
    FrameLayout::contiguous(count).unwrap()
}

fn oracle(regions: &[FrameRange]) -> Oracle {
    let oracle = Oracle::new();
    regions.iter().for_each(|&region| oracle.add_region(region).unwrap());
    oracle
}

/// The message of the panic that `code` ends with.
#[track_caller]
fn panic_of<R>(code: impl FnOnce() -> R) -> String {
    let payload = catch_unwind(AssertUnwindSafe(code)).err().expect("no panic");
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast_ref::<&str>().expect("a message").to_string(),
    }
}

#[test]
fn a_set_of_frames_is_what_bits_say() {
    const FRAMES: usize = 300;
    let mut rng = Rng::new(Rng::seed_or(11));
    let mut set = FrameSet::new();
    let mut bits = [false; FRAMES];
    for _ in 0..5000 {
        let start = rng.below(FRAMES);
        let end = rng.between(start + 1, (start + 1 + rng.clone().below(60)).min(FRAMES));
        let frames = range(start, end - start);
        let missing = (start..end).find(|&i| !bits[i]).map(|i| PhysAddr::from(i * FRAME_SIZE));
        let present = (start..end).find(|&i| bits[i]).map(|i| PhysAddr::from(i * FRAME_SIZE));
        assert_eq!((set.first_missing(frames), set.first_present(frames)), (missing, present));
        assert_eq!(set.contains_range(frames), missing.is_none());
        if rng.chance(1, 2) {
            assert_eq!(set.insert(frames), present.map_or(Ok(()), Err));
            if present.is_none() {
                bits[start..end].fill(true);
            }
        } else {
            assert_eq!(set.remove(frames), missing.map_or(Ok(()), Err));
            if missing.is_none() {
                bits[start..end].fill(false);
            }
        }
        let mut runs = Vec::new();
        let mut i = 0;
        while i < FRAMES {
            let end = (i..FRAMES).find(|&j| !bits[j]).unwrap_or(FRAMES);
            if end > i {
                runs.push(range(i, end - i));
            }
            i = end + 1;
        }
        assert!(set.runs().eq(runs.iter().copied()));
        assert_eq!(set.count(), bits.iter().filter(|&&bit| bit).count());
        assert_eq!(set.longest().map(FrameRange::count), runs.iter().map(|run| run.count()).max());
        let window = range(rng.below(FRAMES), rng.between(1, 100));
        let inside: usize = set.runs_in(window).map(FrameRange::count).sum();
        assert_eq!(
            inside,
            window.frames().filter(|frame| bits.get(frame.as_usize() / FRAME_SIZE) == Some(&true)).count()
        );
        // The lowest place for a layout in a window, by trying all.
        let (count, align) = (rng.between(1, 20), FRAME_SIZE << rng.below(6));
        let place = window.frames().map(|frame| range(frame.as_usize() / FRAME_SIZE, count)).find(|place| {
            place.start().as_usize() % align == 0
                && window.contains_range(*place)
                && place.frames().all(|frame| bits.get(frame.as_usize() / FRAME_SIZE) == Some(&true))
        });
        assert_eq!(set.find(FrameLayout::new(count, align).unwrap(), window), place);
    }
}

#[test]
fn random_ranges_are_what_they_promise() {
    for seed in 0..300 {
        let frames = 1 + seed as usize * 37 % 4000;
        let ranges = random_ranges(seed, frames);
        assert_eq!(ranges.iter().map(|range| range.count()).sum::<usize>(), frames);
        assert!(ranges.windows(2).all(|pair| pair[0].end() <= pair[1].start()), "{ranges:?}");
        assert!(ranges[0].start().as_usize() > 0 && ranges.len() <= 16);
        assert_eq!(ranges, random_ranges(seed, frames), "the same seed, the same ranges");
    }
    let all: Vec<_> = (0..300).flat_map(|seed| random_ranges(seed, 2000)).collect();
    assert!(all.windows(2).any(|pair| pair[0].end() == pair[1].start()), "some adjoin");
    assert!(all.iter().any(|range| range.count() == 1) && all.iter().any(|range| range.count() > 600));
}

#[test]
fn random_maps_are_ragged() {
    let maps: Vec<Vec<FrameRange>> = (0..200).map(|seed| random_map(seed, 3000).frames().collect()).collect();
    assert!(maps.iter().all(|map| !map.is_empty()));
    assert!(maps.iter().any(|map| map.len() > 8), "many holes");
    assert!(maps.iter().flatten().any(|range| range.count() == 1), "single frames");
    assert!(maps.iter().flatten().any(|range| range.start().as_usize() >= 4 << 30), "memory above 4 GiB");
    assert!(maps.iter().flatten().any(|range| range.start().as_usize() == 0x1000), "low memory, but frame 0");
    assert_eq!(
        random_map(3, 100).frames().collect::<Vec<_>>(),
        random_map(3, 100).frames().collect::<Vec<_>>()
    );
    assert!(random_map(9, 1).frame_count() >= 1);
}

#[test]
fn chance_is_fair_enough() {
    // The published test vector of SplitMix64.
    let mut rng = Rng::new(1_234_567);
    let right = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
    assert_eq!([(); 3].map(|()| rng.next_u64()), right);
    let mut hits = [0; 10];
    for _ in 0..100_000 {
        hits[rng.below(10)] += 1;
    }
    assert!(hits.iter().all(|&hits| (9_600..10_400).contains(&hits)), "{hits:?}");
    let mut items: Vec<usize> = (0..100).collect();
    rng.shuffle(&mut items);
    assert_ne!(items, (0..100).collect::<Vec<_>>());
    while rng.take(&mut items).is_some() {}
    assert!((0..1000).map(|_| rng.between(3, 5)).all(|n| (3..=5).contains(&n)));
    assert!(rng.chance(1, 1) && !rng.chance(0, 1));
}

#[test]
fn a_watch_lets_good_work_pass_and_counts_it() {
    // Regions that adjoin, and words of bits that they cut.
    let regions = [range(10, 70), range(80, 3), range(200, 130)];
    let watch = Watch::new(oracle(&regions), &regions);
    let mut rng = Rng::new(7);
    let mut owned: Vec<FrameRange> = Vec::new();
    let mut frames = [PhysAddr::from(0); 9];
    for _ in 0..2000 {
        match rng.below(6) {
            0 => owned.extend(watch.alloc_frame().ok().map(|frame| range(frame.as_usize() / FRAME_SIZE, 1))),
            1 => {
                let count = rng.between(1, 70);
                let run = watch.alloc(layout(count)).ok();
                owned.extend(run.map(|start| range(start.as_usize() / FRAME_SIZE, count)));
            }
            2 => {
                let given = watch.alloc_bulk(&mut frames);
                owned.extend(frames[..given].iter().map(|frame| range(frame.as_usize() / FRAME_SIZE, 1)));
            }
            3 => {
                let place = range(rng.between(5, 320), rng.between(1, 20));
                owned.extend(watch.alloc_at(place).ok().map(|()| place));
            }
            _ => {
                if let Some(run) = rng.take(&mut owned) {
                    // SAFETY: the run is owned and given up.
                    unsafe { watch.dealloc(run.start(), run.layout()) }.unwrap();
                }
            }
        }
        assert_eq!(watch.owned(), owned.iter().map(|run| run.count()).sum::<usize>());
        watch.check();
    }
    // Bad frees are the caller's fault, refused by the allocator: nothing to complain about.
    owned.drain(..).for_each(|run| {
        // SAFETY: the run is owned and given up.
        unsafe { watch.dealloc(run.start(), run.layout()) }.unwrap();
    });
    for start in [range(10, 1), range(9, 1), range(150, 1)] {
        // SAFETY: must be refused.
        unsafe { watch.dealloc(start.start(), layout(1)) }.unwrap_err();
    }
    watch.check();
}

/// An allocator that answers what it is told to.
#[derive(Default)]
struct Scripted {
    alloc: Mutex<Vec<usize>>,
    dealloc: Mutex<Vec<Result<(), DeallocError>>>,
    free: Mutex<usize>,
}

// SAFETY: none: the answers are wrong on purpose, and nothing touches memory.
unsafe impl FrameAllocator for Scripted {
    fn alloc(&self, _: FrameLayout) -> Result<PhysAddr, AllocError> {
        self.alloc
            .lock()
            .unwrap()
            .pop()
            .map(|frame| PhysAddr::from(frame * FRAME_SIZE))
            .ok_or(AllocError::NoMemory)
    }
    unsafe fn dealloc(&self, _: PhysAddr, _: FrameLayout) -> Result<(), DeallocError> {
        self.dealloc.lock().unwrap().pop().unwrap()
    }
    fn stats(&self) -> FrameStats {
        FrameStats { total_frames: 100, free_frames: *self.free.lock().unwrap(), ..FrameStats::default() }
    }
    fn visit_free(&self, _: &mut dyn FnMut(FrameRange)) {}
    fn alloc_in(&self, layout: FrameLayout, _: FrameRange) -> Result<PhysAddr, AllocError> {
        self.alloc(layout)
    }
}

fn scripted(alloc: &[usize], dealloc: &[Result<(), DeallocError>]) -> Watch<Scripted> {
    let scripted = Scripted {
        alloc: Mutex::new(alloc.iter().rev().copied().collect()),
        dealloc: Mutex::new(dealloc.iter().rev().copied().collect()),
        free: Mutex::new(100),
    };
    Watch::new(scripted, &[range(100, 100)])
}

#[test]
fn a_watch_finds_every_wrong_answer() {
    let message = panic_of(|| {
        let watch = scripted(&[150, 140], &[]);
        watch.alloc_frame().unwrap();
        watch.alloc(layout(20)).unwrap()
    });
    assert!(message.contains("0x96000 was handed out twice"), "{message}");
    for (frames, count, what) in
        [(99, 1, "0x63000"), (199, 2, "0xc8000"), (0, 1, "frame 0"), (5000, 1, "0x1388000")]
    {
        let message = panic_of(|| scripted(&[frames], &[]).alloc(layout(count)));
        assert!(message.contains(what), "{message}");
    }
    let two = FrameLayout::new(1, 2 * FRAME_SIZE).unwrap();
    let message = panic_of(|| scripted(&[101], &[]).alloc(two));
    assert!(message.contains("misaligned"), "{message}");
    let message = panic_of(|| scripted(&[118], &[]).alloc_in(layout(5), range(110, 10)));
    assert!(message.contains("outside the window"), "{message}");

    let refusal = DeallocError::new(PhysAddr::from(110 * FRAME_SIZE), DeallocErrorKind::NotAllocated);
    let free = |watch: &Watch<Scripted>, frame: usize, count| {
        // SAFETY: nothing touches memory.
        unsafe { watch.dealloc(PhysAddr::from(frame * FRAME_SIZE), layout(count)) }
    };
    let message = panic_of(|| {
        let watch = scripted(&[110], &[Err(refusal)]);
        watch.alloc_frame().unwrap();
        free(&watch, 110, 1)
    });
    assert!(message.contains("a good free") && message.contains("was refused"), "{message}");
    for (frame, count, kind) in [(110, 1, "NotAllocated"), (199, 2, "NotManaged"), (50, 1, "NotManaged")] {
        let message = panic_of(|| free(&scripted(&[], &[Ok(())]), frame, count));
        assert!(message.contains("a bad free") && message.contains(kind), "{message}");
    }
    let message = panic_of(|| {
        let watch = scripted(&[], &[Ok(())]);
        // SAFETY: nothing touches memory.
        unsafe { watch.dealloc_bulk(&[PhysAddr::from(110 * FRAME_SIZE)]) }
    });
    assert!(message.contains("1 bad frames in a bulk free"), "{message}");
    let message = panic_of(|| {
        let watch = scripted(&[110], &[]);
        watch.alloc_frame().unwrap();
        watch.check(); // still says that 100 are free
    });
    assert!(message.contains("frames free, 1 are handed out"), "{message}");
}

#[test]
fn injected_faults_fall_where_they_are_planned() {
    let allocator = FaultInjecting::new(oracle(&[range(1, 1000)]));
    let faults = allocator.faults();
    let frame = |i: usize| PhysAddr::from(i * FRAME_SIZE);
    faults.fail_nth(1);
    assert_eq!(allocator.alloc_at(range(5, 1)), Err(AllocError::NoMemory));
    assert_eq!(allocator.alloc_at(range(5, 1)), Ok(()));
    faults.fail_nth(2);
    assert_eq!(allocator.alloc_in(layout(1), range(10, 10)), Ok(frame(10)));
    assert_eq!(allocator.alloc_in(layout(1), range(10, 10)), Err(AllocError::NoMemory));
    assert_eq!(allocator.alloc(layout(3)), Ok(frame(1)));
    assert_eq!((faults.calls(), faults.injected()), (5, 2));
    // Each frame of a bulk call counts.
    let mut frames = [PhysAddr::from(0); 8];
    faults.fail_nth(4);
    assert_eq!(allocator.alloc_bulk(&mut frames), 3);
    assert_eq!(allocator.alloc_bulk(&mut frames), 8);
    faults.fail_after(2);
    assert!(allocator.alloc_frame().is_ok() && allocator.alloc_frame().is_ok());
    for _ in 0..3 {
        assert_eq!(allocator.alloc_frame(), Err(AllocError::NoMemory));
    }
    // A free never fails.
    // SAFETY: the frame was allocated above.
    assert_eq!(unsafe { allocator.dealloc_frame(frame(10)) }, Ok(()));
    faults.reset();
    assert_eq!((faults.calls(), faults.injected(), allocator.alloc_frame().is_ok()), (0, 0, true));
    assert_eq!(panic_of(|| faults.fail_nth(0)), "fail_nth counts from 1: the next allocation");
}

#[test]
fn one_allocation_fails_over_all_threads() {
    let allocator = FaultInjecting::new(oracle(&[range(1, 1000)]));
    allocator.faults().fail_nth(77);
    let failed: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..50).filter(|_| allocator.alloc_frame().is_err()).count()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((failed, allocator.faults().injected()), (1, 1));
}
