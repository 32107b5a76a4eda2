//! The request flag under every interleaving: whoever sees its request answered sees the frames in the backend.

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering};
}
#[path = "../src/request.rs"]
mod request;

use std::sync::atomic::{AtomicUsize, Ordering::*};

use loom::sync::{
    Arc,
    atomic::{AtomicUsize as LoomUsize, Ordering},
};
use request::Request;

/// A slot that holds one frame, and a backend that is a counter without any ordering of its own: only the flag orders.
struct World {
    request: Request,
    slot: LoomUsize,
    backend: LoomUsize,
}

/// One operation of the owner: looks at the flag, and serves.
fn owner(world: &World) {
    if world.request.length() == 0 {
        let frames = world.slot.load(Ordering::Relaxed);
        world.slot.store(0, Ordering::Relaxed);
        let before = world.backend.load(Ordering::Relaxed);
        world.backend.store(before + frames, Ordering::Relaxed);
        world.request.answer();
    }
}

/// Asks, looks once whether there is an answer, and if so takes what is there.
fn asker(world: &World) -> (bool, bool) {
    let asked = world.request.ask();
    let answered = !world.request.is_pending();
    if answered {
        assert_eq!(world.backend.load(Ordering::Relaxed), 1, "answered, but the frame is not there");
    }
    (asked, answered)
}

#[test]
fn an_answer_means_that_the_frames_are_there() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    static ANSWERED: AtomicUsize = AtomicUsize::new(0);
    static UNANSWERED: AtomicUsize = AtomicUsize::new(0);
    static SECOND: AtomicUsize = AtomicUsize::new(0);
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        RUNS.fetch_add(1, Relaxed);
        let world = Arc::new(World {
            request: Request(sync::AtomicUsize::new(request::STACK)),
            slot: LoomUsize::new(1),
            backend: LoomUsize::new(0),
        });
        // The main thread only spawns and joins.
        let askers: Vec<_> = (0..2)
            .map(|_| {
                let world = world.clone();
                loom::thread::spawn(move || asker(&world))
            })
            .collect();
        let owned = {
            let world = world.clone();
            loom::thread::spawn(move || {
                owner(&world);
                owner(&world);
            })
        };
        owned.join().unwrap();
        let results: Vec<_> = askers.into_iter().map(|asker| asker.join().unwrap()).collect();
        // Somebody raised the flag first.
        assert!(results.iter().any(|(asked, _)| *asked));
        for (asked, answered) in results {
            if answered { &ANSWERED } else { &UNANSWERED }.fetch_add(1, Relaxed);
            SECOND.fetch_add(usize::from(!asked), Relaxed);
        }
        // A request that stands is served by the owner's next operation, and nothing is lost.
        owner(&world);
        assert!(!world.request.is_pending());
        let frames = world.slot.load(Ordering::Relaxed) + world.backend.load(Ordering::Relaxed);
        assert_eq!(frames, 1);
    });
    // Every outcome was seen: loom explored.
    assert!(RUNS.load(Relaxed) > 100, "{} runs", RUNS.load(Relaxed));
    assert!(ANSWERED.load(Relaxed) > 0 && UNANSWERED.load(Relaxed) > 0 && SECOND.load(Relaxed) > 0);
}
