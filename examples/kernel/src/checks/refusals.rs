//! Bad frees are refused, say which frame is wrong and why, and change nothing.

use frame_allocator::{
    DeallocError, DeallocErrorKind as Kind, FRAME_SIZE, FrameAllocator, FrameLayout, FrameRange, PhysAddr,
};

use super::{
    Bench,
    hand::{Hand, free_wrongly},
};
use crate::{
    backends::{Backend, Subject},
    check, check_eq,
};

pub fn refusals<S: Subject>(bench: &Bench<S>) {
    let hand = Hand::<S>::new(0);
    // Counts that are no power of two: a cache that trusts keeps no such run, so that every allocator sees these at once.
    let three = FrameLayout::contiguous(3).expect("three frames");
    let six = FrameLayout::new(6, 8 * FRAME_SIZE).expect("six frames");
    let error = |frame, kind| Err(DeallocError::new(frame, kind));

    let Ok(run) = hand.alloc(six) else {
        check!(false, "six frames");
        return;
    };
    // Ownership is by the frame: a part may go on its own, and then it is free.
    let (second, fourth) = (run + FRAME_SIZE, run + 3 * FRAME_SIZE);
    hand.free(fourth, three);
    check_eq!(bench.used(), 3, "frames in use after a part was freed");
    check_eq!(free_wrongly::<S>(run, six), error(fourth, Kind::NotAllocated), "a run, half of it free");
    check_eq!(bench.used(), 3, "frames in use after a refusal");
    check_eq!(free_wrongly::<S>(fourth, three), error(fourth, Kind::NotAllocated), "a double free of a run");
    check_eq!(free_wrongly::<S>(second, six), error(second, Kind::Misaligned), "a misaligned free");
    hand.free(run, three);

    let image = PhysAddr::from(machine::image().start);
    check_eq!(free_wrongly::<S>(image, three), error(image, Kind::NotManaged), "frames of the kernel");
    let beyond = PhysAddr::from(machine::MAPPED_BYTES);
    check_eq!(free_wrongly::<S>(beyond, three), error(beyond, Kind::NotManaged), "frames beyond all memory");
    let zero = PhysAddr::from(0);
    let refused = free_wrongly::<S>(zero, three);
    check!(matches!(refused, Err(DeallocError { frame, .. }) if frame == zero), "frame 0: {refused:?}");

    let Ok(single) = hand.alloc(FrameLayout::SINGLE) else {
        check!(false, "a frame");
        return;
    };
    let odd = single + 8;
    check_eq!(
        free_wrongly::<S>(odd, FrameLayout::SINGLE),
        error(odd, Kind::Misaligned),
        "not a frame's address"
    );
    hand.free(single, FrameLayout::SINGLE);
    let twice = free_wrongly::<S>(single, FrameLayout::SINGLE);
    if S::Allocator::REFUSES_AT_ONCE {
        check_eq!(twice, error(single, Kind::NotAllocated), "a double free");
        check_eq!(
            free_wrongly::<S>(image, FrameLayout::SINGLE),
            error(image, Kind::NotManaged),
            "a frame of the kernel"
        );
    } else {
        // The trusting cache takes it, twice; the backend refuses the second when the cache hands both back.
        let refusals = || S::allocator().cache().map_or(0, |cache| cache.stats(0).refusals);
        let before = refusals();
        check_eq!(twice, Ok(()), "a double free into a trusting cache");
        bench.settle();
        check_eq!(refusals(), before + 1, "refused when it came back");
    }

    let range = FrameRange::new(image, 1).expect("a frame");
    check!(S::allocator().alloc_at(range).is_err(), "a frame of the kernel cannot be allocated");
}
