//! What backs a VM's memory, run by run.

use core::fmt;

use frame_core::{FRAME_SIZE, FrameHal, FrameRange};

use crate::{
    GuestPhysAddr, GuestRange,
    trie::{FrameTrie, Owned},
};

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

/// The iterator of [`GuestMemory::runs`](super::GuestMemory::runs)(super::GuestMemory::runs).
pub struct GuestRuns<'a, H: FrameHal> {
    pub(super) runs: &'a FrameTrie<H>,
    pub(super) next: Option<u64>,
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
