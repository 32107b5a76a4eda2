//! Memory before there is an allocator: metadata for the backend, per-CPU areas, the first page tables.
//!
//! [`EarlyAllocator`] takes runs out of a [`MemoryMap`] by reserving them there. What it leaves is what
//! [`MemoryMap::frames`] yields afterwards, so handing over is doing nothing. It takes from the top of what lies
//! below the caller's limit: low memory is for devices, and memory above the part that the boot page tables map
//! cannot be written yet.
//!
//! # Books for regions, taken out of the regions
//!
//! A backend that keeps its books in lent memory needs some for each region, and they come out of the same map. Taking
//! them changes the regions: where the limit lies inside a range, what is taken splits it in two, and there is one region
//! more than books were planned for. [`EarlyAllocator::alloc_books`] therefore takes **one** piece, large enough for the
//! books of all regions that are there once it is gone. [`EarlyMemory`] cuts it.

use core::{alloc::Layout, fmt, mem::MaybeUninit};

use crate::{FRAME_SIZE, FrameRange, MapError, MemoryMap, PhysAddr};

/// Takes memory out of a [`MemoryMap`], for ever.
///
/// ```
/// use core::alloc::Layout;
/// use frame_core::{EarlyAllocator, MemoryMap, PhysAddr};
///
/// let mut map = MemoryMap::<8>::new();
/// map.add_usable(0x100000, 1 << 30)?;
/// let before = map.frame_count();
/// let mapped = PhysAddr::from(64 << 20); // the boot page tables reach this far
/// let metadata = EarlyAllocator::new(&mut map).alloc(Layout::new::<[u64; 4096]>(), mapped)?;
/// assert_eq!(metadata.end(), mapped);
/// assert_eq!(map.frame_count(), before - 8);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct EarlyAllocator<'m, const N: usize> {
    map: &'m mut MemoryMap<N>,
}

impl<'m, const N: usize> EarlyAllocator<'m, N> {
    /// An allocator that takes from `map`.
    pub const fn new(map: &'m mut MemoryMap<N>) -> Self {
        Self { map }
    }

    /// Takes whole frames for `layout` (bytes; the alignment is at least a frame's), all of them below the address
    /// `below`. The memory is not cleared.
    ///
    /// # Errors
    /// No free run below the limit fits, or the map has no room to note what was taken. The map is as it was.
    pub fn alloc(&mut self, layout: Layout, below: PhysAddr) -> Result<FrameRange, EarlyError> {
        let place = self.place(layout, below)?;
        self.take(place)
    }

    /// Takes one piece of memory, all of it below the address `below`, that holds the books of every range of the map:
    /// of the ranges that there are **afterwards**, which may be one more than before. `books_of` says what the books of
    /// a range need; [`EarlyMemory`] cuts them from the piece, range by range, in the order of [`MemoryMap::frames`].
    /// The memory is not cleared.
    ///
    /// It comes last: whatever else is taken out of the map changes the ranges again.
    ///
    /// ```
    /// use core::{alloc::Layout, mem::MaybeUninit, slice};
    /// use frame_core::{EarlyAllocator, EarlyMemory, FrameRange, MemoryMap, PhysAddr};
    ///
    /// // A byte for each frame; `Tree::metadata_layout` of `frame-tree` is such a function.
    /// fn books_of(region: FrameRange) -> Layout {
    ///     Layout::array::<u8>(region.count()).expect("less than there is memory")
    /// }
    ///
    /// let mut map = MemoryMap::<8>::new();
    /// map.add_usable(0x10_0000, 8 << 30)?; // one range ...
    /// let mapped = PhysAddr::from(1 << 30); // ... and only its first GiB can be written yet
    /// let piece = EarlyAllocator::new(&mut map).alloc_books(books_of, mapped)?;
    /// assert!(piece.end() <= mapped);
    /// assert_eq!(map.frames().count(), 2); // what is below the piece, and what is above
    ///
    /// # let mut host = vec![MaybeUninit::uninit(); piece.size()];
    /// # let mut linear = |_: PhysAddr| host.as_mut_ptr();
    /// // SAFETY: RAM that is mapped, and out of the map, so that nobody else gets it.
    /// let piece: &mut [MaybeUninit<u8>] = unsafe { slice::from_raw_parts_mut(linear(piece.start()), piece.size()) };
    /// let mut books = EarlyMemory::new(piece);
    /// for region in map.frames() {
    ///     let books = books.take(books_of(region)).expect("the piece is large enough for each");
    ///     assert_eq!(books.len(), region.count()); // for `add_region(region, books)`
    /// }
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    pub fn alloc_books(
        &mut self,
        books_of: impl Fn(FrameRange) -> Layout,
        below: PhysAddr,
    ) -> Result<FrameRange, EarlyError> {
        let mut books = Sum::of(self.map.frames(), &books_of);
        loop {
            let place = self.place(books.layout(below)?, below)?;
            // What is left of the ranges without the place.
            let ranges = self.map.frames().flat_map(|range| without(range, place)).flatten();
            let needed = Sum::of(ranges, &books_of);
            if needed.size <= place.size() && needed.align <= books.align {
                return self.take(place);
            }
            // Each turn asks for more than the one before, so there is a last one.
            books = Sum { size: needed.size.max(books.size), align: needed.align.max(books.align) };
        }
    }

    /// The highest free run below the limit that fits.
    fn place(&self, layout: Layout, below: PhysAddr) -> Result<FrameRange, EarlyError> {
        let count = layout.size().div_ceil(FRAME_SIZE).max(1);
        let align = layout.align().max(FRAME_SIZE);
        let none = EarlyError::NoMemory { count, align, below };
        let size = count.checked_mul(FRAME_SIZE).ok_or(none)?;
        let fit = |range: FrameRange| {
            let end = range.end().as_usize().min(below.as_usize());
            let start = end.checked_sub(size)? & !(align - 1);
            FrameRange::new(PhysAddr::from(start), count).ok().filter(|fit| range.contains_range(*fit))
        };
        self.map.frames().filter_map(fit).last().ok_or(none)
    }

    fn take(&mut self, place: FrameRange) -> Result<FrameRange, EarlyError> {
        self.map
            .add_reserved(place.start().as_usize() as u64, place.size() as u64)
            .map_err(EarlyError::Map)?;
        Ok(place)
    }
}

/// What [`EarlyMemory`] needs to cut several layouts, one after the other, from memory that is aligned to `align`.
#[derive(Clone, Copy)]
struct Sum {
    size: usize,
    align: usize,
}

impl Sum {
    fn of(ranges: impl Iterator<Item = FrameRange>, books_of: impl Fn(FrameRange) -> Layout) -> Self {
        ranges.map(books_of).fold(Self { size: 0, align: FRAME_SIZE }, |sum, books| Self {
            // Saturated, it is more than there is.
            size: sum
                .size
                .checked_next_multiple_of(books.align())
                .unwrap_or(usize::MAX)
                .saturating_add(books.size()),
            align: sum.align.max(books.align()),
        })
    }

    fn layout(self, below: PhysAddr) -> Result<Layout, EarlyError> {
        let Self { size, align } = self;
        let none = EarlyError::NoMemory { count: size.div_ceil(FRAME_SIZE), align, below };
        Layout::from_size_align(size, align).map_err(|_| none)
    }
}

/// What is left of a range without the frames of another.
fn without(range: FrameRange, taken: FrameRange) -> [Option<FrameRange>; 2] {
    if !range.overlaps(taken) {
        return [Some(range), None];
    }
    let part = |start, end| FrameRange::from_bounds(start, end).ok();
    [part(range.start(), taken.start()), part(taken.end(), range.end())]
}

/// Memory that is cut into aligned parts, from the front: books of one region after the other, slots, stacks.
///
/// ```
/// use core::{alloc::Layout, mem::MaybeUninit};
/// use frame_core::EarlyMemory;
///
/// let mut bytes = [MaybeUninit::uninit(); 100];
/// let mut memory = EarlyMemory::new(&mut bytes);
/// let words = memory.take(Layout::new::<[u64; 4]>()).unwrap();
/// assert!(words.as_ptr().cast::<u64>().is_aligned() && words.len() == 32);
/// assert!(memory.take(Layout::new::<[u64; 16]>()).is_none()); // so much is not left
/// ```
#[derive(Debug)]
pub struct EarlyMemory<'m> {
    rest: &'m mut [MaybeUninit<u8>],
}

impl<'m> EarlyMemory<'m> {
    /// All of `memory` is to be cut.
    pub const fn new(memory: &'m mut [MaybeUninit<u8>]) -> Self {
        Self { rest: memory }
    }

    /// Cuts a part from the front; what alignment skips is lost. `None`, and nothing is lost, when it does not fit.
    pub fn take(&mut self, layout: Layout) -> Option<&'m mut [MaybeUninit<u8>]> {
        let start = self.rest.as_ptr().addr();
        let skip = start.checked_next_multiple_of(layout.align())? - start;
        let end = skip.checked_add(layout.size()).filter(|&end| end <= self.rest.len())?;
        let (taken, rest) = core::mem::take(&mut self.rest).split_at_mut(end);
        self.rest = rest;
        Some(&mut taken[skip..])
    }
}

/// Why early memory was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EarlyError {
    /// No free run fits.
    NoMemory {
        /// Frames asked for.
        count: usize,
        /// Alignment asked for, in bytes.
        align: usize,
        /// The limit that every frame had to lie below.
        below: PhysAddr,
    },
    /// The map could not note what was taken.
    Map(MapError),
}

impl fmt::Display for EarlyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory { count, align, below } => {
                write!(f, "no free run of {count} frames, aligned to {align} bytes, lies below {below:#x}")
            }
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for EarlyError {}
