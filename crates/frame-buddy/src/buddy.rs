//! The allocator: the trait's contract on one side, the books behind a lock on the other.

use core::{fmt, ops::Range};

use frame_core::{
    AllocError, DeallocError, DeallocErrorKind, FRAME_SIZE, FrameAllocator, FrameLayout, FrameRange,
    FrameStats, PhysAddr, RegionError,
};
use lock_api::{Mutex, RawMutex};

use crate::books::{Books, address, numbers};

/// A buddy system behind a lock.
///
/// `R` is the lock (a spin lock by default; any [`lock_api::RawMutex`], such as one that masks interrupts)
/// and `REGIONS` the most regions, adjoining ones counted once. Needs a global heap, so it is not
/// [`HeapFree`](frame_core::HeapFree): it must not feed that heap.
///
/// ```
/// use frame_buddy::Buddy;
/// use frame_core::{FrameAllocator, FrameLayout, FrameRange, PhysAddr};
///
/// static FRAMES: Buddy = Buddy::new();
///
/// let ram = FrameRange::new(PhysAddr::from(0x10_0000), 1024)?;
/// // SAFETY: nobody else uses this memory (nothing is behind it in this example).
/// unsafe { FRAMES.add_region(ram) }?;
///
/// // Five frames, at a multiple of 64 KiB: the eleven behind them stay free.
/// let five = FrameLayout::new(5, 0x1_0000)?;
/// let run = FRAMES.alloc(five)?;
/// assert_eq!(FRAMES.stats().used_frames(), 5);
/// // SAFETY: the run was allocated above and is not used.
/// unsafe { FRAMES.dealloc(run, five) }?;
/// // SAFETY: a free of what nobody owns is refused.
/// let again = unsafe { FRAMES.dealloc(run, five) };
/// assert_eq!(again.unwrap_err().frame, run);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct Buddy<R: RawMutex = spin::Mutex<()>, const REGIONS: usize = 32> {
    books: Mutex<R, Books<REGIONS>>,
}

impl<R: RawMutex, const REGIONS: usize> Buddy<R, REGIONS> {
    /// An allocator without frames.
    pub const fn new() -> Self {
        Self { books: Mutex::new(Books::new()) }
    }

    /// Takes a region over, at any time. One bit for each frame of it is kept on the heap; a region that
    /// adjoins others becomes one with them, and their bits are copied.
    ///
    /// # Errors
    /// The region holds frame 0, overlaps a managed one, is one too many, or the heap has no room for its
    /// bits. Nothing changes then.
    ///
    /// # Safety
    /// The frames are RAM that nobody else uses from now on.
    pub unsafe fn add_region(&self, region: FrameRange) -> Result<(), RegionError> {
        self.books.lock().add(region)
    }
}

impl<R: RawMutex, const REGIONS: usize> Default for Buddy<R, REGIONS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: RawMutex, const REGIONS: usize> fmt::Debug for Buddy<R, REGIONS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Buddy");
        match self.books.try_lock() {
            Some(books) => out.field("stats", &books.stats()).finish_non_exhaustive(),
            None => out.finish_non_exhaustive(),
        }
    }
}

/// The frames that a free names, or why it is refused at once.
fn freed(start: PhysAddr, layout: FrameLayout) -> Result<Range<usize>, DeallocError> {
    if start.as_usize() & (layout.align() - 1) != 0 {
        return Err(DeallocError::new(start, DeallocErrorKind::Misaligned));
    }
    // Frame numbers stay far below `usize::MAX`: the sum cannot overflow, even where the addresses would.
    let first = start.as_usize() / FRAME_SIZE;
    Ok(first..first + layout.count())
}

// SAFETY: all under one lock. Frames come from the package's free lists, which hold exactly the frames whose
// bit says free (an invariant of `Books`); the bit is cleared when they are handed out and set when they come
// back, and a free is refused unless all its bits are clear and lie in a region, so a frame has one owner.
// Regions hold RAM (the promise of `add_region`) and not frame 0. The free lists' blocks are aligned to their
// size, and runs found in the bits start at a multiple of the alignment. The package keeps its lists on the
// heap: nothing is written to frames.
unsafe impl<R: RawMutex + Send + Sync, const REGIONS: usize> FrameAllocator for Buddy<R, REGIONS> {
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
        let (count, align, window) = (layout.count(), layout.align() / FRAME_SIZE, numbers(window));
        let mut books = self.books.lock();
        let start = if books.all_in(&window) {
            books.alloc(count, align)
        } else {
            books.alloc_in(count, align, window)
        };
        start.map(address)
    }
}
