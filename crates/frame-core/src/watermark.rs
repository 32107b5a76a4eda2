//! What a backend advises a cache: which frames to keep, and which rather to hand back.
//!
//! Were all frames in use packed at the place where allocation begins, they would reach up to some frame: the watermark. A
//! cache that keeps frames from beyond it keeps memory scattered. Handed back, they are replaced by frames from before it,
//! and whole huge frames come free beyond.
//!
//! Memory below 4 GiB is filled last where devices may need it. So "before" is not simply "lower", and there are two
//! watermarks, one for each side of 4 GiB. While the upper memory has room, the lower one is 0.

use crate::{FRAME_SIZE, PhysAddr};

/// Which frames a cache had better keep: numbers of frames (address / 4096) on both sides of 4 GiB. Only a hint.
///
/// ```
/// use frame_core::{CacheWatermark, PhysAddr};
///
/// let advice = CacheWatermark::below(0x180); // 1.5 MiB
/// assert!(advice.keeps(PhysAddr::from(0x17_f000)) && !advice.keeps(PhysAddr::from(0x18_0000)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheWatermark {
    low: usize,
    high: usize,
}

impl CacheWatermark {
    /// 4 GiB, as a frame's number. (In bytes it would not fit into 32 bits.)
    pub const SPLIT: usize = 1 << 20;

    /// All frames are worth keeping.
    pub const KEEP_ALL: Self = Self::split(usize::MAX, usize::MAX);

    /// Frames with a number below `end`.
    pub const fn below(end: usize) -> Self {
        Self::split(end, end)
    }

    /// Of the frames below 4 GiB those with a number below `low`; of the others those with a number below `high`.
    pub const fn split(low: usize, high: usize) -> Self {
        Self {
            low: if low < Self::SPLIT { low } else { Self::SPLIT },
            high: if high > Self::SPLIT { high } else { Self::SPLIT },
        }
    }

    /// How many of the frames below 4 GiB are worth keeping, counted from address 0: at most [`SPLIT`](Self::SPLIT).
    pub const fn low(self) -> usize {
        self.low
    }

    /// The number of the first frame above 4 GiB that is not worth keeping: at least [`SPLIT`](Self::SPLIT).
    pub const fn high(self) -> usize {
        self.high
    }

    /// Whether the frame at this address is worth keeping.
    pub fn keeps(self, frame: PhysAddr) -> bool {
        let number = frame.as_usize() / FRAME_SIZE;
        number < if number < Self::SPLIT { self.low } else { self.high }
    }

    /// The same, raised so far that this frame is kept.
    #[inline]
    pub fn with(self, frame: PhysAddr) -> Self {
        let end = frame.as_usize() / FRAME_SIZE + 1;
        if end <= Self::SPLIT {
            Self { low: self.low.max(end), ..self }
        } else {
            Self { high: self.high.max(end), ..self }
        }
    }

    /// What either of two keeps.
    pub fn or(self, other: Self) -> Self {
        Self { low: self.low.max(other.low), high: self.high.max(other.high) }
    }
}
