//! The bits of the seven control words, by their names in the SDM (24.6-24.8).

use bitflags::bitflags;

use super::{ControlWord, Controls};
use crate::VmxCapabilities;

macro_rules! control_word {
    ($(#[doc = $doc:literal])* $word:ident: $bits:ty, $name:literal, $cap:ident, $must:expr;
     $($(#[doc = $bit_doc:literal])* $bit:ident = $shift:literal,)*) => {
        bitflags! {
            $(#[doc = $doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
            pub struct $word: $bits {
                $($(#[doc = $bit_doc])* const $bit = 1 << $shift;)*
                // Reserved bits may be 1, and many must be.
                const _ = !0;
            }
        }

        impl ControlWord for $word {
            const NAME: &'static str = $name;

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
    EXTERNAL_INTERRUPT_EXITING = 0,
    /// NMIs cause VM exits.
    NMI_EXITING = 3,
    /// NMIs are never blocked, and blocking is virtual.
    VIRTUAL_NMIS = 5,
    /// The VMX-preemption timer counts down in the guest.
    ACTIVATE_VMX_PREEMPTION_TIMER = 6,
    /// Interrupts with the notification vector are processed as posted interrupts.
    PROCESS_POSTED_INTERRUPTS = 7,
}

control_word! {
    /// Primary processor-based VM-execution controls: synchronous events (SDM 24.6.2).
    PrimaryControls: u32, "primary processor-based VM-execution controls", primary, |caps| caps.primary.must_be_one();
    /// A VM exit as soon as an interrupt could be delivered.
    INTERRUPT_WINDOW_EXITING = 2,
    /// The TSC offset is added to what the guest reads.
    USE_TSC_OFFSETTING = 3,
    /// HLT exits.
    HLT_EXITING = 7,
    /// INVLPG exits.
    INVLPG_EXITING = 9,
    /// MWAIT exits.
    MWAIT_EXITING = 10,
    /// RDPMC exits.
    RDPMC_EXITING = 11,
    /// RDTSC and RDTSCP exit.
    RDTSC_EXITING = 12,
    /// MOV to CR3 exits, unless the value is a CR3-target value.
    CR3_LOAD_EXITING = 15,
    /// MOV from CR3 exits.
    CR3_STORE_EXITING = 16,
    /// The tertiary controls are used.
    ACTIVATE_TERTIARY_CONTROLS = 17,
    /// MOV to CR8 exits.
    CR8_LOAD_EXITING = 19,
    /// MOV from CR8 exits.
    CR8_STORE_EXITING = 20,
    /// The TPR is virtual: in the virtual-APIC page.
    USE_TPR_SHADOW = 21,
    /// A VM exit as soon as an NMI could be delivered.
    NMI_WINDOW_EXITING = 22,
    /// MOV to and from debug registers exits.
    MOV_DR_EXITING = 23,
    /// I/O instructions exit (unless I/O bitmaps are used).
    UNCONDITIONAL_IO_EXITING = 24,
    /// I/O instructions exit as the I/O bitmaps say.
    USE_IO_BITMAPS = 25,
    /// A VM exit after each instruction.
    MONITOR_TRAP_FLAG = 27,
    /// RDMSR and WRMSR exit as the MSR bitmap says, rather than always.
    USE_MSR_BITMAPS = 28,
    /// MONITOR exits.
    MONITOR_EXITING = 29,
    /// PAUSE exits.
    PAUSE_EXITING = 30,
    /// The secondary controls are used.
    ACTIVATE_SECONDARY_CONTROLS = 31,
}

control_word! {
    /// Secondary processor-based VM-execution controls (SDM Table 24-7).
    SecondaryControls: u32, "secondary processor-based VM-execution controls", secondary,
        |caps| caps.secondary.must_be_one();
    /// Accesses to the APIC-access page are treated specially.
    VIRTUALIZE_APIC_ACCESSES = 0,
    /// Extended page tables.
    ENABLE_EPT = 1,
    /// LGDT, LIDT, LLDT, LTR and their stores exit.
    DESCRIPTOR_TABLE_EXITING = 2,
    /// RDTSCP does not cause #UD.
    ENABLE_RDTSCP = 3,
    /// MSRs of the x2APIC are treated specially.
    VIRTUALIZE_X2APIC_MODE = 4,
    /// Translations are tagged with the VPID.
    ENABLE_VPID = 5,
    /// WBINVD and WBNOINVD exit.
    WBINVD_EXITING = 6,
    /// The guest may run without paging, or in real mode.
    UNRESTRICTED_GUEST = 7,
    /// APIC registers are virtual.
    APIC_REGISTER_VIRTUALIZATION = 8,
    /// Virtual interrupts are evaluated and delivered.
    VIRTUAL_INTERRUPT_DELIVERY = 9,
    /// A loop of PAUSEs exits.
    PAUSE_LOOP_EXITING = 10,
    /// RDRAND exits.
    RDRAND_EXITING = 11,
    /// INVPCID does not cause #UD.
    ENABLE_INVPCID = 12,
    /// VMFUNC may be used in the guest.
    ENABLE_VM_FUNCTIONS = 13,
    /// VMREAD and VMWRITE in the guest may access a shadow VMCS.
    VMCS_SHADOWING = 14,
    /// ENCLS exits as its bitmap says.
    ENABLE_ENCLS_EXITING = 15,
    /// RDSEED exits.
    RDSEED_EXITING = 16,
    /// Writes that set an EPT dirty flag are logged.
    ENABLE_PML = 17,
    /// EPT violations may become #VE.
    EPT_VIOLATION_VE = 18,
    /// Intel PT leaves VMX out of its packets.
    CONCEAL_VMX_FROM_PT = 19,
    /// XSAVES and XRSTORS do not cause #UD.
    ENABLE_XSAVES = 20,
    /// ENQCMD and ENQCMDS translate PASIDs.
    PASID_TRANSLATION = 21,
    /// EPT tells fetches of user mode from those of supervisor mode.
    MODE_BASED_EXECUTE_CONTROL = 22,
    /// EPT write permissions for sub-pages of 128 bytes.
    SUB_PAGE_WRITE_PERMISSIONS = 23,
    /// Intel PT's output addresses are guest-physical.
    PT_USES_GUEST_PHYSICAL_ADDRESSES = 24,
    /// The TSC multiplier scales what the guest reads.
    USE_TSC_SCALING = 25,
    /// TPAUSE, UMONITOR and UMWAIT do not cause #UD.
    ENABLE_USER_WAIT_AND_PAUSE = 26,
    /// PCONFIG does not cause #UD.
    ENABLE_PCONFIG = 27,
    /// ENCLV exits as its bitmap says.
    ENABLE_ENCLV_EXITING = 28,
    /// A bus lock exits.
    VMM_BUS_LOCK_DETECTION = 30,
    /// An instruction that takes too long exits.
    INSTRUCTION_TIMEOUT = 31,
}

control_word! {
    /// Tertiary processor-based VM-execution controls: 64 bits (SDM Table 24-8).
    TertiaryControls: u64, "tertiary processor-based VM-execution controls", tertiary, |_| 0;
    /// LOADIWKEY exits.
    LOADIWKEY_EXITING = 0,
    /// Hypervisor-managed linear-address translation.
    ENABLE_HLAT = 1,
    /// EPT permissions can be granted to paging-structure walks alone.
    EPT_PAGING_WRITE_CONTROL = 2,
    /// EPT entries can demand that guest paging be verified.
    GUEST_PAGING_VERIFICATION = 3,
    /// Inter-processor interrupts are virtual.
    IPI_VIRTUALIZATION = 4,
    /// RDMSRLIST and WRMSRLIST do not cause #UD.
    ENABLE_MSR_LIST_INSTRUCTIONS = 6,
    /// The guest's view of IA32_SPEC_CTRL is virtual.
    VIRTUALIZE_IA32_SPEC_CTRL = 7,
    /// The guest's APIC timer is virtual.
    GUEST_APIC_TIMER = 8,
}

control_word! {
    /// Primary VM-exit controls (SDM 24.7.1).
    ExitControls: u32, "primary VM-exit controls", exit, |caps| caps.exit.must_be_one();
    /// DR7 and IA32_DEBUGCTL are saved.
    SAVE_DEBUG_CONTROLS = 2,
    /// The host runs in 64-bit mode.
    HOST_ADDRESS_SPACE_SIZE = 9,
    /// IA32_PERF_GLOBAL_CTRL is loaded.
    LOAD_IA32_PERF_GLOBAL_CTRL = 12,
    /// An exit by an external interrupt acknowledges it.
    ACKNOWLEDGE_INTERRUPT_ON_EXIT = 15,
    /// IA32_PAT is saved.
    SAVE_IA32_PAT = 18,
    /// IA32_PAT is loaded.
    LOAD_IA32_PAT = 19,
    /// IA32_EFER is saved.
    SAVE_IA32_EFER = 20,
    /// IA32_EFER is loaded.
    LOAD_IA32_EFER = 21,
    /// The VMX-preemption timer is saved.
    SAVE_VMX_PREEMPTION_TIMER = 22,
    /// IA32_BNDCFGS is cleared.
    CLEAR_IA32_BNDCFGS = 23,
    /// Intel PT leaves VM exits out of its packets.
    CONCEAL_VMX_FROM_PT = 24,
    /// IA32_RTIT_CTL is cleared.
    CLEAR_IA32_RTIT_CTL = 25,
    /// IA32_LBR_CTL is cleared.
    CLEAR_IA32_LBR_CTL = 26,
    /// UINV is cleared.
    CLEAR_UINV = 27,
    /// The CET state is loaded.
    LOAD_CET_STATE = 28,
    /// IA32_PKRS is loaded.
    LOAD_PKRS = 29,
    /// IA32_PERF_GLOBAL_CTRL is saved.
    SAVE_IA32_PERF_GLOBAL_CTRL = 30,
    /// The secondary VM-exit controls are used.
    ACTIVATE_SECONDARY_CONTROLS = 31,
}

control_word! {
    /// Secondary VM-exit controls: 64 bits (SDM 24.7.1).
    SecondaryExitControls: u64, "secondary VM-exit controls", secondary_exit, |_| 0;
    /// The FRED MSRs are saved.
    SAVE_FRED = 0,
    /// The FRED MSRs are loaded.
    LOAD_FRED = 1,
    /// IA32_SPEC_CTRL is loaded.
    LOAD_IA32_SPEC_CTRL = 2,
    /// An exit that leaves a shadow stack prematurely busy says so.
    PREMATURELY_BUSY_SHADOW_STACK = 3,
}

control_word! {
    /// VM-entry controls (SDM 24.8.1).
    EntryControls: u32, "VM-entry controls", entry, |caps| caps.entry.must_be_one();
    /// DR7 and IA32_DEBUGCTL are loaded.
    LOAD_DEBUG_CONTROLS = 2,
    /// The guest runs in IA-32e mode.
    IA32E_MODE_GUEST = 9,
    /// The entry is to system-management mode.
    ENTRY_TO_SMM = 10,
    /// The default treatment of SMIs comes back.
    DEACTIVATE_DUAL_MONITOR = 11,
    /// IA32_PERF_GLOBAL_CTRL is loaded.
    LOAD_IA32_PERF_GLOBAL_CTRL = 13,
    /// IA32_PAT is loaded.
    LOAD_IA32_PAT = 14,
    /// IA32_EFER is loaded.
    LOAD_IA32_EFER = 15,
    /// IA32_BNDCFGS is loaded.
    LOAD_IA32_BNDCFGS = 16,
    /// Intel PT leaves VM entries out of its packets.
    CONCEAL_VMX_FROM_PT = 17,
    /// IA32_RTIT_CTL is loaded.
    LOAD_IA32_RTIT_CTL = 18,
    /// UINV is loaded.
    LOAD_UINV = 19,
    /// The CET state is loaded.
    LOAD_CET_STATE = 20,
    /// IA32_LBR_CTL is loaded.
    LOAD_IA32_LBR_CTL = 21,
    /// IA32_PKRS is loaded.
    LOAD_PKRS = 22,
    /// The FRED MSRs are loaded.
    LOAD_FRED = 23,
    /// IA32_SPEC_CTRL is loaded.
    LOAD_IA32_SPEC_CTRL = 24,
}
