//! Which MSRs a guest may read and write without a VM exit.
//!
//! One frame in four quarters: reads of low MSRs (0 to 0x1fff) at 0, reads of high MSRs (0xc000_0000 to 0xc000_1fff)
//! at 1024, writes of low at 2048, writes of high at 3072. With "use MSR bitmaps" RDMSR and WRMSR exit if the MSR's bit
//! is 1, and always for an MSR outside both ranges, which no bit can change (SDM 24.6.9, 25.1.3).

use core::{fmt, ops::RangeInclusive};

use axerrno::AxErrorKind;
use frame_core::{AxResult, FRAME_SIZE, FrameBox, FrameHal, PhysAddr, PhysFrame};

use crate::bits;

/// MSRs in each of the two ranges.
const RANGE: u32 = 0x2000;
/// The first MSR of the high range.
const HIGH: u32 = 0xc000_0000;
/// Bytes in a quarter.
const QUARTER: usize = 1024;

/// The MSR bitmap, in a frame.
///
/// ```
/// # use frame_core::{AxResult, FrameHal};
/// # use vmx_structs::{MsrAccess, MsrBitmap};
/// fn msrs<H: FrameHal>() -> AxResult<MsrBitmap<H>> {
///     let mut msrs = MsrBitmap::<H>::passthrough_all()?;
///     msrs.set_write_intercept(0xc000_0080, true)?; // IA32_EFER
///     assert!(msrs.exits(0xc000_0080, MsrAccess::Write) && !msrs.exits(0xc000_0080, MsrAccess::Read));
///     assert!(msrs.exits(0x4000_0000, MsrAccess::Read)); // outside both ranges
///     Ok(msrs)
/// }
/// ```
pub struct MsrBitmap<H: FrameHal> {
    bits: FrameBox<[u8; FRAME_SIZE], H>,
}

impl<H: FrameHal> MsrBitmap<H> {
    /// A bitmap of zeroes: only MSRs outside both ranges exit.
    ///
    /// # Errors
    /// [`AxError::NoMemory`](frame_core::AxError::NoMemory) without a frame.
    pub fn passthrough_all() -> AxResult<Self> {
        Self::filled(0)
    }

    /// A bitmap of ones: every MSR exits.
    ///
    /// # Errors
    /// As [`passthrough_all`](Self::passthrough_all).
    pub fn intercept_all() -> AxResult<Self> {
        Self::filled(u8::MAX)
    }

    fn filled(byte: u8) -> AxResult<Self> {
        let mut frame = PhysFrame::alloc()?;
        frame.fill(byte);
        Ok(Self { bits: FrameBox::from_frame(frame) })
    }

    /// The physical address, for the VMCS.
    pub fn phys_addr(&self) -> PhysAddr {
        self.bits.start_paddr()
    }

    /// Sets whether RDMSR of `msr` exits.
    ///
    /// # Errors
    /// As [`set_intercept`](Self::set_intercept).
    pub fn set_read_intercept(&mut self, msr: u32, intercept: bool) -> Result<(), MsrError> {
        self.set_intercept(msr, MsrAccess::Read, intercept)
    }

    /// Sets whether WRMSR to `msr` exits.
    ///
    /// # Errors
    /// As [`set_intercept`](Self::set_intercept).
    pub fn set_write_intercept(&mut self, msr: u32, intercept: bool) -> Result<(), MsrError> {
        self.set_intercept(msr, MsrAccess::Write, intercept)
    }

    /// Sets whether one kind of access to `msr` exits.
    ///
    /// # Errors
    /// `msr` lies outside both ranges: it always exits, and has no bit.
    pub fn set_intercept(&mut self, msr: u32, access: MsrAccess, intercept: bool) -> Result<(), MsrError> {
        self.set_intercept_of_range(msr, 1, access, intercept)
    }

    /// Sets whether one kind of access to any of `count` MSRs from `msr_base` on exits.
    ///
    /// # Errors
    /// The MSRs do not lie in one of the two ranges. None was changed then.
    pub fn set_intercept_of_range(
        &mut self,
        msr_base: u32,
        count: u32,
        access: MsrAccess,
        intercept: bool,
    ) -> Result<(), MsrError> {
        let Some(more) = count.checked_sub(1) else { return Ok(()) };
        let error = MsrError { base: msr_base, count };
        let (high, first) = place(msr_base).ok_or(error)?;
        let last = first.checked_add(more).filter(|last| *last < RANGE).ok_or(error)?;
        let at = quarter(high, access);
        bits::set_range(&mut self.bits[at..at + QUARTER], first as usize, last as usize, intercept);
        Ok(())
    }

    /// Whether RDMSR or WRMSR of `msr` exits.
    pub fn exits(&self, msr: u32, access: MsrAccess) -> bool {
        place(msr).is_none_or(|(high, i)| {
            let at = quarter(high, access);
            bits::get(&self.bits[at..at + QUARTER], i as usize)
        })
    }

    /// The MSRs whose bit for this access is 1, as ranges, lowest first. Those outside both ranges, which exit too,
    /// are not among them.
    pub fn intercepted(&self, access: MsrAccess) -> impl Iterator<Item = RangeInclusive<u32>> + Clone + '_ {
        [(false, 0), (true, HIGH)].into_iter().flat_map(move |(high, base)| {
            let at = quarter(high, access);
            // A quarter has 0x2000 bits, so the sums fit.
            bits::runs(&self.bits[at..at + QUARTER])
                .map(move |run| base + *run.start() as u32..=base + *run.end() as u32)
        })
    }
}

impl<H: FrameHal> fmt::Debug for MsrBitmap<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MsrBitmap")
            .field("address", &format_args!("{:#x}", self.phys_addr()))
            .field("reads", &bits::HexRuns(self.intercepted(MsrAccess::Read)))
            .field("writes", &bits::HexRuns(self.intercepted(MsrAccess::Write)))
            .finish()
    }
}

/// Whether the MSR is in the high range, and its place there; `None` when it has no bit.
const fn place(msr: u32) -> Option<(bool, u32)> {
    match msr {
        0..RANGE => Some((false, msr)),
        HIGH.. if msr - HIGH < RANGE => Some((true, msr - HIGH)),
        _ => None,
    }
}

/// Where the quarter starts, in bytes.
const fn quarter(high: bool, access: MsrAccess) -> usize {
    let base = match access {
        MsrAccess::Read => 0,
        MsrAccess::Write => 2 * QUARTER,
    };
    if high { base + QUARTER } else { base }
}

/// Reading or writing an MSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MsrAccess {
    /// RDMSR.
    Read,
    /// WRMSR.
    Write,
}

/// MSRs that have no bit in the bitmap: nothing was changed. They always exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MsrError {
    /// The first MSR asked for.
    pub base: u32,
    /// How many were asked for.
    pub count: u32,
}

impl fmt::Display for MsrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} MSRs from {:#x} on do not lie in 0..=0x1fff or 0xc0000000..=0xc0001fff: an MSR outside always exits; \
             no bit was changed",
            self.count, self.base
        )
    }
}

impl core::error::Error for MsrError {}

impl From<MsrError> for AxErrorKind {
    fn from(_: MsrError) -> Self {
        Self::OutOfRange
    }
}
