//! VM entry: what [`checks`](vmx_structs::checks) says of a VMCS, and what the processor says.
//!
//! A case is a VMCS that is good and a small change which breaks one rule of SDM 26.2 or 26.3 ([`Case`]). The cases lie in
//! tables, one for each group of rules. A case applies where the processor has what it needs; that it does, and which
//! rule is broken then, the software must say; then VMLAUNCH must give the same error, or exit, as the software's verdict.

mod accepted;
mod bases;
mod blind_spots;
mod controls;
mod host;
mod random;
mod registers;
mod segments;
mod state;
mod trial;

pub use random::compare as compare_random;

use alloc::{collections::BTreeMap, format, vec::Vec};

use frame_allocator::PhysAddr;
use kernel_example::memory::Kernel;
use vmx_structs::{
    VmcsRegion, VmxCapabilities,
    checks::{Rule, Stage, Verdict, Violation},
    instructions::{CurrentVmcs, GuestRegisters},
    vmcs::{
        ExitReason, Group, PinControls, SoftwareVmcs, VmFail, VmInstructionError, VmcsAccess, control, exit,
        guest,
    },
};

use crate::{
    report::{Outcome, Report},
    vmx::VmxOperation,
};
use blind_spots::Seen;
use trial::{Setup, Trial};

/// A VMCS that breaks a rule.
pub struct Case {
    rule: Rule,
    base: fn(&Setup) -> Option<SoftwareVmcs>,
    base_name: &'static str,
    change: fn(&mut Trial),
    /// The whole case, as it stands in the table.
    name: &'static str,
}

const TABLES: [&[Case]; 5] = [controls::BAD, host::BAD, registers::BAD, segments::BAD, state::BAD];

/// `Rule base: |t| change;`, where `t` is a [`Trial`].
macro_rules! cases {
    ($($rule:ident $base:ident: $change:expr;)*) => { &[$(Case {
        rule: vmx_structs::checks::Rule::$rule,
        base: super::bases::$base,
        base_name: stringify!($base),
        change: $change,
        name: concat!(stringify!($rule), " ", stringify!($base), ": ", stringify!($change)),
    }),*] };
}
use cases;

/// What happened, in the terms of the software's verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Enters,
    Fails(VmInstructionError),
    Exits {
        reason: u32,
        qualification: u64,
    },
    /// Neither: no current VMCS, or a field that the processor refuses.
    Broken(VmFail),
}

impl From<Verdict> for Entry {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Enters => Self::Enters,
            Verdict::Fails(error) => Self::Fails(error),
            Verdict::Exits { reason, qualification } => Self::Exits { reason, qualification },
        }
    }
}

/// Broken by a case whose rule is about something that the processor lacks.
const LACKING: [Rule; 8] = [
    Rule::PinControls,
    Rule::PrimaryControls,
    Rule::SecondaryControls,
    Rule::ExitControls,
    Rule::EntryControls,
    Rule::InjectionType,
    Rule::HostCr4,
    Rule::GuestCr4,
];

/// How far a rule was put to the test.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Coverage {
    Absent,
    Blind,
    Compared,
}

pub fn compare(report: &mut Report, caps: &VmxCapabilities, operation: &VmxOperation) -> Outcome {
    let region = VmcsRegion::<Kernel>::new(caps.basic)?;
    let setup = Setup::new(caps, region.phys_addr(), operation.region())?;
    let mut coverage: BTreeMap<Rule, Coverage> =
        Rule::ALL.iter().map(|&rule| (rule, Coverage::Absent)).collect();

    for (name, base, change) in accepted::GOOD {
        let Some(vmcs) = base(&setup) else { continue };
        setup.reset();
        let mut trial = Trial { vmcs, setup: &setup };
        change(&mut trial);
        prepare(&mut trial);
        let (found, verdict) = trial.judge();
        report.compare(format_args!("{name}, in software: {found:?}"), &Verdict::Enters, &verdict);
        report.compare(name, &Entry::Enters, &launch(&trial, region.phys_addr()));
    }

    for case in TABLES.into_iter().flatten() {
        let Some(vmcs) = (case.base)(&setup) else { continue };
        setup.reset();
        let mut trial = Trial { vmcs, setup: &setup };
        (case.change)(&mut trial);
        prepare(&mut trial);
        let (found, verdict) = trial.judge();
        if found.is_empty() {
            continue; // the processor has not what the rule is about
        }
        let named = found.iter().all(|violation| violation.rule == case.rule);
        let lacking = LACKING.contains(&found[0].rule);
        report.compare(format_args!("{}: broken: {found:?}", case.name), &true, &(named || lacking));

        let mut expected = Entry::from(verdict);
        let spot =
            found.iter().find_map(|violation| blind_spots::of(violation.rule, &trial, violation.value));
        match spot.map(|spot| spot.seen) {
            None => {}
            Some(Seen::Enters) => expected = Entry::Enters,
            Some(Seen::QualificationZero) => {
                expected = Entry::Exits { reason: Verdict::INVALID_GUEST_STATE, qualification: 0 };
            }
            Some(Seen::NotRun) => {
                reach(&mut coverage, case.rule, Coverage::Blind);
                continue;
            }
        }
        report.compare(case.name, &expected, &launch(&trial, region.phys_addr()));
        if named {
            let reached = if spot.is_none() { Coverage::Compared } else { Coverage::Blind };
            reach(&mut coverage, case.rule, reached);
        }
    }
    tell(report, &coverage);
    Ok(())
}

/// Two faults at once: which of them the verdict is about.
pub fn compare_pairs(report: &mut Report, caps: &VmxCapabilities, operation: &VmxOperation) -> Outcome {
    let region = VmcsRegion::<Kernel>::new(caps.basic)?;
    let setup = Setup::new(caps, region.phys_addr(), operation.region())?;
    let cases: Vec<&Case> = TABLES.into_iter().flatten().collect();
    // Neighbours in the table, and cases of other groups.
    for distance in [1, 60, 130] {
        for (first, second) in cases.iter().zip(cases.iter().cycle().skip(distance)) {
            if first.base_name != second.base_name {
                continue;
            }
            let Some(vmcs) = (first.base)(&setup) else { continue };
            setup.reset();
            let mut trial = Trial { vmcs, setup: &setup };
            (first.change)(&mut trial);
            (second.change)(&mut trial);
            prepare(&mut trial);
            let (found, verdict) = trial.judge();
            let is_blind =
                |violation: &Violation| blind_spots::of(violation.rule, &trial, violation.value).is_some();
            if found.is_empty() || found.iter().any(is_blind) {
                continue;
            }
            // What one fault breaks the other may mend; a host state that is not ours must never be loaded.
            let changes_host = [first, second].iter().any(|case| case.rule.stage() == Stage::HostState);
            if changes_host && !matches!(verdict, Verdict::Fails(_)) {
                continue;
            }
            let case = format_args!("both {} and {}: {found:?}", first.name, second.name);
            report.compare(case, &Entry::from(verdict), &launch(&trial, region.phys_addr()));
        }
    }
    Ok(())
}

fn reach(coverage: &mut BTreeMap<Rule, Coverage>, rule: Rule, reached: Coverage) {
    let so_far = coverage.entry(rule).or_insert(reached);
    *so_far = reached.max(*so_far);
}

/// A guest that halts or shuts down would not exit by itself: the timer ends it.
fn prepare(trial: &mut Trial) {
    if trial.vmcs.get(guest::ACTIVITY_STATE) != 0 {
        trial.or(control::PIN_CONTROLS, PinControls::ACTIVATE_VMX_PREEMPTION_TIMER.bits());
        trial.set(guest::VMX_PREEMPTION_TIMER_VALUE, 1000);
    }
}

/// What the processor says.
fn launch(trial: &Trial, region: PhysAddr) -> Entry {
    let enter = || {
        // SAFETY: in VMX root operation, and no other VMCS of this CPU is in use; the region outlives the value.
        let mut current = unsafe { CurrentVmcs::load(region)? };
        for (info, value) in trial.vmcs.fields().filter(|(info, _)| info.encoding.group() != Group::ReadOnly)
        {
            current.write_raw(info.encoding, value)?;
        }
        // SAFETY: the host's state is this CPU's: the cases that change it are such that VM entry refuses them (those that
        // it may let through are not run). The guest has empty page tables, or an empty EPT: it reaches no memory.
        let reason = unsafe { current.run(&mut GuestRegisters::default())? };
        let qualification = current.read(exit::EXIT_QUALIFICATION)?;
        current.unload()?;
        Ok((reason, qualification))
    };
    match enter() {
        Ok((reason, qualification)) if reason.reason() == ExitReason::EntryFailureGuestState => {
            Entry::Exits { reason: reason.raw(), qualification }
        }
        Ok(_) => Entry::Enters,
        Err(VmFail::Valid(
            error @ (VmInstructionError::EntryInvalidControls | VmInstructionError::EntryInvalidHostState),
        )) => Entry::Fails(error),
        Err(error) => Entry::Broken(error),
    }
}

/// Which rules were compared, and why the others were not.
fn tell(report: &Report, coverage: &BTreeMap<Rule, Coverage>) {
    let count = |wanted| coverage.values().filter(|&&reached| reached == wanted).count();
    report.note(format_args!(
        "of {} rules {} compared, {} in blind spots alone, {} not on this model",
        coverage.len(),
        count(Coverage::Compared),
        count(Coverage::Blind),
        count(Coverage::Absent)
    ));
    let absent = coverage.iter().filter(|(_, reached)| **reached == Coverage::Absent).map(|(rule, _)| rule);
    for rule in absent {
        let why = blind_spots::UNREACHABLE.iter().find(|(unreachable, _)| unreachable == rule);
        match why {
            Some((_, why)) => report.blind(format_args!("{rule:?}: {why}; on the host: vmcs_checks")),
            None => report.absent(format!("{rule:?}")),
        }
    }
    for spot in blind_spots::ALL {
        report.blind(format_args!("{:?}: {}; on the host: vmcs_checks", spot.rule, spot.why));
    }
}
