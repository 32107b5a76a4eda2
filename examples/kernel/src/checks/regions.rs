//! What the allocator was given: all of it, nothing else, and later more.

use core::sync::atomic::{AtomicUsize, Ordering};

use frame_allocator::{
    AllocError, FRAME_SIZE, FrameAllocator, FrameLayout, FrameRange, PhysAddr, RegionError,
};
use frame_testkit::Metadata;
use machine::smp;

use super::{Bench, exhaustion, hand::Hand, random::Random};
use crate::{
    backends::{Backend, Subject},
    check, check_eq,
    ledger::{self, Fault},
    memory,
};

/// The allocator has exactly the frames of the firmware's map that nothing else uses.
pub fn map<S: Subject>(bench: &Bench<S>) {
    bench.settle();
    let given = bench.map.frame_count();
    let stats = S::allocator().stats();
    check_eq!(stats.total_frames, given, "frames managed");
    check_eq!(bench.used(), 0, "frames in use at the start");

    let (mut free, mut end, mut ordered, mut in_use) = (0, 0, true, 0);
    S::allocator().visit_free(&mut |run| {
        let bytes = run.start().as_usize()..run.end().as_usize();
        ordered &= end <= bytes.start;
        end = bytes.end;
        free += run.count();
        let overlaps = |other: &core::ops::Range<usize>| other.start < bytes.end && bytes.start < other.end;
        in_use += memory::in_use(bench.boot).filter(overlaps).count();
    });
    check_eq!(free, given - bench.heap(), "free frames that it shows");
    check!(ordered, "free runs come in order and do not overlap");
    check_eq!(in_use, 0, "free runs that overlap the kernel or what the boot loader left");
    check_eq!(ledger::free().count(), given, "frames in the ledger");
    check!(ledger::free().all(|frame| frame.as_usize() != 0), "frame 0 is no frame");
}

/// The owner, in the ledger, of frames that are out of service.
const OUT_OF_SERVICE: usize = 150;

/// CPU 0 takes free frames out of service, and some of them back, while the others allocate and free. What is out is
/// neither handed out nor counted.
pub fn offlining<S: Subject>(bench: &Bench<S>) {
    let allocator = S::allocator();
    let Some(tree) = allocator.tree() else { return };
    let region = bench.map.frames().max_by_key(|range| range.count()).expect("a machine with memory");
    let total = allocator.stats().total_frames;
    let offline = AtomicUsize::new(0);
    smp::on_all_cpus(&|cpu| {
        let hand = Hand::<S>::new(cpu);
        let mut random = Random::new(cpu as u64 + 400);
        for round in 0..bench.operations {
            let layout = FrameLayout::contiguous(1 + round % 2 * 7).expect("a few frames");
            if let Ok(start) = hand.alloc(layout) {
                hand.free(start, layout);
            }
            if cpu == 0 && round % 16 == 0 {
                let count = 1 + random.below(100);
                let at = region.start() + random.below(region.count() - count) * FRAME_SIZE;
                let range = FrameRange::new(at, count).expect("inside of the region");
                // Often in use, or out already: then it is refused.
                if tree.offline(range).is_ok() {
                    ledger::take(at, count, OUT_OF_SERVICE);
                    offline.fetch_add(count, Ordering::Relaxed);
                    if round % 32 == 0 {
                        ledger::give(at, count, OUT_OF_SERVICE);
                        // SAFETY: taken out of service just now.
                        let back = unsafe { tree.online(range) };
                        check_or_fault(back.is_ok(), at);
                        offline.fetch_sub(count, Ordering::Relaxed);
                    }
                }
            }
        }
    });
    let offline = offline.load(Ordering::Relaxed);
    check!(offline > 0, "some frames are out of service");
    check_eq!(allocator.stats().total_frames, total - offline, "frames managed meanwhile");

    let hand = Hand::<S>::new(0);
    let Ok(frame) = allocator.alloc(FrameLayout::contiguous(2).expect("two frames")) else {
        check!(false, "two frames");
        return;
    };
    hand.took(frame, 2);
    let held = FrameRange::new(frame, 2).expect("two frames");
    check_eq!(tree.offline(held), Err(AllocError::InUse), "frames in use");
    hand.free(frame, FrameLayout::contiguous(2).expect("two frames"));
    let kernel = FrameRange::new(PhysAddr::from(machine::image().start), 1).expect("a frame");
    check_eq!(tree.offline(kernel), Err(AllocError::NotManaged), "the kernel's own memory");

    bench.settle();
    let free = allocator.stats().free_frames;
    check_eq!(exhaustion::take_all::<S>(0), free, "frames that can be had");
    check_eq!(exhaustion::give_all::<S>(0, |_| true), free, "and given back");

    let mut back = 0;
    for frame in ledger::held_by(OUT_OF_SERVICE) {
        ledger::give(frame, 1, OUT_OF_SERVICE);
        // SAFETY: taken out of service above.
        let online = unsafe { tree.online(FrameRange::new(frame, 1).expect("a frame")) };
        check_or_fault(online.is_ok(), frame);
        back += 1;
    }
    check_eq!(back, offline, "frames taken back");
    check_eq!(allocator.stats().total_frames, total, "frames managed in the end");
}

fn check_or_fault(right: bool, frame: PhysAddr) {
    if !right {
        ledger::fault(Fault::Refused, frame);
    }
}

/// A region is added by CPU 0 while the others allocate and free.
pub fn added_in_use<S: Subject>(bench: &Bench<S>) {
    let Some((region, metadata)) = bench.later.lock().take() else { return };
    let allocator = S::allocator();
    let before = allocator.stats().total_frames;
    let metadata = crate::irq_lock::Mutex::new(Some(metadata));
    let added = AtomicUsize::new(0);
    smp::on_all_cpus(&|cpu| {
        let hand = Hand::<S>::new(cpu);
        for round in 0..bench.operations / 10 {
            if let Ok(frame) = hand.alloc(FrameLayout::SINGLE) {
                hand.free(frame, FrameLayout::SINGLE);
            }
            if cpu == 0 && round == bench.operations / 20 {
                let metadata = metadata.lock().take().expect("taken once");
                ledger::add(region);
                // SAFETY: the region was taken out of the map for this.
                let result = unsafe { allocator.add_region(region, metadata) };
                added.store(usize::from(result.is_ok()), Ordering::Relaxed);
            }
        }
    });
    bench.settle();
    check_eq!(added.load(Ordering::Relaxed), 1, "the region was taken");
    check_eq!(allocator.stats().total_frames, before + region.count(), "frames managed");

    // All of it can be had.
    check_eq!(allocator.alloc_at(region), Ok(()), "the whole region");
    let hand = Hand::<S>::new(0);
    hand.took(region.start(), region.count());
    hand.free(region.start(), FrameLayout::contiguous(region.count()).expect("a region's count"));

    let again = FrameRange::new(region.start(), 1).expect("a frame");
    let metadata = Metadata::leaked(S::Allocator::metadata_layout(again));
    // SAFETY: by contract a region that is managed already is refused.
    let refused = unsafe { allocator.add_region(again, metadata) };
    check!(matches!(refused, Err(RegionError::Overlap { .. })), "added twice: {refused:?}");
}
