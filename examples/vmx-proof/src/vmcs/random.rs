//! Good VMCSs with one or two fields changed at random.
//!
//! Left alone are the host's state, addresses of memory (the processor writes to some of it) and the guest's CR3: whatever
//! is left, a guest that gets in finds empty page tables.

use alloc::format;

use kernel_example::memory::Kernel;
use vmx_structs::{
    VmcsRegion, VmxCapabilities,
    checks::Verdict,
    vmcs::{FieldInfo, Group, SecondaryControls, SoftwareVmcs, VmcsAccess, Width, control, guest},
};

use super::{
    Entry,
    bases::{legacy, long, pae, protected, real, rich, virtual_8086},
    blind_spots, launch, prepare,
    trial::{Setup, Trial},
};
use crate::{
    random::Random,
    report::{Outcome, Report},
    vmx::VmxOperation,
};

const ROUNDS: usize = 600;

type Base = fn(&Setup) -> Option<SoftwareVmcs>;
const BASES: [(&str, Base); 7] = [
    ("long", long),
    ("rich", rich),
    ("legacy", legacy),
    ("real", real),
    ("protected", protected),
    ("pae", pae),
    ("virtual_8086", virtual_8086),
];

pub fn compare(report: &mut Report, caps: &VmxCapabilities, operation: &VmxOperation) -> Outcome {
    let region = VmcsRegion::<Kernel>::new(caps.basic)?;
    let setup = Setup::new(caps, region.phys_addr(), operation.region())?;
    let mut random = Random::new(0x766d_6373);
    let mut entered = 0;
    for round in 0..ROUNDS {
        let (name, base) = BASES[random.below(BASES.len())];
        let Some(vmcs) = base(&setup) else { continue };
        setup.reset();
        let mut trial = Trial { vmcs, setup: &setup };
        let mut changes = format!("round {round}, {name}");
        for _ in 0..1 + random.below(2) {
            let info = loop {
                let info = &FieldInfo::ALL[random.below(FieldInfo::ALL.len())];
                if info.exists(caps) && is_harmless(info) {
                    break info;
                }
            };
            let old = trial.vmcs.read_raw(info.encoding)?;
            let new = if random.below(2) == 0 { old ^ 1 << random.below(64) } else { value(&mut random) };
            trial.vmcs.write_raw(info.encoding, new)?;
            changes += &format!(", {} = {new:#x}", info.encoding);
        }
        prepare(&mut trial);
        let (found, verdict) = trial.judge();
        let blind = found.iter().any(|fault| blind_spots::of(fault.rule, &trial, fault.value).is_some());
        if blind || compares_rpl_of_cs(&trial) || sleeps(&trial, verdict) {
            continue;
        }
        entered += usize::from(verdict.enters());
        report.compare(
            format_args!("{changes}: {found:?}"),
            &Entry::from(verdict),
            &launch(&trial, region.phys_addr()),
        );
    }
    report.note(format_args!("{entered} of them enter"));
    report.blind(
        "for an unrestricted guest the DPL of CS is compared with the RPL of CS, not with the DPL of SS: such VMCSs are left out; \
         on the host: vmcs_checks",
    );
    Ok(())
}

fn is_harmless(info: &FieldInfo) -> bool {
    let encoding = info.encoding;
    let control = encoding.group() == Group::Control;
    let left_alone = [
        control::EXIT_CONTROLS.encoding(),
        control::EXIT_MSR_STORE_COUNT.encoding(),
        control::EXIT_MSR_LOAD_COUNT.encoding(),
        control::ENTRY_MSR_LOAD_COUNT.encoding(),
        guest::CR3.encoding(),
        guest::VMCS_LINK_POINTER.encoding(),
    ];
    (control || encoding.group() == Group::Guest)
        && !(control && encoding.width() == Width::Bits64)
        && !left_alone.contains(&encoding)
}

/// A value as they occur in VMCSs: small, an address, a single bit, ones from an end, anything.
fn value(random: &mut Random) -> u64 {
    let value = random.next();
    match random.below(6) {
        0 => value % 16,
        1 => value & 0xf_ffff_f000,
        2 => 1 << (value % 64),
        3 => u64::MAX >> (value % 64),
        4 => u64::MAX << (value % 64),
        _ => value,
    }
}

/// The emulator's, see `compare`.
fn compares_rpl_of_cs(trial: &Trial) -> bool {
    let rights = trial.vmcs.get(guest::CS_ACCESS_RIGHTS);
    let rpl = u32::from(trial.vmcs.get(guest::CS_SELECTOR)) & 3;
    let unrestricted = SecondaryControls::from_bits_retain(trial.vmcs.get(control::SECONDARY_CONTROLS))
        .contains(SecondaryControls::UNRESTRICTED_GUEST);
    unrestricted && rights & 8 != 0 && rpl != rights >> 5 & 3 || rights & 13 == 9 && rpl != rights >> 5 & 3
}

/// A guest that shuts down or waits for another processor does not come back.
fn sleeps(trial: &Trial, verdict: Verdict) -> bool {
    verdict.enters() && trial.vmcs.get(guest::ACTIVITY_STATE) > 1
}
