//! Random operations on several CPUs against an oracle that knows who owns which frame.

mod common;

use std::{collections::BTreeSet, mem::MaybeUninit, sync::atomic::Ordering::Relaxed};

use common::*;
use frame_core::*;
use frame_percpu::*;
use proptest::prelude::*;

const FIRST: usize = 7; // nothing is aligned by accident
const FRAMES: usize = 900;
const CPUS: usize = 3; // and one more without a slot

#[derive(Clone, Debug)]
enum Op {
    Switch(usize),
    Alloc,
    AllocMany(usize),
    AllocRun { count: usize, align_log2: usize },
    AllocBulk(usize),
    AllocAt { start: usize, count: usize },
    AllocIn { count: usize, start: usize, window: usize },
    Free(usize),
    FreeMany { from: usize, count: usize },
    FreeRun { from: usize, count: usize },
    FreeBulk { from: usize, count: usize },
    DrainLocal,
    DrainCpu(usize),
    RequestDrain,
    Watermark(usize),
}

fn op() -> impl Strategy<Value = Op> {
    use Op::*;
    prop_oneof![
        3 => (0..=CPUS).prop_map(Switch),
        4 => Just(Alloc),
        4 => (1..200usize).prop_map(AllocMany),
        2 => (1..70usize, 0..6usize).prop_map(|(count, align_log2)| AllocRun { count, align_log2 }),
        3 => (0..300usize).prop_map(AllocBulk),
        1 => (0..FRAMES, 1..9usize).prop_map(|(start, count)| AllocAt { start, count }),
        1 => (1..9usize, 0..FRAMES, 1..200usize).prop_map(|(count, start, window)| AllocIn { count, start, window }),
        4 => any::<usize>().prop_map(Free),
        4 => (any::<usize>(), 1..200usize).prop_map(|(from, count)| FreeMany { from, count }),
        2 => (any::<usize>(), 1..70usize).prop_map(|(from, count)| FreeRun { from, count }),
        3 => (any::<usize>(), 0..300usize).prop_map(|(from, count)| FreeBulk { from, count }),
        1 => Just(DrainLocal),
        1 => (0..CPUS).prop_map(DrainCpu),
        1 => Just(RequestDrain),
        1 => (FIRST..FIRST + FRAMES + 1).prop_map(Watermark),
    ]
}

struct Model<'m, P: Policy> {
    cache: PerCpu<'m, SetBackend, &'m SimCpus, P>,
    cpus: &'m SimCpus,
    /// Frames that callers own.
    owned: BTreeSet<usize>,
    absent: bool,
}

impl<P: Policy> Model<'_, P> {
    fn gain(&mut self, start: PhysAddr, count: usize) {
        for frame in number(start)..number(start) + count {
            assert!((FIRST..FIRST + FRAMES).contains(&frame), "frame {frame} is not managed");
            assert!(self.owned.insert(frame), "frame {frame} was handed out twice");
        }
    }

    /// What must have been free for the allocator when it said no: everything that nobody owns; if other CPUs are
    /// there but idle, only what they do not hold.
    fn reachable(&self) -> BTreeSet<usize> {
        let all = || (FIRST..FIRST + FRAMES).filter(|frame| !self.owned.contains(frame));
        if self.absent {
            all().collect()
        } else {
            all().filter(|&frame| self.cache.backend().is_free(frame)).collect()
        }
    }

    fn refused_run(&self, count: usize, align: usize, window: std::ops::Range<usize>) {
        let found = find_run(&self.reachable(), count, align, window);
        assert_eq!(found, None, "{count} frames aligned to {align} were there");
        self.own_slot_is_empty();
    }

    fn own_slot_is_empty(&self) {
        let own = self.cache.cpu_stats(CpuIndex(self.cpus.current()));
        assert_eq!(own.map_or(0, |stats| stats.cached_frames), 0, "refused with frames in the own slot");
    }

    /// `count` frames that are owned, from some place on.
    fn pick(&self, from: usize, count: usize) -> Vec<usize> {
        if self.owned.is_empty() {
            return Vec::new();
        }
        let from = FIRST + from % FRAMES;
        self.owned.range(from..).chain(self.owned.range(..from)).copied().take(count).collect()
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Switch(cpu) => self.cpus.switch(cpu),
            Op::Alloc => self.alloc(),
            Op::AllocMany(count) => (0..count).for_each(|_| self.alloc()),
            Op::AllocRun { count, align_log2 } => {
                let align = 1 << align_log2;
                match self.cache.alloc(FrameLayout::new(count, align * FRAME_SIZE).unwrap()) {
                    Ok(start) => {
                        assert_eq!(number(start) % align, 0);
                        self.gain(start, count);
                    }
                    Err(error) => {
                        assert_eq!(error, AllocError::NoMemory);
                        self.refused_run(count, align, 0..usize::MAX);
                    }
                }
            }
            Op::AllocBulk(count) => {
                let mut frames = vec![PhysAddr::from(0); count];
                let got = self.cache.alloc_bulk(&mut frames);
                frames[..got].iter().for_each(|&frame| self.gain(frame, 1));
                assert!(frames[got..].iter().all(|frame| frame.as_usize() == 0), "wrote behind what it gave");
                if got < count {
                    self.refused_run(1, 1, 0..usize::MAX);
                }
            }
            Op::AllocAt { start, count } => {
                let wanted = range(FIRST + start, count);
                let numbers = || FIRST + start..FIRST + start + count;
                match self.cache.alloc_at(wanted) {
                    Ok(()) => self.gain(wanted.start(), count),
                    Err(AllocError::NotManaged) => assert!(start + count > FRAMES),
                    Err(AllocError::InUse) => {
                        let reachable = self.reachable();
                        assert!(numbers().any(|frame| !reachable.contains(&frame)), "{wanted} was free");
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Op::AllocIn { count, start, window } => {
                let numbers = FIRST + start..FIRST + start + window;
                match self
                    .cache
                    .alloc_in(FrameLayout::contiguous(count).unwrap(), range(numbers.start, window))
                {
                    Ok(got) => {
                        assert!(numbers.contains(&number(got)) && number(got) + count <= numbers.end);
                        self.gain(got, count);
                    }
                    Err(error) => {
                        assert_eq!(error, AllocError::NoMemory);
                        self.refused_run(count, 1, numbers);
                    }
                }
            }
            Op::Free(from) => self.free(from, 1),
            Op::FreeMany { from, count } => self.free(from, count),
            Op::FreeRun { from, count } => {
                let picked = self.pick(from, count);
                let run = picked.windows(2).take_while(|pair| pair[1] == pair[0] + 1).count() + 1;
                let Some(&start) = picked.first() else { return };
                (start..start + run).for_each(|frame| assert!(self.owned.remove(&frame)));
                // SAFETY: owned until now.
                unsafe { self.cache.dealloc(addr(start), FrameLayout::contiguous(run).unwrap()) }.unwrap();
            }
            Op::FreeBulk { from, count } => {
                let picked = self.pick(from, count);
                picked.iter().for_each(|frame| assert!(self.owned.remove(frame)));
                let frames: Vec<_> = picked.into_iter().map(addr).collect();
                // SAFETY: owned until now.
                unsafe { self.cache.dealloc_bulk(&frames) }.unwrap();
            }
            Op::DrainLocal => {
                self.cache.drain_local();
                self.own_slot_is_empty();
            }
            Op::DrainCpu(cpu) => {
                // SAFETY: one thread plays all CPUs, and is in no operation.
                unsafe { self.cache.drain_cpu(CpuIndex(cpu)) };
                assert_eq!(self.cache.cpu_stats(CpuIndex(cpu)).unwrap().cached_frames, 0);
            }
            Op::RequestDrain => self.cache.request_drain(),
            Op::Watermark(frame) => self.cache.backend().watermark.store(frame * FRAME_SIZE, Relaxed),
        }
        self.check();
    }

    fn alloc(&mut self) {
        match self.cache.alloc_frame() {
            Ok(frame) => self.gain(frame, 1),
            Err(error) => {
                assert_eq!(error, AllocError::NoMemory);
                self.refused_run(1, 1, 0..usize::MAX);
            }
        }
    }

    fn free(&mut self, from: usize, count: usize) {
        for frame in self.pick(from, count) {
            assert!(self.owned.remove(&frame));
            // SAFETY: owned until now.
            unsafe { self.cache.dealloc_frame(addr(frame)) }.unwrap();
        }
    }

    fn check(&self) {
        let stats = self.cache.stats();
        assert_eq!((stats.total_frames, stats.free_frames), (FRAMES, FRAMES - self.owned.len()));
        assert_eq!(stats.free_frames, self.cache.backend().free_count() + stats.cached_frames);
        for cpu in 0..CPUS {
            let stats = self.cache.cpu_stats(CpuIndex(cpu)).unwrap();
            assert_eq!((stats.refusals, stats.bypasses), (0, 0));
            assert!(stats.cached_frames <= 159 + 832 + 1024, "{stats:?}");
        }
    }
}

fn run<'m, P: Policy>(
    cache: PerCpu<'m, SetBackend, &'m SimCpus, P>,
    slots: &'m mut [CpuSlot],
    cpus: &'m SimCpus,
    ops: Vec<Op>,
) {
    cache.attach(slots).unwrap();
    let mut model = Model { cache, cpus, owned: BTreeSet::new(), absent: cpus.absent.load(Relaxed) };
    for op in ops {
        model.step(op);
    }
    // Nothing leaks: all is given back, drained, and there again in one run.
    model.free(0, usize::MAX);
    for cpu in 0..=CPUS {
        cpus.switch(cpu);
        model.cache.drain_local();
    }
    assert_eq!(model.cache.cached_frames(), 0);
    assert_eq!(model.cache.backend().free_count(), FRAMES);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn trusting(ops in prop::collection::vec(op(), 1..60), absent: bool) {
        let (mut slots, cpus) = (slots(CPUS), SimCpus::default());
        cpus.absent.store(absent, Relaxed);
        let cache = PerCpu::new(SetBackend::new(range(FIRST, FRAMES)), &cpus);
        run(cache, &mut slots, &cpus, ops);
    }

    #[test]
    fn checked(ops in prop::collection::vec(op(), 1..60), absent: bool, window in (0..FRAMES, 1..FRAMES)) {
        let (mut slots, cpus) = (slots(CPUS), SimCpus::default());
        let mut states = vec![MaybeUninit::uninit(); window.1];
        cpus.absent.store(absent, Relaxed);
        let cache = PerCpu::checked(SetBackend::new(range(FIRST, FRAMES)), &cpus);
        cache.attach_states(range(FIRST + window.0, window.1), &mut states).unwrap();
        run(cache, &mut slots, &cpus, ops);
    }
}
