//! The allocator: regions in, frames out.

use core::{alloc::Layout, mem::MaybeUninit};

use frame_core::{
    AllocError, DeallocError, DeallocErrorKind, FrameLayout, FrameRange, PhysAddr, RegionError,
};

use crate::{
    geometry::{Frame, Frames},
    registry::Registry,
    shard::{Shard, Shards},
    single::{Picked, Sink},
    storage::Shape,
    sync::{AtomicUsize, Relaxed, const_unless_loom},
    watermark::Watermark,
};

/// A lock-free allocator of physical frames.
///
/// `'m` is the lifetime of the metadata that the regions bring along; `REGIONS` (1 to 255) is how many regions there
/// is room for.
///
/// ```
/// use core::mem::MaybeUninit;
/// use frame_core::{FrameAllocator, FrameLayout, FrameRange, PhysAddr};
/// use frame_tree::Tree;
///
/// static FRAMES: Tree = Tree::new();
///
/// let region = FrameRange::new(PhysAddr::from(0x10_0000), 1 << 15)?; // 128 MiB from 1 MiB on
/// let layout = <Tree>::metadata_layout(region);
/// # let words = vec![MaybeUninit::<u128>::uninit(); layout.size() / 16 + 8].leak();
/// # let (_, metadata, _) = unsafe { words.align_to_mut::<MaybeUninit<u8>>() };
/// # let skip = metadata.as_ptr().align_offset(layout.align());
/// # let metadata = &mut metadata[skip..];
/// // `metadata`: memory outside of the region, of that size and alignment.
/// // SAFETY: nobody else uses the frames. (They are not real here, and nothing touches them.)
/// unsafe { FRAMES.add_region(region, metadata)? };
///
/// let frame = FRAMES.alloc_frame()?;
/// let huge = FRAMES.alloc(FrameLayout::HUGE_2M)?;
/// assert_eq!(FRAMES.stats().used_frames(), 1 + 512);
/// // SAFETY: both were allocated above and are not used any more.
/// unsafe {
///     FRAMES.dealloc_frame(frame)?;
///     FRAMES.dealloc(huge, FrameLayout::HUGE_2M)?;
///     assert!(FRAMES.dealloc_frame(frame).is_err(), "a double free is refused");
/// }
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Tree<'m, const REGIONS: usize = 32> {
    pub(crate) regions: Registry<'m, REGIONS>,
    pub(crate) shards: Shards,
    pub(crate) watermark: Watermark,
    /// Frames taken out of service.
    pub(crate) offline: AtomicUsize,
}

impl<const REGIONS: usize> Default for Tree<'_, REGIONS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'m, const REGIONS: usize> Tree<'m, REGIONS> {
    const_unless_loom! {
        /// A tree without regions: it answers `NoMemory`.
        pub fn new() -> Self {
            Self {
                regions: Registry::new(),
                shards: Shards::new(),
                watermark: Watermark::new(),
                offline: AtomicUsize::new(0),
            }
        }
    }

    /// Size and alignment, in bytes, of the metadata for `region`: about 34 KiB for each GiB.
    pub const fn metadata_layout(region: FrameRange) -> Layout {
        Shape::of(region).layout()
    }

    /// Takes `region` over: its frames are free from now on. May be called while others allocate.
    ///
    /// `metadata` may hold anything. The part of it that must be zero is cleared: 2 KiB for each GiB; the rest is
    /// initialised when it is first used.
    ///
    /// # Errors
    /// The region holds frame 0, overlaps another, is too high, or one too many; or the metadata is too small or not
    /// aligned (see [`metadata_layout`](Self::metadata_layout)). The tree is as it was.
    ///
    /// # Safety
    /// The frames are RAM that nobody else uses from now on, the metadata included.
    pub unsafe fn add_region(
        &self,
        region: FrameRange,
        metadata: &'m mut [MaybeUninit<u8>],
    ) -> Result<(), RegionError> {
        Self::check(region, metadata)?;
        // SAFETY: size and alignment were just checked.
        unsafe { self.regions.add(region, metadata, false)? };
        self.watermark.update(&self.regions);
        Ok(())
    }

    /// As [`add_region`](Self::add_region), for metadata that is zero already: the cost does not depend on the size of
    /// the region, and only the metadata of its edges is touched.
    ///
    /// # Errors
    /// As [`add_region`](Self::add_region).
    ///
    /// # Safety
    /// As [`add_region`](Self::add_region), and the bytes of `metadata` are initialised and zero.
    pub unsafe fn add_zeroed_region(
        &self,
        region: FrameRange,
        metadata: &'m mut [MaybeUninit<u8>],
    ) -> Result<(), RegionError> {
        Self::check(region, metadata)?;
        // SAFETY: size and alignment were just checked; the caller promises zeroes.
        unsafe { self.regions.add(region, metadata, true)? };
        self.watermark.update(&self.regions);
        Ok(())
    }

    fn check(region: FrameRange, metadata: &[MaybeUninit<u8>]) -> Result<(), RegionError> {
        /// More than any processor can address.
        const ADDRESS_BITS: u32 = 52;
        let layout = Self::metadata_layout(region);
        if region.start().as_usize() == 0 {
            return Err(RegionError::FrameZero);
        }
        if region.end().as_usize() as u64 > 1 << ADDRESS_BITS {
            return Err(RegionError::TooLarge { region });
        }
        if metadata.as_ptr().align_offset(layout.align()) != 0 {
            return Err(RegionError::MetadataMisaligned { align: layout.align() });
        }
        if metadata.len() < layout.size() {
            return Err(RegionError::MetadataTooSmall { needed: layout.size(), given: metadata.len() });
        }
        Ok(())
    }

    /// The regions that were added, lowest address first.
    pub fn regions(&self) -> impl Iterator<Item = FrameRange> {
        self.regions.iter().filter_map(|(_, region)| region.frames().to_range())
    }

    /// Takes free frames out of service: they are not handed out and not counted any more, until they come back
    /// [`online`](Self::online). For memory that is to be unplugged, ballooned away, or that is broken.
    ///
    /// # Errors
    /// [`AllocError::NotManaged`] when a frame lies in no region, [`AllocError::InUse`] when one is allocated (or out
    /// of service already). Nothing is taken then.
    pub fn offline(&self, range: FrameRange) -> Result<(), AllocError> {
        self.regions.take_exactly(Frames::of(range)).map_err(|(error, _)| error)?;
        self.offline.fetch_add(range.count(), Relaxed);
        Ok(())
    }

    /// Takes frames back into service.
    ///
    /// # Errors
    /// A frame lies in no region, or is free: the error names the lowest. Nothing is changed then.
    ///
    /// # Safety
    /// The frames were taken out of service by [`offline`](Self::offline), are RAM (again), and nobody uses them.
    pub unsafe fn online(&self, range: FrameRange) -> Result<(), DeallocError> {
        let frames = Frames::of(range);
        self.check_owned(frames)?;
        self.offline.fetch_sub(range.count(), Relaxed);
        self.regions.give(frames).map_err(not_allocated)
    }

    /// Takes single frames into `sink`, until it is full or nothing is left.
    pub(crate) fn fill(&self, shard: &Shard, sink: &mut Sink<'_>) {
        self.regions.sweep_cursor(shard, sink);
        if sink.wanted() > 0 {
            self.regions.leave_cursor(shard);
        }
        while sink.wanted() > 0 {
            match self.regions.pick(shard, &self.watermark, sink) {
                Some(Picked::Untouched(block)) => self.watermark.note_opened(&self.regions, block),
                Some(Picked::Open) => {}
                None => match self.regions.take_first_fit(1, 1, Frames::ALL) {
                    Some(frame) => sink.push(frame),
                    None => break,
                },
            }
        }
        self.tick(shard);
    }

    /// Housekeeping, once in a while.
    pub(crate) fn tick(&self, shard: &Shard) {
        if shard.tick() {
            self.watermark.count_next(&self.regions);
            // What lies beyond the watermark had better not be where this shard goes on taking from.
            let place = shard.cursor(0).load();
            if place.is_some_and(|place| !self.watermark.kept().keeps(place.row.first_frame().addr())) {
                self.regions.leave_cursor(shard);
            }
        }
    }

    /// Takes a run as `layout` asks, inside `window`.
    pub(crate) fn take(&self, layout: FrameLayout, window: Frames) -> Result<PhysAddr, AllocError> {
        let frame = self.regions.take_run(layout, window, self.shards.mine());
        frame.map(Frame::addr).ok_or(AllocError::NoMemory)
    }

    /// Whether all of `frames` are managed and allocated; if not, the lowest that is not.
    pub(crate) fn check_owned(&self, frames: Frames) -> Result<(), DeallocError> {
        let mut next = frames.lo;
        for (part, region) in self.regions.parts(frames) {
            if part.lo != next {
                break;
            }
            if let Some(free) = region.lowest_free(part) {
                return Err(not_allocated(free));
            }
            next = part.hi;
        }
        if next == frames.hi {
            return Ok(());
        }
        Err(DeallocError::new(next.addr(), DeallocErrorKind::NotManaged))
    }
}

/// The refusal of a frame that is free already.
pub(crate) fn not_allocated(frame: Frame) -> DeallocError {
    DeallocError::new(frame.addr(), DeallocErrorKind::NotAllocated)
}
