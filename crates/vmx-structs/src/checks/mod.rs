//! VM-entry checks in software: which rule a VMCS breaks, before the processor says only "error 7".
//!
//! VM entry checks the VMCS in three groups (SDM 26.2, 26.3). Controls that are wrong give VM-instruction error 7, a
//! wrong host state error 8, a wrong guest state a VM exit with reason 33. The processor names no field. [`check`]
//! makes the same checks, reports **every** violation with its [`Rule`], the section of the SDM and the field, and
//! says what the processor would do ([`Verdict`]).
//!
//! It reads any [`VmcsAccess`]: a VMCS in software on a host, or the processor's current
//! one just before VMLAUNCH. A field that the processor lacks counts as 0.
//!
//! # Order
//! The SDM allows controls and host state to be checked in any order. Known processors check controls first, then host
//! state, then guest state, and stop at the first group with a failure; so does the verdict. The qualification of reason
//! 33 is that of the first guest-state violation reported.
//!
//! # What is not checked
//! What 26.1 lists (the instruction itself: no current VMCS, a launch state that does not fit, blocking by MOV SS),
//! and what a processor may check beyond the SDM. CR3 with linear-address masking is checked as without. The MSR-load area
//! (26.4), where the processor decides as WRMSR would, has a check of its own: [`check_msr_load`].
//!
//! # Beside an emulator
//! Bochs 2.7 agrees with these checks on tens of thousands of faulty VMCSs, but for what it leaves out. It does not check
//! [`InjectionType`](Rule::InjectionType) for type 7 (it panics), entry to SMM outside SMM,
//! [`InjectionDeliversErrorCode`](Rule::InjectionDeliversErrorCode) where `IA32_VMX_BASIC` bit 56 is 1 (and takes CR0.PE as 1
//! without "unrestricted guest"), [`HostPerfGlobalCtrl`](Rule::HostPerfGlobalCtrl),
//! [`HostCetNeedsWriteProtect`](Rule::HostCetNeedsWriteProtect) unless CET state is loaded,
//! [`GuestPerfGlobalCtrl`](Rule::GuestPerfGlobalCtrl), [`GuestDebugctl`](Rule::GuestDebugctl),
//! [`Ia32eGuestNeedsPaging`](Rule::Ia32eGuestNeedsPaging), [`RipLinearWidth`](Rule::RipLinearWidth), RFLAGS.VM in real mode,
//! [`DataSegmentDpl`](Rule::DataSegmentDpl) of type 11, bits 63:32 of the pending debug exceptions,
//! [`PendingDebugSingleStep`](Rule::PendingDebugSingleStep), [`ActivityInjection`](Rule::ActivityInjection) in HLT and
//! [`NmiBlockingExcludesNmi`](Rule::NmiBlockingExcludesNmi). It compares the DPL of CS with the RPL of CS rather than with
//! the DPL of SS, which shows for unrestricted guests alone. It gives qualification 0 for
//! [`StiExcludesNmi`](Rule::StiExcludesNmi).

mod context;
mod controls;
mod engine;
mod event;
mod guest_registers;
mod guest_segments;
mod guest_state;
mod host_state;
mod msr_load;
mod rule;

pub use context::EntryContext;
pub use msr_load::{MsrLoadFailure, MsrLoadFailureKind, check_msr_load};
pub use rule::{Rule, Stage};

use core::fmt;

use crate::vmcs::{ExitReasonField, FieldEncoding, VmInstructionError, VmcsAccess};
use engine::Checker;

/// A rule that a VMCS breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// The field that breaks it; of several, the one that the rule is about.
    pub field: FieldEncoding,
    /// What the field holds.
    pub value: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is {:#x}, but {} (SDM {})",
            self.field,
            self.value,
            self.rule.text(),
            self.rule.section()
        )
    }
}

/// What VM entry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// The guest runs (unless loading its MSRs fails).
    Enters,
    /// VMLAUNCH or VMRESUME fails with this error: 7 or 8.
    Fails(VmInstructionError),
    /// A VM exit: the exit-reason field (33, or of [`MsrLoadFailure::verdict`] 34, with bit 31) and the exit qualification (SDM 26.8).
    Exits {
        /// The exit-reason field.
        reason: u32,
        /// The exit qualification.
        qualification: u64,
    },
}

impl Verdict {
    /// The exit-reason field of an entry that fails by its guest state.
    pub const INVALID_GUEST_STATE: u32 = 33 | 1 << 31;
    /// The exit-reason field of an entry that fails while it loads MSRs.
    pub const MSR_LOADING: u32 = 34 | 1 << 31;

    /// Whether the guest runs.
    pub const fn enters(self) -> bool {
        matches!(self, Self::Enters)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enters => f.write_str("VM entry succeeds"),
            Self::Fails(error) => error.fmt(f),
            Self::Exits { reason, qualification } => {
                let reason = ExitReasonField::from_raw(*reason).reason();
                let text = reason.description().unwrap_or("unknown");
                write!(f, "VM exit {} ({text}), qualification {qualification}", reason.number())
            }
        }
    }
}

/// Checks a VMCS as VM entry does: calls `report` with every violation, in the order of the SDM's groups, and says
/// what the processor would do.
///
/// ```
/// use vmx_structs::{CpuModel, checks::{self, EntryContext, Rule, Verdict}, vmcs::*};
///
/// let caps = CpuModel::by_id("skylake_x").unwrap().capabilities();
/// let mut vmcs = SoftwareVmcs::for_processor(&caps); // all 0: nearly everything is wrong
/// vmcs.write(control::PRIMARY_CONTROLS, 0x0400_6172)?;
/// let mut broken = 0;
/// let verdict = checks::check(&vmcs, &EntryContext::new(&caps), &mut |violation| {
///     assert_ne!(violation.rule, Rule::PrimaryControls);
///     broken += 1;
/// });
/// assert!(broken > 10);
/// assert_eq!(verdict, Verdict::Fails(VmInstructionError::EntryInvalidControls));
/// # Ok::<(), VmFail>(())
/// ```
pub fn check(
    vmcs: &dyn VmcsAccess,
    context: &EntryContext<'_>,
    report: &mut dyn FnMut(Violation),
) -> Verdict {
    let mut checker = Checker::new(vmcs, context, report);
    checker.controls();
    checker.host_state();
    checker.guest_state();
    checker.verdict()
}

/// What VM entry would do, without the list of violations.
pub fn verdict(vmcs: &dyn VmcsAccess, context: &EntryContext<'_>) -> Verdict {
    check(vmcs, context, &mut |_| {})
}
