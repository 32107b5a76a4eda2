//! The MSRs that VM entry loads: which entry fails, beside a plain reading of the rules.

mod vmcs_support;

use std::collections::BTreeMap;

use vmcs_support::caps;
use vmx_structs::{
    CpuModel, VmxCapabilities,
    checks::{EntryContext, MsrLoadFailureKind as Kind, Verdict, check_msr_load},
    vmcs::*,
};

/// What happens with these entries (index word, value) on this processor.
fn load(caps: &VmxCapabilities, in_smm: bool, entries: &[(u64, u64)]) -> Option<(u64, Kind)> {
    const START: u64 = 0x4_2000;
    let words = entries.iter().enumerate();
    let words = words.flat_map(|(i, (head, value))| [(16 * i as u64, *head), (16 * i as u64 + 8, *value)]);
    let memory: BTreeMap<u64, u64> = words.map(|(offset, word)| (START + offset, word)).collect();
    let read = |address: u64| memory.get(&address).copied();
    let mut vmcs = SoftwareVmcs::for_processor(caps);
    vmcs.set(control::ENTRY_MSR_LOAD_ADDRESS, START);
    vmcs.set(control::ENTRY_MSR_LOAD_COUNT, entries.len() as u32);
    let mut context = EntryContext::new(caps);
    context.in_smm = in_smm;
    context.read_memory = Some(&read);
    let failure = check_msr_load(&vmcs, &context).err()?;
    assert_eq!(failure.verdict(), Verdict::Exits { reason: 0x8000_0022, qualification: failure.entry });
    let expected =
        format!("VM exit 34 (VM-entry failure due to MSR loading), qualification {}", failure.entry);
    assert_eq!(failure.verdict().to_string(), expected);
    assert_eq!((u64::from(failure.msr), failure.value), {
        let (head, value) = entries[failure.entry as usize - 1];
        (head & 0xffff_ffff, value)
    });
    assert!(failure.to_string().contains("26.4"), "{failure}");
    Some((failure.entry, failure.kind))
}

#[test]
fn the_first_entry_that_fails_is_named() {
    let caps = caps("skylake_x");
    let good = (0xc000_0081, 0x23_0008_0000_0000); // IA32_STAR takes anything
    assert_eq!(load(&caps, false, &[]), None);
    assert_eq!(load(&caps, false, &[good, good]), None);
    for (bad, kind) in [
        ((1 << 32 | 0xc000_0081, 0), Kind::Reserved),
        ((1 << 63 | 0x10, 0), Kind::Reserved),
        ((0xc000_0100, 0), Kind::NotLoadable),
        ((0xc000_0101, 0), Kind::NotLoadable),
        ((0x79, 0), Kind::NotLoadable),
        ((0x9b, 0), Kind::NotLoadable),
        ((0xc000_0082, 1 << 47), Kind::Value),
        ((0x277, 2), Kind::Value),
        ((0xc000_0080, 1 << 1), Kind::Value),
    ] {
        for before in 0..3 {
            let mut entries = vec![good; before];
            entries.extend([bad, (0xc000_0101, 0)]);
            assert_eq!(load(&caps, false, &entries), Some((before as u64 + 1, kind)), "{bad:x?}");
        }
    }
}

/// Every MSR below 0x2000: only those that the SDM names are refused.
#[test]
fn msrs_that_no_area_loads() {
    let caps = caps("haswell");
    for in_smm in [false, true] {
        for msr in 0..0x2000_u64 {
            let refused = msr >> 8 == 8 || msr == 0x79 || msr == 0x9b && !in_smm;
            // A value that every MSR takes: canonical, a list of memory types.
            let expected = refused.then_some((1, Kind::NotLoadable));
            assert_eq!(load(&caps, in_smm, &[(msr, 0)]), expected, "{msr:#x}");
        }
    }
}

#[test]
fn values_are_judged_by_the_processor_that_loads_them() {
    let addresses = [0x175, 0x176, 0xc000_0082, 0xc000_0083, 0xc000_0102];
    for model in CpuModel::ALL {
        let caps = model.capabilities();
        let long = caps.cpu.linear_width > 32;
        for msr in addresses {
            for bit in 0..64 {
                // One bit alone is canonical below the highest bit of the linear width.
                let canonical = !long || bit < u32::from(caps.cpu.linear_width) - 1;
                let expected = (!canonical).then_some((1, Kind::Value));
                assert_eq!(load(&caps, false, &[(msr, 1 << bit)]), expected, "{} {msr:#x} {bit}", model.id());
            }
            let upper = u64::MAX << (caps.cpu.linear_width - 1);
            assert_eq!(load(&caps, false, &[(msr, upper)]), None, "{}", model.id());
        }
        for memory_type in 0..=255_u64 {
            let expected = !matches!(memory_type, 0 | 1 | 4 | 5 | 6 | 7);
            let refused = load(&caps, false, &[(0x277, memory_type << 24)]);
            assert_eq!(refused.is_some(), expected, "{memory_type}");
        }
    }
    let (old, new) = (caps("first_generation"), caps("skylake_x"));
    // SCE, LME, LMA, NXE; the 32-bit processor has NXE alone.
    for (bit, on_old, on_new) in
        [(0, false, true), (8, false, true), (10, false, true), (11, true, true), (12, false, false)]
    {
        assert_eq!(load(&old, false, &[(0xc000_0080, 1 << bit)]).is_none(), on_old, "bit {bit}");
        assert_eq!(load(&new, false, &[(0xc000_0080, 1 << bit)]).is_none(), on_new, "bit {bit}");
    }
}

/// Memory that cannot be read, areas that lie nowhere, counts beyond what the processor recommends: no panic, no
/// failure, no endless search.
#[test]
fn what_cannot_be_read_counts_as_loadable() {
    let caps = caps("skylake_x");
    let limit = caps.misc.msr_area_limit() as u64;
    let bad = |_: u64| Some(u64::MAX);
    let asked = std::cell::Cell::new(0_u64);
    let nothing = |_: u64| {
        asked.set(asked.get() + 1);
        None
    };
    for start in [0, 8, 0x1001, u64::MAX, u64::MAX - 15, 1 << 40, (1 << 40) - 16] {
        let mut vmcs = SoftwareVmcs::for_processor(&caps);
        vmcs.set(control::ENTRY_MSR_LOAD_ADDRESS, start);
        vmcs.set(control::ENTRY_MSR_LOAD_COUNT, u32::MAX);
        let mut context = EntryContext::new(&caps);
        assert_eq!(check_msr_load(&vmcs, &context), Ok(()), "without a reader");
        context.read_memory = Some(&nothing);
        asked.set(0);
        assert_eq!(check_msr_load(&vmcs, &context), Ok(()));
        assert!(asked.get() <= 2 * limit, "{}", asked.get());
        context.read_memory = Some(&bad);
        let reachable = start % 8 == 0 && start < 1 << 40;
        assert_eq!(check_msr_load(&vmcs, &context).is_err(), reachable, "{start:#x}");
    }
}
