//! The RAM of a VM: frames from the allocator, by guest-physical address.
//!
//! A [`GuestMemory`] owns what it was told to back, in the largest runs that the allocator has: 1 GiB, 2 MiB, 4 KiB. EPT
//! tables map it but do not own it, so several views of one memory (EPTP switching, a write-protected copy) are
//! several [`Ept`]s. Host memory that belongs to somebody else needs no `GuestMemory`: [`Ept::map_range`] maps it.
//!
//! The books are a trie of frames, about one frame of books for 512 runs.
//!
//! # Order of giving back
//!
//! A frame must not be freed while a processor may still reach it by EPT. So: unmap it from every EPT, complete the
//! invalidation, then [`remove`](GuestMemory::remove) it here (or drop the `GuestMemory`).
//!
//! [`read`](GuestMemory::read) and [`write`](GuestMemory::write) copy by guest-physical address.

mod copy;
mod error;
mod runs;

use core::fmt;

use frame_core::{AllocError, FrameHal, FrameStack, PhysAddr, PhysFrames};

pub use error::GuestMemoryError;
pub use runs::{GuestRun, GuestRuns};

use crate::{
    Ept, EptAttributes, EptConfig, EptError, GuestPhysAddr, GuestRange, PageSize,
    trie::{FrameTrie, Refused},
};

/// What newly backed memory holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Contents {
    /// Zeroes: what a guest may be given.
    #[default]
    Zeroed,
    /// Whatever the frames' last owner left: only for memory that is written before the guest runs.
    Leftover,
}

/// Memory of a VM that is backed by frames of its own.
///
/// ```
/// # use frame_core::FrameHal;
/// # use vmx_structs::*;
/// fn ram<H: FrameHal>(config: EptConfig) -> Result<(GuestMemory<H>, Ept<H>), Box<dyn core::error::Error>> {
///     let mut memory = GuestMemory::new(&config)?;
///     memory.add(GuestRange::new(GuestPhysAddr::new(0), 16384)?, Contents::Zeroed)?; // 64 MiB at 0
///     memory.write(GuestPhysAddr::new(0x7c00), &[0xf4])?; // HLT
///     let mut ept = Ept::new(config)?;
///     ept.map_memory(&memory, EptAttributes::RAM)?;
///     Ok((memory, ept))
/// }
/// ```
pub struct GuestMemory<H: FrameHal> {
    runs: FrameTrie<H>,
    largest: PageSize,
    frames: u64,
}

impl<H: FrameHal> GuestMemory<H> {
    /// Memory of nothing, for tables of this configuration: addresses as wide as those, and runs no larger than its
    /// largest page. One frame of books.
    ///
    /// # Errors
    /// No frame.
    pub fn new(config: &EptConfig) -> Result<Self, GuestMemoryError> {
        let runs = FrameTrie::new(config.levels().count())?;
        Ok(Self { runs, largest: config.largest_page(), frames: 0 })
    }

    /// Backs a range with frames, in runs as large as the allocator has.
    ///
    /// # Errors
    /// The range is too wide, a part of it is backed already, or there is no memory. Nothing was added then.
    pub fn add(&mut self, range: GuestRange, contents: Contents) -> Result<(), GuestMemoryError> {
        let (first, last) = (range.start().as_u64(), range.last().as_u64());
        if last >> self.runs.width() != 0 {
            return Err(GuestMemoryError::TooWide { guest: range.last(), width: self.runs.width() });
        }
        if let Some(backed) = self.runs.next(first).filter(|run| run.address <= last) {
            return Err(GuestMemoryError::Backed { guest: GuestPhysAddr::new(backed.address.max(first)) });
        }
        let mut largest = self.largest;
        let mut at = first;
        loop {
            match self.add_run(at, last, &mut largest, contents) {
                Ok(end) if end == last => return Ok(()),
                Ok(end) => at = end + 1,
                Err(error) => {
                    self.take_back(first, at);
                    return Err(error);
                }
            }
        }
    }

    /// Backs the addresses from `at` on with one run, no larger than `largest` and not beyond `last`. A size that the
    /// allocator does not have is not asked for again. Returns the last address backed.
    fn add_run(
        &mut self,
        at: u64,
        last: u64,
        largest: &mut PageSize,
        contents: Contents,
    ) -> Result<u64, GuestMemoryError> {
        let mut refused = AllocError::NoMemory;
        for size in PageSize::ALL.into_iter().rev() {
            let end = at + (size.bytes() - 1);
            if size > *largest || at % size.bytes() != 0 || end > last {
                continue;
            }
            match PhysFrames::try_alloc(size.layout()) {
                Ok(mut run) => {
                    if contents == Contents::Zeroed {
                        run.fill(0);
                    }
                    self.runs.insert(at, run, size).map_err(|why| match why {
                        Refused::Alloc(error) => GuestMemoryError::Alloc(error),
                        Refused::Occupied => GuestMemoryError::Backed { guest: GuestPhysAddr::new(at) },
                    })?;
                    self.frames += size.frames();
                    return Ok(end);
                }
                Err(error) => {
                    refused = error;
                    *largest = match size {
                        PageSize::Size1G => PageSize::Size2M,
                        PageSize::Size2M | PageSize::Size4K => PageSize::Size4K,
                    };
                }
            }
        }
        Err(refused.into())
    }

    /// Removes the runs of `first..end`, all of which were added together.
    fn take_back(&mut self, first: u64, end: u64) {
        while let Some(run) = self.runs.next(first).filter(|run| run.address < end) {
            self.frames -= run.size.frames();
            drop(self.runs.remove(run.address));
        }
    }

    /// Gives the frames of a range back to the allocator. Gaps are passed over; a large run that lies in the range only in
    /// part is cut, and its rest stays. Unmap the range first, and complete the invalidation. Returns how many frames it
    /// were.
    ///
    /// # Errors
    /// There is no frame for the books of a cut. Nothing was removed then.
    pub fn remove(&mut self, range: GuestRange) -> Result<u64, GuestMemoryError> {
        let (first, last) = (range.start().as_u64(), range.last().as_u64());
        let edges = [first, last];
        // Where both edges lie in one piece, it is cut once for both.
        let shared = PageSize::ALL.into_iter().filter(|&size| {
            let same_piece = first / size.bytes() == last / size.bytes();
            same_piece && edges.iter().all(|&edge| self.is_cut(edge, size, first, last))
        });
        let needed: usize = edges.iter().map(|&edge| self.cuts(edge, first, last)).sum();
        let mut frames = FrameStack::alloc(needed - shared.count())?;
        for edge in edges {
            while self.cuts(edge, first, last) > 0 {
                let frame = frames.pop().ok_or(AllocError::NoMemory)?; // there is one: counted above
                if !self.runs.cut(edge, frame) {
                    break;
                }
            }
        }
        let before = self.frames;
        self.take_back(first, last);
        Ok(before - self.frames)
    }

    /// How often the run at one edge of a range must be cut, so that no run reaches out of the range there.
    fn cuts(&self, edge: u64, first: u64, last: u64) -> usize {
        PageSize::ALL.into_iter().filter(|&size| self.is_cut(edge, size, first, last)).count()
    }

    /// Whether the piece of this size that holds `edge` belongs to a run, and reaches out of `first..=last`.
    fn is_cut(&self, edge: u64, size: PageSize, first: u64, last: u64) -> bool {
        let start = edge & !(size.bytes() - 1);
        let reaches_out = start < first || start + (size.bytes() - 1) > last;
        reaches_out && self.runs.get(edge).is_some_and(|(run, _)| size <= run.size)
    }

    /// The host-physical address behind a guest-physical one.
    pub fn translate(&self, guest: GuestPhysAddr) -> Option<PhysAddr> {
        let (run, _) = self.runs.get(guest.as_u64())?;
        Some(run.frames.start() + (guest.as_u64() - run.address) as usize)
    }

    /// The runs, lowest guest address first.
    pub fn runs(&self) -> GuestRuns<'_, H> {
        GuestRuns { runs: &self.runs, next: Some(0) }
    }

    /// Frames of memory.
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// Frames that the books take.
    pub const fn table_frames(&self) -> usize {
        self.runs.tables()
    }
}

impl<H: FrameHal> Ept<H> {
    /// Maps all of a VM's memory, with the largest pages that its runs and the processor have.
    ///
    /// # Errors
    /// As [`Ept::map_ranges`].
    pub fn map_memory(&mut self, memory: &GuestMemory<H>, attributes: EptAttributes) -> Result<(), EptError> {
        self.map_ranges(memory.runs().map(|run| (run.guest, run.host.start(), attributes)))
    }

    /// Maps what lies of a VM's memory in a range.
    ///
    /// # Errors
    /// As [`Ept::map_ranges`].
    pub fn map_memory_in(
        &mut self,
        memory: &GuestMemory<H>,
        range: GuestRange,
        attributes: EptAttributes,
    ) -> Result<(), EptError> {
        let clipped = memory.runs().filter_map(move |run| {
            let run = run.clipped(range)?;
            Some((run.guest, run.host.start(), attributes))
        });
        self.map_ranges(clipped)
    }
}

impl<H: FrameHal> fmt::Debug for GuestMemory<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestMemory")
            .field("frames", &self.frames)
            .field("table_frames", &self.table_frames())
            .finish_non_exhaustive()
    }
}
