//! What a control word may be: allowed 0-settings and allowed 1-settings (SDM A.3-A.5).

/// The capability of a 32-bit control word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ControlCap {
    allowed0: u32,
    allowed1: u32,
}

impl ControlCap {
    /// A control word that does not exist: no bit may be 1.
    pub const NONE: Self = Self { allowed0: 0, allowed1: 0 };

    /// From the MSR's value: allowed 0-settings in bits 31:0, allowed 1-settings in bits 63:32.
    pub const fn from_raw(raw: u64) -> Self {
        Self { allowed0: raw as u32, allowed1: (raw >> 32) as u32 }
    }

    /// Bits that must be 1 (the allowed 0-setting is 1).
    pub const fn must_be_one(self) -> u32 {
        self.allowed0
    }

    /// Bits that may be 1 (the allowed 1-setting is 1).
    pub const fn may_be_one(self) -> u32 {
        self.allowed1
    }

    /// Bits of `value` that are 0 and must be 1.
    pub const fn missing(self, value: u32) -> u32 {
        self.allowed0 & !value
    }

    /// Bits of `value` that are 1 and must be 0.
    pub const fn forbidden(self, value: u32) -> u32 {
        value & !self.allowed1
    }

    /// Whether VM entry accepts `value`.
    pub const fn allows(self, value: u32) -> bool {
        self.missing(value) == 0 && self.forbidden(value) == 0
    }
}

impl core::fmt::Debug for ControlCap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "ControlCap {{ must_be_one: {:#010x}, may_be_one: {:#010x} }}",
            self.allowed0, self.allowed1
        )
    }
}

/// The capability of a 64-bit control word: every bit may be 0 (SDM A.3.4, A.4.2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ControlCap64 {
    allowed1: u64,
}

impl ControlCap64 {
    /// A control word that does not exist: no bit may be 1.
    pub const NONE: Self = Self { allowed1: 0 };

    /// From the MSR's value.
    pub const fn from_raw(raw: u64) -> Self {
        Self { allowed1: raw }
    }

    /// Bits that may be 1.
    pub const fn may_be_one(self) -> u64 {
        self.allowed1
    }

    /// Bits of `value` that are 1 and must be 0.
    pub const fn forbidden(self, value: u64) -> u64 {
        value & !self.allowed1
    }

    /// Whether VM entry accepts `value`.
    pub const fn allows(self, value: u64) -> bool {
        self.forbidden(value) == 0
    }
}

impl core::fmt::Debug for ControlCap64 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ControlCap64 {{ may_be_one: {:#018x} }}", self.allowed1)
    }
}
