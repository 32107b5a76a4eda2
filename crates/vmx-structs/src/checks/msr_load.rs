//! Loading MSRs (SDM 26.4): what VM entry does once controls, host and guest have passed.
//!
//! The processor takes the entries of the VM-entry MSR-load area in order and stops at the first that it cannot load: a
//! VM exit with reason 34 and the number of the entry, counted from 1, as qualification. Whether it can load one is
//! for WRMSR to say, so a check in software knows a part of it: the format of an entry, MSRs that no area loads, and
//! values that fault on every processor.

use core::fmt;

use super::{
    EntryContext, Verdict,
    engine::{is_pat, is_physical},
};
use crate::{
    CpuFeatures,
    vmcs::{VmcsAccess, control},
};

const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
const SMM_MONITOR_CTL: u32 = 0x9b;
const MICROCODE_UPDATE: u32 = 0x79;
const PAT: u32 = 0x277;
const EFER: u32 = 0xc000_0080;

/// An entry of the VM-entry MSR-load area that cannot be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrLoadFailure {
    /// Its number, counted from 1: the exit qualification.
    pub entry: u64,
    /// The MSR that it names (bits 31:0).
    pub msr: u32,
    /// Bits 127:64.
    pub value: u64,
    /// Why.
    pub kind: MsrLoadFailureKind,
}

/// Why an entry cannot be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MsrLoadFailureKind {
    /// Bits 63:32 of the entry are not 0.
    Reserved,
    /// No area loads this MSR: FS.base and GS.base, the registers of an x2APIC, a microcode update, and outside SMM the
    /// SMM-monitor control.
    NotLoadable,
    /// WRMSR of this value faults: an address that is not canonical, a reserved bit of IA32_EFER, no memory type in
    /// IA32_PAT.
    Value,
}

impl MsrLoadFailure {
    /// What the processor does: a VM exit with reason 34 and bit 31.
    pub const fn verdict(self) -> Verdict {
        Verdict::Exits { reason: Verdict::MSR_LOADING, qualification: self.entry }
    }
}

impl fmt::Display for MsrLoadFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, msr, value, .. } = self;
        write!(f, "entry {entry} of the VM-entry MSR-load area, MSR {msr:#x} = {value:#x}: ")?;
        f.write_str(match self.kind {
            MsrLoadFailureKind::Reserved => "bits 63:32 of the entry must be 0",
            MsrLoadFailureKind::NotLoadable => "no area loads this MSR",
            MsrLoadFailureKind::Value => "WRMSR faults on this value",
        })?;
        f.write_str(" (SDM 26.4)")
    }
}

impl core::error::Error for MsrLoadFailure {}

/// Looks for the entry at which VM entry fails to load MSRs, if [`check`](super::check) has found nothing before.
///
/// It reads the area through [`EntryContext::read_memory`]; memory that cannot be read counts as loadable. At most as
/// many entries are looked at as the processor recommends
/// ([`VmxMisc::msr_area_limit`](crate::VmxMisc::msr_area_limit)): more of them are undefined.
///
/// # Errors
/// The first entry that cannot be loaded.
///
/// ```
/// use vmx_structs::{CpuModel, checks::{self, EntryContext, MsrLoadFailureKind}, vmcs::*};
///
/// let caps = CpuModel::by_id("skylake_x").unwrap().capabilities();
/// let mut vmcs = SoftwareVmcs::for_processor(&caps);
/// vmcs.set(control::ENTRY_MSR_LOAD_ADDRESS, 0x1000);
/// vmcs.set(control::ENTRY_MSR_LOAD_COUNT, 2);
/// let memory = |address| match address {
///     0x1000 => Some(0xc000_0082), // IA32_LSTAR
///     0x1010 => Some(0xc000_0100), // IA32_FS_BASE, which has a field of its own
///     _ => Some(0),
/// };
/// let mut context = EntryContext::new(&caps);
/// context.read_memory = Some(&memory);
/// let failure = checks::check_msr_load(&vmcs, &context).unwrap_err();
/// assert_eq!((failure.entry, failure.kind), (2, MsrLoadFailureKind::NotLoadable));
/// ```
pub fn check_msr_load(vmcs: &dyn VmcsAccess, context: &EntryContext<'_>) -> Result<(), MsrLoadFailure> {
    let count = vmcs.read_raw(control::ENTRY_MSR_LOAD_COUNT.encoding()).unwrap_or(0);
    let start = vmcs.read_raw(control::ENTRY_MSR_LOAD_ADDRESS.encoding()).unwrap_or(0);
    for index in 0..count.min(context.caps.misc.msr_area_limit() as u64) {
        // An area that is misaligned or reaches too far has failed before.
        let Some(address) =
            start.checked_add(index * 16).filter(|at| at % 8 == 0 && is_physical(context, *at))
        else {
            return Ok(());
        };
        let words = (context.memory(address), address.checked_add(8).and_then(|at| context.memory(at)));
        let (Some(head), Some(value)) = words else { continue };
        // The index is in the low half.
        let msr = head as u32;
        let kind = match () {
            () if head >> 32 != 0 => MsrLoadFailureKind::Reserved,
            () if !is_loadable(msr, context) => MsrLoadFailureKind::NotLoadable,
            () if !is_value(msr, value, context) => MsrLoadFailureKind::Value,
            () => continue,
        };
        return Err(MsrLoadFailure { entry: index + 1, msr, value, kind });
    }
    Ok(())
}

fn is_loadable(msr: u32, context: &EntryContext<'_>) -> bool {
    match msr {
        FS_BASE | GS_BASE | MICROCODE_UPDATE | 0x800..=0x8ff => false,
        SMM_MONITOR_CTL => context.in_smm,
        _ => true,
    }
}

/// Whether WRMSR takes the value, as far as that is the same on every processor with these features.
fn is_value(msr: u32, value: u64, context: &EntryContext<'_>) -> bool {
    let cpu = &context.caps.cpu;
    match msr {
        // SYSENTER_ESP and SYSENTER_EIP, LSTAR and CSTAR, KERNEL_GS_BASE.
        0x175 | 0x176 | 0xc000_0082 | 0xc000_0083 | 0xc000_0102 => {
            !cpu.features.contains(CpuFeatures::LONG_MODE) || cpu.is_canonical(value)
        }
        PAT => is_pat(value),
        EFER => value & !cpu.efer() == 0,
        _ => true,
    }
}
