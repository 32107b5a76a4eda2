//! Simulated physical memory: physical ranges with host memory behind them.
//!
//! The memory is mapped without reserving anything, so that a test can pretend to have 64 GiB and pays only for the
//! frames that it touches. Frames that were never touched are zero.
//!
//! Invariant: each mapping holds as many bytes as its range, and ranges neither overlap nor touch, so that frames
//! which adjoin physically adjoin on the host too.

use std::{fmt, io, vec::Vec};

use frame_core::{FrameRange, PhysAddr};
use memmap2::{MmapOptions, MmapRaw};

use crate::FrameSet;

/// Physical memory that is not there, unmapped on drop.
///
/// ```
/// use frame_testkit::{SimMemory, frame_core::{FrameRange, PhysAddr}};
///
/// let ram = FrameRange::new(PhysAddr::from(0x10_0000), 64 << 18)?; // 64 GiB
/// let memory = SimMemory::new(&[ram])?;
/// let byte = memory.ptr(ram.start() + (63 << 30) + 5);
/// // SAFETY: the memory is mapped, and nothing else uses it.
/// unsafe {
///     byte.write(7);
///     assert_eq!(byte.read(), 7);
/// }
/// assert!(memory.try_ptr(ram.end()).is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SimMemory {
    /// Sorted by address.
    mapped: Vec<(FrameRange, MmapRaw)>,
}

impl SimMemory {
    /// Maps memory for these ranges.
    ///
    /// # Errors
    /// The host has no address space left.
    ///
    /// # Panics
    /// Ranges overlap.
    pub fn new(ranges: &[FrameRange]) -> io::Result<Self> {
        let ranges = FrameSet::from_iter(ranges.iter().copied());
        let map = |range: FrameRange| {
            let map = MmapOptions::new().len(range.size()).no_reserve_swap().map_anon()?;
            // Otherwise the host may back each touched frame with 2 MiB. Advice only: it may be refused.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::NoHugePage);
            Ok((range, MmapRaw::from(map)))
        };
        Ok(Self { mapped: ranges.runs().map(map).collect::<io::Result<_>>()? })
    }

    /// The ranges, lowest first; those that adjoin are joined.
    pub fn ranges(&self) -> impl Iterator<Item = FrameRange> + '_ {
        self.mapped.iter().map(|(range, _)| *range)
    }

    /// Where the byte at `paddr` lies on the host; `None` where no memory is.
    pub fn try_ptr(&self, paddr: PhysAddr) -> Option<*mut u8> {
        let (range, map) = self.mapped.iter().find(|(range, _)| range.contains(paddr))?;
        Some(map.as_mut_ptr().wrapping_add(paddr.as_usize() - range.start().as_usize()))
    }

    /// Where the byte at `paddr` lies on the host. Valid for reads and writes up to the end of the range, as long as
    /// the memory lives.
    ///
    /// # Panics
    /// There is no memory at `paddr`.
    #[track_caller]
    pub fn ptr(&self, paddr: PhysAddr) -> *mut u8 {
        self.try_ptr(paddr).unwrap_or_else(|| panic!("no memory at {paddr:#x}, only in {self:?}"))
    }
}

impl fmt::Debug for SimMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ranges()).finish()
    }
}
