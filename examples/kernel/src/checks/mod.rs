//! What the kernel checks, one file for each group of cases. All of it is generic over the allocator under test.

mod exhaustion;
mod hand;
mod heap;
#[cfg(target_arch = "x86_64")]
mod interrupts;
mod layouts;
mod raii;
mod random;
mod refusals;
mod regions;
mod stress;
pub mod suite;

use core::{marker::PhantomData, mem::MaybeUninit};

use frame_allocator::{FrameAllocator, FrameRange, FreeRuns};
use machine::{multiboot::BootInfo, smp};

use crate::{
    backends::{Backend, Subject},
    check_eq,
    irq_lock::Mutex,
    ledger,
    memory::{self, Map},
    report,
};

/// A region that is held back, and metadata for it.
pub type Later = (FrameRange, &'static mut [MaybeUninit<u8>]);

/// What the cases work with.
pub struct Bench<S> {
    /// What the boot loader told.
    pub boot: &'static BootInfo,
    /// The frames that the allocator was given.
    pub map: Map,
    /// How many CPUs run.
    pub cpus: usize,
    /// Operations for each CPU in a stress.
    pub operations: usize,
    /// What the allocator is given while it is in use.
    pub later: Mutex<Option<Later>>,
    /// The allocator.
    pub subject: PhantomData<fn() -> S>,
}

impl<S: Subject> Bench<S> {
    /// Runs everything.
    pub fn run(&self) {
        memory::drain_when_kicked(drain::<S>);
        self.case("map", || regions::map(self));
        self.case("refusals", || refusals::refusals(self));
        self.case("layouts", || layouts::layouts(self));
        self.case("places", || layouts::places(self));
        self.case("bulk", || layouts::bulk(self));
        self.case("raii", raii::raii::<S>);
        self.case("heap", || heap::heap(self.cpus));
        self.case("exhaustion", || exhaustion::one_cpu(self));
        self.case("stress", || stress::stress(self));
        self.case("cross-CPU frees", || stress::cross_cpu(self));
        self.case("exhaustion by all CPUs", || exhaustion::all_cpus(self));
        // They need a timer and NMIs, of which other machines know nothing (`examples/virt`).
        #[cfg(target_arch = "x86_64")]
        self.case("interrupts", || interrupts::interrupts(self));
        if S::allocator().cache().is_some() {
            self.case("frames in idle CPUs' caches", || exhaustion::idle_caches(self));
        }
        if S::allocator().tree().is_some() {
            self.case("offlining", || regions::offlining(self));
        }
        self.case("a region added in use", || regions::added_in_use(self));
        self.case("conformance suite", suite::suite::<S::Suite>);
    }

    /// Runs a case, which leaves no frame allocated and no fault behind.
    fn case(&self, name: &str, run: impl FnOnce()) {
        report::case(name, || {
            run();
            self.settle();
            check_eq!(self.used(), 0, "frames in use after the case");
            check_eq!(ledger::report_faults(), 0, "faults");
            let heap = crate::heap::frames();
            check_eq!(
                memory::FRAMES.stats().used_frames(),
                heap,
                "frames of the heap, which the kernel's allocator gave"
            );
        });
    }

    /// Empties all caches.
    pub fn settle(&self) {
        smp::on_all_cpus(&|_| drain::<S>());
    }

    /// Frames in use, less the heap's where it stands on the allocator under test.
    pub fn used(&self) -> usize {
        S::allocator().stats().used_frames() - self.heap()
    }

    /// Frames of the allocator under test that the heap has.
    pub fn heap(&self) -> usize {
        if S::IS_KERNELS_OWN { crate::heap::frames() } else { 0 }
    }

    /// Free memory, by runs. Caches must be empty.
    pub fn free_runs(&self) -> FreeRuns {
        FreeRuns::of(S::allocator())
    }
}

/// Empties this CPU's cache.
fn drain<S: Subject>() {
    if let Some(cache) = S::allocator().cache() {
        cache.drain_local();
    }
}
