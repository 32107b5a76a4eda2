//! Making VMXON possible: capabilities, `IA32_FEATURE_CONTROL`, CR0 and CR4 (SDM 23.6-23.8).

use core::fmt;

use super::registers::{cpuid, cr0, cr4, rdmsr, set_cr0, set_cr4, wrmsr};
use crate::{
    CpuFacts, VmxCapabilities,
    capabilities::{FeatureControl, msr},
};

/// CR4.VMXE.
const VMXE: u64 = 1 << 13;

/// What this processor can do in VMX operation; `None` if it has no VMX (CPUID.1:ECX\[5\]).
///
/// # Safety
/// At CPL 0.
pub unsafe fn capabilities() -> Option<VmxCapabilities> {
    if cpuid(1, 0)[2] >> 5 & 1 == 0 {
        return None;
    }
    let cpu = CpuFacts::from_cpuid(cpuid);
    // SAFETY: a processor with VMX has the basic capability MSRs, and `read` asks for others only if those say that they
    // exist; CPL 0 is the caller's promise.
    Some(VmxCapabilities::read(cpu, |msr| unsafe { rdmsr(msr) }))
}

/// Makes VMXON possible on this CPU: sets and locks `IA32_FEATURE_CONTROL` if firmware left that to us, sets CR4.VMXE and the
/// bits of CR0 and CR4 that VMX operation wants to be 1. Nothing is changed if it fails.
///
/// # Errors
/// Firmware has turned VMX off, or a control register holds a bit that VMX operation wants to be 0.
///
/// # Safety
/// At CPL 0, on the processor that `caps` describe, on each CPU that is to enter VMX operation. Numeric errors become
/// exceptions (CR0.NE); setting the other fixed bits (paging, protection) must be no change.
pub unsafe fn enable(caps: &VmxCapabilities) -> Result<(), EnableError> {
    // SAFETY: a processor with VMX has this MSR; CPL 0 is the caller's promise.
    let control = FeatureControl::from_bits_retain(unsafe { rdmsr(msr::IA32_FEATURE_CONTROL) });
    let enabling = control.enabling().ok_or(EnableError::LockedOff)?;
    // SAFETY: CPL 0.
    let (old_cr0, old_cr4) = unsafe { (cr0(), cr4()) };
    for (register, old, fixed) in [(0, old_cr0, caps.cr0), (4, old_cr4, caps.cr4)] {
        let bits = fixed.forbidden(old);
        if bits != 0 {
            return Err(EnableError::Forbidden { register, bits });
        }
    }
    // SAFETY: the MSR is not locked if it is written, and takes these bits. The control registers get bits that this
    // processor fixes to 1 in VMX operation, so it has them; what they change is the caller's promise.
    unsafe {
        if enabling != control {
            wrmsr(msr::IA32_FEATURE_CONTROL, enabling.bits());
        }
        set_cr0(caps.cr0.adjust(old_cr0));
        set_cr4(caps.cr4.adjust(old_cr4 | VMXE));
    }
    Ok(())
}

/// Why VMXON cannot be made possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnableError {
    /// `IA32_FEATURE_CONTROL` is locked without allowing VMXON.
    LockedOff,
    /// A control register has bits that VMX operation wants to be 0.
    Forbidden {
        /// 0 or 4.
        register: u8,
        /// Those bits.
        bits: u64,
    },
}

impl fmt::Display for EnableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LockedOff => f.write_str(
                "firmware has turned VMX off and locked it (IA32_FEATURE_CONTROL): enable it in the set-up",
            ),
            Self::Forbidden { register, bits } => {
                write!(f, "bits {bits:#x} of CR{register} must be 0 in VMX operation: clear them first")
            }
        }
    }
}

impl core::error::Error for EnableError {}
