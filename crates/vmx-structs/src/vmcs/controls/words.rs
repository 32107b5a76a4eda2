//! The bits of the seven control words, by their names in the SDM (24.6-24.8).

use bitflags::bitflags;

use super::{ControlBit, ControlWord, Controls};
use crate::VmxCapabilities;

macro_rules! control_word {
    ($(#[doc = $doc:literal])* $word:ident: $bits:ty, $name:literal, $cap:ident, $must:expr;
     $(#[doc = $bit_doc:literal] $bit:ident = $shift:literal $sdm:literal,)*) => {
        bitflags! {
            $(#[doc = $doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
            pub struct $word: $bits {
                $(#[doc = $bit_doc] const $bit = 1 << $shift;)*
                // Reserved bits may be 1, and many must be.
                const _ = !0;
            }
        }

        impl ControlWord for $word {
            const NAME: &'static str = $name;

            const BITS: &'static [ControlBit] =
                &[$(ControlBit { bit: $shift, name: $sdm, about: $bit_doc.trim_ascii() }),*];

            fn of(controls: &mut Controls) -> &mut Self {
                &mut controls.$cap
            }

            fn allowed(caps: &VmxCapabilities) -> (Self, Self) {
                let must: fn(&VmxCapabilities) -> $bits = $must;
                (Self::from_bits_retain(must(caps)), Self::from_bits_retain(caps.$cap.may_be_one()))
            }
        }
    };
}

control_word! {
    /// Pin-based VM-execution controls: asynchronous events (SDM 24.6.1).
    PinControls: u32, "pin-based VM-execution controls", pin, |caps| caps.pin.must_be_one();
    /// External interrupts cause VM exits.
    EXTERNAL_INTERRUPT_EXITING = 0 "External-interrupt exiting",
    /// NMIs cause VM exits.
    NMI_EXITING = 3 "NMI exiting",
    /// NMIs are never blocked, and blocking is virtual.
    VIRTUAL_NMIS = 5 "Virtual NMIs",
    /// The VMX-preemption timer counts down in the guest.
    ACTIVATE_VMX_PREEMPTION_TIMER = 6 "Activate VMX-preemption timer",
    /// Interrupts with the notification vector are processed as posted interrupts.
    PROCESS_POSTED_INTERRUPTS = 7 "Process posted interrupts",
}

control_word! {
    /// Primary processor-based VM-execution controls: synchronous events (SDM 24.6.2).
    PrimaryControls: u32, "primary processor-based VM-execution controls", primary, |caps| caps.primary.must_be_one();
    /// A VM exit as soon as an interrupt could be delivered.
    INTERRUPT_WINDOW_EXITING = 2 "Interrupt-window exiting",
    /// The TSC offset is added to what the guest reads.
    USE_TSC_OFFSETTING = 3 "Use TSC offsetting",
    /// HLT exits.
    HLT_EXITING = 7 "HLT exiting",
    /// INVLPG exits.
    INVLPG_EXITING = 9 "INVLPG exiting",
    /// MWAIT exits.
    MWAIT_EXITING = 10 "MWAIT exiting",
    /// RDPMC exits.
    RDPMC_EXITING = 11 "RDPMC exiting",
    /// RDTSC and RDTSCP exit.
    RDTSC_EXITING = 12 "RDTSC exiting",
    /// MOV to CR3 exits, unless the value is a CR3-target value.
    CR3_LOAD_EXITING = 15 "CR3-load exiting",
    /// MOV from CR3 exits.
    CR3_STORE_EXITING = 16 "CR3-store exiting",
    /// The tertiary controls are used.
    ACTIVATE_TERTIARY_CONTROLS = 17 "Activate tertiary controls",
    /// MOV to CR8 exits.
    CR8_LOAD_EXITING = 19 "CR8-load exiting",
    /// MOV from CR8 exits.
    CR8_STORE_EXITING = 20 "CR8-store exiting",
    /// The TPR is virtual: in the virtual-APIC page.
    USE_TPR_SHADOW = 21 "Use TPR shadow",
    /// A VM exit as soon as an NMI could be delivered.
    NMI_WINDOW_EXITING = 22 "NMI-window exiting",
    /// MOV to and from debug registers exits.
    MOV_DR_EXITING = 23 "MOV-DR exiting",
    /// I/O instructions exit (unless I/O bitmaps are used).
    UNCONDITIONAL_IO_EXITING = 24 "Unconditional I/O exiting",
    /// I/O instructions exit as the I/O bitmaps say.
    USE_IO_BITMAPS = 25 "Use I/O bitmaps",
    /// A VM exit after each instruction.
    MONITOR_TRAP_FLAG = 27 "Monitor trap flag",
    /// RDMSR and WRMSR exit as the MSR bitmap says, rather than always.
    USE_MSR_BITMAPS = 28 "Use MSR bitmaps",
    /// MONITOR exits.
    MONITOR_EXITING = 29 "MONITOR exiting",
    /// PAUSE exits.
    PAUSE_EXITING = 30 "PAUSE exiting",
    /// The secondary controls are used.
    ACTIVATE_SECONDARY_CONTROLS = 31 "Activate secondary controls",
}

control_word! {
    /// Secondary processor-based VM-execution controls (SDM Table 24-7).
    SecondaryControls: u32, "secondary processor-based VM-execution controls", secondary,
        |caps| caps.secondary.must_be_one();
    /// Accesses to the APIC-access page are treated specially.
    VIRTUALIZE_APIC_ACCESSES = 0 "Virtualize APIC accesses",
    /// Extended page tables.
    ENABLE_EPT = 1 "Enable EPT",
    /// LGDT, LIDT, LLDT, LTR and their stores exit.
    DESCRIPTOR_TABLE_EXITING = 2 "Descriptor-table exiting",
    /// RDTSCP does not cause #UD.
    ENABLE_RDTSCP = 3 "Enable RDTSCP",
    /// MSRs of the x2APIC are treated specially.
    VIRTUALIZE_X2APIC_MODE = 4 "Virtualize x2APIC mode",
    /// Translations are tagged with the VPID.
    ENABLE_VPID = 5 "Enable VPID",
    /// WBINVD and WBNOINVD exit.
    WBINVD_EXITING = 6 "WBINVD exiting",
    /// The guest may run without paging, or in real mode.
    UNRESTRICTED_GUEST = 7 "Unrestricted guest",
    /// APIC registers are virtual.
    APIC_REGISTER_VIRTUALIZATION = 8 "APIC-register virtualization",
    /// Virtual interrupts are evaluated and delivered.
    VIRTUAL_INTERRUPT_DELIVERY = 9 "Virtual-interrupt delivery",
    /// A loop of PAUSEs exits.
    PAUSE_LOOP_EXITING = 10 "PAUSE-loop exiting",
    /// RDRAND exits.
    RDRAND_EXITING = 11 "RDRAND exiting",
    /// INVPCID does not cause #UD.
    ENABLE_INVPCID = 12 "Enable INVPCID",
    /// VMFUNC may be used in the guest.
    ENABLE_VM_FUNCTIONS = 13 "Enable VM functions",
    /// VMREAD and VMWRITE in the guest may access a shadow VMCS.
    VMCS_SHADOWING = 14 "VMCS shadowing",
    /// ENCLS exits as its bitmap says.
    ENABLE_ENCLS_EXITING = 15 "Enable ENCLS exiting",
    /// RDSEED exits.
    RDSEED_EXITING = 16 "RDSEED exiting",
    /// Writes that set an EPT dirty flag are logged.
    ENABLE_PML = 17 "Enable PML",
    /// EPT violations may become #VE.
    EPT_VIOLATION_VE = 18 "EPT-violation #VE",
    /// Intel PT leaves VMX out of its packets.
    CONCEAL_VMX_FROM_PT = 19 "Conceal VMX from PT",
    /// XSAVES and XRSTORS do not cause #UD.
    ENABLE_XSAVES = 20 "Enable XSAVES/XRSTORS",
    /// ENQCMD and ENQCMDS translate PASIDs.
    PASID_TRANSLATION = 21 "PASID translation",
    /// EPT tells fetches of user mode from those of supervisor mode.
    MODE_BASED_EXECUTE_CONTROL = 22 "Mode-based execute control for EPT",
    /// EPT write permissions for sub-pages of 128 bytes.
    SUB_PAGE_WRITE_PERMISSIONS = 23 "Sub-page write permissions for EPT",
    /// Intel PT's output addresses are guest-physical.
    PT_USES_GUEST_PHYSICAL_ADDRESSES = 24 "Intel PT uses guest physical addresses",
    /// The TSC multiplier scales what the guest reads.
    USE_TSC_SCALING = 25 "Use TSC scaling",
    /// TPAUSE, UMONITOR and UMWAIT do not cause #UD.
    ENABLE_USER_WAIT_AND_PAUSE = 26 "Enable user wait and pause",
    /// PCONFIG does not cause #UD.
    ENABLE_PCONFIG = 27 "Enable PCONFIG",
    /// ENCLV exits as its bitmap says.
    ENABLE_ENCLV_EXITING = 28 "Enable ENCLV exiting",
    /// A bus lock exits.
    VMM_BUS_LOCK_DETECTION = 30 "VMM bus-lock detection",
    /// An instruction that takes too long exits.
    INSTRUCTION_TIMEOUT = 31 "Instruction timeout",
}

control_word! {
    /// Tertiary processor-based VM-execution controls: 64 bits (SDM Table 24-8).
    TertiaryControls: u64, "tertiary processor-based VM-execution controls", tertiary, |_| 0;
    /// LOADIWKEY exits.
    LOADIWKEY_EXITING = 0 "LOADIWKEY exiting",
    /// Hypervisor-managed linear-address translation.
    ENABLE_HLAT = 1 "Enable HLAT",
    /// EPT permissions can be granted to paging-structure walks alone.
    EPT_PAGING_WRITE_CONTROL = 2 "EPT paging-write control",
    /// EPT entries can demand that guest paging be verified.
    GUEST_PAGING_VERIFICATION = 3 "Guest-paging verification",
    /// Inter-processor interrupts are virtual.
    IPI_VIRTUALIZATION = 4 "IPI virtualization",
    /// RDMSRLIST and WRMSRLIST do not cause #UD.
    ENABLE_MSR_LIST_INSTRUCTIONS = 6 "Enable MSR-list instructions",
    /// The guest's view of IA32_SPEC_CTRL is virtual.
    VIRTUALIZE_IA32_SPEC_CTRL = 7 "Virtualize IA32_SPEC_CTRL",
    /// The guest's APIC timer is virtual.
    GUEST_APIC_TIMER = 8 "Guest APIC timer",
}

control_word! {
    /// Primary VM-exit controls (SDM 24.7.1).
    ExitControls: u32, "primary VM-exit controls", exit, |caps| caps.exit.must_be_one();
    /// DR7 and IA32_DEBUGCTL are saved.
    SAVE_DEBUG_CONTROLS = 2 "Save debug controls",
    /// The host runs in 64-bit mode.
    HOST_ADDRESS_SPACE_SIZE = 9 "Host address-space size",
    /// IA32_PERF_GLOBAL_CTRL is loaded.
    LOAD_IA32_PERF_GLOBAL_CTRL = 12 "Load IA32_PERF_GLOBAL_CTRL",
    /// An exit by an external interrupt acknowledges it.
    ACKNOWLEDGE_INTERRUPT_ON_EXIT = 15 "Acknowledge interrupt on exit",
    /// IA32_PAT is saved.
    SAVE_IA32_PAT = 18 "Save IA32_PAT",
    /// IA32_PAT is loaded.
    LOAD_IA32_PAT = 19 "Load IA32_PAT",
    /// IA32_EFER is saved.
    SAVE_IA32_EFER = 20 "Save IA32_EFER",
    /// IA32_EFER is loaded.
    LOAD_IA32_EFER = 21 "Load IA32_EFER",
    /// The VMX-preemption timer is saved.
    SAVE_VMX_PREEMPTION_TIMER = 22 "Save VMX-preemption timer value",
    /// IA32_BNDCFGS is cleared.
    CLEAR_IA32_BNDCFGS = 23 "Clear IA32_BNDCFGS",
    /// Intel PT leaves VM exits out of its packets.
    CONCEAL_VMX_FROM_PT = 24 "Conceal VMX from PT",
    /// IA32_RTIT_CTL is cleared.
    CLEAR_IA32_RTIT_CTL = 25 "Clear IA32_RTIT_CTL",
    /// IA32_LBR_CTL is cleared.
    CLEAR_IA32_LBR_CTL = 26 "Clear IA32_LBR_CTL",
    /// UINV is cleared.
    CLEAR_UINV = 27 "Clear UINV",
    /// The CET state is loaded.
    LOAD_CET_STATE = 28 "Load CET state",
    /// IA32_PKRS is loaded.
    LOAD_PKRS = 29 "Load PKRS",
    /// IA32_PERF_GLOBAL_CTRL is saved.
    SAVE_IA32_PERF_GLOBAL_CTRL = 30 "Save IA32_PERF_GLOBAL_CTRL",
    /// The secondary VM-exit controls are used.
    ACTIVATE_SECONDARY_CONTROLS = 31 "Activate secondary controls",
}

control_word! {
    /// Secondary VM-exit controls: 64 bits (SDM 24.7.1).
    SecondaryExitControls: u64, "secondary VM-exit controls", secondary_exit, |_| 0;
    /// The FRED MSRs are saved.
    SAVE_FRED = 0 "Save FRED",
    /// The FRED MSRs are loaded.
    LOAD_FRED = 1 "Load FRED",
    /// IA32_SPEC_CTRL is loaded.
    LOAD_IA32_SPEC_CTRL = 2 "Load IA32_SPEC_CTRL",
    /// An exit that leaves a shadow stack prematurely busy says so.
    PREMATURELY_BUSY_SHADOW_STACK = 3 "Prematurely busy shadow stack",
}

control_word! {
    /// VM-entry controls (SDM 24.8.1).
    EntryControls: u32, "VM-entry controls", entry, |caps| caps.entry.must_be_one();
    /// DR7 and IA32_DEBUGCTL are loaded.
    LOAD_DEBUG_CONTROLS = 2 "Load debug controls",
    /// The guest runs in IA-32e mode.
    IA32E_MODE_GUEST = 9 "IA-32e mode guest",
    /// The entry is to system-management mode.
    ENTRY_TO_SMM = 10 "Entry to SMM",
    /// The default treatment of SMIs comes back.
    DEACTIVATE_DUAL_MONITOR = 11 "Deactivate dual-monitor treatment",
    /// IA32_PERF_GLOBAL_CTRL is loaded.
    LOAD_IA32_PERF_GLOBAL_CTRL = 13 "Load IA32_PERF_GLOBAL_CTRL",
    /// IA32_PAT is loaded.
    LOAD_IA32_PAT = 14 "Load IA32_PAT",
    /// IA32_EFER is loaded.
    LOAD_IA32_EFER = 15 "Load IA32_EFER",
    /// IA32_BNDCFGS is loaded.
    LOAD_IA32_BNDCFGS = 16 "Load IA32_BNDCFGS",
    /// Intel PT leaves VM entries out of its packets.
    CONCEAL_VMX_FROM_PT = 17 "Conceal VMX from PT",
    /// IA32_RTIT_CTL is loaded.
    LOAD_IA32_RTIT_CTL = 18 "Load IA32_RTIT_CTL",
    /// UINV is loaded.
    LOAD_UINV = 19 "Load UINV",
    /// The CET state is loaded.
    LOAD_CET_STATE = 20 "Load CET state",
    /// IA32_LBR_CTL is loaded.
    LOAD_IA32_LBR_CTL = 21 "Load IA32_LBR_CTL",
    /// IA32_PKRS is loaded.
    LOAD_PKRS = 22 "Load PKRS",
    /// The FRED MSRs are loaded.
    LOAD_FRED = 23 "Load FRED",
    /// IA32_SPEC_CTRL is loaded.
    LOAD_IA32_SPEC_CTRL = 24 "Load IA32_SPEC_CTRL",
}
