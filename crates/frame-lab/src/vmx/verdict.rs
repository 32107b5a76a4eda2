//! What VM entry says.

use serde::Serialize;
use vmx_structs::{
    VmxCapabilities,
    checks::{self, EntryContext, MsrLoadFailure, Rule, Stage, Verdict},
    vmcs::SoftwareVmcs,
};

use super::number::Hex;

/// The verdict, and every rule that is broken.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct VerdictFacts {
    pub(crate) enters: bool,
    /// What the processor does, in words.
    pub(crate) text: String,
    /// The VM-instruction error, if it fails so: 7 or 8.
    pub(crate) instruction_error: Option<u32>,
    /// The exit-reason field, if it exits instead of entering.
    pub(crate) exit_reason: Option<Hex>,
    pub(crate) exit_qualification: Option<u64>,
    pub(crate) rules_checked: usize,
    pub(crate) violations: Vec<ViolationFacts>,
    /// The entry of the MSR-load area at which a VM entry that breaks no rule fails.
    pub(crate) msr_load_failure: Option<MsrLoadFacts>,
}

/// An entry that cannot be loaded.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MsrLoadFacts {
    /// Counted from 1.
    pub(crate) entry: u64,
    pub(crate) msr: Hex,
    pub(crate) value: Hex,
    pub(crate) text: String,
}

/// A rule that is broken.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ViolationFacts {
    /// The rule's name in `vmx_structs::checks`.
    pub(crate) rule: String,
    /// The section of the SDM, Vol. 3.
    pub(crate) section: &'static str,
    /// `controls`, `host state` or `guest state`: checked in this order, and the first that fails decides.
    pub(crate) stage: &'static str,
    pub(crate) field: &'static str,
    pub(crate) encoding: Hex,
    pub(crate) value: Hex,
    /// What must hold.
    pub(crate) text: &'static str,
}

/// Where the VMCS and the VMXON region are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Regions {
    pub(crate) vmcs: u64,
    pub(crate) vmxon: u64,
}

impl VerdictFacts {
    /// Checks a VMCS as VM entry does, with a look at the memory that it names.
    pub(crate) fn of(
        vmcs: &SoftwareVmcs,
        caps: &VmxCapabilities,
        regions: Regions,
        read_memory: &dyn Fn(u64) -> Option<u64>,
    ) -> Self {
        let mut context = EntryContext::new(caps);
        context.current_vmcs = Some(regions.vmcs);
        context.vmxon_region = Some(regions.vmxon);
        context.read_memory = Some(read_memory);
        let mut violations = Vec::new();
        let verdict = checks::check(vmcs, &context, &mut |broken| {
            violations.push(ViolationFacts {
                rule: format!("{:?}", broken.rule),
                section: broken.rule.section(),
                stage: match broken.rule.stage() {
                    Stage::Controls => "controls",
                    Stage::HostState => "host state",
                    Stage::GuestState => "guest state",
                },
                field: broken.field.info().map_or("", |info| info.name),
                encoding: Hex(broken.field.raw().into()),
                value: Hex(broken.value),
                text: broken.rule.text(),
            });
        });
        // MSRs are loaded last, if all else has passed.
        let failure = checks::check_msr_load(vmcs, &context).err().filter(|_| verdict.enters());
        let verdict = failure.map_or(verdict, MsrLoadFailure::verdict);
        let (instruction_error, exit) = match verdict {
            Verdict::Enters => (None, None),
            Verdict::Fails(error) => (Some(error.number()), None),
            Verdict::Exits { reason, qualification } => (None, Some((reason, qualification))),
        };
        Self {
            enters: verdict.enters(),
            text: verdict.to_string(),
            instruction_error,
            exit_reason: exit.map(|(reason, _)| Hex(reason.into())),
            exit_qualification: exit.map(|(_, qualification)| qualification),
            rules_checked: Rule::ALL.len(),
            violations,
            msr_load_failure: failure.map(|failure| MsrLoadFacts {
                entry: failure.entry,
                msr: Hex(failure.msr.into()),
                value: Hex(failure.value),
                text: failure.to_string(),
            }),
        }
    }
}
