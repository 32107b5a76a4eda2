//! What is asked of an allocator: how many frames, aligned to how many bytes.
//!
//! Peers count in pages here and in powers of two there, and take an alignment as a log2 in one place and in
//! bytes in another; mixing them up is the oldest bug of frame allocators. A [`FrameLayout`] has one meaning:
//! a count of **frames** and an alignment in **bytes**.
//!
//! Invariants: the count is at least 1 and `count * FRAME_SIZE` fits in a `usize`; the alignment is a power of
//! two of at least [`FRAME_SIZE`] bytes.

use core::fmt;

use crate::FRAME_SIZE;

/// A count of contiguous frames and the alignment of the first one, in bytes.
///
/// ```
/// use frame_core::FrameLayout;
///
/// let dma = FrameLayout::new(16, 64 * 1024)?; // 16 frames, 64 KiB aligned
/// assert_eq!((dma.count(), dma.align(), dma.size()), (16, 65536, 65536));
/// assert!(FrameLayout::new(1, 12).is_err()); // bytes, not a log2
/// # Ok::<(), frame_core::LayoutError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameLayout {
    count: usize,
    align: usize,
}

impl FrameLayout {
    /// One 4 KiB frame.
    pub const SINGLE: Self = Self { count: 1, align: FRAME_SIZE };
    /// 512 frames aligned to 2 MiB: what a 2 MiB page maps.
    pub const HUGE_2M: Self = Self { count: 512, align: 512 * FRAME_SIZE };
    /// 262,144 frames aligned to 1 GiB: what a 1 GiB page maps.
    pub const HUGE_1G: Self = Self { count: 512 * 512, align: 512 * 512 * FRAME_SIZE };

    /// `count` frames, the first aligned to `align` bytes.
    ///
    /// # Errors
    /// The count is 0 or its size in bytes does not fit in a `usize`, or the alignment is not a power of two of
    /// at least [`FRAME_SIZE`].
    pub const fn new(count: usize, align: usize) -> Result<Self, LayoutError> {
        if count == 0 {
            return Err(LayoutError::ZeroCount);
        }
        if count > usize::MAX / FRAME_SIZE {
            return Err(LayoutError::TooManyFrames { count });
        }
        if !align.is_power_of_two() || align < FRAME_SIZE {
            return Err(LayoutError::BadAlign { align });
        }
        Ok(Self { count, align })
    }

    /// `count` frames with no alignment beyond a frame's own.
    ///
    /// # Errors
    /// As [`new`](Self::new), for the count.
    pub const fn contiguous(count: usize) -> Result<Self, LayoutError> {
        Self::new(count, FRAME_SIZE)
    }

    /// `count` frames that cross no multiple of `boundary` bytes: for devices whose descriptors, rings or counters
    /// wrap there (64 KiB, 4 GiB). The run is aligned to its size, rounded up to a power of two, which keeps it within
    /// every boundary that it fits in, on every backend, in a window too
    /// ([`alloc_in`](crate::FrameAllocator::alloc_in)).
    ///
    /// ```
    /// use frame_core::FrameLayout;
    ///
    /// let ring = FrameLayout::within_boundary(3, 64 * 1024)?;
    /// assert_eq!((ring.count(), ring.align()), (3, 16 * 1024));
    /// assert!(FrameLayout::within_boundary(17, 64 * 1024).is_err()); // does not fit between two multiples
    /// # Ok::<(), frame_core::LayoutError>(())
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new), for the count and for a boundary in the place of the alignment; or the run is larger than
    /// the boundary.
    pub const fn within_boundary(count: usize, boundary: usize) -> Result<Self, LayoutError> {
        match Self::new(count, boundary) {
            Ok(Self { count, align }) if count > align / FRAME_SIZE => {
                Err(LayoutError::CrossesBoundary { count, boundary })
            }
            // No more than the boundary, so it does not overflow.
            Ok(Self { count, .. }) => Self::new(count, count.next_power_of_two() * FRAME_SIZE),
            error => error,
        }
    }

    /// Frames.
    #[inline]
    pub const fn count(self) -> usize {
        self.count
    }

    /// Alignment of the first frame, in bytes.
    #[inline]
    pub const fn align(self) -> usize {
        self.align
    }

    /// Size in bytes.
    #[inline]
    pub const fn size(self) -> usize {
        self.count * FRAME_SIZE
    }

    /// Whether this asks for one frame and no more than its own alignment: the case that allocators make fast.
    #[inline]
    pub const fn is_single(self) -> bool {
        self.count == 1 && self.align == FRAME_SIZE
    }
}

/// Why a [`FrameLayout`] cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// No frames were asked for.
    ZeroCount,
    /// The size in bytes does not fit in a `usize`.
    TooManyFrames {
        /// The frames asked for.
        count: usize,
    },
    /// Not a power of two, or less than a frame.
    BadAlign {
        /// The alignment asked for, in bytes.
        align: usize,
    },
    /// Wherever the run lies, it crosses a multiple of the boundary.
    CrossesBoundary {
        /// The frames asked for.
        count: usize,
        /// The boundary, in bytes.
        boundary: usize,
    },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ZeroCount => f.write_str("a layout of 0 frames: ask for at least 1"),
            Self::TooManyFrames { count } => write!(f, "{count} frames do not fit in the address space"),
            Self::CrossesBoundary { count, boundary } => {
                write!(f, "{count} frames do not fit between two multiples of {boundary} bytes")
            }
            Self::BadAlign { align } => write!(
                f,
                "an alignment of {align} bytes: it must be a power of two of at least {FRAME_SIZE} (bytes, not a log2)"
            ),
        }
    }
}

impl core::error::Error for LayoutError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_layouts_are_refused() {
        assert_eq!(FrameLayout::new(0, FRAME_SIZE), Err(LayoutError::ZeroCount));
        for align in [0, 1, 12, 2048, 4097, 3 * 4096] {
            assert_eq!(FrameLayout::new(1, align), Err(LayoutError::BadAlign { align }));
        }
        let count = usize::MAX / FRAME_SIZE + 1;
        assert_eq!(FrameLayout::contiguous(count), Err(LayoutError::TooManyFrames { count }));
        assert!(FrameLayout::contiguous(count - 1).is_ok());
    }

    #[test]
    fn a_run_within_a_boundary_crosses_none_wherever_its_alignment_lets_it_lie() {
        for boundary in [1, 2, 16, 1 << 20].map(|frames| frames * FRAME_SIZE) {
            for count in (1..40).chain([511, 1 << 20, (1 << 20) + 1]) {
                let Ok(layout) = FrameLayout::within_boundary(count, boundary) else {
                    assert!(count * FRAME_SIZE > boundary);
                    continue;
                };
                assert!(layout.count() == count && layout.size() <= boundary);
                for start in (0..4).map(|i| boundary * 3 - 2 * layout.align() + i * layout.align()) {
                    assert_eq!(start / boundary, (start + layout.size() - 1) / boundary);
                }
            }
        }
        let refused = [(0, 4096), (1, 0), (1, 2048), (1, 3 * 4096), (usize::MAX, 4096), (17, 65536)];
        assert!(
            refused.iter().all(|&(count, boundary)| FrameLayout::within_boundary(count, boundary).is_err())
        );
        let largest = 1 << (usize::BITS - 1);
        assert!(FrameLayout::within_boundary(largest / FRAME_SIZE, largest).is_ok());
    }

    #[test]
    fn the_constants_are_layouts() {
        assert_eq!(FrameLayout::new(1, 4096), Ok(FrameLayout::SINGLE));
        assert_eq!(FrameLayout::new(512, 2 << 20), Ok(FrameLayout::HUGE_2M));
        assert_eq!(FrameLayout::new(1 << 18, 1 << 30), Ok(FrameLayout::HUGE_1G));
        assert!(FrameLayout::SINGLE.is_single() && !FrameLayout::HUGE_2M.is_single());
    }
}
