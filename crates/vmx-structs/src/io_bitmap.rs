//! Which I/O ports a guest may touch without a VM exit.
//!
//! Two frames of bits, one bit for each port: bitmap A for ports 0 to 0x7fff, B for 0x8000 to 0xffff. With "use I/O
//! bitmaps" an I/O instruction exits if the bit of any port that it accesses is 1, and always if the access wraps
//! from 0xffff to 0 (SDM 24.6.4, 25.1.3). A 4-byte access at port `p` accesses the ports `p` to `p + 3`.

use core::{fmt, ops::RangeInclusive};

use axerrno::AxErrorKind;
use frame_core::{AxResult, FRAME_SIZE, FrameBox, FrameHal, PhysAddr, PhysFrame};

use crate::bits;

/// Ports in each bitmap.
const HALF: u32 = 0x8000;
/// Ports in all.
const PORTS: u32 = 0x1_0000;

/// The I/O bitmaps A and B, in a frame each.
///
/// ```
/// # use frame_core::{AxResult, FrameHal};
/// # use vmx_structs::{IoBitmap, IoWidth};
/// fn ports<H: FrameHal>() -> AxResult<IoBitmap<H>> {
///     let mut ports = IoBitmap::<H>::passthrough_all()?;
///     ports.set_intercept_of_range(0x3f8, 8, true)?; // the first serial port
///     assert!(ports.exits(0x3f5, IoWidth::Dword)); // touches 0x3f8
///     assert!(!ports.exits(0x3f6, IoWidth::Word));
///     Ok(ports)
/// }
/// ```
pub struct IoBitmap<H: FrameHal> {
    a: FrameBox<[u8; FRAME_SIZE], H>,
    b: FrameBox<[u8; FRAME_SIZE], H>,
}

/// The seed's name.
pub type IOBitmap<H> = IoBitmap<H>;

impl<H: FrameHal> IoBitmap<H> {
    /// Bitmaps of zeroes: no port exits.
    ///
    /// # Errors
    /// [`AxError::NoMemory`](frame_core::AxError::NoMemory) without two frames.
    pub fn passthrough_all() -> AxResult<Self> {
        Self::filled(0)
    }

    /// Bitmaps of ones: every port exits.
    ///
    /// # Errors
    /// As [`passthrough_all`](Self::passthrough_all).
    pub fn intercept_all() -> AxResult<Self> {
        Self::filled(u8::MAX)
    }

    fn filled(byte: u8) -> AxResult<Self> {
        let half = || -> AxResult<_> {
            let mut frame = PhysFrame::alloc()?;
            frame.fill(byte);
            Ok(FrameBox::from_frame(frame))
        };
        Ok(Self { a: half()?, b: half()? })
    }

    /// The physical addresses of A and B, for the VMCS.
    pub fn phys_addr(&self) -> (PhysAddr, PhysAddr) {
        (self.a.start_paddr(), self.b.start_paddr())
    }

    /// Sets whether an access to `port` exits.
    ///
    /// # Errors
    /// `port` is above 0xffff.
    pub fn set_intercept(&mut self, port: u32, intercept: bool) -> Result<(), PortError> {
        self.set_intercept_of_range(port, 1, intercept)
    }

    /// Sets whether an access to any of `count` ports from `port_base` on exits.
    ///
    /// # Errors
    /// A port of the range is above 0xffff. No port was changed then.
    pub fn set_intercept_of_range(
        &mut self,
        port_base: u32,
        count: u32,
        intercept: bool,
    ) -> Result<(), PortError> {
        let Some(more) = count.checked_sub(1) else { return Ok(()) };
        let last = match port_base.checked_add(more) {
            Some(last) if last < PORTS => last,
            _ => return Err(PortError { base: port_base, count }),
        };
        if port_base < HALF {
            bits::set_range(&mut *self.a, port_base as usize, last.min(HALF - 1) as usize, intercept);
        }
        if last >= HALF {
            let first = port_base.saturating_sub(HALF);
            bits::set_range(&mut *self.b, first as usize, (last - HALF) as usize, intercept);
        }
        Ok(())
    }

    /// The bit of one port.
    pub fn intercepts(&self, port: u16) -> bool {
        let port = u32::from(port);
        if port < HALF {
            bits::get(&*self.a, port as usize)
        } else {
            bits::get(&*self.b, (port - HALF) as usize)
        }
    }

    /// Whether an I/O instruction that accesses `width` bytes at `port` exits.
    pub fn exits(&self, port: u16, width: IoWidth) -> bool {
        (0..width.bytes()).any(|i| port.checked_add(i).is_none_or(|port| self.intercepts(port)))
    }

    /// The ports whose bit is 1, as ranges, lowest first. No two ranges adjoin.
    pub fn intercepted(&self) -> InterceptedPorts<'_> {
        InterceptedPorts { a: bits::runs(&*self.a), b: bits::runs(&*self.b), held: None }
    }
}

impl<H: FrameHal> fmt::Debug for IoBitmap<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.intercepted().map(|run| u32::from(*run.start())..=u32::from(*run.end()));
        f.debug_struct("IoBitmap")
            .field("a", &format_args!("{:#x}", self.a.start_paddr()))
            .field("b", &format_args!("{:#x}", self.b.start_paddr()))
            .field("intercepted", &bits::HexRuns(ports))
            .finish()
    }
}

/// The iterator of [`IoBitmap::intercepted`].
#[derive(Clone)]
pub struct InterceptedPorts<'a> {
    a: bits::Runs<'a>,
    b: bits::Runs<'a>,
    /// The first run of B, when it was looked at to join it with the last of A.
    held: Option<RangeInclusive<u16>>,
}

impl InterceptedPorts<'_> {
    fn next_of_b(&mut self) -> Option<RangeInclusive<u16>> {
        // A bitmap has 0x8000 bits, so the sums fit.
        let port = |i: usize| (i + HALF as usize) as u16;
        self.held.take().or_else(|| self.b.next().map(|run| port(*run.start())..=port(*run.end())))
    }
}

impl Iterator for InterceptedPorts<'_> {
    type Item = RangeInclusive<u16>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(run) = self.a.next() else { return self.next_of_b() };
        let (first, last) = (*run.start() as u16, *run.end() as u16);
        if u32::from(last) + 1 == HALF {
            match self.next_of_b() {
                Some(next) if u32::from(*next.start()) == HALF => return Some(first..=*next.end()),
                other => self.held = other,
            }
        }
        Some(first..=last)
    }
}

impl fmt::Debug for InterceptedPorts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

/// How many bytes an I/O instruction accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IoWidth {
    /// IN AL, OUT AL, INSB, OUTSB.
    Byte,
    /// IN AX, OUT AX, INSW, OUTSW.
    Word,
    /// IN EAX, OUT EAX, INSD, OUTSD.
    Dword,
}

impl IoWidth {
    /// All of them, narrowest first.
    pub const ALL: [Self; 3] = [Self::Byte, Self::Word, Self::Dword];

    /// Of 1, 2 or 4 bytes.
    pub const fn from_bytes(bytes: u32) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Dword),
            _ => None,
        }
    }

    /// Bytes accessed, and so ports.
    pub const fn bytes(self) -> u16 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
        }
    }
}

/// A range of ports that runs past 0xffff: nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortError {
    /// The first port asked for.
    pub base: u32,
    /// How many were asked for.
    pub count: u32,
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} I/O ports from {:#x} on run past the last port, 0xffff; no port was changed",
            self.count, self.base
        )
    }
}

impl core::error::Error for PortError {}

impl From<PortError> for AxErrorKind {
    fn from(_: PortError) -> Self {
        Self::OutOfRange
    }
}
