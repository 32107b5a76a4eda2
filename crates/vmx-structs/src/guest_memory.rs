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
//! # Reading and writing
//!
//! [`read`](GuestMemory::read) and [`write`](GuestMemory::write) copy by guest-physical address. A guest may run at the
//! same time, so they go through atomics: each aligned 8 bytes are copied at once, and bytes next to a write are not
//! touched.

use core::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use axerrno::AxErrorKind;
use frame_core::{AllocError, FRAME_SIZE, FrameHal, FrameRange, PhysAddr, PhysFrames};

use crate::{
    Ept, EptAttributes, EptConfig, EptError, GuestPhysAddr, GuestRange, PageSize,
    trie::{FrameTrie, Owned, Refused},
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

    /// Gives the frames of a range back to the allocator. Gaps are passed over. Unmap them first, and complete the
    /// invalidation. Returns how many frames it were.
    ///
    /// # Errors
    /// The range ends within a run of 2 MiB or 1 GiB: such a run is given back as a whole. Nothing was removed then.
    pub fn remove(&mut self, range: GuestRange) -> Result<u64, GuestMemoryError> {
        let (first, last) = (range.start().as_u64(), range.last().as_u64());
        for edge in [first, last] {
            if let Some((run, _)) = self.runs.get(edge) {
                if run.address < first || run.last() > last {
                    return Err(GuestMemoryError::CutsRun {
                        guest: GuestPhysAddr::new(run.address),
                        size: run.size,
                    });
                }
            }
        }
        let before = self.frames;
        self.take_back(first, last);
        Ok(before - self.frames)
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

    /// Copies bytes out of the memory.
    ///
    /// # Errors
    /// A byte is not backed. Nothing was copied then.
    pub fn read(&self, guest: GuestPhysAddr, buffer: &mut [u8]) -> Result<(), GuestMemoryError> {
        self.check_backed(guest, buffer.len())?;
        let mut rest = buffer;
        for (words, offset, count) in self.pieces(guest, rest.len()) {
            let (now, later) = rest.split_at_mut(count);
            copy_out(words, offset, now);
            rest = later;
        }
        Ok(())
    }

    /// Copies bytes into the memory.
    ///
    /// # Errors
    /// A byte is not backed. Nothing was copied then.
    pub fn write(&self, guest: GuestPhysAddr, bytes: &[u8]) -> Result<(), GuestMemoryError> {
        self.check_backed(guest, bytes.len())?;
        let mut rest = bytes;
        for (words, offset, count) in self.pieces(guest, rest.len()) {
            let (now, later) = rest.split_at(count);
            copy_in(words, offset, now);
            rest = later;
        }
        Ok(())
    }

    fn check_backed(&self, guest: GuestPhysAddr, len: usize) -> Result<(), GuestMemoryError> {
        let backed: usize = self.pieces(guest, len).map(|(_, _, count)| count).sum();
        if backed < len {
            // A `usize` fits in a `u64`, and the sum is the address of a byte behind a backed one, or the first.
            let guest = GuestPhysAddr::new(guest.as_u64().wrapping_add(backed as u64));
            return Err(GuestMemoryError::NotBacked { guest });
        }
        Ok(())
    }

    /// The parts of `len` bytes that lie in one run each, up to a gap: the run's contents, where the part starts in them,
    /// and its length, in bytes.
    fn pieces(&self, guest: GuestPhysAddr, len: usize) -> impl Iterator<Item = (&[AtomicU64], usize, usize)> {
        let mut at = guest.as_u64();
        let mut left = len;
        core::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let (run, words) = self.runs.get(at)?;
            let offset = (at - run.address) as usize;
            let count = left.min(run.size.bytes() as usize - offset);
            at = at.checked_add(count as u64)?;
            left -= count;
            Some((words, offset, count))
        })
    }
}

fn copy_out(words: &[AtomicU64], offset: usize, mut to: &mut [u8]) {
    let mut skip = offset % 8;
    for word in words.get(offset / 8..).unwrap_or_default() {
        if to.is_empty() {
            return;
        }
        let bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        let count = to.len().min(8 - skip);
        let (now, later) = to.split_at_mut(count);
        now.copy_from_slice(&bytes[skip..skip + count]);
        (to, skip) = (later, 0);
    }
}

fn copy_in(words: &[AtomicU64], offset: usize, mut from: &[u8]) {
    let mut skip = offset % 8;
    for word in words.get(offset / 8..).unwrap_or_default() {
        let count = from.len().min(8 - skip);
        let (now, later) = from.split_at(count);
        if let Ok(whole) = <[u8; 8]>::try_from(now) {
            word.store(u64::from_ne_bytes(whole), Ordering::Relaxed);
        } else if now.is_empty() {
            return;
        } else {
            // A part of a word: the bytes beside it may be written by the guest at this moment.
            let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                let mut bytes = word.to_ne_bytes();
                bytes[skip..skip + count].copy_from_slice(now);
                Some(u64::from_ne_bytes(bytes))
            });
        }
        (from, skip) = (later, 0);
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

/// A part of a VM's memory that is contiguous in the host.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GuestRun {
    /// Where it lies in the guest.
    pub guest: GuestRange,
    /// Where it lies in the host: as many frames.
    pub host: FrameRange,
}

impl GuestRun {
    /// The part of the run that lies in a range.
    pub fn clipped(self, range: GuestRange) -> Option<Self> {
        let first = self.guest.start().max(range.start()).as_u64();
        let last = self.guest.last().min(range.last()).as_u64();
        let count = last.checked_sub(first)? / FRAME_SIZE as u64 + 1;
        let skipped = (first - self.guest.start().as_u64()) as usize;
        Some(Self {
            guest: GuestRange::new(GuestPhysAddr::new(first), count).ok()?,
            host: FrameRange::new(self.host.start() + skipped, count as usize).ok()?,
        })
    }
}

impl fmt::Debug for GuestRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {:#x}", self.guest, self.host.start())
    }
}

/// The iterator of [`GuestMemory::runs`].
pub struct GuestRuns<'a, H: FrameHal> {
    runs: &'a FrameTrie<H>,
    next: Option<u64>,
}

impl<H: FrameHal> Clone for GuestRuns<'_, H> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<H: FrameHal> Iterator for GuestRuns<'_, H> {
    type Item = GuestRun;

    fn next(&mut self) -> Option<GuestRun> {
        let run = self.runs.next(self.next?);
        self.next = run.map(|run| run.last() + 1);
        let Owned { address, size, frames } = run?;
        let guest = GuestRange::new(GuestPhysAddr::new(address), size.frames()).ok()?;
        Some(GuestRun { guest, host: frames })
    }
}

impl<H: FrameHal> fmt::Debug for GuestRuns<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

/// Why memory was not added, removed or reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuestMemoryError {
    /// No frames could be allocated, for memory or for the books.
    Alloc(AllocError),
    /// A guest address is wider than the tables translate.
    TooWide {
        /// That address.
        guest: GuestPhysAddr,
        /// Bits that are translated.
        width: u32,
    },
    /// A part of the range is backed already.
    Backed {
        /// The first address that is.
        guest: GuestPhysAddr,
    },
    /// A byte is not backed.
    NotBacked {
        /// The first one.
        guest: GuestPhysAddr,
    },
    /// The range ends within a large run.
    CutsRun {
        /// Where the run starts.
        guest: GuestPhysAddr,
        /// Its size.
        size: PageSize,
    },
}

impl fmt::Display for GuestMemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alloc(error) => write!(f, "no frames for guest memory: {error}"),
            Self::TooWide { guest, width } => {
                write!(f, "guest address {guest:#x} has more than the {width} bits that the EPT translates")
            }
            Self::Backed { guest } => write!(f, "guest address {guest:#x} is backed already"),
            Self::NotBacked { guest } => write!(f, "guest address {guest:#x} is not backed by memory"),
            Self::CutsRun { guest, size } => {
                write!(
                    f,
                    "the range ends within the run of {size} at guest address {guest:#x}: remove it whole"
                )
            }
        }
    }
}

impl core::error::Error for GuestMemoryError {}

impl From<AllocError> for GuestMemoryError {
    fn from(error: AllocError) -> Self {
        Self::Alloc(error)
    }
}

impl From<GuestMemoryError> for AxErrorKind {
    fn from(error: GuestMemoryError) -> Self {
        match error {
            GuestMemoryError::Alloc(error) => error.into(),
            GuestMemoryError::TooWide { .. } => Self::OutOfRange,
            GuestMemoryError::Backed { .. } => Self::AlreadyExists,
            GuestMemoryError::NotBacked { .. } => Self::BadAddress,
            GuestMemoryError::CutsRun { .. } => Self::InvalidInput,
        }
    }
}
