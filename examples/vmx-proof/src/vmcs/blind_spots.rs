//! What the emulator (Bochs 2.7) does otherwise than the SDM, and what a kernel in 64-bit mode cannot try.
//!
//! Every case of a rule is checked on the host as well, by `crates/vmx-structs/tests/vmcs_checks.rs`. A blind spot that can be
//! tried without harm is tried: what the emulator does instead must be what is said here, so that a spot which has gone
//! shows as a difference.

use vmx_structs::{
    checks::Rule,
    vmcs::{control, guest},
};

use super::trial::Trial;

/// What the processor does with a VMCS that breaks the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It does not look.
    Enters,
    /// It exits with qualification 0.
    QualificationZero,
    /// It was not asked.
    NotRun,
}

pub struct BlindSpot {
    pub rule: Rule,
    /// Whether a trial falls into it; the second argument is what the field at fault holds.
    when: fn(&Trial, u64) -> bool,
    pub seen: Seen,
    pub why: &'static str,
}

const fn spot(rule: Rule, when: fn(&Trial, u64) -> bool, seen: Seen, why: &'static str) -> BlindSpot {
    BlindSpot { rule, when, seen, why }
}

/// The blind spot that a trial falls into.
pub fn of(rule: Rule, trial: &Trial, value: u64) -> Option<&'static BlindSpot> {
    ALL.iter().find(|spot| spot.rule == rule && (spot.when)(trial, value))
}

const fn always(_: &Trial, _: u64) -> bool {
    true
}

fn no_ia32e_guest(trial: &Trial, _: u64) -> bool {
    trial.vmcs.get(control::ENTRY_CONTROLS) >> 9 & 1 == 0
}

fn any_vector_has_error_code(trial: &Trial, _: u64) -> bool {
    trial.setup.caps.basic.error_code_for_any_vector()
}

fn other_event_type(trial: &Trial, _: u64) -> bool {
    trial.vmcs.get(control::ENTRY_INTERRUPTION_INFO) >> 8 & 7 == 7
}

#[rustfmt::skip]
pub static ALL: &[BlindSpot] = &[
    spot(Rule::InjectionType, other_event_type, Seen::NotRun, "an event of type 7 without the monitor trap flag ends the emulator"),
    spot(Rule::SmmControlsOutsideSmm, always, Seen::NotRun, "an entry to SMM ends the emulator"),
    spot(Rule::HostPerfGlobalCtrl, always, Seen::NotRun, "not looked at, and the host would have to live with it"),
    spot(Rule::HostCetNeedsWriteProtect, always, Seen::NotRun, "not looked at, and the host would have to live with it"),
    spot(Rule::InjectionDeliversErrorCode, any_vector_has_error_code, Seen::Enters, "not looked at where IA32_VMX_BASIC bit 56 is 1"),
    spot(Rule::GuestPerfGlobalCtrl, always, Seen::Enters, "not looked at"),
    spot(Rule::GuestDebugctl, always, Seen::Enters, "not looked at"),
    spot(Rule::Ia32eGuestNeedsPaging, always, Seen::Enters, "not looked at"),
    spot(Rule::RipLinearWidth, always, Seen::Enters, "not looked at"),
    spot(Rule::RflagsVirtual8086, no_ia32e_guest, Seen::Enters, "not looked at in real mode"),
    spot(Rule::DataSegmentDpl, |_, rights| rights & 15 == 11, Seen::Enters, "not looked at for code of type 11"),
    spot(Rule::PendingDebugReserved, |_, value| value as u32 & 0xffff_aff0 == 0, Seen::Enters, "bits 63:32 are not looked at"),
    spot(Rule::PendingDebugSingleStep, always, Seen::Enters, "not looked at"),
    spot(Rule::ActivityInjection, |trial, _| trial.vmcs.get(guest::ACTIVITY_STATE) == 1, Seen::Enters, "not looked at in HLT"),
    spot(Rule::NmiBlockingExcludesNmi, always, Seen::Enters, "not looked at"),
    spot(Rule::StiExcludesNmi, always, Seen::QualificationZero, "the exit qualification is 0, not 3"),
];

/// Rules that no case here can break, and why.
#[rustfmt::skip]
pub static UNREACHABLE: &[(Rule, &str)] = &[
    (Rule::LegacyModeEntersNo64Bit, "needs a host outside IA-32e mode"),
    (Rule::Host32ExcludesIa32eGuest, "in IA-32e mode broken only together with LongModeNeeds64BitHost"),
    (Rule::Host32ExcludesPcid, "needs a host outside IA-32e mode"),
    (Rule::Host32Rip, "needs a host outside IA-32e mode"),
    (Rule::Host32Cet, "needs a host outside IA-32e mode"),
    (Rule::HostSsNull, "needs a host outside IA-32e mode"),
    (Rule::Host64Rip, "the world switch sets the host's RIP itself"),
    (Rule::SmmControlsExclusive, "needs a host in SMM"),
    (Rule::SmmExcludesWaitForSipi, "needs a host in SMM"),
    (Rule::SmmEntryNeedsSmiBlocking, "needs a host in SMM"),
    (Rule::TracingExcludesLoadRtitCtl, "needs Intel PT, switched on"),
];
