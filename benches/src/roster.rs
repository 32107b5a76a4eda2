//! Who takes part.

use std::ops::Range;

use crate::{contender::Race, ours, peers, yardstick};

/// What a contender is to this project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A limit, not an allocator of frames.
    Yardstick,
    /// One of this project's combinations.
    Ours,
    /// Somebody else's.
    Peer,
}

/// A contender and how to set it up over an arena.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "a row of a table")]
pub struct Entry {
    /// Its name in tables.
    pub name: &'static str,
    /// What it is to this project.
    pub kind: Kind,
    /// Sets it up over memory that nobody else uses.
    pub build: fn(Range<usize>) -> Box<dyn Race>,
    /// Work whose cost grows with the size of memory; `false` where a run would take minutes.
    pub bulk: bool,
    /// Runs of several orders; `false` where a run would take minutes.
    pub runs: bool,
}

const fn entry(name: &'static str, kind: Kind, build: fn(Range<usize>) -> Box<dyn Race>) -> Entry {
    Entry { name, kind, build, bulk: true, runs: true }
}

/// Everybody, yardsticks first. To add an allocator from elsewhere, implement [`Contender`](crate::Contender) for it
/// and give it a line here.
pub fn roster() -> Vec<Entry> {
    use Kind::{Ours, Peer, Yardstick};
    vec![
        entry("null", Yardstick, |_| Box::new(yardstick::Null)),
        entry("floor", Yardstick, |a| Box::new(yardstick::Floor::new(a.start, a.len() / 4096))),
        entry("percpu-tree", Ours, |a| Box::new(ours::percpu_tree(a))),
        entry("percpu-tree checked", Ours, |a| Box::new(ours::percpu_tree_checked(a))),
        entry("percpu-tree PhysFrame", Ours, |a| Box::new(ours::raii(a))),
        entry("percpu-bitmap", Ours, |a| Box::new(ours::percpu_bitmap(a))),
        entry("percpu-buddy", Ours, |a| Box::new(ours::percpu_buddy(a))),
        entry("tree", Ours, |a| Box::new(ours::tree(a))),
        entry("bitmap", Ours, |a| Box::new(ours::bitmap(a))),
        entry("buddy", Ours, |a| Box::new(ours::buddy(a))),
        entry("frame-alloc Depot", Peer, |a| Box::new(peers::Depot::new(a))),
        entry("frame-alloc SummaryBuddy", Peer, |a| Box::new(peers::Summary::new(a))),
        Entry { runs: false, ..entry("bitmap-allocator 1M", Peer, |a| Box::new(peers::RawBitmap::new(a))) },
        Entry { runs: false, ..entry("axallocator bitmap", Peer, |a| Box::new(peers::AxBitmap::new(a))) },
        entry("buddy-slab-allocator", Peer, |a| Box::new(peers::BuddySlab::new(a))),
        entry("buddy_system FrameAllocator", Peer, |a| Box::new(peers::RawBuddy::new(a))),
        Entry {
            bulk: false,
            runs: false,
            ..entry("buddy_system Heap", Peer, |a| Box::new(peers::RawHeap::new(a)))
        },
        Entry {
            bulk: false,
            runs: false,
            ..entry("free-list (Hermit)", Peer, |a| Box::new(peers::HermitFreeList::new(a)))
        },
        entry("mimalloc, aligned", Yardstick, |_| Box::new(peers::Mimalloc)),
        entry("C library, posix_memalign", Yardstick, |_| Box::new(peers::System)),
    ]
}
