//! The virtualization-exception information area: EPT violations that a guest handles itself (SDM 25.5.7).
//!
//! With "EPT-violation #VE" a convertible EPT violation becomes exception 20 in the guest, and the processor writes here
//! what a VM exit would have said. It sets the word at offset 4 to 0xffff_ffff; as long as that is not 0, the next
//! violation is a VM exit, so the handler writes 0 when it has read the rest.

use core::{
    fmt,
    sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering},
};

use frame_core::{AxResult, FrameBox, FrameHal, PhysAddr};
use zerocopy::{FromBytes, IntoBytes};

use crate::{EptQualification, EptViolation, GuestPhysAddr};

/// The exit reason of an EPT violation.
const REASON_EPT_VIOLATION: u32 = 48;

#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct Area {
    reason: AtomicU32,
    busy: AtomicU32,
    qualification: AtomicU64,
    linear: AtomicU64,
    guest: AtomicU64,
    eptp_index: AtomicU16,
    _reserved: [AtomicU16; 3],
}

const _: () = assert!(core::mem::offset_of!(Area, eptp_index) == 32 && size_of::<Area>() == 40);

/// What the processor wrote about a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VeInfo {
    /// The exit reason that a VM exit would have had: 48.
    pub reason: u32,
    /// The exit qualification.
    pub qualification: EptQualification,
    /// The guest linear address, if the qualification says that it is valid.
    pub linear: u64,
    /// The guest-physical address.
    pub guest: GuestPhysAddr,
    /// The EPTP index: which of the pointers of the EPTP list was current.
    pub eptp_index: u16,
}

/// The area, in a frame: one for each virtual CPU. The guest must be able to read and write it.
pub struct VeArea<H: FrameHal> {
    area: FrameBox<Area, H>,
}

impl<H: FrameHal> VeArea<H> {
    /// An area of zeroes, ready for a violation.
    ///
    /// # Errors
    /// [`AxError::NoMemory`](frame_core::AxError::NoMemory) without a frame.
    pub fn new() -> AxResult<Self> {
        Ok(Self { area: FrameBox::new_zeroed()? })
    }

    /// The physical address, for the VMCS.
    pub fn phys_addr(&self) -> PhysAddr {
        self.area.start_paddr()
    }

    /// Whether the next violation is a VM exit, because the last was not handled yet.
    pub fn is_busy(&self) -> bool {
        self.area.busy.load(Ordering::Acquire) != 0
    }

    /// What is written there; `None` if the area is not busy.
    pub fn info(&self) -> Option<VeInfo> {
        self.is_busy().then(|| VeInfo {
            reason: u32::from_le(self.area.reason.load(Ordering::Relaxed)),
            qualification: EptQualification::from_bits_retain(load(&self.area.qualification)),
            linear: load(&self.area.linear),
            guest: GuestPhysAddr::new(load(&self.area.guest)),
            eptp_index: u16::from_le(self.area.eptp_index.load(Ordering::Relaxed)),
        })
    }

    /// Reads what is written there and makes the area ready for the next violation, as a guest's handler does.
    pub fn take(&self) -> Option<VeInfo> {
        let info = self.info()?;
        self.area.busy.store(0, Ordering::Release);
        Some(info)
    }

    /// Writes a violation as the processor would. Returns whether it became a virtualization exception; if not, it is a
    /// VM exit: the area is busy, or the violation is not convertible.
    pub fn raise(&self, violation: &EptViolation, linear: u64, eptp_index: u16) -> bool {
        if self.is_busy() || !violation.convertible {
            return false;
        }
        self.area.reason.store(REASON_EPT_VIOLATION.to_le(), Ordering::Relaxed);
        store(&self.area.qualification, violation.qualification.bits());
        store(&self.area.linear, linear);
        store(&self.area.guest, violation.guest.as_u64());
        self.area.eptp_index.store(eptp_index.to_le(), Ordering::Relaxed);
        self.area.busy.store(u32::MAX, Ordering::Release);
        true
    }
}

fn load(word: &AtomicU64) -> u64 {
    u64::from_le(word.load(Ordering::Relaxed))
}

fn store(word: &AtomicU64, value: u64) {
    word.store(value.to_le(), Ordering::Relaxed);
}

impl<H: FrameHal> fmt::Debug for VeArea<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VeArea")
            .field("address", &format_args!("{:#x}", self.phys_addr()))
            .field("info", &self.info())
            .finish()
    }
}
