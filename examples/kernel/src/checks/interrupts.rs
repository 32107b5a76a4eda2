//! A timer interrupt and an NMI that allocate while the interrupted code allocates.
//!
//! The timer's handler may come anywhere outside of a lock; the NMI's anywhere at all, in the middle of the timer's
//! handler or of any instruction sequence of the allocator. Handlers keep what they allocate for a while, so that
//! frames of all three kinds of owners are mixed. An NMI handler uses allocators without locks only: the one under test if
//! it is one, and in any case the kernel's own.
//!
//! That they came in the middle of an allocation is no matter of luck: every CPU goes on until both kinds of handler have
//! found it inside of the allocator, and until an operation has gone past its cache's slot, which was in use.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use alloc::boxed::Box;
use frame_allocator::{FrameAllocator, FrameLayout, PhysAddr, PhysFrame};
use machine::{
    apic,
    cpu::{self, MAX_CPUS},
    interrupts as machine_interrupts, nmi_timer, port, println, smp,
};

use super::{Bench, hand::Hand, random::Random};
use crate::{
    backends::{Backend, Subject},
    check,
    ledger::{self, Fault},
    memory::Kernel,
};

const TIMER: u8 = 0x40;
/// The timer goes off within so many ticks: some tens of microseconds in an emulator. It is set by the code that it
/// interrupts, not by itself, so that a machine which is slower than its timer still gets on.
const TICKS: usize = 20_000;
/// The timer of a single CPU's NMIs: as long.
const NMI_TICKS: usize = 24;
/// Each CPU sees at least so many of both kinds.
const WANTED: usize = 100;
/// A CPU gives up after so many rounds: minutes, for on a host with few and busy processors most of them are waits for a
/// lock whose holder does not run.
const PATIENCE: usize = 200_000_000;

/// Whether the code of a CPU that is interrupted is inside of the allocator.
static INSIDE: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];

/// Calls the allocator.
fn inside<R>(cpu: usize, operation: impl FnOnce() -> R) -> R {
    INSIDE[cpu].store(true, Ordering::Release);
    let result = operation();
    INSIDE[cpu].store(false, Ordering::Release);
    result
}

/// What a kind of handler has done on a CPU, and the frame that it holds (0 is none).
struct Handler {
    runs: [AtomicUsize; MAX_CPUS],
    /// Runs that found the CPU inside of the allocator.
    amid: [AtomicUsize; MAX_CPUS],
    held: [AtomicUsize; MAX_CPUS],
    /// Owners in the ledger: this and the CPU's number.
    owner: usize,
}

impl Handler {
    const fn new(owner: usize) -> Self {
        let [runs, amid, held] = [const { [const { AtomicUsize::new(0) }; MAX_CPUS] }; 3];
        Self { runs, amid, held, owner }
    }

    /// Allocates in one interrupt and frees in the next.
    fn work<S: Subject>(&self) {
        let cpu = cpu::index();
        let hand = Hand::<S>::new(self.owner + cpu);
        match self.held[cpu].swap(0, Ordering::Relaxed) {
            0 => match hand.alloc(FrameLayout::SINGLE) {
                Ok(frame) => self.held[cpu].store(frame.as_usize(), Ordering::Relaxed),
                Err(_) => _ = ledger::fault(Fault::NoMemory, PhysAddr::from(0)),
            },
            frame => hand.free(PhysAddr::from(frame), FrameLayout::SINGLE),
        }
    }

    fn count(&self) {
        let cpu = cpu::index();
        self.amid[cpu].fetch_add(usize::from(INSIDE[cpu].load(Ordering::Acquire)), Ordering::Relaxed);
        self.runs[cpu].fetch_add(1, Ordering::Relaxed);
    }

    fn runs(&self, cpu: usize) -> usize {
        self.runs[cpu].load(Ordering::Relaxed)
    }

    fn amid(&self, cpu: usize) -> usize {
        self.amid[cpu].load(Ordering::Relaxed)
    }

    fn is_enough(&self, cpu: usize) -> bool {
        self.runs(cpu) >= WANTED && self.amid(cpu) > 0
    }

    /// Frees what the handler of this CPU holds still.
    fn clear<S: Subject>(&self) {
        if self.held[cpu::index()].load(Ordering::Relaxed) != 0 {
            self.work::<S>();
        }
    }
}

/// NMIs that a CPU has behind it: counted by the code that they interrupt, so their handlers have returned.
///
/// The next is sent only then. A processor holds NMIs back until the handler's IRET (SDM Vol. 3, 6.7.1); QEMU now and then
/// does not, and the second handler destroys the stack of the first.
static BEHIND: [AtomicUsize; MAX_CPUS] = [const { AtomicUsize::new(0) }; MAX_CPUS];

/// NMIs that a CPU was sent in all.
static SENT: [AtomicUsize; MAX_CPUS] = [const { AtomicUsize::new(0) }; MAX_CPUS];

static TIMERS: Handler = Handler::new(32);
static NMIS: Handler = Handler::new(64);

fn on_timer<S: Subject>() {
    TIMERS.work::<S>();
    TIMERS.count();
}

fn on_nmi<S: Subject>() {
    if S::Allocator::LOCK_FREE {
        NMIS.work::<S>();
    }
    drop(PhysFrame::<Kernel>::alloc());
    NMIS.count();
}

pub fn interrupts<S: Subject>(bench: &Bench<S>) {
    machine_interrupts::on(TIMER, on_timer::<S>);
    machine_interrupts::on(machine_interrupts::NMI, on_nmi::<S>);
    let satisfied = AtomicUsize::new(0);
    let all_bypasses = |cpu| S::allocator().cache().map(|cache| cache.stats(cpu).bypasses);
    let before = core::array::from_fn::<_, MAX_CPUS, _>(all_bypasses);
    let bypasses = |cpu: usize| Some(all_bypasses(cpu)? - before[cpu]?);
    smp::on_all_cpus(&|cpu| {
        let neighbour = (cpu + 1) % bench.cpus;
        let mut sent = NMIS.runs(neighbour);
        let hand = Hand::<S>::new(cpu);
        let mut random = Random::new(cpu as u64 + 300);
        let mut held = [PhysAddr::from(0); 16];
        let (mut enough, mut seen) = (false, usize::MAX);
        machine_interrupts::enable();
        for round in 0..PATIENCE {
            BEHIND[cpu].store(NMIS.runs(cpu), Ordering::Release);
            if TIMERS.runs(cpu) != seen {
                seen = TIMERS.runs(cpu);
                apic::set_timer(TIMER, 1 + random.below(TICKS) as u32);
            }
            let slot = &mut held[random.below(16)];
            if slot.as_usize() == 0 {
                if let Ok(frame) = inside(cpu, || S::allocator().alloc_frame()) {
                    hand.took(frame, 1);
                    *slot = frame;
                }
            } else {
                hand.gives(*slot, 1);
                // SAFETY: this hand's frame, which nothing uses.
                if let Err(refused) = inside(cpu, || unsafe { S::allocator().dealloc_frame(*slot) }) {
                    ledger::fault(Fault::Refused, refused.frame);
                }
                *slot = PhysAddr::from(0);
            }
            if round % 16 == 0 {
                drop(Box::new([round; 40])); // the heap, too, is interrupted
            }
            if BEHIND[neighbour].load(Ordering::Acquire) == sent {
                sent += 1;
                match bench.cpus {
                    1 => nmi_timer::set(1 + random.below(NMI_TICKS) as u16),
                    _ => apic::send_nmi(smp::apic_id(neighbour)),
                }
            }
            // Go on until everybody has seen enough: the neighbour waits for this CPU's NMIs.
            let both = TIMERS.is_enough(cpu) && NMIS.is_enough(cpu);
            if !enough && both && bypasses(cpu).is_none_or(|count| count > 0) {
                enough = true;
                satisfied.fetch_add(1, Ordering::Relaxed);
            }
            if enough && satisfied.load(Ordering::Relaxed) == bench.cpus {
                break;
            }
        }
        apic::stop_timer();
        machine_interrupts::disable();
        SENT[neighbour].store(sent, Ordering::Release);
        for frame in held.into_iter().filter(|frame| frame.as_usize() != 0) {
            hand.free(frame, FrameLayout::SINGLE);
        }
    });
    // The last NMIs are on their way, on a busy host for seconds; then their handlers have to return.
    let arrived = || (0..bench.cpus).all(|cpu| NMIS.runs(cpu) >= SENT[cpu].load(Ordering::Acquire));
    for _ in 0..100_000 {
        if arrived() {
            break;
        }
        port::pause_us(100);
    }
    smp::on_all_cpus(&|_| port::pause_us(1000));
    smp::on_all_cpus(&|_| {
        TIMERS.clear::<S>();
        NMIS.clear::<S>();
    });
    for cpu in 0..bench.cpus {
        let (timers, nmis) = (TIMERS.runs(cpu), NMIS.runs(cpu));
        check!(timers >= WANTED, "CPU {cpu} saw {timers} timer interrupts");
        check!(nmis >= WANTED, "CPU {cpu} saw {nmis} NMIs");
        check!(TIMERS.amid(cpu) > 0, "a timer interrupt of CPU {cpu} came amid an allocation");
        check!(NMIS.amid(cpu) > 0, "an NMI of CPU {cpu} came amid an allocation");
        if let Some(bypasses) = bypasses(cpu) {
            check!(bypasses > 0, "an operation on CPU {cpu} found the slot in use");
        }
    }
    let sum = |count: fn(&Handler, usize) -> usize, handler| {
        (0..bench.cpus).map(|cpu| count(handler, cpu)).sum::<usize>()
    };
    let [timers, nmis] =
        [&TIMERS, &NMIS].map(|handler| (sum(Handler::runs, handler), sum(Handler::amid, handler)));
    println!(
        "{} timer interrupts, {} of them amid an allocation; {} NMIs, {} of them",
        timers.0, timers.1, nmis.0, nmis.1
    );
}
