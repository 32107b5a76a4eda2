//! The allocator: the trait's contract on one side, the books behind a lock on the other.

use core::{alloc::Layout, fmt, mem::MaybeUninit, ops::Range};

use frame_core::{
    AllocError, DeallocError, DeallocErrorKind, FRAME_SIZE, FrameAllocator, FrameLayout, FrameRange,
    FrameStats, HeapFree, PhysAddr, RegionError,
};
use lock_api::{Mutex, RawMutex};

use crate::{
    books::{Books, address, numbers},
    metadata,
    region::chunk_count,
};

/// A bitmap behind a lock: lowest address first, runs from the lowest aligned power of two that holds them.
///
/// `'m` is how long the metadata lives, `R` the lock (a spin lock by default; any [`lock_api::RawMutex`],
/// such as one that masks interrupts) and `REGIONS` the most regions.
///
/// ```
/// use frame_bitmap::Bitmap;
/// use frame_core::{FrameAllocator, FrameLayout, FrameRange, PhysAddr};
///
/// static FRAMES: Bitmap = Bitmap::new();
///
/// let ram = FrameRange::new(PhysAddr::from(0x10_0000), 1024)?;
/// // In a kernel: from `EarlyAllocator`. On a host, whose heap is aligned to 8 bytes and more:
/// let metadata = Box::leak(Box::new_uninit_slice(<Bitmap>::metadata_layout(ram).size()));
/// // SAFETY: nobody else uses this memory (nothing is behind it in this example).
/// unsafe { FRAMES.add_region(ram, metadata) }?;
///
/// let huge = FRAMES.alloc(FrameLayout::HUGE_2M)?;
/// assert_eq!(huge, PhysAddr::from(0x20_0000));
/// // SAFETY: the frames were allocated above and are not used: the last one first, then the others.
/// unsafe { FRAMES.dealloc_frame(huge + 511 * 4096) }?;
/// // SAFETY: as above.
/// unsafe { FRAMES.dealloc(huge, FrameLayout::contiguous(511)?) }?;
/// // SAFETY: a free of what nobody owns is refused.
/// let again = unsafe { FRAMES.dealloc_frame(huge) };
/// assert_eq!(again.unwrap_err().frame, huge);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct Bitmap<'m, R: RawMutex = spin::Mutex<()>, const REGIONS: usize = 32> {
    books: Mutex<R, Books<'m, REGIONS>>,
}

impl<'m, R: RawMutex, const REGIONS: usize> Bitmap<'m, R, REGIONS> {
    /// An allocator without frames.
    pub const fn new() -> Self {
        Self { books: Mutex::new(Books::new()) }
    }

    /// Size and alignment of the metadata of `region`, in bytes: 637 for each 16 MiB that it reaches into,
    /// and 80 for each GiB; aligned to 8.
    pub const fn metadata_layout(region: FrameRange) -> Layout {
        let start = region.start().as_usize() / FRAME_SIZE;
        metadata::layout(chunk_count(&(start..start + region.count())))
    }

    /// Takes a region over, at any time. Its books are kept in `metadata`, which may hold anything and may be
    /// larger than needed; most of it is written only when the memory that it describes is first used.
    ///
    /// # Errors
    /// The region holds frame 0, overlaps a managed one or is one too many, or the metadata is too small or
    /// misaligned. Nothing changes then.
    ///
    /// # Safety
    /// The frames are RAM that nobody else uses from now on.
    pub unsafe fn add_region(
        &self,
        region: FrameRange,
        metadata: &'m mut [MaybeUninit<u8>],
    ) -> Result<(), RegionError> {
        self.books.lock().add(region, metadata)
    }
}

impl<R: RawMutex, const REGIONS: usize> Default for Bitmap<'_, R, REGIONS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: RawMutex, const REGIONS: usize> fmt::Debug for Bitmap<'_, R, REGIONS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Bitmap");
        match self.books.try_lock() {
            Some(books) => out.field("stats", &books.stats()).finish_non_exhaustive(),
            None => out.finish_non_exhaustive(),
        }
    }
}

/// The frames that a free names, or why it is refused at once.
#[inline]
fn freed(start: PhysAddr, layout: FrameLayout) -> Result<Range<usize>, DeallocError> {
    if start.as_usize() & (layout.align() - 1) != 0 {
        return Err(DeallocError::new(start, DeallocErrorKind::Misaligned));
    }
    // Frame numbers stay far below `usize::MAX`: the sum cannot overflow, even where the addresses would.
    let first = start.as_usize() / FRAME_SIZE;
    Ok(first..first + layout.count())
}

// SAFETY: all under one lock. A frame is handed out when its bit (or its chunk's state) says free, which only
// frames of a region can be (an invariant of `Region`), and then says used until the frame comes back; a free
// is refused unless every frame lies in a region and is used. So a frame has one owner. Regions are disjoint,
// hold RAM (the promise of `add_region`) and not frame 0. Runs are searched at multiples of the alignment and
// checked to be free as a whole. Books lie in the metadata: nothing is written to frames.
unsafe impl<R: RawMutex + Send + Sync, const REGIONS: usize> FrameAllocator for Bitmap<'_, R, REGIONS> {
    fn alloc(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        if layout.is_single() {
            return self.alloc_frame();
        }
        self.books.lock().alloc(layout.count(), layout.align() / FRAME_SIZE).map(address)
    }

    unsafe fn dealloc(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
        let run = freed(start, layout)?;
        if run.len() == 1 {
            return self.books.lock().dealloc_frame(run.start);
        }
        self.books.lock().dealloc(run)
    }

    fn stats(&self) -> FrameStats {
        self.books.lock().stats()
    }

    fn visit_free(&self, visit: &mut dyn FnMut(FrameRange)) {
        self.books.lock().visit_free(visit);
    }

    #[inline]
    fn alloc_frame(&self) -> Result<PhysAddr, AllocError> {
        self.books.lock().alloc_frame().map(address)
    }

    fn alloc_bulk(&self, frames: &mut [PhysAddr]) -> usize {
        self.books.lock().alloc_bulk(frames)
    }

    unsafe fn dealloc_bulk(&self, frames: &[PhysAddr]) -> Result<(), DeallocError> {
        let mut books = self.books.lock();
        let mut result = Ok(());
        for &frame in frames {
            let freed = freed(frame, FrameLayout::SINGLE).and_then(|run| books.dealloc_frame(run.start));
            result = result.and(freed);
        }
        result
    }

    fn alloc_at(&self, range: FrameRange) -> Result<(), AllocError> {
        self.books.lock().alloc_at(numbers(range))
    }

    fn alloc_in(&self, layout: FrameLayout, window: FrameRange) -> Result<PhysAddr, AllocError> {
        self.books.lock().alloc_in(layout.count(), layout.align() / FRAME_SIZE, numbers(window)).map(address)
    }
}

// SAFETY: the books lie in the object and in the metadata; nothing here knows of a heap.
unsafe impl<R: RawMutex + Send + Sync, const REGIONS: usize> HeapFree for Bitmap<'_, R, REGIONS> {}
