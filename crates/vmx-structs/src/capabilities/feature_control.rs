//! `IA32_FEATURE_CONTROL`: whether firmware lets VMXON be executed (SDM 23.7).

use bitflags::bitflags;

bitflags! {
    /// The value of `IA32_FEATURE_CONTROL`, as far as it concerns VMX.
    ///
    /// The MSR is 0 after reset. VMXON faults until the lock bit and a VMXON bit are 1, and once it is locked, writes
    /// fault until the next reset: firmware that locks it without a VMXON bit has turned VMX off.
    ///
    /// ```
    /// use vmx_structs::FeatureControl;
    ///
    /// let reset = FeatureControl::empty();
    /// assert!(!reset.allows_vmxon());
    /// assert_eq!(reset.enabling().map(|value| value.bits()), Some(5)); // write this
    /// let enabled = FeatureControl::from_bits_retain(5);
    /// assert!(enabled.allows_vmxon());
    /// let off = FeatureControl::LOCKED;
    /// assert!(!off.allows_vmxon() && off.enabling().is_none());
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct FeatureControl: u64 {
        /// Writes fault.
        const LOCKED = 1 << 0;
        /// VMXON may be executed in SMX operation.
        const VMXON_IN_SMX = 1 << 1;
        /// VMXON may be executed outside SMX operation.
        const VMXON_OUTSIDE_SMX = 1 << 2;

        const _ = !0;
    }
}

impl FeatureControl {
    /// Whether VMXON can be executed outside SMX operation.
    pub const fn allows_vmxon(self) -> bool {
        self.contains(Self::LOCKED.union(Self::VMXON_OUTSIDE_SMX))
    }

    /// The value to write so that VMXON can be executed: this one if it can be already, `None` if it is locked off.
    pub const fn enabling(self) -> Option<Self> {
        if self.allows_vmxon() {
            Some(self)
        } else if self.contains(Self::LOCKED) {
            None
        } else {
            Some(self.union(Self::LOCKED).union(Self::VMXON_OUTSIDE_SMX))
        }
    }
}
