//! The kernel's memory: from the firmware's map to an allocator in a `static`. What an embedder writes is in this file.

use core::{alloc::Layout, mem::MaybeUninit, ops::Range, slice};

use frame_allocator::{
    EarlyAllocator, EarlyMemory, FrameRange, GlobalFrames, MemoryMap, PerCpu, PhysAddr, RegionError, Tree,
    VirtAddr,
    percpu::{CpuIndex, CpuSlot, PinCpu},
};
use machine::{MAPPED_BYTES, apic, cpu, interrupts, multiboot::BootInfo, smp};

/// Room for a firmware map with 256 holes.
pub type Map = MemoryMap<256>;

/// The kernel's frames: a cache for each CPU in front of the lock-free tree.
pub static FRAMES: CachedTree = PerCpu::new(Tree::new(), Cpus);

/// With room for more regions than the default, for firmware maps full of holes.
pub type LargeTree = Tree<'static, 255>;
/// What [`FRAMES`] is.
pub type CachedTree = PerCpu<'static, LargeTree, Cpus>;

/// The HAL: `PhysFrame<Kernel>` is a frame of [`FRAMES`].
pub struct Kernel;

// SAFETY: `FRAMES` was given RAM that nothing else uses (`give_all`), and all of it is mapped at its own address.
unsafe impl GlobalFrames for Kernel {
    type Allocator = CachedTree;

    fn allocator() -> &'static CachedTree {
        &FRAMES
    }

    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        linear(paddr)
    }
}

/// The linear map of the boot page tables.
pub fn linear(paddr: PhysAddr) -> VirtAddr {
    VirtAddr::from(paddr.as_usize())
}

/// Which CPU is this? Nothing here moves work from one CPU to another, so there is nothing to pin.
pub struct Cpus;

/// The vector that asks a CPU to hand its cached frames back.
const DRAIN: u8 = 0x42;

// SAFETY: code stays on its CPU for as long as it runs; only interrupts come in between, and they end before it goes
// on. CPU numbers are distinct.
unsafe impl PinCpu for Cpus {
    type Guard = ();

    #[inline]
    fn pin(&self) -> (CpuIndex, ()) {
        (CpuIndex(cpu::index()), ())
    }

    fn kick(&self, cpu: CpuIndex) {
        apic::send(smp::apic_id(cpu.0), DRAIN);
    }
}

/// Calls `drain` on a CPU that was [kicked](PinCpu::kick).
pub fn drain_when_kicked(drain: fn()) {
    interrupts::on(DRAIN, drain);
}

/// What the firmware left, less what is [in use](in_use) and memory that the page tables do not reach.
pub fn map(boot: &BootInfo) -> Result<Map, frame_allocator::MapError> {
    let mut map = Map::new();
    for entry in boot.memory_map() {
        match entry.is_usable() {
            true => map.add_usable(entry.base, entry.len)?,
            false => map.add_reserved(entry.base, entry.len)?,
        }
    }
    for in_use in in_use(boot) {
        map.add_reserved(in_use.start as u64, in_use.len() as u64)?;
    }
    map.add_reserved(MAPPED_BYTES as u64, u64::MAX - MAPPED_BYTES as u64)?;
    Ok(map)
}

/// Memory that the firmware calls usable and that is not: the kernel itself, what the boot loader laid out, and the page
/// where other CPUs start.
pub fn in_use(boot: &BootInfo) -> impl Iterator<Item = Range<usize>> {
    let start_page = smp::START_PAGE..smp::START_PAGE + 1;
    boot.in_use().filter(|range| !range.is_empty()).chain([machine::image(), start_page])
}

/// Takes frames out of the map, for ever.
///
/// # Panics
/// There is not that much memory: a kernel cannot go on without its metadata.
pub fn early_frames(map: &mut Map, layout: Layout) -> FrameRange {
    EarlyAllocator::new(map)
        .alloc(layout, PhysAddr::from(MAPPED_BYTES))
        .unwrap_or_else(|error| panic!("memory for the kernel itself: {error}"))
}

/// Takes memory out of the map, for ever.
///
/// # Panics
/// As [`early_frames`].
pub fn early(map: &mut Map, layout: Layout) -> &'static mut [MaybeUninit<u8>] {
    let taken = early_frames(map, layout);
    // SAFETY: just taken out of the map, which has no memory above the limit.
    unsafe { bytes(taken, layout.size()) }
}

/// The memory of frames, for ever.
///
/// # Safety
/// They are mapped RAM that is taken out of the map, and nobody else uses it.
unsafe fn bytes(taken: FrameRange, len: usize) -> &'static mut [MaybeUninit<u8>] {
    assert!(len <= taken.size());
    // SAFETY: mapped RAM that nobody else uses, by the caller's promise.
    unsafe { slice::from_raw_parts_mut(linear(taken.start()).as_mut_ptr().cast(), len) }
}

/// Gives all that is in the map, less the metadata for it, to an allocator: `metadata_layout` says what it needs for a
/// region, `add_region` hands one over. Returns the map of what it got.
///
/// # Panics
/// A region is refused.
pub fn give_all(
    mut map: Map,
    metadata_layout: impl Fn(FrameRange) -> Layout,
    mut add_region: impl FnMut(FrameRange, &'static mut [MaybeUninit<u8>]) -> Result<(), RegionError>,
) -> Map {
    // One piece for the books of all regions, those included that taking it makes of a region in two.
    let piece = EarlyAllocator::new(&mut map)
        .alloc_books(&metadata_layout, PhysAddr::from(MAPPED_BYTES))
        .unwrap_or_else(|error| panic!("memory for the books: {error}"));
    // SAFETY: as in `early`.
    let mut books = EarlyMemory::new(unsafe { bytes(piece, piece.size()) });
    for region in map.frames() {
        let part = books.take(metadata_layout(region)).expect("the piece holds the books of all regions");
        add_region(region, part).unwrap_or_else(|error| panic!("{error}"));
    }
    map
}

/// Gives all that is in the map to [`FRAMES`].
///
/// # Safety
/// The map was made by [`map`], and all of it that is used is reserved in it.
pub unsafe fn give_all_to_kernel(map: Map) -> Map {
    give_all(map, LargeTree::metadata_layout, |region, metadata| {
        // SAFETY: RAM, by the firmware's word, that nothing else uses, by the caller's.
        unsafe { FRAMES.backend().add_region(region, metadata) }
    })
}

/// All of it at once, for a kernel that does nothing special: afterwards [`FRAMES`] hands frames out. Returns the map of
/// what it got.
///
/// # Panics
/// The firmware's map is broken, or there is too little memory.
pub fn init(boot: &BootInfo, cpus: usize) -> Map {
    let mut map = map(boot).unwrap_or_else(|error| panic!("the firmware's memory map: {error}"));
    FRAMES.attach(slots(&mut map, cpus)).expect("attached once");
    drain_when_kicked(|| _ = FRAMES.drain_local());
    // SAFETY: all that is used is reserved: `map` saw to what was there, and `slots` took its part out.
    unsafe { give_all_to_kernel(map) }
}

/// A slot of the cache for each CPU.
pub fn slots(map: &mut Map, cpus: usize) -> &'static mut [CpuSlot] {
    let layout = Layout::array::<CpuSlot>(cpus).expect("a few CPUs");
    CpuSlot::slice_in(early(map, layout))
}
