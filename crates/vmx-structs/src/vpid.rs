//! Virtual-processor identifiers: tags that keep the cached translations of virtual CPUs apart (SDM 28.1).
//!
//! VPID 0 is the hypervisor's. The others are given to virtual CPUs. What was cached for a VPID survives its virtual CPU,
//! so before another one gets the same number, INVVPID must have run on every processor that used it: a [`Vpid`] is
//! given back in two steps, [`retire`](Vpid::retire) and [`RetiredVpid::complete`].
//!
//! Invariant: a number whose bit is set belongs to one `Vpid` or `RetiredVpid`, or was lost with one that was dropped.

use core::{
    fmt, mem,
    num::NonZeroU16,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use axerrno::AxErrorKind;
use log::error;

use crate::{EptVpidCap, InvvpidDescriptor, InvvpidType};

/// Hands out the VPIDs 1 to `64 * WORDS - 1`. For a `static`: `VpidAllocator<16>` has 1023 in 136 bytes,
/// `VpidAllocator<1024>` all of them in 8 KiB.
///
/// Lock-free: a call that finds another one in its way tries the next number.
///
/// ```
/// use vmx_structs::{EptVpidCap, VpidAllocator};
///
/// static VPIDS: VpidAllocator<16> = VpidAllocator::new();
///
/// let vpid = VPIDS.alloc()?;
/// assert_ne!(vpid.get(), 0); // for the VMCS
/// // ... a virtual CPU runs with it, and ends ...
/// let invvpid = |_kind, _descriptor: &_| Ok::<(), ()>(()); // on every processor that ran it
/// vpid.retire().complete(EptVpidCap::all(), invvpid).unwrap();
/// # Ok::<(), vmx_structs::VpidError>(())
/// ```
pub struct VpidAllocator<const WORDS: usize> {
    /// A bit for each VPID that is in use. Bit 0 stands for VPID 0 and stays 0.
    used: [AtomicU64; WORDS],
    /// Where to look first: numbers are used in turn, so that one that was given back rests.
    hint: AtomicUsize,
}

impl<const WORDS: usize> VpidAllocator<WORDS> {
    const FITS: () = assert!(WORDS >= 1 && WORDS <= 1024, "there are 65536 VPIDs: 1 to 1024 words");

    /// All VPIDs are free.
    pub const fn new() -> Self {
        const { Self::FITS };
        Self { used: [const { AtomicU64::new(0) }; WORDS], hint: AtomicUsize::new(0) }
    }

    /// Takes a VPID.
    ///
    /// # Errors
    /// All are in use.
    pub fn alloc(&self) -> Result<Vpid<'_>, VpidError> {
        let start = self.hint.load(Ordering::Relaxed) % (64 * WORDS);
        // Once around, and the first word again for its bits below the hint.
        for i in 0..=WORDS {
            let word = (start / 64 + i) % WORDS;
            let mut skipped = if i == 0 { (1 << (start % 64)) - 1 } else { 0 };
            if word == 0 {
                skipped |= 1;
            }
            loop {
                let free = !(self.used[word].load(Ordering::Relaxed) | skipped);
                if free == 0 {
                    break;
                }
                let bit = free & free.wrapping_neg();
                if self.used[word].fetch_or(bit, Ordering::AcqRel) & bit != 0 {
                    skipped |= bit; // another call took it: look at the others
                    continue;
                }
                let number = word * 64 + bit.trailing_zeros() as usize;
                self.hint.store(number + 1, Ordering::Relaxed);
                // Below 65536 (`FITS`) and not 0 (skipped).
                let number = u16::try_from(number).ok().and_then(NonZeroU16::new).ok_or(VpidError)?;
                return Ok(Vpid { used: &self.used, number });
            }
        }
        Err(VpidError)
    }

    /// VPIDs in use.
    pub fn count(&self) -> usize {
        self.used.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
    }

    /// VPIDs in all.
    pub const fn capacity(&self) -> usize {
        64 * WORDS - 1
    }
}

impl<const WORDS: usize> Default for VpidAllocator<WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const WORDS: usize> fmt::Debug for VpidAllocator<WORDS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VpidAllocator({} of {} in use)", self.count(), self.capacity())
    }
}

/// A VPID in use. Dropped without [`retire`](Self::retire), it stays taken and an error is logged.
#[must_use = "the VPID stays taken until it is retired"]
pub struct Vpid<'a> {
    used: &'a [AtomicU64],
    number: NonZeroU16,
}

impl<'a> Vpid<'a> {
    /// The number, for the VMCS: never 0.
    pub const fn get(&self) -> u16 {
        self.number.get()
    }

    /// Begins to give it back: its virtual CPU has ended.
    pub fn retire(self) -> RetiredVpid<'a> {
        let retired = RetiredVpid { used: self.used, number: self.number };
        mem::forget(self);
        retired
    }
}

impl Drop for Vpid<'_> {
    fn drop(&mut self) {
        error!("{self:?} was dropped without INVVPID: it stays taken");
    }
}

impl fmt::Debug for Vpid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vpid({})", self.number)
    }
}

/// A VPID that is given back, and the INVVPID that is owed for it. Dropped without one, it stays taken and an error is
/// logged.
#[must_use = "the VPID stays taken until the INVVPID is done"]
pub struct RetiredVpid<'a> {
    used: &'a [AtomicU64],
    number: NonZeroU16,
}

impl RetiredVpid<'_> {
    /// The number.
    pub const fn get(&self) -> u16 {
        self.number.get()
    }

    /// Calls `invvpid`, which executes INVVPID on every processor that used the VPID, and then frees it. The type is the
    /// narrowest that the processor has.
    ///
    /// # Errors
    /// What `invvpid` gave; the INVVPID is still owed then.
    pub fn complete<E>(
        self,
        cap: EptVpidCap,
        invvpid: impl FnOnce(InvvpidType, &InvvpidDescriptor) -> Result<(), E>,
    ) -> Result<(), (Self, E)> {
        let kind = if cap.contains(EptVpidCap::INVVPID_SINGLE) {
            InvvpidType::SingleContext
        } else {
            InvvpidType::AllContexts
        };
        match invvpid(kind, &InvvpidDescriptor::new(self.get())) {
            Ok(()) => {
                self.waive();
                Ok(())
            }
            Err(error) => Err((self, error)),
        }
    }

    /// Frees the VPID without INVVPID: right only where no VM entry was made with it.
    pub fn waive(self) {
        let number = usize::from(self.get());
        if let Some(word) = self.used.get(number / 64) {
            word.fetch_and(!(1 << (number % 64)), Ordering::AcqRel);
        }
        mem::forget(self);
    }
}

impl Drop for RetiredVpid<'_> {
    fn drop(&mut self) {
        error!("{self:?} was dropped without INVVPID: it stays taken");
    }
}

impl fmt::Debug for RetiredVpid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RetiredVpid({})", self.number)
    }
}

/// All VPIDs are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VpidError;

impl fmt::Display for VpidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all VPIDs are in use: retire some, or use a larger VpidAllocator")
    }
}

impl core::error::Error for VpidError {}

impl From<VpidError> for AxErrorKind {
    fn from(_: VpidError) -> Self {
        Self::ResourceBusy
    }
}
