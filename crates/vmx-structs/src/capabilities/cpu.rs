//! What CPUID says that the rules of VMX depend on.

use bitflags::bitflags;

bitflags! {
    /// Features outside VMX that change what a VMCS may hold.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct CpuFeatures: u32 {
        /// Intel 64 architecture: CPUID.80000001H:EDX[29].
        const LONG_MODE = 1 << 0;
        /// Execute-disable, and with it `IA32_EFER.NXE`: CPUID.80000001H:EDX[20].
        const EXECUTE_DISABLE = 1 << 1;
        /// Restricted transactional memory: CPUID.(7,0):EBX[11].
        const RTM = 1 << 2;
        /// Software guard extensions: CPUID.(7,0):EBX[2].
        const SGX = 1 << 3;
        /// SYSCALL and SYSRET, and with them `IA32_EFER.SCE`: CPUID.80000001H:EDX[11]. (Intel processors report it
        /// in 64-bit mode only.)
        const SYSCALL = 1 << 4;
    }
}

/// What CPUID says beside the VMX capability MSRs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuFacts {
    /// MAXPHYADDR in bits: CPUID.80000008H:EAX\[7:0\].
    pub physical_width: u8,
    /// Linear-address width in bits: CPUID.80000008H:EAX\[15:8\], 48 or 57 (32 without Intel 64).
    pub linear_width: u8,
    /// Features that change what a VMCS may hold.
    pub features: CpuFeatures,
    /// Bits of `IA32_DEBUGCTL` that are not reserved.
    pub debugctl: u64,
    /// Bits of `IA32_PERF_GLOBAL_CTRL` that are not reserved.
    pub perf_global_ctrl: u64,
    /// Bits of `IA32_RTIT_CTL` (Intel PT) that are not reserved.
    pub rtit_ctl: u64,
    /// Bits of `IA32_LBR_CTL` (architectural last-branch records) that are not reserved.
    pub lbr_ctl: u64,
}

impl CpuFacts {
    /// A 64-bit processor with these address widths (in bits), SYSCALL and execute-disable, and the MSR bits that
    /// every recent processor has. The fields are public: change what differs.
    pub const fn new(physical_width: u8, linear_width: u8) -> Self {
        Self {
            physical_width,
            linear_width,
            features: CpuFeatures::LONG_MODE.union(CpuFeatures::EXECUTE_DISABLE).union(CpuFeatures::SYSCALL),
            debugctl: 0x5fc3,
            perf_global_ctrl: 0x7_0000_000f,
            rtit_ctl: 0,
            lbr_ctl: 0,
        }
    }

    /// Asks CPUID: the closure takes leaf and subleaf and gives EAX, EBX, ECX, EDX.
    ///
    /// The masks of `IA32_DEBUGCTL`, `IA32_PERF_GLOBAL_CTRL`, `IA32_RTIT_CTL` and `IA32_LBR_CTL` are what CPUID
    /// implies (SDM 18.4.1, 20.2.2, 33.2.8.2, 19.1.1).
    pub fn from_cpuid(mut cpuid: impl FnMut(u32, u32) -> [u32; 4]) -> Self {
        let [highest, ..] = cpuid(0, 0);
        let [highest_extended, ..] = cpuid(0x8000_0000, 0);
        let mut leaf = |number: u32, subleaf| {
            let known = if number >= 0x8000_0000 { highest_extended } else { highest };
            if number <= known { cpuid(number, subleaf) } else { [0; 4] }
        };
        let [.., features_edx] = leaf(1, 0);
        let [_, ebx7, ecx7, edx7] = leaf(7, 0);
        let [eax10, _, _, edx10] = leaf(10, 0);
        let [.., extended_edx] = leaf(0x8000_0001, 0);
        let [widths, ..] = leaf(0x8000_0008, 0);

        let mut features = CpuFeatures::empty();
        features.set(CpuFeatures::LONG_MODE, extended_edx & 1 << 29 != 0);
        features.set(CpuFeatures::EXECUTE_DISABLE, extended_edx & 1 << 20 != 0);
        features.set(CpuFeatures::SYSCALL, extended_edx & 1 << 11 != 0);
        features.set(CpuFeatures::RTM, ebx7 & 1 << 11 != 0);
        features.set(CpuFeatures::SGX, ebx7 & 1 << 2 != 0);

        // Without leaf 80000008H the widths follow from PAE alone.
        let physical = if features_edx & 1 << 6 != 0 { 36 } else { 32 };
        let (physical_width, linear_width) = match widths as u16 {
            0 => (physical, if features.contains(CpuFeatures::LONG_MODE) { 48 } else { 32 }),
            widths => (widths as u8, (widths >> 8) as u8),
        };
        Self {
            physical_width,
            linear_width,
            features,
            debugctl: 0x5fc3
                | u64::from(ecx7 >> 24 & 1) << 2 // bus-lock detection
                | u64::from(ebx7 >> 11 & 1) << 15, // RTM
            perf_global_ctrl: perf_global_ctrl(eax10, edx10),
            rtit_ctl: if ebx7 & 1 << 25 != 0 { rtit_ctl(leaf(0x14, 0), leaf(0x14, 1)) } else { 0 },
            lbr_ctl: if edx7 & 1 << 19 != 0 { 0x7f_000f } else { 0 },
        }
    }

    /// Whether `address` lies within the physical-address width.
    pub const fn is_physical(&self, address: u64) -> bool {
        self.physical_width >= 64 || address >> self.physical_width == 0
    }

    /// Whether `address` is canonical: its bits from the linear-address width less one upwards are all the same.
    pub const fn is_canonical(&self, address: u64) -> bool {
        is_canonical(address, self.linear_width)
    }

    /// Bits of `IA32_EFER` that are not reserved (SDM 2.2.1).
    pub const fn efer(&self) -> u64 {
        self.if_has(CpuFeatures::SYSCALL, 1 << 0)
            | self.if_has(CpuFeatures::LONG_MODE, 1 << 8 | 1 << 10)
            | self.if_has(CpuFeatures::EXECUTE_DISABLE, 1 << 11)
    }

    const fn if_has(&self, feature: CpuFeatures, bits: u64) -> u64 {
        if self.features.contains(feature) { bits } else { 0 }
    }
}

/// Fixed and programmable counters of leaf 10 (SDM 20.2.2).
fn perf_global_ctrl(eax: u32, edx: u32) -> u64 {
    // At most 32 of a kind fit in the MSR.
    let (version, programmable, fixed) = (eax & 0xff, (eax >> 8 & 0xff).min(32), (edx & 0x1f).min(16));
    let ones = |count: u32| (1_u64 << count) - 1;
    match version {
        0 => 0,
        1 => ones(programmable),
        _ => ones(programmable) | ones(fixed) << 32,
    }
}

/// Bits of `IA32_RTIT_CTL` by the subleaves of leaf 14H (SDM 33.2.8.2 and 33.3.1).
fn rtit_ctl([_, ebx, ecx, _]: [u32; 4], [ranges, ..]: [u32; 4]) -> u64 {
    // TraceEn, OS, User, TSCEn, DisRETC, BranchEn.
    let mut mask = 0x2c0d_u64;
    let features = [
        (ebx & 1 << 0, 1 << 7),
        (ebx & 1 << 1, 1 << 1 | 0xf << 19 | 0xf << 24),
        (ebx & 1 << 3, 1 << 9 | 0xf << 14),
        (ebx & 1 << 4, 1 << 5 | 1 << 12),
        (ebx & 1 << 5, 1 << 4),
        (ebx & 1 << 6, 1 << 56),
        (ebx & 1 << 7, 1 << 31),
        (ebx & 1 << 8, 1 << 55),
        (ecx & 1 << 0, 1 << 8),
        (ecx & 1 << 3, 1 << 6),
    ];
    for (_, bits) in features.into_iter().filter(|(feature, _)| *feature != 0) {
        mask |= bits;
    }
    // ADDRn_CFG: four bits for each of at most four address ranges.
    let ranges = (ranges & 7).min(4);
    mask | ((1 << (4 * ranges)) - 1) << 32
}

/// Whether the bits of `address` from `width - 1` upwards are all the same. A width that is none (0, or above 64) has
/// no canonical form to break.
pub(crate) const fn is_canonical(address: u64, width: u8) -> bool {
    if width == 0 || width > 63 {
        return true;
    }
    let upper = address as i64 >> (width - 1);
    upper == 0 || upper == -1
}
