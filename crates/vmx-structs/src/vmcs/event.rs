//! Events as a VMCS holds them: what VM entry injects, what caused or interrupted a VM exit (SDM 24.8.3, 24.9.2, 24.9.3).
//!
//! One format serves four fields: vector in bits 7:0, kind in 10:8, "an error code is there" in 11, valid in 31.

/// What kind of event (bits 10:8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// An external interrupt.
    ExternalInterrupt = 0,
    /// Reserved.
    Reserved = 1,
    /// A non-maskable interrupt.
    Nmi = 2,
    /// A hardware exception (all but INT1, INT3 and INTO).
    HardwareException = 3,
    /// A software interrupt (INT n).
    SoftwareInterrupt = 4,
    /// A privileged software exception (INT1).
    PrivilegedSoftwareException = 5,
    /// A software exception (INT3, INTO).
    SoftwareException = 6,
    /// Another event: a pending monitor-trap exit (vector 0), or, with FRED, SYSCALL and SYSENTER.
    Other = 7,
}

impl EventKind {
    const fn from_bits(bits: u32) -> Self {
        match bits & 7 {
            0 => Self::ExternalInterrupt,
            1 => Self::Reserved,
            2 => Self::Nmi,
            3 => Self::HardwareException,
            4 => Self::SoftwareInterrupt,
            5 => Self::PrivilegedSoftwareException,
            6 => Self::SoftwareException,
            _ => Self::Other,
        }
    }

    /// Whether VM entry needs the length of the instruction that caused it.
    pub const fn has_instruction_length(self) -> bool {
        matches!(self, Self::SoftwareInterrupt | Self::PrivilegedSoftwareException | Self::SoftwareException)
    }
}

/// The value of an interruption-information field.
///
/// ```
/// use vmx_structs::vmcs::{EventInfo, EventKind};
///
/// let general_protection = EventInfo::new(EventKind::HardwareException, 13).with_error_code();
/// assert_eq!(general_protection.raw(), 0x8000_0b0d);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventInfo(u32);

impl EventInfo {
    /// No event.
    pub const NONE: Self = Self(0);

    /// A valid event without an error code.
    pub const fn new(kind: EventKind, vector: u8) -> Self {
        Self(1 << 31 | (kind as u32) << 8 | vector as u32)
    }

    /// The same with an error code, which lies in a field of its own.
    pub const fn with_error_code(self) -> Self {
        Self(self.0 | 1 << 11)
    }

    /// From the field's value.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The field's value.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Whether there is an event (bit 31).
    pub const fn is_valid(self) -> bool {
        self.0 >> 31 == 1
    }

    /// Its vector.
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }

    /// Its kind.
    pub const fn kind(self) -> EventKind {
        EventKind::from_bits(self.0 >> 8)
    }

    /// Whether there is an error code (bit 11).
    pub const fn has_error_code(self) -> bool {
        self.0 >> 11 & 1 == 1
    }
}
