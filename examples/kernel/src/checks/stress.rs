//! All CPUs at once.

use core::sync::atomic::{AtomicUsize, Ordering};

use frame_allocator::{FrameLayout, PhysAddr};
use machine::{cpu::MAX_CPUS, smp};

use super::{Bench, hand::Hand, random::Random};
use crate::{
    backends::Subject,
    check,
    ledger::{self, Fault},
};

/// Allocations that a CPU holds at a time.
const HELD: usize = 64;

/// Each CPU allocates and frees at random, single frames mostly.
pub fn stress<S: Subject>(bench: &Bench<S>) {
    let done = AtomicUsize::new(0);
    smp::on_all_cpus(&|cpu| {
        let hand = Hand::<S>::new(cpu);
        let mut random = Random::new(cpu as u64 + 100);
        let mut held: [Option<(PhysAddr, FrameLayout)>; HELD] = [None; HELD];
        for _ in 0..bench.operations {
            let slot = &mut held[random.below(HELD)];
            *slot = match slot.take() {
                Some((start, layout)) => {
                    hand.free(start, layout);
                    None
                }
                None => {
                    let layout = layout(&mut random);
                    match hand.alloc(layout) {
                        Ok(start) => Some((start, layout)),
                        Err(_) if layout.count() > 1 => None, // large runs may not fit into a small memory
                        Err(_) => {
                            ledger::fault(Fault::NoMemory, PhysAddr::from(0));
                            None
                        }
                    }
                }
            };
        }
        for (start, layout) in held.into_iter().flatten() {
            hand.free(start, layout);
        }
        done.fetch_add(1, Ordering::Relaxed);
    });
    check!(done.load(Ordering::Relaxed) == bench.cpus, "every CPU took part");
}

fn layout(random: &mut Random) -> FrameLayout {
    let layout = match random.below(64) {
        0 => Ok(FrameLayout::HUGE_2M),
        1..4 => FrameLayout::contiguous(64),
        4..8 => FrameLayout::new(1 + random.below(15), 0x1000 << random.below(5)),
        8..12 => FrameLayout::contiguous(1 + random.below(100)),
        _ => Ok(FrameLayout::SINGLE),
    };
    layout.expect("small counts, powers of two")
}

/// Rounds until a CPU gives up: some seconds.
const PATIENCE: usize = 50_000_000;

/// Places where a CPU leaves frames for its neighbour.
const PLACES: usize = 64;

/// Each CPU allocates, and its neighbour frees, until every CPU has freed its share.
pub fn cross_cpu<S: Subject>(bench: &Bench<S>) {
    static MAIL: [[AtomicUsize; PLACES]; MAX_CPUS] =
        [const { [const { AtomicUsize::new(0) }; PLACES] }; MAX_CPUS];
    let share = bench.operations / 8;
    let (freed, satisfied) = (AtomicUsize::new(0), AtomicUsize::new(0));

    // Frees what lies in a place of this CPU: the one before it left it there.
    let receive = |cpu: usize, place: usize| {
        let frame = MAIL[cpu][place].swap(0, Ordering::AcqRel);
        if frame != 0 {
            Hand::<S>::new((cpu + bench.cpus - 1) % bench.cpus)
                .free(PhysAddr::from(frame), FrameLayout::SINGLE);
        }
        usize::from(frame != 0)
    };
    smp::on_all_cpus(&|cpu| {
        let hand = Hand::<S>::new(cpu);
        let mut random = Random::new(cpu as u64 + 200);
        let (mut received, mut enough) = (0, false);
        for _ in 0..PATIENCE {
            received += receive(cpu, random.below(PLACES));
            let place = &MAIL[(cpu + 1) % bench.cpus][random.below(PLACES)];
            if place.load(Ordering::Relaxed) == 0 {
                match hand.alloc(FrameLayout::SINGLE) {
                    // Nobody else writes to an empty place.
                    Ok(frame) => place.store(frame.as_usize(), Ordering::Release),
                    Err(_) => _ = ledger::fault(Fault::NoMemory, PhysAddr::from(0)),
                }
            }
            if !enough && received >= share {
                enough = true;
                satisfied.fetch_add(1, Ordering::Relaxed);
            }
            // Go on until everybody has had enough: the neighbour waits for this CPU's frames.
            if satisfied.load(Ordering::Relaxed) == bench.cpus {
                break;
            }
        }
        freed.fetch_add(received, Ordering::Relaxed);
    });
    smp::on_all_cpus(&|cpu| (0..PLACES).for_each(|place| _ = receive(cpu, place)));
    let (freed, wanted) = (freed.load(Ordering::Relaxed), bench.cpus * share);
    check!(freed >= wanted, "{freed} frames were freed by another CPU, {wanted} are wanted");
}
