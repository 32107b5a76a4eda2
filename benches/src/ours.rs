//! This project's backends and caches, through `FrameAllocator`; the RAII frame through its HAL.

use std::{
    ops::Range,
    sync::OnceLock,
    time::{Duration, Instant},
};

use frame_allocator::{
    Bitmap, Buddy, FRAME_SIZE, FrameAllocator, FrameLayout, FrameRange, GlobalFrames, PerCpu, PhysAddr,
    PhysFrame, Tree, VirtAddr,
    percpu::{Checked, CpuIndex, CpuSlot, PinCpu, ThreadCpus},
};

use crate::{
    arena::{arena, forget, zeroed},
    contender::Contender,
    roster::Books,
};

/// Slots for the threads of a measurement.
const SLOTS: usize = 64;

/// The index that stands for this thread's CPU, for peers that have caches too.
#[inline]
pub fn cpu() -> usize {
    let (cpu, ()) = ThreadCpus.pin();
    if cpu.0 < SLOTS { cpu.0 } else { enlisted(cpu) }
}

/// The thread's first use.
#[cold]
fn enlisted(cpu: CpuIndex) -> usize {
    ThreadCpus.enlist(cpu).0 % SLOTS
}

/// One of this project's allocators, as a contender.
#[allow(missing_debug_implementations, reason = "an allocator has nothing to show")]
pub struct Ours<A> {
    allocator: Box<A>,
    settle: fn(&A),
}

/// The layouts of the orders that are measured: 0 to 9.
const LAYOUTS: [FrameLayout; 10] = {
    let mut layouts = [FrameLayout::SINGLE; 10];
    let mut order = 1;
    while order < layouts.len() {
        layouts[order] = match FrameLayout::new(1 << order, FRAME_SIZE << order) {
            Ok(layout) => layout,
            Err(_) => unreachable!(),
        };
        order += 1;
    }
    layouts
};

impl<A: FrameAllocator> Contender for Ours<A> {
    #[inline]
    fn alloc(&self, order: u32) -> Option<usize> {
        self.allocator.alloc(LAYOUTS[order as usize]).ok().map(PhysAddr::as_usize)
    }

    #[inline]
    fn free(&self, address: usize, order: u32) {
        let start = PhysAddr::from(address);
        // SAFETY: the work gives back what it got, once.
        let freed = unsafe { self.allocator.dealloc(start, LAYOUTS[order as usize]) };
        debug_assert_eq!(freed, Ok(()));
    }

    #[inline]
    fn alloc_one(&self) -> Option<usize> {
        self.allocator.alloc_frame().ok().map(PhysAddr::as_usize)
    }

    #[inline]
    fn free_one(&self, address: usize) {
        // SAFETY: as in `free`.
        let freed = unsafe { self.allocator.dealloc_frame(PhysAddr::from(address)) };
        debug_assert_eq!(freed, Ok(()));
    }

    fn settle(&self) {
        (self.settle)(&self.allocator);
    }
}

fn alone<A: FrameAllocator>(allocator: A) -> Ours<A> {
    Ours { allocator: Box::new(allocator), settle: |_| {} }
}

fn region(arena: Range<usize>) -> FrameRange {
    FrameRange::from_bounds(PhysAddr::from(arena.start), PhysAddr::from(arena.end))
        .expect("an arena is aligned")
}

fn slots() -> &'static mut [CpuSlot] {
    Box::leak(Box::new([const { CpuSlot::new() }; SLOTS]))
}

fn cached<A: FrameAllocator>(backend: A) -> Ours<PerCpu<'static, A, ThreadCpus>> {
    let cache = PerCpu::new(backend, ThreadCpus);
    cache.attach(slots()).expect("no slots yet");
    Ours { allocator: Box::new(cache), settle: |cache| _ = cache.drain_local() }
}

fn new_tree(arena: Range<usize>) -> Tree<'static> {
    let tree = Tree::new();
    let region = region(arena);
    // SAFETY: the arena belongs to this contender, and nothing uses what lies there; the metadata is zeroes.
    unsafe { tree.add_zeroed_region(region, zeroed(<Tree>::metadata_layout(region))) }
        .expect("an arena is a region");
    tree
}

fn new_bitmap(arena: Range<usize>) -> Bitmap<'static> {
    let bitmap = Bitmap::new();
    let region = region(arena);
    // SAFETY: as in `new_tree`.
    unsafe { bitmap.add_region(region, zeroed(<Bitmap>::metadata_layout(region))) }
        .expect("an arena is a region");
    bitmap
}

fn new_buddy(arena: Range<usize>) -> Buddy {
    let buddy = Buddy::new();
    // SAFETY: as in `new_tree`.
    unsafe { buddy.add_region(region(arena)) }.expect("an arena is a region");
    buddy
}

/// The tree alone.
pub fn tree(arena: Range<usize>) -> Ours<Tree<'static>> {
    alone(new_tree(arena))
}

/// The bitmap alone.
pub fn bitmap(arena: Range<usize>) -> Ours<Bitmap<'static>> {
    alone(new_bitmap(arena))
}

/// The buddy alone.
pub fn buddy(arena: Range<usize>) -> Ours<Buddy> {
    alone(new_buddy(arena))
}

/// The cache over the tree, trusting.
pub fn percpu_tree(arena: Range<usize>) -> Ours<PerCpu<'static, Tree<'static>, ThreadCpus>> {
    cached(new_tree(arena))
}

/// The cache over the bitmap, trusting.
pub fn percpu_bitmap(arena: Range<usize>) -> Ours<PerCpu<'static, Bitmap<'static>, ThreadCpus>> {
    cached(new_bitmap(arena))
}

/// The cache over the buddy, trusting.
pub fn percpu_buddy(arena: Range<usize>) -> Ours<PerCpu<'static, Buddy, ThreadCpus>> {
    cached(new_buddy(arena))
}

/// The cache over the tree, which finds a double free at once.
///
/// # Panics
/// There is no memory for its states.
pub fn percpu_tree_checked(
    arena: Range<usize>,
) -> Ours<PerCpu<'static, Tree<'static>, ThreadCpus, Checked<'static>>> {
    let window = region(arena.clone());
    let cache = PerCpu::checked(new_tree(arena), ThreadCpus);
    let states = zeroed(std::alloc::Layout::array::<u8>(window.count()).expect("small"));
    cache.attach_states(window, states).expect("no states yet");
    cache.attach(slots()).expect("no slots yet");
    Ours { allocator: Box::new(cache), settle: |cache| _ = cache.drain_local() }
}

static FRAMES: PerCpu<'static, Tree<'static>, ThreadCpus> = PerCpu::new(Tree::new(), ThreadCpus);

/// A HAL over the cache over the tree, in a `static`: an address is a pointer. See [`start_host`].
#[derive(Debug)]
pub struct Host;

// SAFETY: the arena of `FRAMES` is mapped memory that nobody else uses, and an address is a pointer.
unsafe impl GlobalFrames for Host {
    type Allocator = PerCpu<'static, Tree<'static>, ThreadCpus>;

    #[inline]
    fn allocator() -> &'static Self::Allocator {
        &FRAMES
    }

    #[inline]
    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        VirtAddr::from(paddr.as_usize())
    }
}

/// Gives [`Host`] an arena of `bytes` bytes, unless it has one already; the arena that it has.
///
/// # Panics
/// There is no address space.
pub fn start_host(bytes: usize) -> Range<usize> {
    static ARENA: OnceLock<Range<usize>> = OnceLock::new();
    let started = ARENA.get_or_init(|| {
        let memory = arena(bytes).expect("address space");
        let region = region(memory.clone());
        let books = zeroed(<Tree>::metadata_layout(region));
        // SAFETY: the arena was made for this.
        unsafe { FRAMES.backend().add_region(region, books) }.expect("the first region");
        FRAMES.attach(slots()).expect("no slots yet");
        memory
    });
    started.clone()
}

/// `PhysFrame::<H>::alloc()` and its drop, over the cache over the tree, in a `static` with memory of its own.
#[derive(Debug)]
pub struct Raii {
    arena: Range<usize>,
}

/// The RAII contender: one for the process.
///
/// # Panics
/// There is no address space.
pub fn raii(_: Range<usize>) -> Raii {
    Raii { arena: start_host(1 << 30) }
}

impl Contender for Raii {
    #[inline]
    fn alloc(&self, _: u32) -> Option<usize> {
        PhysFrame::<Host>::alloc().ok().map(|frame| frame.into_raw().as_usize())
    }

    #[inline]
    fn free(&self, address: usize, _: u32) {
        // SAFETY: the work gives back what it got from `into_raw`, once.
        drop(unsafe { PhysFrame::<Host>::from_raw(PhysAddr::from(address)) });
    }

    #[inline]
    fn pair(&self) -> bool {
        // As an owner uses it: held by a value, dropped.
        PhysFrame::<Host>::alloc().map(std::hint::black_box).is_ok()
    }

    fn settle(&self) {
        FRAMES.drain_local();
    }

    fn can(&self, order: u32) -> bool {
        order == 0
    }

    fn arena(&self) -> Option<Range<usize>> {
        Some(self.arena.clone())
    }
}

/// Takes a region over with metadata of fresh zeroes, as in a kernel that has cleared its memory: no page of it exists
/// before it is touched, and asking for it is not timed.
///
/// # Panics
/// There is no address space.
pub fn start_tree(memory: Range<usize>) -> Duration {
    let region = region(memory);
    let layout = <Tree>::metadata_layout(region);
    let metadata = arena(layout.size()).expect("address space");
    let tree = Box::new(<Tree>::new());
    let start = Instant::now();
    let words = std::ptr::with_exposed_provenance_mut(metadata.start);
    // SAFETY: the mapping is this size, writable, and lent for the life of the process.
    let bytes = unsafe { std::slice::from_raw_parts_mut(words, metadata.len()) };
    // SAFETY: nobody uses the region, and fresh pages are zeroes.
    unsafe { tree.add_zeroed_region(region, bytes) }.expect("an arena is a region");
    let time = start.elapsed();
    drop(tree);
    // SAFETY: the tree is gone.
    unsafe { forget(metadata) };
    time
}

/// A region of 1 GiB, for sizes of metadata.
fn one_gib() -> FrameRange {
    region(1 << 30..2 << 30)
}

/// The tree's metadata.
pub fn tree_books() -> Books {
    Books::bytes(<Tree>::metadata_layout(one_gib()).size(), "")
}

/// The bitmap's metadata.
pub fn bitmap_books() -> Books {
    Books::bytes(<Bitmap>::metadata_layout(one_gib()).size(), "")
}

/// The tree's metadata and one slot of the cache.
pub fn cached_tree_books() -> Books {
    let tree = <Tree>::metadata_layout(one_gib()).size();
    Books::bytes(tree + size_of::<CpuSlot>(), "the tree's, and a slot for one CPU")
}

/// The tree's metadata, a slot, and a state for each frame.
pub fn checked_tree_books() -> Books {
    let tree = <Tree>::metadata_layout(one_gib()).size();
    Books::bytes(
        tree + size_of::<CpuSlot>() + one_gib().count(),
        "the tree's, a slot, and a byte for each frame",
    )
}
