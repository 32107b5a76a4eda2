//! A word for each frame: is it owned, which allocation gave it, is there poison in it.
//!
//! The words are independent of the allocator and are checked before it is asked, so a fault of the test is told
//! apart from one of the allocator. They are zero in the beginning and so cost nothing until used.

use std::{sync::atomic::AtomicU32, sync::atomic::Ordering::SeqCst, vec, vec::Vec};

use frame_core::{FRAME_SIZE, FrameRange, PhysAddr};

/// Set while the frame is owned.
const OWNED: u32 = 1 << 31;
/// Set when the frame was poisoned as it was freed.
const POISONED: u32 = 1 << 30;
/// The number of the allocation that gave the frame last; 0 when none did.
const SERIAL: u32 = POISONED - 1;

/// What is known about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Never handed out: as the simulated memory made it, zero.
    Fresh,
    /// Handed out by the allocation of that number.
    Owned { serial: u32 },
    /// Given back.
    Freed { serial: u32, poisoned: bool },
}

impl Frame {
    fn decode(word: u32) -> Self {
        let serial = word & SERIAL;
        match word {
            0 => Self::Fresh,
            _ if word & OWNED != 0 => Self::Owned { serial },
            _ => Self::Freed { serial, poisoned: word & POISONED != 0 },
        }
    }

    fn encode(self) -> u32 {
        match self {
            Self::Fresh => 0,
            Self::Owned { serial } => OWNED | serial & SERIAL,
            Self::Freed { serial, poisoned } => serial & SERIAL | if poisoned { POISONED } else { 0 },
        }
    }
}

pub(super) struct Ledger {
    regions: Vec<(FrameRange, Vec<AtomicU32>)>,
}

impl Ledger {
    pub(super) fn new(ranges: &[FrameRange]) -> Self {
        let words = |range: &FrameRange| {
            let zeroes: Vec<u32> = vec![0; range.count()];
            // In place: the same size and alignment.
            (*range, zeroes.into_iter().map(AtomicU32::new).collect())
        };
        Self { regions: ranges.iter().map(words).collect() }
    }

    fn word(&self, frame: PhysAddr) -> Option<&AtomicU32> {
        let (range, words) = self.regions.iter().find(|(range, _)| range.contains(frame))?;
        Some(&words[(frame.as_usize() - range.start().as_usize()) / FRAME_SIZE])
    }

    /// What is known about the frame in which `addr` lies; `None` where no memory is.
    pub(super) fn get(&self, addr: PhysAddr) -> Option<Frame> {
        Some(Frame::decode(self.word(addr)?.load(SeqCst)))
    }

    /// Notes what a frame of the memory becomes; returns what it was.
    pub(super) fn set(&self, frame: PhysAddr, new: Frame) -> Frame {
        let word = self.word(frame).expect("a frame that was looked up before");
        Frame::decode(word.swap(new.encode(), SeqCst))
    }

    /// All frames, lowest first.
    pub(super) fn frames(&self) -> impl Iterator<Item = (PhysAddr, Frame)> + '_ {
        self.regions.iter().flat_map(|(range, words)| {
            range.frames().zip(words).map(|(addr, word)| (addr, Frame::decode(word.load(SeqCst))))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_word() {
        for frame in [
            Frame::Fresh,
            Frame::Owned { serial: 1 },
            Frame::Owned { serial: SERIAL },
            Frame::Freed { serial: 7, poisoned: false },
            Frame::Freed { serial: SERIAL, poisoned: true },
        ] {
            assert_eq!(Frame::decode(frame.encode()), frame);
        }
    }
}
