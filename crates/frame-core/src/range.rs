//! A run of frames at a place: what a memory map yields and a backend takes over.
//!
//! Invariants: never empty; the start is frame-aligned; the end (exclusive) does not overflow.

use core::fmt;

use crate::{FRAME_SIZE, FrameLayout, PhysAddr};

/// A non-empty, frame-aligned range of physical memory.
///
/// ```
/// use frame_core::{FrameRange, PhysAddr};
///
/// let low = FrameRange::new(PhysAddr::from(0x1000), 158)?;
/// assert_eq!(low.end(), PhysAddr::from(0x9f000));
/// assert!(low.contains(PhysAddr::from(0x9efff)) && !low.contains(low.end()));
/// # Ok::<(), frame_core::RangeError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrameRange {
    start: PhysAddr,
    count: usize,
}

impl FrameRange {
    /// `count` frames from `start` on.
    ///
    /// # Errors
    /// `start` is not frame-aligned, `count` is 0, or the end lies beyond the address space.
    pub const fn new(start: PhysAddr, count: usize) -> Result<Self, RangeError> {
        let base = start.as_usize();
        if base % FRAME_SIZE != 0 {
            return Err(RangeError::Misaligned { addr: start });
        }
        if count == 0 {
            return Err(RangeError::Empty { start });
        }
        // `checked_mul` first: the product may overflow before the sum does.
        match count.checked_mul(FRAME_SIZE) {
            Some(bytes) if base.checked_add(bytes).is_some() => Ok(Self { start, count }),
            _ => Err(RangeError::Overflow { start, count }),
        }
    }

    /// The frames of `start..end`.
    ///
    /// # Errors
    /// Either end is not frame-aligned, or the range is empty.
    pub const fn from_bounds(start: PhysAddr, end: PhysAddr) -> Result<Self, RangeError> {
        if end.as_usize() % FRAME_SIZE != 0 {
            return Err(RangeError::Misaligned { addr: end });
        }
        Self::new(start, end.as_usize().saturating_sub(start.as_usize()) / FRAME_SIZE)
    }

    /// Address of the first frame.
    #[inline]
    pub const fn start(self) -> PhysAddr {
        self.start
    }

    /// Address behind the last frame (exclusive).
    #[inline]
    pub const fn end(self) -> PhysAddr {
        PhysAddr::from_usize(self.start.as_usize() + self.size())
    }

    /// Frames, at least 1.
    #[inline]
    pub const fn count(self) -> usize {
        self.count
    }

    /// Size in bytes.
    #[inline]
    pub const fn size(self) -> usize {
        self.count * FRAME_SIZE
    }

    /// The layout of a run of as many frames, with no alignment beyond a frame's own.
    #[inline]
    pub const fn layout(self) -> FrameLayout {
        match FrameLayout::contiguous(self.count) {
            Ok(layout) => layout,
            // The end does not overflow, so the size fits in a `usize`: the layout's only other condition.
            Err(_) => unreachable!(),
        }
    }

    /// Whether the byte at `addr` lies in the range.
    #[inline]
    pub const fn contains(self, addr: PhysAddr) -> bool {
        addr.as_usize().wrapping_sub(self.start.as_usize()) < self.size()
    }

    /// Whether every frame of `other` lies in this range.
    #[inline]
    pub const fn contains_range(self, other: Self) -> bool {
        self.start.as_usize() <= other.start.as_usize() && other.end().as_usize() <= self.end().as_usize()
    }

    /// Whether any frame lies in both.
    #[inline]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start.as_usize() < other.end().as_usize() && other.start.as_usize() < self.end().as_usize()
    }

    /// The frames that lie in both.
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::from_bounds(self.start.max(other.start), self.end().min(other.end())).ok()
    }

    /// The first `frames` frames, and the rest; `None` when a part would be empty.
    pub const fn split_at(self, frames: usize) -> Option<(Self, Self)> {
        if frames == 0 || frames >= self.count {
            return None;
        }
        let middle = PhysAddr::from_usize(self.start.as_usize() + frames * FRAME_SIZE);
        Some((Self { start: self.start, count: frames }, Self { start: middle, count: self.count - frames }))
    }

    /// This range and one that starts where it ends, as one; `None` when `next` starts elsewhere.
    pub const fn joined(self, next: Self) -> Option<Self> {
        if self.end().as_usize() != next.start.as_usize() {
            return None;
        }
        Some(Self { start: self.start, count: self.count + next.count })
    }

    /// The addresses of the frames, lowest first.
    pub fn frames(self) -> impl DoubleEndedIterator<Item = PhysAddr> + ExactSizeIterator + Clone {
        let start = self.start;
        (0..self.count).map(move |i| start + i * FRAME_SIZE)
    }
}

impl fmt::Debug for FrameRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x} ({} frames)", self.start, self.end(), self.count)
    }
}

impl fmt::Display for FrameRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why a [`FrameRange`] cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeError {
    /// An end of the range is not frame-aligned.
    Misaligned {
        /// That end.
        addr: PhysAddr,
    },
    /// The range has no frames.
    Empty {
        /// Where it would start.
        start: PhysAddr,
    },
    /// The range runs past the end of the address space.
    Overflow {
        /// Where it would start.
        start: PhysAddr,
        /// The frames asked for.
        count: usize,
    },
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Misaligned { addr } => {
                write!(f, "{addr:#x} is not aligned to a frame of {FRAME_SIZE} bytes")
            }
            Self::Empty { start } => write!(f, "the range at {start:#x} holds no whole frame"),
            Self::Overflow { start, count } => {
                write!(f, "{count} frames from {start:#x} run past the end of the address space")
            }
        }
    }
}

impl core::error::Error for RangeError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: usize, count: usize) -> FrameRange {
        FrameRange::new(PhysAddr::from(start), count).unwrap()
    }

    #[test]
    fn bad_ranges_are_refused() {
        let at = |a: usize| PhysAddr::from(a);
        assert_eq!(FrameRange::new(at(0x1001), 1), Err(RangeError::Misaligned { addr: at(0x1001) }));
        assert_eq!(FrameRange::new(at(0x1000), 0), Err(RangeError::Empty { start: at(0x1000) }));
        let top = usize::MAX - FRAME_SIZE + 1;
        assert_eq!(FrameRange::new(at(top), 1), Err(RangeError::Overflow { start: at(top), count: 1 }));
        assert!(FrameRange::new(at(top - FRAME_SIZE), 1).is_ok());
        assert!(FrameRange::new(at(0x1000), usize::MAX / 2).is_err());
        assert!(FrameRange::from_bounds(at(0x2000), at(0x1000)).is_err());
    }

    #[test]
    fn set_operations() {
        let (a, b) = (range(0x1000, 4), range(0x4000, 2));
        assert!(a.overlaps(b) && b.overlaps(a));
        assert_eq!(a.intersection(b), Some(range(0x4000, 1)));
        assert_eq!(a.intersection(range(0x5000, 1)), None);
        assert!(a.contains_range(range(0x2000, 3)) && !a.contains_range(b));
        assert_eq!(a.split_at(1), Some((range(0x1000, 1), range(0x2000, 3))));
        assert_eq!((a.split_at(0), a.split_at(4)), (None, None));
        assert_eq!(range(0x1000, 1).joined(range(0x2000, 3)), Some(a));
        assert_eq!(a.joined(b), None);
        assert!(a.frames().map(PhysAddr::as_usize).eq([0x1000, 0x2000, 0x3000, 0x4000]));
    }
}
