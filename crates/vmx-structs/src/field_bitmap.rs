//! Which VMREADs and VMWRITEs of a guest hypervisor exit, with VMCS shadowing (SDM 24.6.15, 25.1.3).
//!
//! A frame for each of the two: bit `n` is that of the field whose encoding has `n` in bits 14:0. A VMREAD or VMWRITE whose
//! register operand has a bit above bit 14 always exits.

use core::{fmt, marker::PhantomData, ops::RangeInclusive};

use axerrno::AxErrorKind;
use frame_core::{AxResult, FRAME_SIZE, FrameBox, FrameHal, PhysAddr, PhysFrame};

use crate::bits;

/// Encodings that have a bit.
const ENCODINGS: u32 = 0x8000;

/// The bitmap is for VMREAD.
#[derive(Debug)]
pub enum Vmread {}
/// The bitmap is for VMWRITE.
#[derive(Debug)]
pub enum Vmwrite {}

/// The VMREAD bitmap, in a frame.
pub type VmreadBitmap<H> = FieldBitmap<H, Vmread>;
/// The VMWRITE bitmap, in a frame.
pub type VmwriteBitmap<H> = FieldBitmap<H, Vmwrite>;

/// A VMREAD or VMWRITE bitmap: `A` says which, so that they cannot be mixed up.
pub struct FieldBitmap<H: FrameHal, A> {
    bits: FrameBox<[u8; FRAME_SIZE], H>,
    _access: PhantomData<fn() -> A>,
}

impl<H: FrameHal, A> FieldBitmap<H, A> {
    /// A bitmap of zeroes: only encodings of more than 15 bits exit.
    ///
    /// # Errors
    /// [`AxError::NoMemory`](frame_core::AxError::NoMemory) without a frame.
    pub fn passthrough_all() -> AxResult<Self> {
        Self::filled(0)
    }

    /// A bitmap of ones: every access exits.
    ///
    /// # Errors
    /// As [`passthrough_all`](Self::passthrough_all).
    pub fn intercept_all() -> AxResult<Self> {
        Self::filled(u8::MAX)
    }

    fn filled(byte: u8) -> AxResult<Self> {
        let mut frame = PhysFrame::alloc()?;
        frame.fill(byte);
        Ok(Self { bits: FrameBox::from_frame(frame), _access: PhantomData })
    }

    /// The physical address, for the VMCS.
    pub fn phys_addr(&self) -> PhysAddr {
        self.bits.start_paddr()
    }

    /// Sets whether an access to the field of this encoding exits. The two halves of a 64-bit field (full and high) have
    /// encodings, and so bits, of their own.
    ///
    /// # Errors
    /// The encoding has more than 15 bits: the access always exits.
    pub fn set_intercept(&mut self, encoding: u32, intercept: bool) -> Result<(), EncodingError> {
        if encoding >= ENCODINGS {
            return Err(EncodingError { encoding });
        }
        bits::set_range(&mut *self.bits, encoding as usize, encoding as usize, intercept);
        Ok(())
    }

    /// Whether an access exits whose register operand is this (32 bits of it outside 64-bit mode).
    pub fn exits(&self, operand: u64) -> bool {
        operand >= u64::from(ENCODINGS) || bits::get(&*self.bits, operand as usize)
    }

    /// The encodings whose bit is 1, as ranges, lowest first.
    pub fn intercepted(&self) -> impl Iterator<Item = RangeInclusive<u32>> + Clone + '_ {
        bits::runs(&*self.bits).map(|run| *run.start() as u32..=*run.end() as u32)
    }
}

impl<H: FrameHal, A> fmt::Debug for FieldBitmap<H, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FieldBitmap")
            .field("address", &format_args!("{:#x}", self.phys_addr()))
            .field("intercepted", &bits::HexRuns(self.intercepted()))
            .finish()
    }
}

/// An encoding of more than 15 bits: it has no bit in the bitmap, and always exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncodingError {
    /// The encoding.
    pub encoding: u32,
}

impl fmt::Display for EncodingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "field encoding {:#x} has more than 15 bits: accesses to it always exit", self.encoding)
    }
}

impl core::error::Error for EncodingError {}

impl From<EncodingError> for AxErrorKind {
    fn from(_: EncodingError) -> Self {
        Self::OutOfRange
    }
}
