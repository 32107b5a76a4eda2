//! `IA32_VMX_BASIC`: what a VMXON region or a VMCS looks like on this processor (SDM A.1).

/// The value of `IA32_VMX_BASIC`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VmxBasic(u64);

impl VmxBasic {
    /// From the MSR's value. Bit 31, which is always 0, is dropped.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw & !(1 << 31))
    }

    /// The MSR's value.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The revision identifier that the first word of a VMXON region and of a VMCS must hold: 31 bits, so bit 31 is
    /// always 0.
    pub const fn revision(self) -> u32 {
        self.0 as u32 & 0x7fff_ffff
    }

    /// Bytes that the processor uses of a VMXON region or VMCS (bits 44:32): 1 to 4096 on a real processor. The
    /// region is aligned to 4 KiB whatever its size.
    pub const fn region_size(self) -> usize {
        (self.0 >> 32) as usize & 0x1fff
    }

    /// Whether the addresses of VMX structures are limited to 32 bits (bit 48): only on processors without Intel 64.
    pub const fn addresses_limited_to_32_bits(self) -> bool {
        self.0 >> 48 & 1 == 1
    }

    /// Whether the dual-monitor treatment of SMIs is supported (bit 49).
    pub const fn has_dual_monitor(self) -> bool {
        self.0 >> 49 & 1 == 1
    }

    /// The memory type to use for VMX structures (bits 53:50): 0 uncacheable, 6 write-back.
    pub const fn memory_type(self) -> u8 {
        (self.0 >> 50) as u8 & 0xf
    }

    /// Whether a VM exit by INS or OUTS reports instruction information (bit 54).
    pub const fn reports_ins_outs(self) -> bool {
        self.0 >> 54 & 1 == 1
    }

    /// Whether the TRUE capability MSRs exist, so that default1 controls may be 0 (bit 55).
    pub const fn has_true_controls(self) -> bool {
        self.0 >> 55 & 1 == 1
    }

    /// Whether a hardware exception may be injected with or without an error code, whatever its vector (bit 56).
    pub const fn error_code_for_any_vector(self) -> bool {
        self.0 >> 56 & 1 == 1
    }

    /// Whether FRED's nested exceptions are known to VM entry (bit 58).
    pub const fn has_nested_exceptions(self) -> bool {
        self.0 >> 58 & 1 == 1
    }
}

impl core::fmt::Debug for VmxBasic {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VmxBasic")
            .field("revision", &format_args!("{:#x}", self.revision()))
            .field("region_size", &self.region_size())
            .field("memory_type", &self.memory_type())
            .field("addresses_limited_to_32_bits", &self.addresses_limited_to_32_bits())
            .field("has_dual_monitor", &self.has_dual_monitor())
            .field("reports_ins_outs", &self.reports_ins_outs())
            .field("has_true_controls", &self.has_true_controls())
            .field("error_code_for_any_vector", &self.error_code_for_any_vector())
            .finish()
    }
}
