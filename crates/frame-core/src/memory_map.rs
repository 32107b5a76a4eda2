//! What the firmware left: from ragged ranges of bytes to disjoint, sorted ranges of frames.
//!
//! Firmware maps come unsorted, overlapping, cut at any byte, with reservations inside usable memory. Three rules
//! make frames of them:
//! - **usable rounds inwards**: a frame counts only if all its bytes are usable (adjoining usable entries are joined
//!   first, as Linux does);
//! - **reserved rounds outwards**: a frame with one reserved byte is reserved;
//! - **reserved wins**, in whatever order they were added; frame 0 is always reserved.
//!
//! In doubt a byte is reserved: a reserved entry that runs past the last address ends there, a usable one is an error.
//!
//! Addresses come in as `u64`, as firmware gives them, on 32-bit targets too; what the target cannot address is
//! left out.
//!
//! Invariants of a [`Spans`] list: sorted, each span non-empty, and at least one byte between neighbours.

use core::fmt;

use crate::{FRAME_SIZE, FrameRange, PhysAddr};

const MASK: u64 = FRAME_SIZE as u64 - 1;

/// A memory map with room for `N` usable and `N` reserved spans (after joining), without a heap.
///
/// ```
/// use frame_core::MemoryMap;
///
/// let mut map = MemoryMap::<8>::new();
/// map.add_usable(0x100000, 0x700000)?;
/// map.add_usable(0, 0x9fc00)?; // any order, any byte
/// map.add_reserved(0x200000, 0x180000)?; // the kernel
/// let starts: Vec<usize> = map.frames().map(|range| range.start().as_usize()).collect();
/// assert_eq!(starts, [0x1000, 0x100000, 0x380000]);
/// assert_eq!(map.frame_count(), 0x9e + 0x100 + 0x480);
/// # Ok::<(), frame_core::MapError>(())
/// ```
#[derive(Clone, Debug)]
pub struct MemoryMap<const N: usize> {
    usable: Spans<N>,
    reserved: Spans<N>,
}

impl<const N: usize> MemoryMap<N> {
    /// A map without memory.
    pub const fn new() -> Self {
        Self { usable: Spans::new(), reserved: Spans::new() }
    }

    /// Adds `len` usable bytes from `base` on. No bytes is no entry.
    ///
    /// # Errors
    /// The range runs past the end of 64-bit addresses, or there is no room for another span. The map is as it was.
    pub fn add_usable(&mut self, base: u64, len: u64) -> Result<(), MapError> {
        let Some(more) = len.checked_sub(1) else { return Ok(()) };
        let last = base.checked_add(more).ok_or(MapError::Overflow { base, len })?;
        self.usable.insert(Span { first: base, last })
    }

    /// Reserves every frame that has a byte among the `len` bytes from `base` on, now and for what is added later.
    /// A range that runs past the end of 64-bit addresses is reserved up to that end: firmware writes such entries, and
    /// reserving too much is safe.
    ///
    /// # Errors
    /// There is no room for another span. The map is as it was.
    pub fn add_reserved(&mut self, base: u64, len: u64) -> Result<(), MapError> {
        let Some(more) = len.checked_sub(1) else { return Ok(()) };
        self.reserved.insert(Span { first: base & !MASK, last: base.saturating_add(more) | MASK })
    }

    /// The ranges of free frames: disjoint, lowest first, with a gap between neighbours.
    pub fn frames(&self) -> FrameRanges<'_> {
        FrameRanges {
            usable: self.usable.as_slice(),
            reserved: self.reserved.as_slice(),
            from: FRAME_SIZE as u64,
        }
    }

    /// Frames in [`frames`](Self::frames).
    pub fn frame_count(&self) -> usize {
        self.frames().map(FrameRange::count).sum()
    }
}

impl<const N: usize> Default for MemoryMap<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// The iterator of [`MemoryMap::frames`].
#[derive(Clone, Debug)]
pub struct FrameRanges<'m> {
    usable: &'m [Span],
    reserved: &'m [Span],
    /// Frames below this address are done; frame-aligned. Starts behind frame 0.
    from: u64,
}

impl Iterator for FrameRanges<'_> {
    type Item = FrameRange;

    fn next(&mut self) -> Option<FrameRange> {
        // Behind the last frame whose end is still an address.
        const TOP: u64 = (usize::MAX as u64) & !MASK;
        while let Some(span) = self.usable.first() {
            let start = self.from.max(span.first.checked_next_multiple_of(FRAME_SIZE as u64).unwrap_or(TOP));
            // `last` is inclusive: its frame is whole only if it is the frame's last byte.
            let usable_end = span.last.checked_add(1).map_or(TOP, |end| (end & !MASK).min(TOP));
            if start >= usable_end {
                self.usable = &self.usable[1..];
                continue;
            }
            self.reserved = &self.reserved[self.reserved.partition_point(|reserved| reserved.last < start)..];
            let end = match self.reserved.first() {
                Some(reserved) if reserved.first <= start => {
                    self.from = reserved.last.saturating_add(1).max(start);
                    if reserved.last == u64::MAX {
                        self.usable = &[];
                    }
                    continue;
                }
                Some(reserved) => usable_end.min(reserved.first),
                None => usable_end,
            };
            self.from = end;
            let range = FrameRange::from_bounds(PhysAddr::from(start as usize), PhysAddr::from(end as usize));
            return Some(range.expect("aligned, not empty, and below TOP"));
        }
        None
    }
}

/// Bytes `first..=last`: inclusive, so that the last byte of the address space needs no special case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: u64,
    last: u64,
}

#[derive(Clone, Debug)]
struct Spans<const N: usize> {
    spans: [Span; N],
    len: usize,
}

impl<const N: usize> Spans<N> {
    const fn new() -> Self {
        Self { spans: [Span { first: 0, last: 0 }; N], len: 0 }
    }

    fn as_slice(&self) -> &[Span] {
        &self.spans[..self.len]
    }

    /// Adds a span, joined with all that it overlaps or touches.
    fn insert(&mut self, mut span: Span) -> Result<(), MapError> {
        // `joined.start..joined.end`: the spans that merge with the new one.
        let spans = self.as_slice();
        let start = spans.partition_point(|s| s.last.checked_add(1).is_some_and(|next| next < span.first));
        let end = spans.partition_point(|s| span.last.checked_add(1).is_none_or(|next| s.first <= next));
        if start < end {
            span.first = span.first.min(spans[start].first);
            span.last = span.last.max(spans[end - 1].last);
        } else if self.len == N {
            return Err(MapError::TooManyEntries { limit: N });
        }
        self.spans.copy_within(end..self.len, start + 1);
        self.spans[start] = span;
        self.len = self.len - (end - start) + 1;
        Ok(())
    }
}

/// Why an entry was not taken into a [`MemoryMap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapError {
    /// A usable entry runs past the end of 64-bit addresses.
    Overflow {
        /// Its first byte.
        base: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// There is no room for another span.
    TooManyEntries {
        /// How many usable, and how many reserved, spans there is room for.
        limit: usize,
    },
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Overflow { base, len } => {
                write!(
                    f,
                    "the usable memory-map entry at {base:#x} with {len:#x} bytes runs past the last address"
                )
            }
            Self::TooManyEntries { limit } => {
                write!(
                    f,
                    "the memory map has room for {limit} spans of a kind: use a larger N in MemoryMap<N>"
                )
            }
        }
    }
}

impl core::error::Error for MapError {}
