//! Names of the bits of registers and fields (SDM Vol. 3, sections 2.2-2.5, 17.4, 24.4.2).

/// Bits by their places.
pub(crate) type Names = &'static [(u32, &'static str)];

pub(crate) const CR0: Names = &[
    (0, "PE"),
    (1, "MP"),
    (2, "EM"),
    (3, "TS"),
    (4, "ET"),
    (5, "NE"),
    (16, "WP"),
    (18, "AM"),
    (29, "NW"),
    (30, "CD"),
    (31, "PG"),
];
pub(crate) const CR4: Names = &[
    (0, "VME"),
    (1, "PVI"),
    (2, "TSD"),
    (3, "DE"),
    (4, "PSE"),
    (5, "PAE"),
    (6, "MCE"),
    (7, "PGE"),
    (8, "PCE"),
    (9, "OSFXSR"),
    (10, "OSXMMEXCPT"),
    (11, "UMIP"),
    (12, "LA57"),
    (13, "VMXE"),
    (14, "SMXE"),
    (16, "FSGSBASE"),
    (17, "PCIDE"),
    (18, "OSXSAVE"),
    (19, "KL"),
    (20, "SMEP"),
    (21, "SMAP"),
    (22, "PKE"),
    (23, "CET"),
    (24, "PKS"),
    (25, "UINTR"),
    (28, "LAM_SUP"),
];
pub(crate) const EFER: Names = &[(0, "SCE"), (8, "LME"), (10, "LMA"), (11, "NXE")];
pub(crate) const RFLAGS: Names = &[
    (0, "CF"),
    (1, "(always 1)"),
    (2, "PF"),
    (4, "AF"),
    (6, "ZF"),
    (7, "SF"),
    (8, "TF"),
    (9, "IF"),
    (10, "DF"),
    (11, "OF"),
    (14, "NT"),
    (16, "RF"),
    (17, "VM"),
    (18, "AC"),
    (19, "VIF"),
    (20, "VIP"),
    (21, "ID"),
];
pub(crate) const DEBUGCTL: Names = &[
    (0, "LBR"),
    (1, "BTF"),
    (2, "BLD"),
    (6, "TR"),
    (7, "BTS"),
    (8, "BTINT"),
    (9, "BTS_OFF_OS"),
    (10, "BTS_OFF_USR"),
    (11, "FREEZE_LBRS_ON_PMI"),
    (12, "FREEZE_PERFMON_ON_PMI"),
    (14, "FREEZE_WHILE_SMM"),
    (15, "RTM"),
];
pub(crate) const INTERRUPTIBILITY: Names = &[
    (0, "blocking by STI"),
    (1, "blocking by MOV SS"),
    (2, "blocking by SMI"),
    (3, "blocking by NMI"),
    (4, "enclave interruption"),
];
pub(crate) const PENDING_DEBUG: Names = &[
    (0, "B0"),
    (1, "B1"),
    (2, "B2"),
    (3, "B3"),
    (11, "BLD"),
    (12, "enabled breakpoint"),
    (14, "BS"),
    (16, "RTM"),
];
pub(crate) const S_CET: Names = &[
    (0, "SH_STK_EN"),
    (1, "WR_SHSTK_EN"),
    (2, "ENDBR_EN"),
    (3, "LEG_IW_EN"),
    (4, "NO_TRACK_EN"),
    (5, "SUPPRESS_DIS"),
    (10, "SUPPRESS"),
    (11, "TRACKER"),
];
pub(crate) const VM_FUNCTIONS: Names = &[(0, "EPTP switching")];
pub(crate) const EXCEPTIONS: Names = &[
    (0, "#DE"),
    (1, "#DB"),
    (2, "NMI"),
    (3, "#BP"),
    (4, "#OF"),
    (5, "#BR"),
    (6, "#UD"),
    (7, "#NM"),
    (8, "#DF"),
    (10, "#TS"),
    (11, "#NP"),
    (12, "#SS"),
    (13, "#GP"),
    (14, "#PF"),
    (16, "#MF"),
    (17, "#AC"),
    (18, "#MC"),
    (19, "#XM"),
    (20, "#VE"),
    (21, "#CP"),
];

/// The bits that are 1, by name; those without one by number.
pub(crate) fn list(value: u64, names: Names) -> String {
    let name = |bit: u32| match names.iter().find(|(known, _)| *known == bit) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("bit {bit}"),
    };
    let set: Vec<String> = (0..64).filter(|bit| value >> bit & 1 == 1).map(name).collect();
    if names.iter().any(|(_, name)| name.contains(' ')) { set.join(", ") } else { set.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_listed_once_each_and_by_place() {
        for names in [CR0, CR4, EFER, RFLAGS, DEBUGCTL, INTERRUPTIBILITY, PENDING_DEBUG, S_CET, EXCEPTIONS] {
            assert!(names.is_sorted_by(|a, b| a.0 < b.0));
        }
        assert_eq!(list(0x8000_0025, CR0), "PE EM NE PG");
        assert_eq!(list(1 << 63 | 1 << 13, CR4), "VMXE bit 63");
        assert_eq!(list(0b11, INTERRUPTIBILITY), "blocking by STI, blocking by MOV SS");
        assert_eq!(list(0, CR0), "");
    }
}
