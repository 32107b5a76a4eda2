//! `IA32_VMX_MISC`: limits and small features (SDM A.6).

/// The value of `IA32_VMX_MISC`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VmxMisc(u64);

impl VmxMisc {
    /// From the MSR's value.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The MSR's value.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The VMX-preemption timer counts down whenever this bit of the TSC changes (bits 4:0).
    pub const fn preemption_timer_shift(self) -> u32 {
        self.0 as u32 & 0x1f
    }

    /// Whether VM exits store `IA32_EFER.LMA` into the "IA-32e mode guest" VM-entry control (bit 5): so on every
    /// processor with "unrestricted guest".
    pub const fn exits_store_lma(self) -> bool {
        self.0 >> 5 & 1 == 1
    }

    /// Whether a guest may be entered in this activity state: 0 active (always), 1 HLT, 2 shutdown, 3 wait-for-SIPI
    /// (bits 8:6).
    pub const fn allows_activity_state(self, state: u32) -> bool {
        match state {
            0 => true,
            1..=3 => self.0 >> (state + 5) & 1 == 1,
            _ => false,
        }
    }

    /// Whether Intel PT can be used in VMX operation (bit 14).
    pub const fn allows_processor_trace(self) -> bool {
        self.0 >> 14 & 1 == 1
    }

    /// CR3-target values that the processor supports (bits 24:16): at most 256, 4 on real processors.
    pub const fn cr3_target_count(self) -> u32 {
        (self.0 >> 16) as u32 & 0x1ff
    }

    /// Recommended maximum number of entries of an MSR area: 512 × (bits 27:25 + 1).
    pub const fn msr_area_limit(self) -> usize {
        512 * ((self.0 >> 25) as usize % 8 + 1)
    }

    /// Whether VMWRITE can write any field that VMREAD can read, VM-exit information included (bit 29).
    pub const fn writes_read_only_fields(self) -> bool {
        self.0 >> 29 & 1 == 1
    }

    /// Whether an event of a software kind may be injected with an instruction length of 0 (bit 30).
    pub const fn injects_with_zero_length(self) -> bool {
        self.0 >> 30 & 1 == 1
    }

    /// The MSEG revision identifier (bits 63:32).
    pub const fn mseg_revision(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl core::fmt::Debug for VmxMisc {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VmxMisc")
            .field("preemption_timer_shift", &self.preemption_timer_shift())
            .field("exits_store_lma", &self.exits_store_lma())
            .field("activity_hlt", &self.allows_activity_state(1))
            .field("activity_shutdown", &self.allows_activity_state(2))
            .field("activity_wait_for_sipi", &self.allows_activity_state(3))
            .field("cr3_target_count", &self.cr3_target_count())
            .field("msr_area_limit", &self.msr_area_limit())
            .field("writes_read_only_fields", &self.writes_read_only_fields())
            .field("injects_with_zero_length", &self.injects_with_zero_length())
            .finish()
    }
}
