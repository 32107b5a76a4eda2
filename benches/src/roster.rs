//! Who takes part.

use std::{ops::Range, time::Duration};

#[cfg(feature = "peers")]
use crate::peers;
use crate::{contender::Race, ours, yardstick};

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

/// How the taking over of memory is timed.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// It has no start of its own.
    None,
    /// All of [`Entry::build`].
    Built,
    /// By a function that times it without what a kernel does beforehand (finding memory for the books).
    Alone(fn(Range<usize>) -> Duration),
}

/// What an allocator needs beside the memory that it hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Books {
    /// Bytes for 1 GiB, where that is a number.
    pub bytes: Option<usize>,
    /// What else there is to say.
    pub note: &'static str,
}

impl Books {
    /// These bytes, known from the allocator's own interface or the sizes of its types.
    pub const fn bytes(bytes: usize, note: &'static str) -> Self {
        Self { bytes: Some(bytes), note }
    }

    /// No number.
    pub const fn told(note: &'static str) -> Self {
        Self { bytes: None, note }
    }
}

/// A contender and how to set it up over an arena.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "a row of a table")]
pub struct Entry {
    /// Its name in tables.
    pub name: &'static str,
    /// The package that it comes from.
    pub package: &'static str,
    /// What it is to this project.
    pub kind: Kind,
    /// Sets it up over memory that nobody else uses.
    pub build: fn(Range<usize>) -> Box<dyn Race>,
    /// Work whose cost grows with what is held; `false` where a run would take minutes.
    pub bulk: bool,
    /// Runs of several orders; `false` where a run would take minutes.
    pub runs: bool,
    /// Whether it hands out runs of 2 MiB at all.
    pub two_mib: bool,
    /// How its start is timed.
    pub start: Start,
    /// The most memory, in bytes, that it can start with (or that it starts with in reasonable time and space).
    pub most: usize,
    /// What it needs beside the memory that it hands out.
    pub books: fn() -> Books,
}

/// Everybody, yardsticks first. To add an allocator from elsewhere, implement [`Contender`](crate::Contender) for it
/// and give it a line here; the package's README shows both.
pub fn roster() -> Vec<Entry> {
    let mut roster = yardsticks();
    roster.extend(of_this_project());
    #[cfg(feature = "peers")]
    {
        roster.extend(of_others());
        roster.extend(heaps());
    }
    roster
}

fn yardsticks() -> Vec<Entry> {
    let yardstick = |name, build| Entry { start: Start::None, ..entry(name, "", Kind::Yardstick, build) };
    vec![
        yardstick("null", |_| Box::new(yardstick::Null)),
        yardstick("floor", |a| Box::new(yardstick::Floor::new(a.start, a.len() / 4096))),
    ]
}

fn of_this_project() -> Vec<Entry> {
    // A cache starts when its backend has started.
    let ours =
        |name, build| Entry { start: Start::None, ..entry(name, "frame-allocator", Kind::Ours, build) };
    vec![
        Entry { books: ours::cached_tree_books, ..ours("percpu-tree", |a| Box::new(ours::percpu_tree(a))) },
        Entry {
            books: ours::checked_tree_books,
            ..ours("percpu-tree checked", |a| Box::new(ours::percpu_tree_checked(a)))
        },
        Entry {
            two_mib: false,
            books: ours::cached_tree_books,
            ..ours("percpu-tree PhysFrame", |a| Box::new(ours::raii(a)))
        },
        ours("percpu-bitmap", |a| Box::new(ours::percpu_bitmap(a))),
        ours("percpu-buddy", |a| Box::new(ours::percpu_buddy(a))),
        Entry {
            start: Start::Alone(ours::start_tree),
            books: ours::tree_books,
            ..ours("tree", |a| Box::new(ours::tree(a)))
        },
        Entry {
            start: Start::Built,
            books: ours::bitmap_books,
            ..ours("bitmap", |a| Box::new(ours::bitmap(a)))
        },
        Entry { start: Start::Built, books: heap_books, ..ours("buddy", |a| Box::new(ours::buddy(a))) },
    ]
}

#[cfg(feature = "peers")]
fn of_others() -> Vec<Entry> {
    let peer = |name, package, build| entry(name, package, Kind::Peer, build);
    vec![
        Entry {
            books: peers::Summary::books,
            ..peer("frame-alloc Depot", "frame-alloc", |a| Box::new(peers::Depot::new(a)))
        },
        Entry {
            books: peers::Summary::books,
            ..peer("frame-alloc SummaryBuddy", "frame-alloc", |a| Box::new(peers::Summary::new(a)))
        },
        Entry {
            runs: false,
            most: 4 << 30,
            books: peers::RawBitmap::books,
            ..peer("bitmap-allocator 1M", "bitmap-allocator", |a| Box::new(peers::RawBitmap::new(a)))
        },
        Entry {
            runs: false,
            most: 4 << 30,
            books: peers::AxBitmap::books,
            ..peer("axallocator bitmap", "axallocator", |a| Box::new(peers::AxBitmap::new(a)))
        },
        Entry {
            // Its books for 1 TiB are 3 GiB, written at the start.
            most: 64 << 30,
            books: peers::BuddySlab::books,
            ..peer("buddy-slab-allocator", "buddy-slab-allocator", |a| Box::new(peers::BuddySlab::new(a)))
        },
        Entry {
            books: heap_books,
            ..peer("buddy_system FrameAllocator", "buddy_system_allocator", |a| {
                Box::new(peers::RawBuddy::new(a))
            })
        },
        Entry {
            bulk: false,
            runs: false,
            books: || Books::told("none: lists in the free memory"),
            ..peer("buddy_system Heap", "buddy_system_allocator", |a| Box::new(peers::RawHeap::new(a)))
        },
        Entry {
            bulk: false,
            runs: false,
            books: heap_books,
            ..peer("free-list (Hermit)", "free-list", |a| Box::new(peers::HermitFreeList::new(a)))
        },
    ]
}

#[cfg(feature = "peers")]
fn heaps() -> Vec<Entry> {
    let heap =
        |name, package, build| Entry { start: Start::None, ..entry(name, package, Kind::Yardstick, build) };
    vec![
        heap("mimalloc, aligned", "mimalloc", |_| Box::new(peers::Mimalloc)),
        // Touches every page that it hands out: a gigabyte held would be a gigabyte used.
        Entry { bulk: false, ..heap("posix_memalign", "", |_| Box::new(peers::System)) },
    ]
}

fn heap_books() -> Books {
    Books::told("on the heap, as free memory falls to pieces")
}

fn entry(
    name: &'static str,
    package: &'static str,
    kind: Kind,
    build: fn(Range<usize>) -> Box<dyn Race>,
) -> Entry {
    Entry {
        name,
        package,
        kind,
        build,
        bulk: true,
        runs: true,
        two_mib: true,
        start: Start::Built,
        most: 1 << 40,
        books: || Books::told(""),
    }
}
