//! A timer interrupt and an NMI that allocate while the interrupted code allocates.
//!
//! The timer's handler may come anywhere outside of a lock; the NMI's anywhere at all, in the middle of the timer's
//! handler or of any instruction sequence of the allocator. Handlers keep what they allocate for a while, so that
//! frames of all three kinds of owners are mixed. An NMI handler uses allocators without locks only: the one under test if
//! it is one, and in any case the kernel's own.

use core::sync::atomic::{AtomicUsize, Ordering};

use alloc::boxed::Box;
use frame_allocator::{FrameLayout, PhysAddr, PhysFrame};
use machine::{
    apic,
    cpu::{self, MAX_CPUS},
    interrupts as machine_interrupts, port, println, smp,
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
/// Each CPU sees at least so many of both kinds.
const WANTED: usize = 100;
/// A CPU gives up after so many rounds.
const PATIENCE: usize = 3_000_000;

/// What a kind of handler has done on a CPU, and the frame that it holds (0 is none).
struct Handler {
    runs: [AtomicUsize; MAX_CPUS],
    held: [AtomicUsize; MAX_CPUS],
    /// Owners in the ledger: this and the CPU's number.
    owner: usize,
}

impl Handler {
    const fn new(owner: usize) -> Self {
        let (runs, held) =
            ([const { AtomicUsize::new(0) }; MAX_CPUS], [const { AtomicUsize::new(0) }; MAX_CPUS]);
        Self { runs, held, owner }
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
        self.runs[cpu::index()].fetch_add(1, Ordering::Relaxed);
    }

    fn runs(&self, cpu: usize) -> usize {
        self.runs[cpu].load(Ordering::Relaxed)
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
                *slot = hand.alloc(FrameLayout::SINGLE).unwrap_or(PhysAddr::from(0));
            } else {
                hand.free(*slot, FrameLayout::SINGLE);
                *slot = PhysAddr::from(0);
            }
            if round % 16 == 0 {
                drop(Box::new([round; 40])); // the heap, too, is interrupted
                if BEHIND[neighbour].load(Ordering::Acquire) == sent {
                    sent += 1;
                    apic::send_nmi(smp::apic_id(neighbour));
                }
            }
            // Go on until everybody has seen enough: the neighbour waits for this CPU's NMIs.
            if !enough && TIMERS.runs(cpu) >= WANTED && NMIS.runs(cpu) >= WANTED {
                enough = true;
                satisfied.fetch_add(1, Ordering::Relaxed);
            }
            if enough && satisfied.load(Ordering::Relaxed) == bench.cpus {
                break;
            }
        }
        apic::stop_timer();
        machine_interrupts::disable();
        for frame in held.into_iter().filter(|frame| frame.as_usize() != 0) {
            hand.free(frame, FrameLayout::SINGLE);
        }
    });
    // The last NMIs are on their way.
    smp::on_all_cpus(&|_| port::pause_us(1000));
    smp::on_all_cpus(&|_| {
        TIMERS.clear::<S>();
        NMIS.clear::<S>();
    });
    for cpu in 0..bench.cpus {
        let (timers, nmis) = (TIMERS.runs(cpu), NMIS.runs(cpu));
        check!(timers >= WANTED, "CPU {cpu} saw {timers} timer interrupts");
        check!(nmis >= WANTED, "CPU {cpu} saw {nmis} NMIs");
    }
    let sum = |handler: &Handler| (0..bench.cpus).map(|cpu| handler.runs(cpu)).sum::<usize>();
    println!("{} timer interrupts, {} NMIs", sum(&TIMERS), sum(&NMIS));
}
