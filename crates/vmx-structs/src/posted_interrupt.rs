//! Posted interrupts: interrupts that reach a running guest without a VM exit (SDM 29.6).
//!
//! A descriptor of 64 bytes, aligned to 64, is shared by everyone who posts (other CPUs, and the interrupt remapping of
//! the IOMMU) and by the processor that runs the virtual CPU. Everything in it is atomic.
//!
//! | bits | field | |
//! |---|---|---|
//! | 255:0 | PIR | a bit for each vector that waits |
//! | 256 | ON | a notification was sent and not yet processed |
//! | 257 | SN | suppress notifications: the virtual CPU does not run |
//! | 279:272 | NV | the vector of the notification |
//! | 319:288 | NDST | the APIC ID of the CPU to notify |

use core::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use frame_core::{AxResult, FRAME_SIZE, FrameBox, FrameHal, PhysAddr};
use zerocopy::{FromBytes, IntoBytes};

// In the fifth word, whose bit 0 is bit 256.
const ON: u64 = 1 << 0;
const SN: u64 = 1 << 1;
const NV_SHIFT: u32 = 16;
const NDST_SHIFT: u32 = 32;

/// A posted-interrupt descriptor.
#[derive(FromBytes, IntoBytes)]
#[repr(C, align(64))]
pub struct PostedInterruptDescriptor {
    requests: [AtomicU64; 4],
    control: AtomicU64,
    /// Bits 511:320, left to software.
    software: [AtomicU64; 3],
}

const _: () =
    assert!(size_of::<PostedInterruptDescriptor>() == 64 && align_of::<PostedInterruptDescriptor>() == 64);

impl PostedInterruptDescriptor {
    /// Nothing waits; notifications are not suppressed, and go to vector 0 of APIC 0.
    pub const fn new() -> Self {
        Self {
            requests: [const { AtomicU64::new(0) }; 4],
            control: AtomicU64::new(0),
            software: [const { AtomicU64::new(0) }; 3],
        }
    }

    /// Says whom to notify, and by which vector. `destination` is an x2APIC ID; in xAPIC mode an APIC ID shifted left
    /// by 8. The other fields stay.
    pub fn set_notification(&self, vector: u8, destination: u32) {
        let fields = 0xff << NV_SHIFT | u64::from(u32::MAX) << NDST_SHIFT;
        let new = u64::from(vector) << NV_SHIFT | u64::from(destination) << NDST_SHIFT;
        // One exchange, so that nobody sees the vector of one and the destination of the other.
        let _ = self.control.fetch_update(Ordering::AcqRel, Ordering::Acquire, |control| {
            Some((u64::from_le(control) & !fields | new).to_le())
        });
    }

    /// The vector of the notification.
    pub fn notification_vector(&self) -> u8 {
        (self.control() >> NV_SHIFT) as u8
    }

    /// The APIC ID of the CPU to notify.
    pub fn notification_destination(&self) -> u32 {
        (self.control() >> NDST_SHIFT) as u32
    }

    /// Posts a vector. Returns whether the caller must now send the notification: an IPI with the
    /// [vector](Self::notification_vector) to the [destination](Self::notification_destination).
    ///
    /// As the IOMMU does, it sends none while notifications are suppressed or one is outstanding.
    pub fn post(&self, vector: u8) -> bool {
        self.requests[vector as usize / 64].fetch_or((1_u64 << (vector % 64)).to_le(), Ordering::AcqRel);
        let (on, sn) = (ON.to_le(), SN.to_le());
        let set = self.control.fetch_update(Ordering::AcqRel, Ordering::Acquire, |control| {
            (control & (on | sn) == 0).then_some(control | on)
        });
        set.is_ok()
    }

    /// Whether a notification is outstanding.
    pub fn is_outstanding(&self) -> bool {
        self.control() & ON != 0
    }

    /// Whether notifications are suppressed.
    pub fn is_suppressed(&self) -> bool {
        self.control() & SN != 0
    }

    /// Suppresses notifications: before the virtual CPU is taken off its CPU.
    pub fn suppress(&self) {
        self.control.fetch_or(SN.to_le(), Ordering::AcqRel);
    }

    /// Allows notifications again. Returns whether vectors wait that were posted meanwhile: nobody was notified of
    /// those, so the caller must [take](Self::take) them or send the notification.
    pub fn unsuppress(&self) -> bool {
        self.control.fetch_and(!SN.to_le(), Ordering::AcqRel);
        self.requests.iter().any(|word| word.load(Ordering::Acquire) != 0)
    }

    /// Takes all vectors that wait, as the processor does: ON is cleared first, so that what is posted from then on
    /// notifies anew. Bit `v` of the result (word `v / 64`) is vector `v`.
    pub fn take(&self) -> [u64; 4] {
        self.control.fetch_and(!ON.to_le(), Ordering::AcqRel);
        core::array::from_fn(|i| u64::from_le(self.requests[i].swap(0, Ordering::AcqRel)))
    }

    /// Whether a vector waits.
    pub fn is_posted(&self, vector: u8) -> bool {
        u64::from_le(self.requests[vector as usize / 64].load(Ordering::Acquire)) >> (vector % 64) & 1 == 1
    }

    fn control(&self) -> u64 {
        u64::from_le(self.control.load(Ordering::Acquire))
    }
}

impl Default for PostedInterruptDescriptor {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for PostedInterruptDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The vectors that wait.
        struct Posted<'a>(&'a PostedInterruptDescriptor);
        impl fmt::Debug for Posted<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_list().entries((0..=u8::MAX).filter(|&vector| self.0.is_posted(vector))).finish()
            }
        }
        f.debug_struct("PostedInterruptDescriptor")
            .field("posted", &Posted(self))
            .field("outstanding", &self.is_outstanding())
            .field("suppressed", &self.is_suppressed())
            .field("vector", &self.notification_vector())
            .field("destination", &self.notification_destination())
            .finish()
    }
}

/// Descriptors in a frame.
const PER_FRAME: usize = FRAME_SIZE / size_of::<PostedInterruptDescriptor>();

/// A frame of 64 posted-interrupt descriptors: for as many virtual CPUs.
pub struct PostedInterruptPage<H: FrameHal> {
    descriptors: FrameBox<[PostedInterruptDescriptor; PER_FRAME], H>,
}

impl<H: FrameHal> PostedInterruptPage<H> {
    /// 64 descriptors, in which nothing waits.
    ///
    /// # Errors
    /// [`AxError::NoMemory`](frame_core::AxError::NoMemory) without a frame.
    pub fn new() -> AxResult<Self> {
        Ok(Self { descriptors: FrameBox::new_zeroed()? })
    }

    /// A descriptor; `None` for an index above 63.
    pub fn get(&self, index: usize) -> Option<&PostedInterruptDescriptor> {
        self.descriptors.get(index)
    }

    /// The physical address of a descriptor, for the VMCS; `None` for an index above 63.
    pub fn phys_addr(&self, index: usize) -> Option<PhysAddr> {
        let offset =
            index.checked_mul(size_of::<PostedInterruptDescriptor>()).filter(|at| *at < FRAME_SIZE)?;
        Some(self.descriptors.start_paddr() + offset)
    }
}

impl<H: FrameHal> fmt::Debug for PostedInterruptPage<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostedInterruptPage({:#x})", self.descriptors.start_paddr())
    }
}
