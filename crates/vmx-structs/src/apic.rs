//! The two pages of APIC virtualization (SDM 24.6.8, chapter 29).
//!
//! The **virtual-APIC page** holds the registers of a virtual local APIC, each in the first 4 of 16 bytes, at the offset
//! that it has in a memory-mapped APIC. The processor reads and writes it while the guest runs, so every access is
//! atomic. The **APIC-access page** is only an address: guest accesses to the page that it backs are what the processor
//! virtualizes; nothing is ever read from it or written to it.

use core::{
    fmt,
    sync::atomic::{AtomicU32, Ordering},
};

use frame_core::{AxResult, FRAME_SIZE, FrameBox, FrameHal, PhysAddr, PhysFrame};

/// A register of a local APIC, by its offset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApicRegister(u16);

impl ApicRegister {
    /// Local APIC ID.
    pub const ID: Self = Self(0x20);
    /// Version.
    pub const VERSION: Self = Self(0x30);
    /// Task priority (VTPR).
    pub const TPR: Self = Self(0x80);
    /// Processor priority (VPPR).
    pub const PPR: Self = Self(0xa0);
    /// End of interrupt (VEOI).
    pub const EOI: Self = Self(0xb0);
    /// Logical destination.
    pub const LDR: Self = Self(0xd0);
    /// Spurious-interrupt vector.
    pub const SPURIOUS: Self = Self(0xf0);
    /// Interrupt command, low half (VICR_LO).
    pub const ICR_LOW: Self = Self(0x300);
    /// Interrupt command, high half (VICR_HI).
    pub const ICR_HIGH: Self = Self(0x310);

    /// The register at an offset; `None` if no register can be there: the offset is not a multiple of 16 below 0x1000.
    pub const fn at(offset: u16) -> Option<Self> {
        if offset % 16 == 0 && (offset as usize) < FRAME_SIZE { Some(Self(offset)) } else { None }
    }

    /// The word of the in-service bits (VISR) that holds this vector's.
    pub const fn in_service(vector: u8) -> Self {
        Self(0x100 + (vector as u16 / 32) * 16)
    }

    /// The word of the request bits (VIRR) that holds this vector's.
    pub const fn request(vector: u8) -> Self {
        Self(0x200 + (vector as u16 / 32) * 16)
    }

    /// The offset, in bytes.
    pub const fn offset(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for ApicRegister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApicRegister({:#x})", self.0)
    }
}

/// The virtual-APIC page: one for each virtual CPU.
pub struct VirtualApicPage<H: FrameHal> {
    words: FrameBox<[AtomicU32; FRAME_SIZE / 4], H>,
}

impl<H: FrameHal> VirtualApicPage<H> {
    /// A page of zeroes.
    ///
    /// # Errors
    /// [`AxError::NoMemory`](frame_core::AxError::NoMemory) without a frame.
    pub fn new() -> AxResult<Self> {
        Ok(Self { words: FrameBox::new_zeroed()? })
    }

    /// The physical address, for the VMCS.
    pub fn phys_addr(&self) -> PhysAddr {
        self.words.start_paddr()
    }

    fn word(&self, register: ApicRegister) -> &AtomicU32 {
        // The offset is below a frame, whoever made the register.
        &self.words[register.0 as usize / 4 % (FRAME_SIZE / 4)]
    }

    /// A register.
    pub fn read(&self, register: ApicRegister) -> u32 {
        u32::from_le(self.word(register).load(Ordering::Acquire))
    }

    /// Writes a register.
    pub fn write(&self, register: ApicRegister, value: u32) {
        self.word(register).store(value.to_le(), Ordering::Release);
    }

    /// Sets the request bit of a vector (VIRR). Returns whether it was 0. Then the guest interrupt status (RVI) must be
    /// at least [`highest_request`](Self::highest_request).
    pub fn request(&self, vector: u8) -> bool {
        let bit = 1_u32 << (vector % 32);
        self.word(ApicRegister::request(vector)).fetch_or(bit.to_le(), Ordering::AcqRel) & bit.to_le() == 0
    }

    /// The highest vector whose request bit is set.
    pub fn highest_request(&self) -> Option<u8> {
        self.highest(ApicRegister::request)
    }

    /// The highest vector whose in-service bit is set.
    pub fn highest_in_service(&self) -> Option<u8> {
        self.highest(ApicRegister::in_service)
    }

    fn highest(&self, register: impl Fn(u8) -> ApicRegister) -> Option<u8> {
        (0..8).rev().find_map(|i| {
            let word = self.read(register(i * 32));
            word.checked_ilog2().map(|bit| i * 32 + bit as u8)
        })
    }
}

impl<H: FrameHal> fmt::Debug for VirtualApicPage<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualApicPage")
            .field("address", &format_args!("{:#x}", self.phys_addr()))
            .field("tpr", &format_args!("{:#x}", self.read(ApicRegister::TPR)))
            .field("ppr", &format_args!("{:#x}", self.read(ApicRegister::PPR)))
            .field("highest_request", &self.highest_request())
            .field("highest_in_service", &self.highest_in_service())
            .finish()
    }
}

/// The APIC-access page: a frame for its address. One may serve all virtual CPUs.
pub struct ApicAccessPage<H: FrameHal> {
    frame: PhysFrame<H>,
}

impl<H: FrameHal> ApicAccessPage<H> {
    /// A frame of zeroes.
    ///
    /// # Errors
    /// [`AxError::NoMemory`](frame_core::AxError::NoMemory) without a frame.
    pub fn new() -> AxResult<Self> {
        Ok(Self { frame: PhysFrame::alloc_zero()? })
    }

    /// The physical address, for the VMCS, and to map the guest's APIC page to.
    pub fn phys_addr(&self) -> PhysAddr {
        self.frame.start_paddr()
    }
}

impl<H: FrameHal> fmt::Debug for ApicAccessPage<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApicAccessPage({:#x})", self.phys_addr())
    }
}
