//! The guest's control registers, MSRs, RIP and RFLAGS (SDM 26.3.1.1 and 26.3.1.4): reason 33.

use super::{Case, cases};
use vmx_structs::vmcs::{SecondaryControls, control, guest};

/// Each breaks the rule that it names, and no other, where the processor has what it needs.
pub const BAD: &[Case] = cases! {
    GuestCr0 long: |t| t.set(guest::CR0, 0x8000_0011); // no NE
    GuestCr0 legacy: |t| t.set(guest::CR0, 0x31); // no PG
    GuestCr0 real: |t| t.set(guest::CR0, 0x10); // NE is not exempt
    GuestCr0 real: |t| t.set(guest::CR0, 1 << 32 | 0x30);
    GuestPagingNeedsProtection real: |t| t.set(guest::CR0, 0x8000_0030);
    GuestCr4 long: |t| t.set(guest::CR4, 0x20);
    GuestCr4 long: |t| t.set(guest::CR4, 0x2020 | 1 << 21);
    GuestCetNeedsWriteProtect long: |t| t.set(guest::CR4, 0x2020 | 1 << 23);
    GuestDebugctl long: |t| t.set(guest::IA32_DEBUGCTL, 1 << 3);
    Ia32eGuestNeedsPaging long: |t| { t.secondary(SecondaryControls::UNRESTRICTED_GUEST | SecondaryControls::ENABLE_EPT); t.set(control::EPT_POINTER, t.eptp()); t.set(guest::CR0, 0x31) };
    Ia32eGuestNeedsPae long: |t| t.set(guest::CR4, 0x2000);
    LegacyGuestExcludesPcid legacy: |t| t.set(guest::CR4, 0x2000 | 1 << 17);
    GuestCr3 long: |t| t.set(guest::CR3, 1 << 40);
    GuestDr7 long: |t| t.set(guest::DR7, 1 << 32);
    GuestSysenterCanonical long: |t| t.set(guest::IA32_SYSENTER_ESP, 1 << 47);
    GuestSysenterCanonical long: |t| t.set(guest::IA32_SYSENTER_EIP, 1 << 47);
    GuestSCet rich: |t| t.set(guest::IA32_S_CET, 1 << 9);
    GuestSCet legacy: |t| { t.or(control::ENTRY_CONTROLS, 1 << 20); t.set(guest::IA32_S_CET, 1 << 32) };
    GuestSspTable rich: |t| t.set(guest::IA32_INTERRUPT_SSP_TABLE_ADDR, 1 << 47);
    GuestPerfGlobalCtrl rich: |t| t.set(guest::IA32_PERF_GLOBAL_CTRL, 1 << 63);
    GuestPerfGlobalCtrl rich: |t| t.set(guest::IA32_PERF_GLOBAL_CTRL, 1 << 35);
    GuestPat rich: |t| t.set(guest::IA32_PAT, 3);
    GuestEferReserved rich: |t| t.set(guest::IA32_EFER, 0xd01 | 1 << 63);
    GuestEferLma legacy: |t| { t.or(control::ENTRY_CONTROLS, 1 << 15); t.set(guest::IA32_EFER, 0x500) };
    GuestEferLme legacy: |t| { t.or(control::ENTRY_CONTROLS, 1 << 15); t.set(guest::IA32_EFER, 0x100) };
    RipUpperHalf legacy: |t| t.set(guest::RIP, 1 << 32);
    RipUpperHalf long: |t| { t.set(guest::CS_ACCESS_RIGHTS, 0xc09b); t.set(guest::RIP, 1 << 32) };
    RipLinearWidth long: |t| t.set(guest::RIP, 1 << 48);
    RflagsReserved long: |t| t.set(guest::RFLAGS, 0);
    RflagsReserved long: |t| t.set(guest::RFLAGS, 2 | 1 << 3);
    RflagsReserved long: |t| t.set(guest::RFLAGS, 2 | 1 << 5);
    RflagsReserved long: |t| t.set(guest::RFLAGS, 2 | 1 << 15);
    RflagsReserved long: |t| t.set(guest::RFLAGS, 2 | 1 << 22);
    RflagsReserved long: |t| t.set(guest::RFLAGS, 2 | 1 << 63);
    RflagsVirtual8086 virtual_8086: |t| { t.or(control::ENTRY_CONTROLS, 1 << 9); t.set(guest::CR4, 0x2020) };
    RflagsVirtual8086 virtual_8086: |t| { t.secondary(SecondaryControls::UNRESTRICTED_GUEST | SecondaryControls::ENABLE_EPT); t.set(control::EPT_POINTER, t.eptp()); t.set(guest::CR0, 0x30) };
    RflagsInterruptInjection long: |t| t.inject(0, 0x20, 0);
    GuestSsp rich: |t| t.set(guest::SSP, 1);
    GuestSsp rich: |t| t.set(guest::SSP, 1 << 48);
    GuestSsp legacy: |t| { t.or(control::ENTRY_CONTROLS, 1 << 20); t.set(guest::SSP, 1 << 32) };
};
