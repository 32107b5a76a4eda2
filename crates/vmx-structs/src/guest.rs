//! Guest-physical addresses, ranges of them, and the sizes of pages.

use core::fmt;

use frame_core::{FRAME_SIZE, FrameLayout};

const MASK: u64 = FRAME_SIZE as u64 - 1;

/// A guest-physical address: what the guest takes for a physical address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestPhysAddr(u64);

impl GuestPhysAddr {
    /// Of a number.
    #[inline]
    pub const fn new(address: u64) -> Self {
        Self(address)
    }

    /// The number.
    #[inline]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl From<u64> for GuestPhysAddr {
    fn from(address: u64) -> Self {
        Self(address)
    }
}

impl From<GuestPhysAddr> for u64 {
    fn from(address: GuestPhysAddr) -> Self {
        address.0
    }
}

impl fmt::LowerHex for GuestPhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl fmt::Debug for GuestPhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GPA:{:#x}", self.0)
    }
}

impl fmt::Display for GuestPhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A non-empty range of guest-physical frames. Invariants: the start is frame-aligned, the count at least 1, and the
/// last byte an address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct GuestRange {
    start: u64,
    count: u64,
}

impl GuestRange {
    /// `count` frames of 4 KiB from `start` on.
    ///
    /// # Errors
    /// `start` is not frame-aligned, `count` is 0, or the range runs past the last 64-bit address.
    #[inline]
    pub const fn new(start: GuestPhysAddr, count: u64) -> Result<Self, GuestRangeError> {
        let error = GuestRangeError { start, count };
        if start.0 & MASK != 0 || count == 0 {
            return Err(error);
        }
        match (count - 1).checked_mul(FRAME_SIZE as u64) {
            Some(more) if more <= u64::MAX - MASK - start.0 => Ok(Self { start: start.0, count }),
            _ => Err(error),
        }
    }

    /// The first address.
    #[inline]
    pub const fn start(self) -> GuestPhysAddr {
        GuestPhysAddr(self.start)
    }

    /// The address of the last byte.
    #[inline]
    pub const fn last(self) -> GuestPhysAddr {
        GuestPhysAddr(self.start + (self.count - 1) * FRAME_SIZE as u64 + MASK)
    }

    /// Frames of 4 KiB, at least 1.
    pub const fn count(self) -> u64 {
        self.count
    }

    /// Whether the byte at `address` lies in the range.
    pub const fn contains(self, address: GuestPhysAddr) -> bool {
        self.start <= address.0 && address.0 <= self.last().0
    }
}

impl fmt::Debug for GuestRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..={:#x} ({} frames)", self.start, self.last(), self.count)
    }
}

impl fmt::Display for GuestRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// No range of guest-physical frames: misaligned, empty, or past the last address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuestRangeError {
    /// Where it would start.
    pub start: GuestPhysAddr,
    /// Frames asked for.
    pub count: u64,
}

impl fmt::Display for GuestRangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, count } = self;
        if start.0 & MASK != 0 {
            write!(f, "guest address {start:#x} is not aligned to {FRAME_SIZE} bytes")
        } else if *count == 0 {
            write!(f, "the guest range at {start:#x} holds no frame")
        } else {
            write!(f, "{count} frames from guest address {start:#x} run past the last address")
        }
    }
}

impl core::error::Error for GuestRangeError {}

/// The size of a page that an EPT entry maps. As a number, it is the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum PageSize {
    /// 4 KiB, by an entry of a page table (level 1).
    Size4K = 1 << 12,
    /// 2 MiB, by an entry of a page directory (level 2).
    Size2M = 1 << 21,
    /// 1 GiB, by an entry of a page-directory-pointer table (level 3).
    Size1G = 1 << 30,
}

impl PageSize {
    /// All of them, smallest first.
    pub const ALL: [Self; 3] = [Self::Size4K, Self::Size2M, Self::Size1G];

    /// Bytes.
    #[inline]
    pub const fn bytes(self) -> u64 {
        self as u64
    }

    /// Frames of 4 KiB.
    pub const fn frames(self) -> u64 {
        self.bytes() / FRAME_SIZE as u64
    }

    /// The level of the tables whose entries map such pages: 1, 2 or 3.
    #[inline]
    pub const fn level(self) -> u32 {
        match self {
            Self::Size4K => 1,
            Self::Size2M => 2,
            Self::Size1G => 3,
        }
    }

    /// The size that an entry of this level maps.
    #[inline]
    pub const fn of_level(level: u32) -> Option<Self> {
        match level {
            1 => Some(Self::Size4K),
            2 => Some(Self::Size2M),
            3 => Some(Self::Size1G),
            _ => None,
        }
    }

    /// The layout of frames that back such a page.
    pub const fn layout(self) -> FrameLayout {
        match self {
            Self::Size4K => FrameLayout::SINGLE,
            Self::Size2M => FrameLayout::HUGE_2M,
            Self::Size1G => FrameLayout::HUGE_1G,
        }
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Size4K => "4 KiB",
            Self::Size2M => "2 MiB",
            Self::Size1G => "1 GiB",
        })
    }
}
