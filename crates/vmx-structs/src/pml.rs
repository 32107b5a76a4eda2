//! Page-modification logging: the processor writes down which pages a guest dirtied (SDM 24.6.17, 28.3.6).
//!
//! Each time the processor sets a dirty flag in an EPT leaf, it stores the guest-physical address in entry `index` of
//! the buffer and counts the index down. It starts at 511; below 0 it wraps to 0xffff, and then the next access that
//! would set an accessed or a dirty flag, be it logged or not, exits instead (reason 62). So the entries above the index
//! are valid, and none else.

use core::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use frame_core::{AxResult, FrameBox, FrameHal, PhysAddr};

use crate::GuestPhysAddr;

/// Entries in the buffer.
const ENTRIES: u16 = 512;

/// The log, in a frame.
///
/// ```
/// # use frame_core::FrameHal;
/// # use vmx_structs::PmlBuffer;
/// fn on_exit<H: FrameHal>(log: &PmlBuffer<H>, index: u16) -> u16 {
///     for page in log.logged(index) { /* send it */ }
///     PmlBuffer::<H>::START // write this to the PML-index field
/// }
/// ```
pub struct PmlBuffer<H: FrameHal> {
    entries: FrameBox<[AtomicU64; ENTRIES as usize], H>,
}

impl<H: FrameHal> PmlBuffer<H> {
    /// The index of an empty log, for the PML-index field of the VMCS.
    pub const START: u16 = ENTRIES - 1;

    /// An empty log.
    ///
    /// # Errors
    /// [`AxError::NoMemory`](frame_core::AxError::NoMemory) without a frame.
    pub fn new() -> AxResult<Self> {
        Ok(Self { entries: FrameBox::new_zeroed()? })
    }

    /// The physical address, for the VMCS.
    pub fn phys_addr(&self) -> PhysAddr {
        self.entries.start_paddr()
    }

    /// How many pages are logged when the PML index is this. Indices above 511 are those of a full log.
    pub const fn count(index: u16) -> usize {
        if index >= ENTRIES { ENTRIES as usize } else { (ENTRIES - 1 - index) as usize }
    }

    /// Whether the next access that would set an accessed or a dirty flag exits.
    pub const fn is_full(index: u16) -> bool {
        index >= ENTRIES
    }

    /// The pages logged, in the order in which they were, when the PML index is this: frame-aligned addresses. A page may
    /// come more than once, if its dirty flag was cleared meanwhile.
    pub fn logged(
        &self,
        index: u16,
    ) -> impl DoubleEndedIterator<Item = GuestPhysAddr> + ExactSizeIterator + '_ {
        (0..Self::count(index)).map(|i| {
            let entry = self.entries[usize::from(Self::START) - i].load(Ordering::Acquire);
            GuestPhysAddr::new(u64::from_le(entry) & !0xfff)
        })
    }

    /// Logs a page as the processor would and returns the new index: for software that acts as a processor.
    ///
    /// # Errors
    /// The log is full: the access would exit, and is not logged.
    pub fn log(&self, index: u16, page: GuestPhysAddr) -> Result<u16, PmlFull> {
        let entry = self.entries.get(usize::from(index)).ok_or(PmlFull)?;
        entry.store((page.as_u64() & !0xfff).to_le(), Ordering::Release);
        Ok(index.wrapping_sub(1))
    }
}

impl<H: FrameHal> fmt::Debug for PmlBuffer<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PmlBuffer({:#x})", self.phys_addr())
    }
}

/// The log is full: a page-modification-log-full exit, reason 62.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PmlFull;

impl fmt::Display for PmlFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the page-modification log is full: read it and set the index back to 511")
    }
}

impl core::error::Error for PmlFull {}
