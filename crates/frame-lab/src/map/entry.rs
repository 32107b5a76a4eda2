//! One entry of a firmware map: how many frames it gives, and what of it is lost, byte by byte, and why.

use frame_core::{FRAME_SIZE, FrameRange};
use frame_testkit::firmware::Entry;
use serde::Serialize;

use crate::memory::{Memory, human_count};

/// An entry as the firmware gave it.
#[derive(Debug, Serialize)]
pub(super) struct EntryFacts {
    pub(super) line: usize,
    pub(super) first: u64,
    /// Inclusive.
    pub(super) last: u64,
    pub(super) kind: String,
    /// Frames that have a byte of this entry and are handed out.
    pub(super) frames: u64,
    /// Bytes of a usable entry that are not handed out.
    pub(super) lost_bytes: u64,
    pub(super) why: Vec<String>,
}

impl EntryFacts {
    pub(super) fn of(entry: &Entry, memory: &Memory, ranges: &[FrameRange]) -> Self {
        let mut facts = Self {
            line: entry.line,
            first: entry.first,
            last: entry.last,
            kind: entry.kind.clone(),
            frames: 0,
            lost_bytes: 0,
            why: Vec::new(),
        };
        if !entry.is_usable() {
            return facts;
        }
        for range in ranges {
            let kept = Span::of_entry(entry).intersection(Span::of_range(*range));
            facts.frames += kept.map_or(0, |kept| kept.frames());
        }
        let others: Vec<_> = memory.parsed.entries.iter().filter(|other| !other.is_usable()).collect();
        for gap in gaps(entry, ranges) {
            facts.lost_bytes += gap.bytes();
            let why = why_lost(gap, entry, &others);
            facts.why.push(format!("{} B: {why}", human_count(gap.bytes())));
        }
        facts
    }
}

/// Bytes `start..end`, in 128 bits: the end of the address space is a number, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: u128,
    end: u128,
}

impl Span {
    fn of_entry(entry: &Entry) -> Self {
        Self { start: entry.first.into(), end: u128::from(entry.last) + 1 }
    }

    fn of_range(range: FrameRange) -> Self {
        Self { start: range.start().as_usize() as u128, end: range.end().as_usize() as u128 }
    }

    fn intersection(self, other: Self) -> Option<Self> {
        let both = Self { start: self.start.max(other.start), end: self.end.min(other.end) };
        (both.start < both.end).then_some(both)
    }

    fn bytes(self) -> u64 {
        u64::try_from(self.end - self.start).unwrap_or(u64::MAX)
    }

    /// Frames that have a byte of it.
    fn frames(self) -> u64 {
        (self.end.div_ceil(FRAME_SIZE as u128) - self.start / FRAME_SIZE as u128) as u64
    }
}

/// What of `entry` lies in no range, cut behind frame 0. The ranges are sorted.
fn gaps(entry: &Entry, ranges: &[FrameRange]) -> Vec<Span> {
    let entry = Span::of_entry(entry);
    let frame_zero = Span { start: 0, end: FRAME_SIZE as u128 };
    let mut gaps: Vec<_> = entry.intersection(frame_zero).into_iter().collect();
    let mut start = entry.start.max(frame_zero.end);
    for range in ranges.iter().map(|&range| Span::of_range(range)) {
        gaps.extend(entry.intersection(Span { start, end: range.start }));
        start = start.max(range.end);
    }
    gaps.extend(entry.intersection(Span { start, end: entry.end }));
    gaps
}

fn why_lost(gap: Span, entry: &Entry, others: &[&Entry]) -> String {
    let entry = Span::of_entry(entry);
    let frame = FRAME_SIZE as u128;
    if gap.start < frame {
        return "frame 0, which is never handed out".into();
    }
    if let Some(other) = others.iter().find(|other| gap.intersection(Span::of_entry(other)).is_some()) {
        return format!("also {}, at {:#x}", other.kind, other.first);
    }
    if !entry.end.is_multiple_of(frame) && gap.end == entry.end {
        return "its last frame is not whole".into();
    }
    if !entry.start.is_multiple_of(frame) && gap.start == entry.start {
        return "its first frame is not whole".into();
    }
    if gap.end > usize::MAX as u128 - frame {
        return "the last frame of the address space: its end is no address".into();
    }
    "shares a frame with what is not usable".into()
}
