//! The conformance suite that every backend of the project passes on a host, here with this kernel's heap, lock and way
//! to name a CPU. Its allocators are made of memory that is only pretended, which they never touch.

use alloc::vec::Vec;
use core::{alloc::Layout, marker::PhantomData, mem::MaybeUninit};

use frame_allocator::{
    Bitmap, Buddy, FRAME_SIZE, FrameAllocator, FrameRange, PerCpu, RegionError, Tree,
    percpu::{Checked, CpuSlot, Policy},
};
use frame_testkit::{Backend, Metadata, conformance};

use crate::{irq_lock::IrqLock, memory::Cpus, report};

/// Runs the suite, each case of it a check. A fault is a panic, and ends the kernel.
pub fn suite<B: Backend>() {
    let mut cases = 0;
    conformance::run_all::<B>(&mut |_| cases += 1);
    report::passed(cases);
}

/// A kind of allocator without a cache.
pub trait Plain {
    const NAME: &'static str;
    type Allocator<'m>: FrameAllocator;

    fn new<'m>() -> Self::Allocator<'m>;

    fn metadata_layout(region: FrameRange) -> Layout;

    fn add<'m>(
        to: &Self::Allocator<'m>,
        region: FrameRange,
        metadata: &'m mut [MaybeUninit<u8>],
    ) -> Result<(), RegionError>;
}

pub struct Trees;

impl Plain for Trees {
    const NAME: &'static str = "tree";
    type Allocator<'m> = Tree<'m>;

    fn new<'m>() -> Tree<'m> {
        Tree::new()
    }

    fn metadata_layout(region: FrameRange) -> Layout {
        <Tree>::metadata_layout(region)
    }

    fn add<'m>(
        to: &Tree<'m>,
        region: FrameRange,
        metadata: &'m mut [MaybeUninit<u8>],
    ) -> Result<(), RegionError> {
        // SAFETY: the frames are numbers; nothing touches memory there.
        unsafe { to.add_region(region, metadata) }
    }
}

pub struct Bitmaps;

impl Plain for Bitmaps {
    const NAME: &'static str = "bitmap";
    type Allocator<'m> = Bitmap<'m, IrqLock>;

    fn new<'m>() -> Self::Allocator<'m> {
        Bitmap::new()
    }

    fn metadata_layout(region: FrameRange) -> Layout {
        Bitmap::<IrqLock>::metadata_layout(region)
    }

    fn add<'m>(
        to: &Self::Allocator<'m>,
        region: FrameRange,
        metadata: &'m mut [MaybeUninit<u8>],
    ) -> Result<(), RegionError> {
        // SAFETY: as above.
        unsafe { to.add_region(region, metadata) }
    }
}

pub struct Buddies;

impl Plain for Buddies {
    const NAME: &'static str = "buddy";
    type Allocator<'m> = Buddy<IrqLock>;

    fn new<'m>() -> Self::Allocator<'m> {
        Buddy::new()
    }

    fn metadata_layout(_: FrameRange) -> Layout {
        Layout::new::<()>()
    }

    fn add<'m>(
        to: &Self::Allocator<'m>,
        region: FrameRange,
        _: &'m mut [MaybeUninit<u8>],
    ) -> Result<(), RegionError> {
        // SAFETY: as above.
        unsafe { to.add_region(region) }
    }
}

fn metadata<P: Plain>(region: FrameRange) -> Metadata {
    Metadata::new(P::metadata_layout(region))
}

fn fill<'m, P: Plain>(allocator: &P::Allocator<'m>, regions: &[FrameRange], books: &'m mut [Metadata]) {
    for (&region, books) in regions.iter().zip(books) {
        P::add(allocator, region, books.bytes()).expect("a region of the suite");
    }
}

fn offer<'m, P: Plain>(to: &P::Allocator<'m>, region: FrameRange) -> Option<Result<(), RegionError>> {
    // A few regions in all: what they leak is small.
    Some(P::add(to, region, Metadata::leaked(P::metadata_layout(region))))
}

/// The allocator itself.
pub struct Bare<P>(PhantomData<P>);

impl<P: Plain> Backend for Bare<P> {
    const NAME: &'static str = P::NAME;
    type Allocator<'m> = P::Allocator<'m>;

    fn with<R>(regions: &[FrameRange], test: impl FnOnce(&Self::Allocator<'_>) -> R) -> R {
        let mut books: Vec<_> = regions.iter().copied().map(metadata::<P>).collect();
        let allocator = P::new();
        fill::<P>(&allocator, regions, &mut books);
        test(&allocator)
    }

    fn offer(allocator: &Self::Allocator<'_>, region: FrameRange) -> Option<Result<(), RegionError>> {
        offer::<P>(allocator, region)
    }
}

/// Behind a cache that trusts.
pub struct Trusted<P>(PhantomData<P>);

impl<P: Plain> Backend for Trusted<P> {
    const NAME: &'static str = P::NAME;
    const REFUSES_BAD_FREES: bool = false;
    type Allocator<'m> = PerCpu<'m, P::Allocator<'m>, Cpus>;

    fn with<R>(regions: &[FrameRange], test: impl FnOnce(&Self::Allocator<'_>) -> R) -> R {
        let mut books: Vec<_> = regions.iter().copied().map(metadata::<P>).collect();
        let mut slots = [CpuSlot::new()];
        let cache = PerCpu::new(P::new(), Cpus);
        fill::<P>(cache.backend(), regions, &mut books);
        cache.attach(&mut slots).expect("attached once");
        test(&cache)
    }

    fn settle(cache: &Self::Allocator<'_>) {
        settle(cache);
    }

    fn offer(cache: &Self::Allocator<'_>, region: FrameRange) -> Option<Result<(), RegionError>> {
        offer::<P>(cache.backend(), region)
    }
}

/// Behind a cache that checks.
pub struct Guarded<P>(PhantomData<P>);

impl<P: Plain> Backend for Guarded<P> {
    const NAME: &'static str = P::NAME;
    type Allocator<'m> = PerCpu<'m, P::Allocator<'m>, Cpus, Checked<'m>>;

    fn with<R>(regions: &[FrameRange], test: impl FnOnce(&Self::Allocator<'_>) -> R) -> R {
        let mut books: Vec<_> = regions.iter().copied().map(metadata::<P>).collect();
        let (start, end) = (regions[0].start(), regions[regions.len() - 1].end());
        let frames = (end - start.as_usize()).as_usize() / FRAME_SIZE;
        // Maps of terabytes are among them, and the states lie in this kernel's heap. Frames outside of the window are
        // freed past the cache, which is no less safe.
        let window = FrameRange::new(start, frames.min(1 << 20)).expect("sorted ranges");
        let mut states = Metadata::new(Layout::array::<u8>(window.count()).expect("a byte for each frame"));
        let mut slots = [CpuSlot::new()];
        let cache = PerCpu::checked(P::new(), Cpus);
        fill::<P>(cache.backend(), regions, &mut books);
        cache.attach_states(window, states.bytes()).expect("attached once");
        cache.attach(&mut slots).expect("attached once");
        test(&cache)
    }

    fn settle(cache: &Self::Allocator<'_>) {
        settle(cache);
    }

    fn offer(cache: &Self::Allocator<'_>, region: FrameRange) -> Option<Result<(), RegionError>> {
        offer::<P>(cache.backend(), region)
    }
}

/// The suite runs on one CPU: it has the only slot.
fn settle<A: FrameAllocator, P: Policy>(cache: &PerCpu<'_, A, Cpus, P>) {
    cache.drain_local();
}
