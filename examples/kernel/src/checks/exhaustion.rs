//! Memory exhausted to the last frame, by one CPU and by all, and given back.

use core::sync::atomic::{AtomicUsize, Ordering};

use frame_allocator::{AllocError, FRAME_SIZE, FrameAllocator, FrameLayout, PhysAddr};
use machine::{port, smp};

use super::{
    Bench,
    hand::{read_word, write_word},
};
use crate::{
    backends::{Backend, Subject},
    check, check_eq,
    ledger::{self, Fault},
};

/// Every frame comes once; then there is none; every other one given back makes no run of two; and in the end memory is
/// as whole as before.
pub fn one_cpu<S: Subject>(bench: &Bench<S>) {
    let allocator = S::allocator();
    bench.settle();
    let whole = bench.free_runs();
    let free = allocator.stats().free_frames;

    check_eq!(take_all::<S>(0), free, "frames until there is none");
    check_eq!(allocator.alloc_frame(), Err(AllocError::NoMemory), "one more frame");
    check_eq!(allocator.alloc(FrameLayout::HUGE_2M), Err(AllocError::NoMemory), "a huge frame");
    check_eq!(ledger::free().count(), bench.heap(), "frames that were never handed out");

    // RAM behind each of them, and a different one. On a large machine a part of them: the emulator's host has to
    // find memory for what is written.
    let low = bench.map.frames().next().map_or(PhysAddr::from(0), |range| range.start() + LOW);
    let sample = || ledger::held_by(0).filter(|&frame| frame < low || frame.as_usize() % (16 << 20) == 0);
    for frame in sample() {
        // SAFETY: handed out above.
        unsafe { write_word(frame, !frame.as_usize() as u64) };
    }
    // SAFETY: handed out above.
    let intact = sample().all(|frame| unsafe { read_word(frame) } == !frame.as_usize() as u64);
    check!(intact, "each frame keeps what was written to it");

    let even = |frame: &PhysAddr| frame.as_usize() / FRAME_SIZE % 2 == 0;
    let freed = give_all::<S>(0, even);
    bench.settle();
    check_eq!(allocator.stats().free_frames, freed, "free frames, every other one");
    let pair = FrameLayout::contiguous(2).expect("two frames");
    check_eq!(allocator.alloc(pair), Err(AllocError::NoMemory), "two frames in a row");
    check_eq!(give_all::<S>(0, |_| true), free - freed, "the other frames");
    bench.settle();
    check_eq!(bench.free_runs(), whole, "free runs");
}

/// So much memory is looked at frame by frame.
const LOW: usize = 1 << 30;

/// All CPUs take what they can get; together they get every frame. Each frees what its neighbour took.
pub fn all_cpus<S: Subject>(bench: &Bench<S>) {
    bench.settle();
    let whole = bench.free_runs();
    let free = S::allocator().stats().free_frames;

    let (taken, freed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    smp::on_all_cpus(&|cpu| _ = taken.fetch_add(take_all::<S>(cpu), Ordering::Relaxed));
    check_eq!(taken.load(Ordering::Relaxed), free, "frames that the CPUs got");
    check_eq!(S::allocator().alloc_frame(), Err(AllocError::NoMemory), "one more frame");

    smp::on_all_cpus(&|cpu| {
        let neighbour = (cpu + 1) % bench.cpus;
        freed.fetch_add(give_all::<S>(neighbour, |_| true), Ordering::Relaxed);
    });
    check_eq!(freed.load(Ordering::Relaxed), free, "frames given back");
    bench.settle();
    check_eq!(bench.free_runs(), whole, "free runs");
}

/// Frames in the caches of CPUs that do nothing come back before memory is said to be exhausted.
pub fn idle_caches<S: Subject>(bench: &Bench<S>) {
    let Some(cache) = S::allocator().cache() else { return };
    let free = S::allocator().stats().free_frames;
    smp::on_all_cpus(&|cpu| {
        let mut frames = [PhysAddr::from(0); 100];
        for frame in &mut frames {
            match S::allocator().alloc_frame() {
                Ok(got) => *frame = got,
                Err(_) => _ = ledger::fault(Fault::NoMemory, PhysAddr::from(cpu)),
            }
        }
        for frame in frames {
            // SAFETY: allocated above.
            let _ = unsafe { S::allocator().dealloc_frame(frame) };
        }
    });
    for cpu in 0..bench.cpus {
        check!(cache.stats(cpu).cached_frames > 0, "CPU {cpu} keeps some frames");
    }
    // A CPU that sleeps needs a moment to hear that it is asked: some seconds, if the host has much else to do.
    let mut taken = 0;
    for _ in 0..100_000 {
        taken += take_all::<S>(0);
        if taken == free {
            break;
        }
        port::pause_us(100);
    }
    check_eq!(taken, free, "frames until there is none");
    check_eq!(cache.cached_frames(), 0, "frames in caches");
    check_eq!(give_all::<S>(0, |_| true), free, "frames given back");
}

/// Takes frames until there is none. Returns how many.
pub fn take_all<S: Subject>(owner: usize) -> usize {
    let mut taken = 0;
    while let Ok(frame) = S::allocator().alloc_frame() {
        ledger::take(frame, 1, owner);
        taken += 1;
    }
    taken
}

/// Frees those of an owner's frames that `which` names. Returns how many.
pub fn give_all<S: Subject>(owner: usize, which: impl Fn(&PhysAddr) -> bool) -> usize {
    let mut given = 0;
    for frame in ledger::held_by(owner).filter(which) {
        ledger::give(frame, 1, owner);
        // SAFETY: the owner took it by `take_all`, and nothing uses it.
        if let Err(refused) = unsafe { S::allocator().dealloc_frame(frame) } {
            ledger::fault(Fault::Refused, refused.frame);
        }
        given += 1;
    }
    given
}
