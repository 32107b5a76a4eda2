//! Which processors have a field: a field exists where the control that gives it a meaning may be 1 (the footnotes of
//! SDM Appendix B). VMREAD and VMWRITE refuse the others with error 12.

use super::controls::*;
use crate::VmxCapabilities;

/// What a processor must support to have a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Requires {
    /// Nothing: every processor with VMX has it.
    Always,
    /// The 1-setting of a pin-based control.
    Pin(PinControls),
    /// The 1-setting of a primary processor-based control.
    Primary(PrimaryControls),
    /// The 1-setting of a secondary processor-based control.
    Secondary(SecondaryControls),
    /// The 1-setting of a tertiary processor-based control.
    Tertiary(TertiaryControls),
    /// The 1-setting of a VM-entry control.
    Entry(EntryControls),
    /// The 1-setting of a VM-exit control.
    Exit(ExitControls),
    /// The 1-setting of a VM-entry control or of a VM-exit control.
    EntryOrExit(EntryControls, ExitControls),
    /// The 1-setting of a secondary VM-exit control.
    SecondaryExit(SecondaryExitControls),
    /// A VM function (by its number).
    VmFunction(u32),
    /// Nested exceptions of FRED (`IA32_VMX_BASIC` bit 58).
    NestedExceptions,
    /// Something that no capability MSR tells; taken as absent.
    Unknown,
}

impl Requires {
    /// Whether a processor with these capabilities supports it.
    pub fn holds(self, caps: &VmxCapabilities) -> bool {
        match self {
            Self::Always => true,
            Self::Pin(bit) => bit.is_available(caps),
            Self::Primary(bit) => bit.is_available(caps),
            Self::Secondary(bit) => bit.is_available(caps),
            Self::Tertiary(bit) => bit.is_available(caps),
            Self::Entry(bit) => bit.is_available(caps),
            Self::Exit(bit) => bit.is_available(caps),
            Self::EntryOrExit(entry, exit) => entry.is_available(caps) || exit.is_available(caps),
            Self::SecondaryExit(bit) => bit.is_available(caps),
            Self::VmFunction(number) => caps.vmfunc >> number & 1 == 1,
            Self::NestedExceptions => caps.basic.has_nested_exceptions(),
            Self::Unknown => false,
        }
    }
}
