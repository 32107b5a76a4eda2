//! Bits of CR0 and CR4 that VMX operation fixes (SDM A.7, A.8 and 23.8).

/// Two MSRs that say which bits of a control register must be 1 and which may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CrFixed {
    fixed0: u64,
    fixed1: u64,
}

impl CrFixed {
    /// From the values of `IA32_VMX_CRn_FIXED0` (bits that must be 1) and `IA32_VMX_CRn_FIXED1` (bits that may be 1).
    pub const fn new(fixed0: u64, fixed1: u64) -> Self {
        Self { fixed0, fixed1 }
    }

    /// Bits that must be 1.
    pub const fn must_be_one(self) -> u64 {
        self.fixed0
    }

    /// Bits that may be 1.
    pub const fn may_be_one(self) -> u64 {
        self.fixed1
    }

    /// Bits of `value` that are 0 and must be 1.
    pub const fn missing(self, value: u64) -> u64 {
        self.fixed0 & !value
    }

    /// Bits of `value` that are 1 and must be 0.
    pub const fn forbidden(self, value: u64) -> u64 {
        value & !self.fixed1
    }

    /// Whether `value` is allowed.
    pub const fn allows(self, value: u64) -> bool {
        self.missing(value) == 0 && self.forbidden(value) == 0
    }

    /// `value` with the bits set that must be 1, and those cleared that must be 0.
    pub const fn adjust(self, value: u64) -> u64 {
        (value | self.fixed0) & self.fixed1
    }

    /// The same rule without demanding `bits`: "unrestricted guest" exempts CR0.PE and CR0.PG.
    pub const fn exempting(self, bits: u64) -> Self {
        Self { fixed0: self.fixed0 & !bits, fixed1: self.fixed1 }
    }
}

impl core::fmt::Debug for CrFixed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "CrFixed {{ must_be_one: {:#x}, may_be_one: {:#x} }}", self.fixed0, self.fixed1)
    }
}
