//! The state that a VM exit loads (SDM 26.2.2 to 26.2.4): error 8.

use super::{Case, cases};
use vmx_structs::vmcs::{control, host};

/// Each breaks the rule that it names, and no other, where the processor has what it needs.
pub const BAD: &[Case] = cases! {
    HostCr0 long: |t| t.set(host::CR0, 0x8005_0013); // no NE
    HostCr0 long: |t| t.set(host::CR0, 0x1_8005_0033);
    HostCr4 long: |t| t.set(host::CR4, 0x20); // no VMXE
    HostCr4 long: |t| t.set(host::CR4, 0x2020 | 1 << 20);
    HostCetNeedsWriteProtect long: |t| { t.set(host::CR4, 0x2020 | 1 << 23); t.set(host::CR0, 0x8000_0031) };
    HostCr3 long: |t| t.set(host::CR3, 1 << 40);
    HostSysenterCanonical long: |t| t.set(host::IA32_SYSENTER_ESP, 1 << 47);
    HostSysenterCanonical long: |t| t.set(host::IA32_SYSENTER_EIP, 1 << 63);
    HostPerfGlobalCtrl rich: |t| t.set(host::IA32_PERF_GLOBAL_CTRL, 1 << 63);
    HostPerfGlobalCtrl rich: |t| t.set(host::IA32_PERF_GLOBAL_CTRL, 1 << 4);
    HostPat rich: |t| t.set(host::IA32_PAT, 0x0200);
    HostPat rich: |t| t.set(host::IA32_PAT, 8 << 56);
    HostEferReserved rich: |t| t.set(host::IA32_EFER, 0xd01 | 2);
    HostEferMode rich: |t| t.set(host::IA32_EFER, 0x901);
    HostEferMode rich: |t| t.set(host::IA32_EFER, 0xc01);
    HostSCet rich: |t| t.set(host::IA32_S_CET, 1 << 6);
    HostSCet rich: |t| t.set(host::IA32_S_CET, 3 << 10);
    HostSCet rich: |t| t.set(host::IA32_S_CET, 1 << 47);
    HostSsp rich: |t| t.set(host::SSP, 2);
    HostSsp rich: |t| t.set(host::SSP, 1 << 47);
    HostSspTable rich: |t| t.set(host::IA32_INTERRUPT_SSP_TABLE_ADDR, 1 << 62);
    HostSelectorRplTi long: |t| t.set(host::DS_SELECTOR, 3);
    HostSelectorRplTi long: |t| t.set(host::ES_SELECTOR, 4);
    HostSelectorRplTi long: |t| t.set(host::TR_SELECTOR, 0x1c);
    HostSelectorRplTi long: |t| t.set(host::FS_SELECTOR, 1);
    HostSelectorRplTi long: |t| t.set(host::GS_SELECTOR, 1);
    HostSelectorRplTi long: |t| t.set(host::CS_SELECTOR, 0xa);
    HostSelectorRplTi long: |t| t.set(host::SS_SELECTOR, 0x12);
    HostSelectorNull long: |t| t.set(host::CS_SELECTOR, 0);
    HostSelectorNull long: |t| t.set(host::TR_SELECTOR, 0);
    HostBaseCanonical long: |t| t.set(host::FS_BASE, 1 << 47);
    HostBaseCanonical long: |t| t.set(host::GS_BASE, 1 << 48);
    HostBaseCanonical long: |t| t.set(host::TR_BASE, 1 << 63);
    HostBaseCanonical long: |t| t.set(host::GDTR_BASE, 1 << 47);
    LongModeNeeds64BitHost legacy: |t| { t.clear(control::EXIT_CONTROLS, 1 << 9); t.set(host::RIP, 0x1000) };
    Host64NeedsPae long: |t| t.set(host::CR4, 0x2000);
};
