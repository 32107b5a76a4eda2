//! Contiguous frames that free themselves, split and merge.
//!
//! Ownership is by the frame (see [`FrameAllocator`](crate::FrameAllocator)), so a run may be cut anywhere, a part
//! given back while the rest lives, and neighbours joined.
//!
//! Invariant of [`PhysFrames`]: it owns every frame of `range`, all of them came from `H`, and none is frame 0. So its
//! bytes are one allocation under `H::phys_to_virt`, whichever calls handed the frames out: that is what [`FrameHal`]
//! promises of frames that are adjacent in physical memory.

use core::{fmt, marker::PhantomData, mem, ops::Range, ptr, slice};

use log::{debug, error};

use crate::{AllocError, AxResult, FrameHal, FrameLayout, FrameRange, PhysAddr, PhysFrame};

/// A run of contiguous frames, given back to `H` when it is dropped.
///
/// ```
/// # use frame_core::{AxResult, FrameHal, FrameLayout, PhysFrames};
/// fn dma<H: FrameHal>() -> AxResult<()> {
///     let ring = PhysFrames::<H>::alloc_zero(FrameLayout::contiguous(5).unwrap())?;
///     let Ok((descriptors, buffers)) = ring.split_at(1) else { unreachable!() };
///     drop(descriptors); // gives 1 frame back
///     assert_eq!(buffers.count(), 4);
///     Ok(())
/// }
/// ```
pub struct PhysFrames<H: FrameHal> {
    range: FrameRange,
    _hal: PhantomData<fn() -> H>,
}

impl<H: FrameHal> PhysFrames<H> {
    /// Allocates a run. Its contents are whatever the last owners left.
    ///
    /// # Errors
    /// As [`FrameHal::alloc_frames`]: no run fits, or the HAL has single frames only.
    pub fn alloc(layout: FrameLayout) -> AxResult<Self> {
        Ok(Self::try_alloc(layout)?)
    }

    /// Allocates a run and fills it with zeroes.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    pub fn alloc_zero(layout: FrameLayout) -> AxResult<Self> {
        let mut frames = Self::alloc(layout)?;
        frames.fill(0);
        Ok(frames)
    }

    /// Allocates a run, with the allocator's own error.
    ///
    /// # Errors
    /// As [`FrameHal::alloc_frames`].
    pub fn try_alloc(layout: FrameLayout) -> Result<Self, AllocError> {
        let start = H::alloc_frames(layout)?;
        // A HAL that answers 0 has no frames, as for one frame.
        match FrameRange::new(start, layout.count()) {
            Ok(range) if start.as_usize() != 0 => Ok(Self { range, _hal: PhantomData }),
            _ => Err(AllocError::NoMemory),
        }
    }

    /// Where the run lies.
    #[inline]
    pub const fn range(&self) -> FrameRange {
        self.range
    }

    /// The physical address of the first frame.
    #[inline]
    pub const fn start_paddr(&self) -> PhysAddr {
        self.range.start()
    }

    /// Frames, at least 1.
    #[inline]
    pub const fn count(&self) -> usize {
        self.range.count()
    }

    /// Size in bytes.
    #[inline]
    pub const fn size(&self) -> usize {
        self.range.size()
    }

    /// A pointer to the first of [`size`](Self::size) bytes, valid as long as the run is owned.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        H::phys_to_virt(self.start_paddr()).as_mut_ptr()
    }

    /// Sets every byte.
    pub fn fill(&mut self, byte: u8) {
        // SAFETY: the frames of a run are adjacent and writable (promise of `FrameHal`); `&mut self` excludes every
        // reference into them.
        unsafe { ptr::write_bytes(self.as_mut_ptr(), byte, self.size()) }
    }

    /// The contents.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: the frames of a run are one readable, initialised allocation (promise of `FrameHal`, so no larger than
        // `isize::MAX`), and this value alone owns them.
        unsafe { slice::from_raw_parts(self.as_mut_ptr(), self.size()) }
    }

    /// The contents, to be written.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_bytes`; `&mut self` excludes every other reference into the run.
        unsafe { slice::from_raw_parts_mut(self.as_mut_ptr(), self.size()) }
    }

    /// Cuts the run in two: the first `frames` frames, and the rest.
    ///
    /// # Errors
    /// The run itself, whole, when a part would be empty: `frames` is 0 or not less than [`count`](Self::count).
    pub fn split_at(self, frames: usize) -> Result<(Self, Self), Self> {
        let Some((head, tail)) = self.range.split_at(frames) else { return Err(self) };
        mem::forget(self);
        // SAFETY: both parts lie in the run, which was owned and has just been forgotten, and they do not overlap.
        Ok(unsafe { (Self::from_raw(head), Self::from_raw(tail)) })
    }

    /// Joins this run with one that starts where it ends, whichever calls handed them out.
    ///
    /// # Errors
    /// Both runs, untouched, when `next` starts elsewhere. So too when the HAL maps it elsewhere, which no HAL may do
    /// ([`FrameHal`]): that costs two look-ups, and a broken map shows here, not as a write to somebody else's memory.
    pub fn merge(self, next: Self) -> Result<Self, MergeError<H>> {
        let Some(range) = self.joined(&next) else {
            return Err(MergeError { first: self, second: next });
        };
        mem::forget((self, next));
        // SAFETY: both runs were owned and have just been forgotten; together they are `range`.
        Ok(unsafe { Self::from_raw(range) })
    }

    /// Both runs as one, if they adjoin in both senses.
    fn joined(&self, next: &Self) -> Option<FrameRange> {
        let range = self.range.joined(next.range)?;
        let end = H::phys_to_virt(self.start_paddr()).as_usize().checked_add(self.size())?;
        let mapped_together = H::phys_to_virt(next.start_paddr()).as_usize() == end;
        (mapped_together && range.size() <= isize::MAX as usize).then_some(range)
    }

    /// Gives a part of the run back and keeps what lies before and behind it. `part` counts frames from the start.
    ///
    /// # Errors
    /// The run itself, whole, when `part` is empty or does not lie in it.
    pub fn free_part(self, part: Range<usize>) -> Result<(Option<Self>, Option<Self>), Self> {
        if part.is_empty() || part.end > self.count() {
            return Err(self);
        }
        let (head, rest) = match self.split_at(part.start) {
            Ok((head, rest)) => (Some(head), rest),
            Err(whole) => (None, whole),
        };
        let (freed, tail) = match rest.split_at(part.len()) {
            Ok((freed, tail)) => (freed, Some(tail)),
            Err(whole) => (whole, None),
        };
        drop(freed);
        Ok((head, tail))
    }

    /// Gives up ownership: the frames are not freed. [`from_raw`](Self::from_raw) takes them back.
    #[must_use = "the frames leak unless their range is kept"]
    pub fn into_raw(self) -> FrameRange {
        let range = self.range;
        mem::forget(self);
        range
    }

    /// Takes ownership of a run: it is freed through `H` on drop.
    ///
    /// # Safety
    /// Each frame of the range came from `H`, or from an `into_raw`, and nobody else owns it.
    pub const unsafe fn from_raw(range: FrameRange) -> Self {
        Self { range, _hal: PhantomData }
    }
}

impl<H: FrameHal> From<PhysFrame<H>> for PhysFrames<H> {
    /// A run of one frame.
    ///
    /// # Panics
    /// "uninitialized PhysFrame" on a value from [`PhysFrame::uninit`].
    fn from(frame: PhysFrame<H>) -> Self {
        let range = FrameRange::new(frame.into_raw(), 1).expect("an owned frame is a range of one");
        // SAFETY: the frame was owned and `into_raw` gave it up.
        unsafe { Self::from_raw(range) }
    }
}

impl<H: FrameHal> IntoIterator for PhysFrames<H> {
    type Item = PhysFrame<H>;
    type IntoIter = IntoFrames<H>;

    fn into_iter(self) -> IntoFrames<H> {
        IntoFrames { rest: Some(self) }
    }
}

/// The frames of a run, one by one. Those not taken are freed on drop.
#[derive(Debug)]
pub struct IntoFrames<H: FrameHal> {
    rest: Option<PhysFrames<H>>,
}

impl<H: FrameHal> Iterator for IntoFrames<H> {
    type Item = PhysFrame<H>;

    fn next(&mut self) -> Option<PhysFrame<H>> {
        let frame = match self.rest.take()?.split_at(1) {
            Ok((frame, rest)) => {
                self.rest = Some(rest);
                frame
            }
            Err(last) => last,
        };
        // SAFETY: the run of one frame was owned and `into_raw` gave it up.
        Some(unsafe { PhysFrame::from_raw(frame.into_raw().start()) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = self.rest.as_ref().map_or(0, PhysFrames::count);
        (count, Some(count))
    }
}

impl<H: FrameHal> ExactSizeIterator for IntoFrames<H> {}

impl<H: FrameHal> Drop for PhysFrames<H> {
    fn drop(&mut self) {
        debug!("[PhysFrames] deallocated {self:?}");
        // SAFETY: this value owned the run, and it is gone after this.
        if let Err(refused) = unsafe { H::dealloc_frames(self.start_paddr(), self.range.layout()) } {
            error!("{self:?} leaked, the allocator refused it: {refused}");
        }
    }
}

impl<H: FrameHal> fmt::Debug for PhysFrames<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhysFrames({})", self.range)
    }
}

/// Two runs that do not adjoin, in physical memory or in the HAL's map of it, given back untouched.
pub struct MergeError<H: FrameHal> {
    /// The run that was to come first.
    pub first: PhysFrames<H>,
    /// The run that was to follow.
    pub second: PhysFrames<H>,
}

impl<H: FrameHal> fmt::Debug for MergeError<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergeError").field("first", &self.first).field("second", &self.second).finish()
    }
}

impl<H: FrameHal> fmt::Display for MergeError<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, second } = self;
        match first.range.joined(second.range) {
            None => write!(f, "{first:?} does not end where {second:?} starts"),
            Some(_) => write!(
                f,
                "{first:?} and {second:?} adjoin, but the HAL does not map them so: mend its phys_to_virt"
            ),
        }
    }
}

impl<H: FrameHal> core::error::Error for MergeError<H> {}
