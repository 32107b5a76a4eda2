//! The allocators that are compared, by name.
//!
//! Work on an allocator is written once, generic over [`FrameAllocator`], as a [`Job`]; [`Backend::run`] builds
//! the allocator that a name stands for, over the frames of a memory map, and runs the job on it. So each backend is
//! compiled with the replay loop inlined into it, and none is reached through a pointer.
//!
//! A backend of several CPUs needs to know on which one it runs. A replay says so for each operation
//! ([`on_cpu`]), and the caches read it back through [`ReplayCpus`].

use std::{cell::Cell, fmt, mem::MaybeUninit};

use frame_bitmap::Bitmap;
use frame_buddy::Buddy;
use frame_core::{FRAME_SIZE, FrameAllocator, FrameRange, RegionError};
use frame_percpu::{CpuIndex, CpuSlot, PerCpu, PinCpu};
use frame_tree::Tree;

use crate::memory::{human_bytes, human_count};

/// An allocator that can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    store: Store,
    cached: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    Buddy,
    Bitmap,
    Tree,
}

/// Every backend, in the order of the table.
pub(crate) const ALL: &[Backend] = &[
    plain("buddy", "a buddy system behind a lock (buddy_system_allocator)", Store::Buddy),
    plain("bitmap", "a hierarchical bitmap behind a lock (bitmap-allocator)", Store::Bitmap),
    plain("tree", "the lock-free tree", Store::Tree),
    cached("percpu-buddy", "the buddy system with a cache for each CPU in front", Store::Buddy),
    cached("percpu-bitmap", "the bitmap with a cache for each CPU in front", Store::Bitmap),
    cached("percpu-tree", "the tree with a cache for each CPU in front", Store::Tree),
];

const fn plain(name: &'static str, about: &'static str, store: Store) -> Backend {
    Backend { name, about, store, cached: false }
}

const fn cached(name: &'static str, about: &'static str, store: Store) -> Backend {
    Backend { name, about, store, cached: true }
}

/// The memory and the machine that an allocator is built for.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// Disjoint, sorted, without frame 0.
    pub(crate) regions: Vec<FrameRange>,
    /// CPUs that caches need slots for.
    pub(crate) cpus: usize,
    /// Each CPU is a thread of its own; otherwise one thread stands for all of them.
    pub(crate) threads: bool,
}

impl Setting {
    pub(crate) fn frames(&self) -> usize {
        self.regions.iter().map(|region| region.count()).sum()
    }
}

/// Work on an allocator of any type.
pub(crate) trait Job {
    type Out;

    /// `drain` empties the caches, so that `visit_free` sees every free frame; nothing else may run meanwhile.
    fn run<A: FrameAllocator>(self, allocator: &A, drain: &dyn Fn()) -> Self::Out;
}

impl Backend {
    /// The backend of that name.
    pub(crate) fn by_name(name: &str) -> Result<Self, UnknownBackend> {
        ALL.iter()
            .copied()
            .find(|backend| backend.name == name)
            .ok_or_else(|| UnknownBackend(name.to_owned()))
    }

    /// The backends of a comma-separated list, in its order, each once.
    pub(crate) fn list(names: &str) -> Result<Vec<Self>, UnknownBackend> {
        let mut list = Vec::new();
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let backend = Self::by_name(name)?;
            if !list.contains(&backend) {
                list.push(backend);
            }
        }
        if list.is_empty() { Err(UnknownBackend(names.to_owned())) } else { Ok(list) }
    }

    /// Builds the allocator and runs `job` on it.
    pub(crate) fn run<J: Job>(self, setting: &Setting, job: J) -> Result<J::Out, BuildError> {
        if setting.frames() > MOST_FRAMES {
            return Err(BuildError::TooMuch { frames: setting.frames() });
        }
        let failed = |error| BuildError::Refused { backend: self.name, error };
        // A macro, not a function: the stores have these methods in common, but no trait.
        macro_rules! build_with_metadata {
            ($store:ty) => {{
                let layout = |&region: &FrameRange| Metadata::new(<$store>::metadata_layout(region));
                let mut metadata: Vec<_> = setting.regions.iter().map(layout).collect();
                let store = <$store>::new();
                for (&region, metadata) in setting.regions.iter().zip(&mut metadata) {
                    // SAFETY: the frames are numbers only: nobody reads or writes at these addresses.
                    unsafe { store.add_region(region, metadata.slice()) }.map_err(failed)?;
                }
                Ok(self.run_on(&store, setting, job))
            }};
        }
        match self.store {
            Store::Bitmap => build_with_metadata!(Bitmap<'_, spin::Mutex<()>, REGIONS>),
            Store::Tree => build_with_metadata!(Tree<'_, REGIONS>),
            Store::Buddy => {
                let buddy = Buddy::<spin::Mutex<()>, REGIONS>::new();
                for &region in &setting.regions {
                    // SAFETY: as above.
                    unsafe { buddy.add_region(region) }.map_err(failed)?;
                }
                Ok(self.run_on(&buddy, setting, job))
            }
        }
    }

    /// Runs `job` on an allocator that has its regions, behind a cache if this backend has one.
    fn run_on<A: FrameAllocator, J: Job>(self, store: &A, setting: &Setting, job: J) -> J::Out {
        if !self.cached {
            return job.run(store, &|| ());
        }
        let mut slots: Vec<CpuSlot> = (0..setting.cpus).map(|_| CpuSlot::new()).collect();
        let cache = PerCpu::new(store, ReplayCpus { alone: !setting.threads });
        cache.attach(&mut slots).expect("a new cache has no slots");
        let drain = || {
            for cpu in 0..setting.cpus {
                // SAFETY: whoever drains waits until no thread of the replay runs (promise of `Job::run`'s callers).
                unsafe { cache.drain_cpu(CpuIndex(cpu)) };
            }
        };
        job.run(&cache, &drain)
    }
}

/// Regions that a backend must be able to hold: as many as a firmware map has spans.
const REGIONS: usize = frame_testkit::firmware::SPANS;

/// Most frames that allocators, and the ledger beside them, are built over: 1 TiB.
const MOST_FRAMES: usize = 1 << 28;

/// Bytes for a backend's books, aligned. They are written to before use, so that what is timed later is the allocator and
/// not the host handing out pages; with a pattern, because a backend must not rely on zeroes.
struct Metadata {
    bytes: Vec<MaybeUninit<u8>>,
    start: usize,
    size: usize,
}

impl Metadata {
    fn new(layout: std::alloc::Layout) -> Self {
        let bytes = vec![MaybeUninit::new(0xa5); layout.size() + layout.align()];
        let start = bytes.as_ptr().align_offset(layout.align());
        Self { bytes, start, size: layout.size() }
    }

    fn slice(&mut self) -> &mut [MaybeUninit<u8>] {
        &mut self.bytes[self.start..self.start + self.size]
    }
}

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
}

/// From here on, this thread acts as the CPU with this index.
#[inline]
pub(crate) fn on_cpu(index: usize) {
    CPU.set(index);
}

/// The CPU that the replay says it is on.
#[derive(Clone, Copy, Debug)]
struct ReplayCpus {
    /// One thread stands for all CPUs.
    alone: bool,
}

// SAFETY: a replay runs on one thread, so operations follow each other, whatever CPUs they stand for; and no other
// CPU is in the middle of one while this thread is, so each can be claimed. Or it gives each thread an index of its
// own until it ends, joins it before the index is used again, and nobody is claimed.
unsafe impl PinCpu for ReplayCpus {
    type Guard = ();

    #[inline]
    fn pin(&self) -> (CpuIndex, ()) {
        (CpuIndex(CPU.get()), ())
    }

    fn claim(&self, cpu: CpuIndex) -> bool {
        self.alone && cpu.0 != CPU.get()
    }
}

/// No backend has this name.
#[derive(Debug)]
pub(crate) struct UnknownBackend(String);

impl fmt::Display for UnknownBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no backend is named `{}`; there are: ", self.0)?;
        let mut names = ALL.iter().map(|backend| backend.name);
        f.write_str(names.next().unwrap_or_default())?;
        names.try_for_each(|name| write!(f, ", {name}"))
    }
}

impl std::error::Error for UnknownBackend {}

/// An allocator cannot be built over the memory.
#[derive(Debug)]
pub(crate) enum BuildError {
    /// The backend refuses a region.
    Refused { backend: &'static str, error: RegionError },
    /// The replay itself would need too much.
    TooMuch { frames: usize },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { backend, error } => {
                write!(f, "{backend}: {error}; cut the memory with --memory, or leave it out with --backends")
            }
            Self::TooMuch { frames } => write!(
                f,
                "the map has {} frames; allocators are built over at most {} here: cut it with --memory",
                human_count(*frames as u64),
                human_bytes((MOST_FRAMES * FRAME_SIZE) as u64),
            ),
        }
    }
}

impl std::error::Error for BuildError {}
