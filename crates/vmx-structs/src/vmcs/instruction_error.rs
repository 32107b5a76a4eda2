//! How VMX instructions fail (SDM 30.2 and 30.4).
//!
//! A VMX instruction reports by flags: CF alone is [`VmFail::Invalid`] (no current VMCS to put a reason in), ZF alone
//! is [`VmFail::Valid`] with a number in the VM-instruction error field.

use core::fmt;

/// A failed VMX instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VmFail {
    /// VMfailInvalid (CF): there is no current VMCS, so there is no error number.
    Invalid,
    /// VMfailValid (ZF): the error number that the current VMCS holds.
    Valid(VmInstructionError),
}

impl VmFail {
    /// VMfailValid with this error number.
    pub const fn from_number(number: u32) -> Self {
        Self::Valid(VmInstructionError::from_number(number))
    }
}

impl fmt::Display for VmFail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid => {
                f.write_str("the VMX instruction failed and there is no current VMCS: load one with VMPTRLD")
            }
            Self::Valid(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for VmFail {}

macro_rules! errors {
    ($($(#[$doc:meta])* $number:literal $name:ident $text:literal;)*) => {
        /// The VM-instruction error numbers (SDM Table 30-1).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum VmInstructionError {
            $(#[doc = concat!("Error ", stringify!($number), ": ", $text, ".")] $name,)*
            /// A number that the SDM does not define.
            Other(u32),
        }

        impl VmInstructionError {
            /// The error with this number.
            pub const fn from_number(number: u32) -> Self {
                match number {
                    $($number => Self::$name,)*
                    other => Self::Other(other),
                }
            }

            /// Its number.
            pub const fn number(self) -> u32 {
                match self {
                    $(Self::$name => $number,)*
                    Self::Other(other) => other,
                }
            }

            /// The SDM's words, shortened; `None` for a number that it does not define.
            pub const fn description(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)*
                    Self::Other(_) => None,
                }
            }
        }
    };
}

errors! {
    1 VmcallInRoot "VMCALL in VMX root operation";
    2 VmclearInvalidAddress "VMCLEAR with an invalid physical address";
    3 VmclearVmxonPointer "VMCLEAR with the VMXON pointer";
    4 VmlaunchNotClear "VMLAUNCH with a VMCS that is not clear";
    5 VmresumeNotLaunched "VMRESUME with a VMCS that is not launched";
    6 VmresumeAfterVmxoff "VMRESUME after VMXOFF";
    7 EntryInvalidControls "VM entry with invalid control fields";
    8 EntryInvalidHostState "VM entry with invalid host-state fields";
    9 VmptrldInvalidAddress "VMPTRLD with an invalid physical address";
    10 VmptrldVmxonPointer "VMPTRLD with the VMXON pointer";
    11 VmptrldWrongRevision "VMPTRLD with an incorrect VMCS revision identifier";
    12 UnsupportedField "VMREAD or VMWRITE of an unsupported VMCS field";
    13 ReadOnlyField "VMWRITE to a read-only VMCS field";
    15 VmxonInRoot "VMXON in VMX root operation";
    16 EntryInvalidExecutiveVmcs "VM entry with an invalid executive-VMCS pointer";
    17 EntryExecutiveVmcsNotLaunched "VM entry with a non-launched executive VMCS";
    18 EntryExecutiveVmcsNotVmxon "VM entry with an executive-VMCS pointer that is not the VMXON pointer";
    19 VmcallNotClear "VMCALL with a VMCS that is not clear";
    20 VmcallInvalidExitControls "VMCALL with invalid VM-exit control fields";
    22 VmcallWrongMsegRevision "VMCALL with an incorrect MSEG revision identifier";
    23 VmxoffDualMonitor "VMXOFF under dual-monitor treatment of SMIs";
    24 VmcallInvalidSmmFeatures "VMCALL with invalid SMM-monitor features";
    25 EntryInvalidExecutiveControls "VM entry with invalid VM-execution control fields in the executive VMCS";
    26 EntryBlockedByMovSs "VM entry with events blocked by MOV SS";
    28 InvalidInvalidation "invalid operand to INVEPT or INVVPID";
}

impl fmt::Display for VmInstructionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.description() {
            Some(text) => write!(f, "VM-instruction error {}: {text}", self.number()),
            None => write!(f, "VM-instruction error {}, which the SDM does not define", self.number()),
        }
    }
}

impl core::error::Error for VmInstructionError {}
