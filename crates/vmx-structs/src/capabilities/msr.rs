//! Numbers of the MSRs that VMX depends on (SDM Vol. 4, and Vol. 3 Appendix A for the capabilities).

/// Locks VMX on or off: [`FeatureControl`](super::FeatureControl).
pub const IA32_FEATURE_CONTROL: u32 = 0x3a;
/// Basic VMX information.
pub const IA32_VMX_BASIC: u32 = 0x480;
/// Pin-based VM-execution controls.
pub const IA32_VMX_PINBASED_CTLS: u32 = 0x481;
/// Primary processor-based VM-execution controls.
pub const IA32_VMX_PROCBASED_CTLS: u32 = 0x482;
/// Primary VM-exit controls.
pub const IA32_VMX_EXIT_CTLS: u32 = 0x483;
/// VM-entry controls.
pub const IA32_VMX_ENTRY_CTLS: u32 = 0x484;
/// Miscellaneous data.
pub const IA32_VMX_MISC: u32 = 0x485;
/// CR0 bits that must be 1.
pub const IA32_VMX_CR0_FIXED0: u32 = 0x486;
/// CR0 bits that may be 1.
pub const IA32_VMX_CR0_FIXED1: u32 = 0x487;
/// CR4 bits that must be 1.
pub const IA32_VMX_CR4_FIXED0: u32 = 0x488;
/// CR4 bits that may be 1.
pub const IA32_VMX_CR4_FIXED1: u32 = 0x489;
/// Highest index of a VMCS field.
pub const IA32_VMX_VMCS_ENUM: u32 = 0x48a;
/// Secondary processor-based VM-execution controls.
pub const IA32_VMX_PROCBASED_CTLS2: u32 = 0x48b;
/// EPT and VPID.
pub const IA32_VMX_EPT_VPID_CAP: u32 = 0x48c;
/// Pin-based controls, with default1 bits that may be 0.
pub const IA32_VMX_TRUE_PINBASED_CTLS: u32 = 0x48d;
/// Primary processor-based controls, with default1 bits that may be 0.
pub const IA32_VMX_TRUE_PROCBASED_CTLS: u32 = 0x48e;
/// Primary VM-exit controls, with default1 bits that may be 0.
pub const IA32_VMX_TRUE_EXIT_CTLS: u32 = 0x48f;
/// VM-entry controls, with default1 bits that may be 0.
pub const IA32_VMX_TRUE_ENTRY_CTLS: u32 = 0x490;
/// VM functions.
pub const IA32_VMX_VMFUNC: u32 = 0x491;
/// Tertiary processor-based VM-execution controls: 64 bits of allowed-1 settings.
pub const IA32_VMX_PROCBASED_CTLS3: u32 = 0x492;
/// Secondary VM-exit controls: 64 bits of allowed-1 settings.
pub const IA32_VMX_EXIT_CTLS2: u32 = 0x493;
