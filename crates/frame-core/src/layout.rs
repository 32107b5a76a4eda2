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
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ZeroCount => f.write_str("a layout of 0 frames: ask for at least 1"),
            Self::TooManyFrames { count } => write!(f, "{count} frames do not fit in the address space"),
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
    fn the_constants_are_layouts() {
        assert_eq!(FrameLayout::new(1, 4096), Ok(FrameLayout::SINGLE));
        assert_eq!(FrameLayout::new(512, 2 << 20), Ok(FrameLayout::HUGE_2M));
        assert_eq!(FrameLayout::new(1 << 18, 1 << 30), Ok(FrameLayout::HUGE_1G));
        assert!(FrameLayout::SINGLE.is_single() && !FrameLayout::HUGE_2M.is_single());
    }
}
