//! What a processor can do in VMX operation, as plain data.
//!
//! A processor describes its VMX features in a set of *capability MSRs* (SDM Vol. 3, Appendix A) and in CPUID.
//! [`VmxCapabilities`] holds what they said. Nothing in this crate asks the processor by itself: the caller reads
//! the MSRs once (or takes a [`CpuModel`], or parses a text file) and passes the result in. So whatever depends on a
//! processor's features is tested on a host, for processors old and new.
//!
//! Invariants:
//! - the TRUE forms of the pin, primary, exit and entry MSRs are used exactly if `IA32_VMX_BASIC` bit 55 says that
//!   they exist (SDM A.2); the others are then not kept;
//! - what does not exist reads as "nothing allowed": a processor without secondary controls has an empty
//!   [`secondary`](VmxCapabilities::secondary).

mod basic;
mod control;
mod cpu;
mod ept_vpid;
mod feature_control;
mod fixed;
mod misc;
mod models;
pub mod msr;
mod parse;

pub use basic::VmxBasic;
pub use control::{ControlCap, ControlCap64};
pub use cpu::{CpuFacts, CpuFeatures};
pub use ept_vpid::EptVpidCap;
pub use feature_control::FeatureControl;
pub use fixed::CrFixed;
pub use misc::VmxMisc;
pub use models::CpuModel;
pub use parse::{ParseError, ParseErrorKind};

/// Everything that the rules of VMX depend on, of one processor (or of one model of processors).
///
/// ```
/// use vmx_structs::{CpuFacts, VmxCapabilities};
///
/// // A kernel passes its RDMSR and CPUID; here stands an imaginary, minimal processor.
/// let cpu = CpuFacts::new(40, 48);
/// let caps = VmxCapabilities::read(cpu, |msr| match msr {
///     0x480 => 0x0018_1000_0000_002b, // IA32_VMX_BASIC: write-back, 4096 bytes, revision 0x2b
///     0x481 => 0x0000_003f_0000_0016, // pin-based controls: allowed-1 above, allowed-0 below
///     _ => 0,
/// });
/// assert_eq!(caps.basic.revision(), 0x2b);
/// assert!(!caps.has_ept());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmxCapabilities {
    /// `IA32_VMX_BASIC` (SDM A.1).
    pub basic: VmxBasic,
    /// `IA32_VMX_MISC` (SDM A.6).
    pub misc: VmxMisc,
    /// `IA32_VMX_EPT_VPID_CAP` (SDM A.10); empty without EPT and VPID.
    pub ept_vpid: EptVpidCap,
    /// Which bits of CR0 are fixed in VMX operation (SDM A.7).
    pub cr0: CrFixed,
    /// Which bits of CR4 are fixed in VMX operation (SDM A.8).
    pub cr4: CrFixed,
    /// Pin-based VM-execution controls (SDM A.3.1).
    pub pin: ControlCap,
    /// Primary processor-based VM-execution controls (SDM A.3.2).
    pub primary: ControlCap,
    /// Secondary processor-based VM-execution controls (SDM A.3.3).
    pub secondary: ControlCap,
    /// Tertiary processor-based VM-execution controls (SDM A.3.4).
    pub tertiary: ControlCap64,
    /// Primary VM-exit controls (SDM A.4.1).
    pub exit: ControlCap,
    /// Secondary VM-exit controls (SDM A.4.2).
    pub secondary_exit: ControlCap64,
    /// VM-entry controls (SDM A.5).
    pub entry: ControlCap,
    /// `IA32_VMX_VMFUNC`: the VM functions that may be enabled (SDM A.11).
    pub vmfunc: u64,
    /// `IA32_VMX_VMCS_ENUM`: bits 9:1 are the highest index of any field encoding (SDM A.9).
    pub vmcs_enum: u64,
    /// What CPUID says beside the VMX MSRs.
    pub cpu: CpuFacts,
}

impl VmxCapabilities {
    /// Reads the capability MSRs through `read_msr`, which takes an MSR's number. Only MSRs that the processor has
    /// are asked for (SDM A.2-A.11 tell which those are), so a closure over RDMSR does not fault.
    pub fn read(cpu: CpuFacts, mut read_msr: impl FnMut(u32) -> u64) -> Self {
        let basic = VmxBasic::from_raw(read_msr(msr::IA32_VMX_BASIC));
        let pick = |plain, true_form| if basic.has_true_controls() { true_form } else { plain };
        let mut control = |plain, true_form| ControlCap::from_raw(read_msr(pick(plain, true_form)));
        let pin = control(msr::IA32_VMX_PINBASED_CTLS, msr::IA32_VMX_TRUE_PINBASED_CTLS);
        let primary = control(msr::IA32_VMX_PROCBASED_CTLS, msr::IA32_VMX_TRUE_PROCBASED_CTLS);
        let exit = control(msr::IA32_VMX_EXIT_CTLS, msr::IA32_VMX_TRUE_EXIT_CTLS);
        let entry = control(msr::IA32_VMX_ENTRY_CTLS, msr::IA32_VMX_TRUE_ENTRY_CTLS);
        let secondary = if primary.may_be_one() >> 31 & 1 == 1 {
            ControlCap::from_raw(read_msr(msr::IA32_VMX_PROCBASED_CTLS2))
        } else {
            ControlCap::NONE
        };
        let mut when = |exists: bool, msr| if exists { read_msr(msr) } else { 0 };
        let allowed = secondary.may_be_one();
        Self {
            basic,
            misc: VmxMisc::from_raw(when(true, msr::IA32_VMX_MISC)),
            ept_vpid: EptVpidCap::from_raw(when(
                allowed & (SECONDARY_EPT | SECONDARY_VPID) != 0,
                msr::IA32_VMX_EPT_VPID_CAP,
            )),
            cr0: CrFixed::new(when(true, msr::IA32_VMX_CR0_FIXED0), when(true, msr::IA32_VMX_CR0_FIXED1)),
            cr4: CrFixed::new(when(true, msr::IA32_VMX_CR4_FIXED0), when(true, msr::IA32_VMX_CR4_FIXED1)),
            tertiary: ControlCap64::from_raw(when(
                primary.may_be_one() >> 17 & 1 == 1,
                msr::IA32_VMX_PROCBASED_CTLS3,
            )),
            secondary_exit: ControlCap64::from_raw(when(
                exit.may_be_one() >> 31 & 1 == 1,
                msr::IA32_VMX_EXIT_CTLS2,
            )),
            vmfunc: when(allowed & SECONDARY_VMFUNC != 0, msr::IA32_VMX_VMFUNC),
            vmcs_enum: when(true, msr::IA32_VMX_VMCS_ENUM),
            pin,
            primary,
            secondary,
            exit,
            entry,
            cpu,
        }
    }

    /// Whether extended page tables can be enabled.
    pub const fn has_ept(&self) -> bool {
        self.secondary_allows(SECONDARY_EPT)
    }

    /// Whether VPIDs can be enabled.
    pub const fn has_vpid(&self) -> bool {
        self.secondary_allows(SECONDARY_VPID)
    }

    /// Whether a guest may run without paging or in real mode.
    pub const fn has_unrestricted_guest(&self) -> bool {
        self.secondary_allows(SECONDARY_UNRESTRICTED_GUEST)
    }

    /// Whether VM functions can be enabled.
    pub const fn has_vmfunc(&self) -> bool {
        self.secondary_allows(SECONDARY_VMFUNC)
    }

    /// Whether VMCS shadowing (and so a shadow VMCS) is there.
    pub const fn has_vmcs_shadowing(&self) -> bool {
        self.secondary_allows(SECONDARY_VMCS_SHADOWING)
    }

    /// Whether page-modification logging can be enabled.
    pub const fn has_pml(&self) -> bool {
        self.secondary_allows(SECONDARY_PML)
    }

    /// Whether EPT violations can become virtualization exceptions (#VE), so that EPT entries have a suppress-#VE bit.
    pub const fn has_ve(&self) -> bool {
        self.secondary_allows(SECONDARY_VE)
    }

    /// Whether EPT entries can tell user-mode from supervisor-mode fetches (mode-based execute control).
    pub const fn has_mode_based_execute(&self) -> bool {
        self.secondary_allows(SECONDARY_MODE_BASED_EXECUTE)
    }

    /// Whether sub-page write permissions can be enabled.
    pub const fn has_spp(&self) -> bool {
        self.secondary_allows(SECONDARY_SPP)
    }

    /// Whether posted interrupts can be processed.
    pub const fn has_posted_interrupts(&self) -> bool {
        self.pin.may_be_one() & 1 << 7 != 0
    }

    /// Whether the TPR shadow (and so a virtual-APIC page) can be used.
    pub const fn has_tpr_shadow(&self) -> bool {
        self.primary.may_be_one() & 1 << 21 != 0
    }

    /// Whether `address` lies within the physical-address width (MAXPHYADDR).
    pub const fn is_physical(&self, address: u64) -> bool {
        self.cpu.is_physical(address)
    }

    const fn secondary_allows(&self, bit: u32) -> bool {
        self.secondary.may_be_one() & bit != 0
    }
}

// Bits of the secondary processor-based controls (SDM Table 24-7).
const SECONDARY_EPT: u32 = 1 << 1;
const SECONDARY_VPID: u32 = 1 << 5;
const SECONDARY_UNRESTRICTED_GUEST: u32 = 1 << 7;
const SECONDARY_VMFUNC: u32 = 1 << 13;
const SECONDARY_VMCS_SHADOWING: u32 = 1 << 14;
const SECONDARY_PML: u32 = 1 << 17;
const SECONDARY_VE: u32 = 1 << 18;
const SECONDARY_MODE_BASED_EXECUTE: u32 = 1 << 22;
const SECONDARY_SPP: u32 = 1 << 23;
