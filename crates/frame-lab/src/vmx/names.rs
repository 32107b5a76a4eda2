//! Names of I/O ports and MSRs, as far as a person is likely to meet them in a hypervisor's bitmaps.

/// MSRs by their names in the SDM (Vol. 4).
const MSRS: &[(u32, &str)] = &[
    (0x10, "IA32_TIME_STAMP_COUNTER"),
    (0x1b, "IA32_APIC_BASE"),
    (0x3a, "IA32_FEATURE_CONTROL"),
    (0x3b, "IA32_TSC_ADJUST"),
    (0x48, "IA32_SPEC_CTRL"),
    (0x49, "IA32_PRED_CMD"),
    (0x79, "IA32_BIOS_UPDT_TRIG"),
    (0x8b, "IA32_BIOS_SIGN_ID"),
    (0x9b, "IA32_SMM_MONITOR_CTL"),
    (0xfe, "IA32_MTRRCAP"),
    (0x10a, "IA32_ARCH_CAPABILITIES"),
    (0x174, "IA32_SYSENTER_CS"),
    (0x175, "IA32_SYSENTER_ESP"),
    (0x176, "IA32_SYSENTER_EIP"),
    (0x1a0, "IA32_MISC_ENABLE"),
    (0x1d9, "IA32_DEBUGCTL"),
    (0x277, "IA32_PAT"),
    (0x2ff, "IA32_MTRR_DEF_TYPE"),
    (0x38f, "IA32_PERF_GLOBAL_CTRL"),
    (0x480, "IA32_VMX_BASIC"),
    (0x6a2, "IA32_S_CET"),
    (0x6e0, "IA32_TSC_DEADLINE"),
    (0x802, "IA32_X2APIC_APICID"),
    (0x808, "IA32_X2APIC_TPR"),
    (0x80b, "IA32_X2APIC_EOI"),
    (0x830, "IA32_X2APIC_ICR"),
    (0xda0, "IA32_XSS"),
    (0xc000_0080, "IA32_EFER"),
    (0xc000_0081, "IA32_STAR"),
    (0xc000_0082, "IA32_LSTAR"),
    (0xc000_0083, "IA32_CSTAR"),
    (0xc000_0084, "IA32_FMASK"),
    (0xc000_0100, "IA32_FS_BASE"),
    (0xc000_0101, "IA32_GS_BASE"),
    (0xc000_0102, "IA32_KERNEL_GS_BASE"),
    (0xc000_0103, "IA32_TSC_AUX"),
];

/// Ports of a PC, by their first and last.
const PORTS: &[(u16, u16, &str)] = &[
    (0x20, 0x21, "interrupt controller"),
    (0x40, 0x43, "interval timer"),
    (0x60, 0x60, "keyboard controller, data"),
    (0x61, 0x61, "system control"),
    (0x64, 0x64, "keyboard controller, command"),
    (0x70, 0x71, "clock and CMOS"),
    (0x80, 0x80, "diagnostic code"),
    (0xa0, 0xa1, "second interrupt controller"),
    (0x1f0, 0x1f7, "first disk"),
    (0x2f8, 0x2ff, "second serial port"),
    (0x3d4, 0x3d5, "display"),
    (0x3f8, 0x3ff, "first serial port"),
    (0xcf8, 0xcff, "PCI configuration"),
];

/// The name of an MSR.
pub(crate) fn of_msr(msr: u32) -> Option<&'static str> {
    MSRS.iter().find(|(number, _)| *number == msr).map(|(_, name)| *name)
}

/// The MSR of that name, with or without `IA32_`, in any case.
pub(crate) fn msr(name: &str) -> Option<u32> {
    let name = name.to_ascii_uppercase();
    let known = |known: &str| known == name || known.strip_prefix("IA32_") == Some(&*name);
    MSRS.iter().find(|(_, candidate)| known(candidate)).map(|(number, _)| *number)
}

/// Whose ports these are: what lies wholly or in part in the range.
pub(crate) fn of_ports(first: u16, last: u16) -> Vec<&'static str> {
    PORTS.iter().filter(|port| port.0 <= last && first <= port.1).map(|port| port.2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_both_ways() {
        for (number, name) in MSRS {
            assert_eq!((msr(name), of_msr(*number)), (Some(*number), Some(*name)));
        }
        assert_eq!((msr("efer"), msr("nonsense"), of_msr(1)), (Some(0xc000_0080), None, None));
        assert!(MSRS.is_sorted() && PORTS.is_sorted());
        assert_eq!(of_ports(0x3ff, 0xcf8), ["first serial port", "PCI configuration"]);
        assert!(of_ports(0x3f0, 0x3f7).is_empty());
    }
}
