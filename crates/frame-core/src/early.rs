//! Memory before there is an allocator: metadata for the backend, per-CPU areas, the first page tables.
//!
//! [`EarlyAllocator`] takes runs out of a [`MemoryMap`] by reserving them there. What it leaves is what
//! [`MemoryMap::frames`] yields afterwards, so handing over is doing nothing. It takes from the top of what lies
//! below the caller's limit: low memory is for devices, and memory above the part that the boot page tables map
//! cannot be written yet.

use core::{alloc::Layout, fmt};

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
        let count = layout.size().div_ceil(FRAME_SIZE).max(1);
        let align = layout.align().max(FRAME_SIZE);
        let none = EarlyError::NoMemory { count, align, below };
        let size = count.checked_mul(FRAME_SIZE).ok_or(none)?;
        let fit = |range: FrameRange| {
            let end = range.end().as_usize().min(below.as_usize());
            let start = end.checked_sub(size)? & !(align - 1);
            FrameRange::new(PhysAddr::from(start), count).ok().filter(|fit| range.contains_range(*fit))
        };
        let taken = self.map.frames().filter_map(fit).last().ok_or(none)?;
        self.map
            .add_reserved(taken.start().as_usize() as u64, taken.size() as u64)
            .map_err(EarlyError::Map)?;
        Ok(taken)
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
