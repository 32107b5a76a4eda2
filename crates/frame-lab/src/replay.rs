//! Replays a program on an allocator: once watched, to know the truth, and once more for each timing.
//!
//! Watching costs more than an allocation does, so the two are apart. [`Watched`] keeps a [`Ledger`], looks at the
//! allocator at the program's samples, and ends with an account of every frame. [`Timed`] does nothing but the calls: for each
//! operation it reads 8 bytes, names the CPU and calls the allocator. Both do the same calls in the same order, and an
//! allocator that is a function of its input answers them alike.
//!
//! An allocation that fails leaves its slot empty, and the free of an empty slot is left out.

use std::time::Duration;

use frame_core::{FRAME_SIZE, FrameAllocator, FrameLayout, FreeRuns, PhysAddr};

use crate::{
    backends::{Job, Setting, on_cpu},
    clock,
    ledger::Ledger,
    picture::{Column, Picture},
    trace::{Action, ORDERS, Op, Program},
    vm::Vm,
};

/// Frame 0 is never handed out: it marks an empty slot.
const EMPTY: PhysAddr = PhysAddr::from_usize(0);

/// What Linux means by each order: `2^order` frames at a multiple of their size.
const LAYOUTS: [FrameLayout; ORDERS] = {
    let mut layouts = [FrameLayout::SINGLE; ORDERS];
    let mut order = 0;
    while order < ORDERS {
        layouts[order] = match FrameLayout::new(1 << order, FRAME_SIZE << order) {
            Ok(layout) => layout,
            Err(_) => panic!("a power of two is a count and an alignment"),
        };
        order += 1;
    }
    layouts
};

/// What is known of an allocator after a watched replay.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Allocations that were refused.
    pub(crate) failures: u64,
    /// Frees of owned frames that were refused.
    pub(crate) refused: u64,
    /// Frames that were given while owned, while not managed or misaligned, or that were called free while owned.
    pub(crate) doubled: u64,
    /// Frames that were neither owned nor free at the end, or did not come back when all was freed.
    pub(crate) lost: u64,
    pub(crate) total_frames: usize,
    /// As the allocator says, caches included.
    pub(crate) free_frames: usize,
    pub(crate) metadata_bytes: usize,
    pub(crate) free_2m: usize,
    pub(crate) free_2m_lowest: usize,
    pub(crate) fragmentation: f64,
    pub(crate) fragmentation_worst: f64,
    /// The free runs at the end, caches drained.
    pub(crate) runs: FreeRuns,
    /// Free 2 MiB frames at each sample of the program.
    pub(crate) free_2m_series: Vec<usize>,
    pub(crate) picture: Picture,
    /// A VM that was built beside the live memory, and taken down.
    pub(crate) vm: Vm,
}

/// A replay that trusts nothing.
pub(crate) struct Watched<'r> {
    pub(crate) program: &'r Program,
    pub(crate) setting: &'r Setting,
    /// Called at each sample with the operations done since the last.
    pub(crate) progress: &'r dyn Fn(u64),
}

impl Job for Watched<'_> {
    type Out = Verdict;

    fn run<A: FrameAllocator>(self, allocator: &A, drain: &dyn Fn()) -> Verdict {
        let program = self.program;
        let mut ledger = Ledger::new(&self.setting.regions);
        let mut slots = vec![EMPTY; program.slots];
        let mut seen = Seen { free_2m_lowest: ledger.whole_free(), ..Seen::default() };
        let mut done = 0;
        let columns = Picture::column_samples(program.samples.len());
        for (i, sample) in program.samples.iter().enumerate() {
            for &op in &program.ops[done..sample.op] {
                seen.step(allocator, op, &mut slots[op.slot as usize], &mut ledger);
            }
            (self.progress)((sample.op - done) as u64);
            done = sample.op;
            seen.free_2m_series.push(ledger.whole_free());
            if columns.contains(&i) {
                seen.columns.push(Column::of(&ledger));
            }
        }
        drain();
        let stats = allocator.stats();
        let mut runs = FreeRuns::default();
        let (mut visited, mut not_free) = (0, 0);
        allocator.visit_free(&mut |run| {
            runs.add(run);
            visited += run.count();
            not_free += ledger.not_free_in(run);
        });
        let lost = missing(ledger.free(), visited).max(missing(ledger.free(), stats.free_frames));
        // Frames that are called free and are not; or called free twice, or counted only.
        seen.doubled += missing(visited.max(stats.free_frames), ledger.free()).max(not_free);
        let mut verdict = Verdict {
            failures: seen.failures,
            refused: 0,
            doubled: 0,
            lost,
            total_frames: stats.total_frames,
            free_frames: stats.free_frames,
            metadata_bytes: stats.metadata_bytes,
            free_2m: ledger.whole_free(),
            free_2m_lowest: seen.free_2m_lowest,
            fragmentation: ledger.fragmentation(),
            fragmentation_worst: seen.fragmentation_worst.max(ledger.fragmentation()),
            runs: runs.finish(),
            free_2m_series: std::mem::take(&mut seen.free_2m_series),
            picture: Picture::new(std::mem::take(&mut seen.columns), &ledger),
            vm: Vm::default(),
        };
        verdict.vm = Vm::build(allocator, &self.setting.regions, drain);
        let lost_after = seen.free_all(program, &mut slots, allocator, drain, &mut ledger);
        Verdict {
            refused: seen.refused,
            doubled: seen.doubled + ledger.doubled(),
            lost: lost.max(lost_after),
            ..verdict
        }
    }
}

/// What a watched replay notes as it goes.
#[derive(Default)]
struct Seen {
    failures: u64,
    refused: u64,
    doubled: u64,
    free_2m_lowest: usize,
    fragmentation_worst: f64,
    free_2m_series: Vec<usize>,
    columns: Vec<Column>,
}

impl Seen {
    fn step<A: FrameAllocator>(&mut self, allocator: &A, op: Op, slot: &mut PhysAddr, ledger: &mut Ledger) {
        let layout = LAYOUTS[usize::from(op.order)];
        on_cpu(usize::from(op.cpu));
        match op.action {
            Action::Alloc => match call_alloc(allocator, op.order) {
                Some(start) => {
                    ledger.give(start, layout);
                    *slot = start;
                }
                None => self.failures += 1,
            },
            Action::Free if *slot == EMPTY => {}
            Action::Free => {
                let start = std::mem::replace(slot, EMPTY);
                if call_dealloc(allocator, start, op.order) {
                    ledger.take(start, layout);
                } else {
                    self.refused += 1;
                }
            }
        }
        self.free_2m_lowest = self.free_2m_lowest.min(ledger.whole_free());
        self.fragmentation_worst = self.fragmentation_worst.max(ledger.fragmentation());
    }

    /// Gives everything back; returns how many frames are not free after that.
    fn free_all<A: FrameAllocator>(
        &mut self,
        program: &Program,
        slots: &mut [PhysAddr],
        allocator: &A,
        drain: &dyn Fn(),
        ledger: &mut Ledger,
    ) -> u64 {
        // The last operation on a slot tells the order of what is in it.
        let mut orders = vec![0; slots.len()];
        for op in &program.ops {
            orders[op.slot as usize] = op.order;
        }
        for (slot, &order) in slots.iter_mut().zip(&orders).filter(|(slot, _)| **slot != EMPTY) {
            if call_dealloc(allocator, *slot, order) {
                ledger.take(*slot, LAYOUTS[usize::from(order)]);
            } else {
                self.refused += 1;
            }
            *slot = EMPTY;
        }
        drain();
        let mut visited = 0;
        allocator.visit_free(&mut |run| visited += run.count());
        missing(ledger.total(), visited).max(missing(ledger.total(), allocator.stats().free_frames))
    }
}

fn missing(expected: usize, found: usize) -> u64 {
    expected.saturating_sub(found) as u64
}

/// A replay that measures.
pub(crate) struct Timed<'r> {
    pub(crate) program: &'r Program,
}

impl Job for Timed<'_> {
    /// For all operations of the program.
    type Out = Duration;

    fn run<A: FrameAllocator>(self, allocator: &A, _drain: &dyn Fn()) -> Duration {
        time(self.program, Calls(allocator))
    }
}

/// What the replay loop costs without an allocator: reading the program, naming the CPU, keeping the slots.
pub(crate) fn time_of_harness(program: &Program) -> Duration {
    time(program, Nothing)
}

trait Target {
    fn alloc(&self, order: u8) -> Option<PhysAddr>;
    fn dealloc(&self, start: PhysAddr, order: u8);
}

struct Calls<'a, A>(&'a A);

impl<A: FrameAllocator> Target for Calls<'_, A> {
    #[inline]
    fn alloc(&self, order: u8) -> Option<PhysAddr> {
        call_alloc(self.0, order)
    }
    #[inline]
    fn dealloc(&self, start: PhysAddr, order: u8) {
        // A refusal was counted by the watched pass.
        call_dealloc(self.0, start, order);
    }
}

struct Nothing;

impl Target for Nothing {
    #[inline]
    fn alloc(&self, order: u8) -> Option<PhysAddr> {
        std::hint::black_box(Some(PhysAddr::from(FRAME_SIZE << order)))
    }
    #[inline]
    fn dealloc(&self, start: PhysAddr, order: u8) {
        std::hint::black_box((start, order));
    }
}

fn time<T: Target>(program: &Program, target: T) -> Duration {
    let mut slots = vec![EMPTY; program.slots];
    let start = clock::now();
    for op in &program.ops {
        on_cpu(usize::from(op.cpu));
        let slot = &mut slots[op.slot as usize];
        match op.action {
            Action::Alloc => *slot = target.alloc(op.order).unwrap_or(EMPTY),
            Action::Free if *slot == EMPTY => {}
            Action::Free => target.dealloc(*slot, op.order),
        }
    }
    clock::now() - start
}

#[inline]
pub(crate) fn call_alloc<A: FrameAllocator>(allocator: &A, order: u8) -> Option<PhysAddr> {
    match order {
        0 => allocator.alloc_frame().ok(),
        _ => allocator.alloc(LAYOUTS[usize::from(order)]).ok(),
    }
}

/// Gives back what a slot held; false if it was refused.
#[inline]
pub(crate) fn call_dealloc<A: FrameAllocator>(allocator: &A, start: PhysAddr, order: u8) -> bool {
    // SAFETY: a slot holds what the allocator gave for this order and is freed once: a program frees a slot once
    // for each allocation. No memory lies behind the frames of a replay, so nothing uses them.
    unsafe {
        match order {
            0 => allocator.dealloc_frame(start).is_ok(),
            _ => allocator.dealloc(start, LAYOUTS[usize::from(order)]).is_ok(),
        }
    }
}
