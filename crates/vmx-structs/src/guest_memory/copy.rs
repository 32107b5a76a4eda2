//! Copying by guest-physical address, while the guest may run.
//!
//! All goes through atomics: each aligned 8 bytes are copied at once, and a write leaves the bytes beside it alone.

use core::sync::atomic::{AtomicU64, Ordering};

use frame_core::FrameHal;

use super::{GuestMemory, GuestMemoryError};
use crate::GuestPhysAddr;

impl<H: FrameHal> GuestMemory<H> {
    /// Copies bytes out of the memory.
    ///
    /// # Errors
    /// A byte is not backed. Nothing was copied then.
    pub fn read(&self, guest: GuestPhysAddr, buffer: &mut [u8]) -> Result<(), GuestMemoryError> {
        self.check_backed(guest, buffer.len())?;
        let mut rest = buffer;
        for (words, offset, count) in self.pieces(guest, rest.len()) {
            let (now, later) = rest.split_at_mut(count);
            copy_out(words, offset, now);
            rest = later;
        }
        Ok(())
    }

    /// Copies bytes into the memory.
    ///
    /// # Errors
    /// A byte is not backed. Nothing was copied then.
    pub fn write(&self, guest: GuestPhysAddr, bytes: &[u8]) -> Result<(), GuestMemoryError> {
        self.check_backed(guest, bytes.len())?;
        let mut rest = bytes;
        for (words, offset, count) in self.pieces(guest, rest.len()) {
            let (now, later) = rest.split_at(count);
            copy_in(words, offset, now);
            rest = later;
        }
        Ok(())
    }

    fn check_backed(&self, guest: GuestPhysAddr, len: usize) -> Result<(), GuestMemoryError> {
        let backed: usize = self.pieces(guest, len).map(|(_, _, count)| count).sum();
        if backed < len {
            // A `usize` fits in a `u64`, and the sum is the address of a byte behind a backed one, or the first.
            let guest = GuestPhysAddr::new(guest.as_u64().wrapping_add(backed as u64));
            return Err(GuestMemoryError::NotBacked { guest });
        }
        Ok(())
    }

    /// The parts of `len` bytes that lie in one run each, up to a gap: the run's contents, where the part starts in them,
    /// and its length, in bytes.
    fn pieces(&self, guest: GuestPhysAddr, len: usize) -> impl Iterator<Item = (&[AtomicU64], usize, usize)> {
        let mut at = guest.as_u64();
        let mut left = len;
        core::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let (run, words) = self.runs.get(at)?;
            let offset = (at - run.address) as usize;
            let count = left.min(run.size.bytes() as usize - offset);
            at = at.checked_add(count as u64)?;
            left -= count;
            Some((words, offset, count))
        })
    }
}

fn copy_out(words: &[AtomicU64], offset: usize, mut to: &mut [u8]) {
    let mut skip = offset % 8;
    for word in words.get(offset / 8..).unwrap_or_default() {
        if to.is_empty() {
            return;
        }
        let bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        let count = to.len().min(8 - skip);
        let (now, later) = to.split_at_mut(count);
        now.copy_from_slice(&bytes[skip..skip + count]);
        (to, skip) = (later, 0);
    }
}

fn copy_in(words: &[AtomicU64], offset: usize, mut from: &[u8]) {
    let mut skip = offset % 8;
    for word in words.get(offset / 8..).unwrap_or_default() {
        let count = from.len().min(8 - skip);
        let (now, later) = from.split_at(count);
        if let Ok(whole) = <[u8; 8]>::try_from(now) {
            word.store(u64::from_ne_bytes(whole), Ordering::Relaxed);
        } else if now.is_empty() {
            return;
        } else {
            // A part of a word: the bytes beside it may be written by the guest at this moment.
            let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                let mut bytes = word.to_ne_bytes();
                bytes[skip..skip + count].copy_from_slice(now);
                Some(u64::from_ne_bytes(bytes))
            });
        }
        (from, skip) = (later, 0);
    }
}
