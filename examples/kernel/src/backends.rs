//! The allocators that the kernel can be booted with: `backend=NAME` on the command line.
//!
//! `percpu-tree` is the kernel's own ([`Kernel`]). For any other, the kernel keeps a share of memory for its own
//! allocator, which the heap stands on, and the rest goes to the one under test: the buddy keeps its books on that heap.

use core::{alloc::Layout, mem::MaybeUninit};

use frame_allocator::{
    Bitmap, Buddy, FrameAllocator, FrameRange, GlobalFrames, PerCpu, PhysAddr, RegionError, Tree, VirtAddr,
    percpu::{CacheStats, Checked, CpuIndex, Policy},
};

use crate::{
    checks::suite::{Bare, Bitmaps, Buddies, Guarded, Trees, Trusted},
    irq_lock::IrqLock,
    memory::{self, Cpus, Kernel, LargeTree, Map},
};

/// What the checks need to know of an allocator beyond [`FrameAllocator`].
pub trait Backend: FrameAllocator + 'static {
    /// Takes no lock: an NMI handler may use it, whatever the NMI interrupted.
    const LOCK_FREE: bool;
    /// A double free is refused at once, not when the frame comes back to the backend.
    const REFUSES_AT_ONCE: bool = true;

    /// Metadata for a region.
    fn metadata_layout(region: FrameRange) -> Layout;

    /// Gives it the region.
    ///
    /// # Safety
    /// The frames are RAM that nobody else uses from now on.
    unsafe fn add_region(
        &self,
        region: FrameRange,
        metadata: &'static mut [MaybeUninit<u8>],
    ) -> Result<(), RegionError>;

    /// Takes what else it needs out of the map.
    fn prepare(&'static self, map: &mut Map, cpus: usize) {
        let _ = (map, cpus);
    }

    /// Its per-CPU cache.
    fn cache(&self) -> Option<&dyn Cache> {
        None
    }

    /// The tree in it, which can take frames out of service.
    fn tree(&self) -> Option<&LargeTree> {
        None
    }
}

impl Backend for LargeTree {
    const LOCK_FREE: bool = true;

    fn metadata_layout(region: FrameRange) -> Layout {
        Self::metadata_layout(region)
    }

    unsafe fn add_region(
        &self,
        region: FrameRange,
        metadata: &'static mut [MaybeUninit<u8>],
    ) -> Result<(), RegionError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.add_region(region, metadata) }
    }

    fn tree(&self) -> Option<&LargeTree> {
        Some(self)
    }
}

/// More regions than the default, for firmware maps full of holes.
type LockedBitmap = Bitmap<'static, IrqLock, 256>;
type LockedBuddy = Buddy<IrqLock, 256>;

impl Backend for LockedBitmap {
    const LOCK_FREE: bool = false;

    fn metadata_layout(region: FrameRange) -> Layout {
        Self::metadata_layout(region)
    }

    unsafe fn add_region(
        &self,
        region: FrameRange,
        metadata: &'static mut [MaybeUninit<u8>],
    ) -> Result<(), RegionError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.add_region(region, metadata) }
    }
}

impl Backend for LockedBuddy {
    const LOCK_FREE: bool = false;

    fn metadata_layout(_: FrameRange) -> Layout {
        Layout::new::<()>()
    }

    unsafe fn add_region(
        &self,
        region: FrameRange,
        _: &'static mut [MaybeUninit<u8>],
    ) -> Result<(), RegionError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.add_region(region) }
    }
}

/// Policies of the cache that a kernel chooses from.
pub trait Careful: Policy + 'static {
    /// Whether a double free is refused at once.
    const REFUSES_AT_ONCE: bool;

    /// Gives the policy what it needs.
    fn prepare<A: Backend>(cache: &'static PerCpu<'static, A, Cpus, Self>, map: &mut Map)
    where
        Self: Sized;
}

impl Careful for frame_allocator::percpu::Trusting {
    const REFUSES_AT_ONCE: bool = false;

    fn prepare<A: Backend>(_: &'static PerCpu<'static, A, Cpus, Self>, _: &mut Map) {}
}

impl Careful for Checked<'static> {
    const REFUSES_AT_ONCE: bool = true;

    fn prepare<A: Backend>(cache: &'static PerCpu<'static, A, Cpus, Self>, map: &mut Map) {
        let end = map.frames().last().expect("a machine with memory").end();
        let window = FrameRange::from_bounds(PhysAddr::from(0), end).expect("aligned ends");
        let states = memory::early(map, Layout::array::<u8>(window.count()).expect("a byte for each frame"));
        cache.attach_states(window, states).expect("attached once");
    }
}

impl<A: Backend, P: Careful> Backend for PerCpu<'static, A, Cpus, P> {
    const LOCK_FREE: bool = A::LOCK_FREE;
    const REFUSES_AT_ONCE: bool = P::REFUSES_AT_ONCE;

    fn metadata_layout(region: FrameRange) -> Layout {
        A::metadata_layout(region)
    }

    unsafe fn add_region(
        &self,
        region: FrameRange,
        metadata: &'static mut [MaybeUninit<u8>],
    ) -> Result<(), RegionError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.backend().add_region(region, metadata) }
    }

    fn prepare(&'static self, map: &mut Map, cpus: usize) {
        P::prepare(self, map);
        self.attach(memory::slots(map, cpus)).expect("attached once");
    }

    fn cache(&self) -> Option<&dyn Cache> {
        Some(self)
    }

    fn tree(&self) -> Option<&LargeTree> {
        self.backend().tree()
    }
}

/// A per-CPU cache, whatever is behind it.
pub trait Cache {
    /// As [`PerCpu::drain_local`].
    fn drain_local(&self) -> usize;
    /// As [`PerCpu::cached_frames`].
    fn cached_frames(&self) -> usize;
    /// What all slots have done.
    fn stats(&self, cpu: usize) -> CacheStats;
}

impl<A: Backend, P: Careful> Cache for PerCpu<'static, A, Cpus, P> {
    fn drain_local(&self) -> usize {
        self.drain_local()
    }

    fn cached_frames(&self) -> usize {
        self.cached_frames()
    }

    fn stats(&self, cpu: usize) -> CacheStats {
        self.cpu_stats(CpuIndex(cpu)).unwrap_or_default()
    }
}

/// An allocator in a `static`, under a name for the command line.
pub trait Subject: GlobalFrames<Allocator: Backend> {
    /// What `backend=` calls it.
    const NAME: &'static str;
    /// The kernel's own allocator: the heap stands on it, too.
    const IS_KERNELS_OWN: bool = false;
    /// Its kind, made anew for each case of the conformance suite.
    type Suite: frame_testkit::Backend;
}

impl Subject for Kernel {
    const NAME: &'static str = "percpu-tree";
    const IS_KERNELS_OWN: bool = true;
    type Suite = Trusted<Trees>;
}

macro_rules! subject {
    ($name:ident, $text:literal, $type:ty, $new:expr, $suite:ty) => {
        #[doc = concat!("`backend=", $text, "`.")]
        pub struct $name;

        // SAFETY: the one static was given RAM that nothing else uses, and all RAM is mapped as `linear` says.
        unsafe impl GlobalFrames for $name {
            type Allocator = $type;

            fn allocator() -> &'static $type {
                static FRAMES: $type = $new;
                &FRAMES
            }

            fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
                memory::linear(paddr)
            }
        }

        impl Subject for $name {
            const NAME: &'static str = $text;
            type Suite = $suite;
        }
    };
}

subject!(PlainTree, "tree", LargeTree, Tree::new(), Bare<Trees>);
subject!(PlainBitmap, "bitmap", LockedBitmap, Bitmap::new(), Bare<Bitmaps>);
subject!(PlainBuddy, "buddy", LockedBuddy, Buddy::new(), Bare<Buddies>);
subject!(
    CheckedTree,
    "percpu-tree-checked",
    PerCpu<'static, LargeTree, Cpus, Checked<'static>>,
    PerCpu::checked(Tree::new(), Cpus),
    Guarded<Trees>
);
subject!(
    CachedBitmap,
    "percpu-bitmap",
    PerCpu<'static, LockedBitmap, Cpus>,
    PerCpu::new(Bitmap::new(), Cpus),
    Trusted<Bitmaps>
);
subject!(
    CheckedBitmap,
    "percpu-bitmap-checked",
    PerCpu<'static, LockedBitmap, Cpus, Checked<'static>>,
    PerCpu::checked(Bitmap::new(), Cpus),
    Guarded<Bitmaps>
);
subject!(
    CachedBuddy,
    "percpu-buddy",
    PerCpu<'static, LockedBuddy, Cpus>,
    PerCpu::new(Buddy::new(), Cpus),
    Trusted<Buddies>
);
subject!(
    CheckedBuddy,
    "percpu-buddy-checked",
    PerCpu<'static, LockedBuddy, Cpus, Checked<'static>>,
    PerCpu::checked(Buddy::new(), Cpus),
    Guarded<Buddies>
);
