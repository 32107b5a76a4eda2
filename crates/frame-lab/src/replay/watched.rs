//! The watched pass: every answer is entered in a ledger, and every frame is accounted for at the end.

use frame_core::{FrameAllocator, FreeRuns, PhysAddr};

use super::{EMPTY, LAYOUTS, call_alloc, call_dealloc};
use crate::{
    backends::{Job, Setting, on_cpu},
    ledger::Ledger,
    picture::{Column, Picture},
    trace::{Action, Op, Program},
    vm::Vm,
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use frame_core::{AllocError, DeallocError, DeallocErrorKind, FrameLayout, FrameRange, FrameStats};
    use frame_testkit::Oracle;

    use super::*;
    use crate::trace::{self, Source};

    /// How an allocator lies, once, at its 1000th call of a kind.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Lie {
        None,
        /// Gives the frame before again.
        GivesTwice,
        /// Gives a frame that nobody manages.
        GivesForeign,
        /// Says that it took a frame back, and did not.
        Keeps,
        /// Refuses a good free.
        Refuses,
        /// Hides the last free run from whoever looks.
        HidesRun,
        /// Counts one free frame too many.
        Counts,
    }

    struct Liar {
        oracle: Oracle,
        lie: Lie,
        allocs: AtomicUsize,
        frees: AtomicUsize,
        last: AtomicUsize,
    }

    // SAFETY: it breaks the promises, as its name says; no memory is behind its frames.
    unsafe impl FrameAllocator for Liar {
        fn alloc(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> {
            let now = self.allocs.fetch_add(1, Relaxed) == 1000;
            match self.lie {
                Lie::GivesTwice if now => return Ok(PhysAddr::from(self.last.load(Relaxed))),
                Lie::GivesForeign if now => return Ok(PhysAddr::from(1 << 40)),
                _ => {}
            }
            let start = self.oracle.alloc(layout)?;
            self.last.store(start.as_usize(), Relaxed);
            Ok(start)
        }

        unsafe fn dealloc(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
            let now = self.frees.fetch_add(1, Relaxed) == 1000;
            match self.lie {
                Lie::Keeps if now => Ok(()),
                Lie::Refuses if now => Err(DeallocError::new(start, DeallocErrorKind::NotAllocated)),
                // SAFETY: the caller's promise is passed on.
                _ => unsafe { self.oracle.dealloc(start, layout) },
            }
        }

        fn stats(&self) -> FrameStats {
            let mut stats = self.oracle.stats();
            stats.free_frames += usize::from(self.lie == Lie::Counts);
            stats
        }

        fn visit_free(&self, visit: &mut dyn FnMut(FrameRange)) {
            let mut runs = Vec::new();
            self.oracle.visit_free(&mut |run| runs.push(run));
            runs.truncate(runs.len() - usize::from(self.lie == Lie::HidesRun));
            runs.into_iter().for_each(visit);
        }
    }

    fn watch(lie: Lie) -> Verdict {
        let trace = trace::read(Source::Embedded, |_| ()).unwrap();
        // The program's first 30,000 operations are enough.
        let mut program = trace.program;
        program.samples.retain(|sample| sample.op <= 30_000);
        program.ops.truncate(program.samples.last().unwrap().op);
        let region = FrameRange::new(PhysAddr::from(0x10_0000), 60_000).unwrap();
        let oracle = Oracle::new();
        oracle.add_region(region).unwrap();
        let liar = Liar {
            oracle,
            lie,
            allocs: AtomicUsize::new(0),
            frees: AtomicUsize::new(0),
            last: AtomicUsize::new(0),
        };
        let setting = Setting { regions: vec![region], cpus: 2, threads: false };
        Watched { program: &program, setting: &setting, progress: &|_| () }.run(&liar, &|| ())
    }

    #[test]
    fn an_honest_allocator_is_sound() {
        let verdict = watch(Lie::None);
        assert_eq!((verdict.failures, verdict.lost, verdict.doubled, verdict.refused), (0, 0, 0, 0));
        assert!(verdict.vm.is_sound() && verdict.vm.error.is_none(), "{:?}", verdict.vm);
        assert_eq!(
            (verdict.runs.free_frames(), verdict.runs.huge_2m()),
            (verdict.free_frames, verdict.free_2m)
        );
    }

    #[test]
    fn every_lie_is_seen() {
        for lie in [Lie::GivesTwice, Lie::GivesForeign] {
            assert!(watch(lie).doubled > 0, "{lie:?}");
        }
        for lie in [Lie::Keeps, Lie::HidesRun] {
            assert!(watch(lie).lost > 0, "{lie:?}");
        }
        let refused = watch(Lie::Refuses);
        assert_eq!((refused.refused, refused.doubled), (1, 0));
        assert!(watch(Lie::Counts).doubled > 0);
    }
}
