//! What is not in registers: activity, blocking, pending exceptions, the VMCS link pointer, PDPTEs (SDM 26.3.1.5 and 26.3.1.6): reason 33.

use super::trial::page;
use super::{Case, cases};
use vmx_structs::vmcs::{control, guest};

/// Each breaks the rule that it names, and no other, where the processor has what it needs.
pub const BAD: &[Case] = cases! {
    LinkPointerAddress long: |t| t.set(guest::VMCS_LINK_POINTER, 0x10_0800);
    LinkPointerAddress long: |t| t.set(guest::VMCS_LINK_POINTER, 1 << 40);
    LinkPointerRevision long: |t| { t.set(guest::VMCS_LINK_POINTER, t.page(page::SHADOW)); t.poke(page::SHADOW, 0, 0x2c) };
    LinkPointerRevision rich: |t| t.poke(page::SHADOW, 0, 0x8000_0001);
    LinkPointerShadow long: |t| t.set(guest::VMCS_LINK_POINTER, t.page(page::SHADOW));
    LinkPointerShadow rich: |t| t.poke(page::SHADOW, 0, t.setup.caps.basic.revision().into());
    LinkPointerCurrent long: |t| t.set(guest::VMCS_LINK_POINTER, t.setup.current);
    PendingDebugReserved long: |t| t.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 4);
    PendingDebugReserved long: |t| t.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 11);
    PendingDebugReserved long: |t| t.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 13);
    PendingDebugReserved long: |t| t.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 15);
    PendingDebugReserved long: |t| t.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 63);
    // Blocking with TF and no BTF: BS is wanted. Blocking without TF, or in HLT: it is not.
    PendingDebugSingleStep long: |t| { t.set(guest::INTERRUPTIBILITY_STATE, 2); t.set(guest::RFLAGS, 0x102) };
    PendingDebugSingleStep long: |t| { t.set(guest::INTERRUPTIBILITY_STATE, 1); t.set(guest::RFLAGS, 0x202); t.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 14) };
    PendingDebugSingleStep long: |t| { t.set(guest::ACTIVITY_STATE, 1); t.set(guest::RFLAGS, 0x102); t.set(guest::IA32_DEBUGCTL, 2); t.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 14) };
    PendingDebugRtm long: |t| t.set(guest::PENDING_DEBUG_EXCEPTIONS, 1 << 16 | 1 << 12); // no RTM
    ActivityState long: |t| t.set(guest::ACTIVITY_STATE, 4);
    ActivityState long: |t| t.set(guest::ACTIVITY_STATE, 0x1_0001);
    HltNeedsDplZero legacy: |t| { t.set(guest::ACTIVITY_STATE, 1); for (selector, access, rights) in [(guest::CS_SELECTOR, guest::CS_ACCESS_RIGHTS, 0xc0fb), (guest::SS_SELECTOR, guest::SS_ACCESS_RIGHTS, 0xc0f3)] { t.set(selector, 0x1b); t.set(access, rights); } };
    BlockingNeedsActive long: |t| { t.set(guest::ACTIVITY_STATE, 2); t.set(guest::INTERRUPTIBILITY_STATE, 2) };
    ActivityInjection long: |t| { t.set(guest::ACTIVITY_STATE, 1); t.inject(3, 6, 0) };
    ActivityInjection long: |t| { t.set(guest::ACTIVITY_STATE, 1); t.set(control::ENTRY_INSTRUCTION_LENGTH, 1); t.inject(6, 3, 0) };
    ActivityInjection long: |t| { t.set(guest::ACTIVITY_STATE, 2); t.set(guest::RFLAGS, 0x202); t.inject(0, 0x20, 0) };
    ActivityInjection long: |t| { t.set(guest::ACTIVITY_STATE, 3); t.inject(2, 2, 0) };
    InterruptibilityReserved long: |t| t.set(guest::INTERRUPTIBILITY_STATE, 1 << 5);
    InterruptibilityReserved long: |t| t.set(guest::INTERRUPTIBILITY_STATE, 1 << 31);
    BlockingExclusive long: |t| { t.set(guest::INTERRUPTIBILITY_STATE, 3); t.set(guest::RFLAGS, 0x202) };
    StiBlockingNeedsIf long: |t| t.set(guest::INTERRUPTIBILITY_STATE, 1);
    BlockingExcludesInterrupt long: |t| { t.set(guest::INTERRUPTIBILITY_STATE, 1); t.set(guest::RFLAGS, 0x202); t.inject(0, 0x20, 0) };
    BlockingExcludesInterrupt long: |t| { t.set(guest::INTERRUPTIBILITY_STATE, 2); t.set(guest::RFLAGS, 0x202); t.inject(0, 0x20, 0) };
    MovSsExcludesNmi long: |t| { t.set(guest::INTERRUPTIBILITY_STATE, 2); t.inject(2, 2, 0) };
    StiExcludesNmi long: |t| { t.set(guest::INTERRUPTIBILITY_STATE, 1); t.set(guest::RFLAGS, 0x202); t.inject(2, 2, 0) };
    SmiBlockingNeedsSmm long: |t| t.set(guest::INTERRUPTIBILITY_STATE, 4);
    NmiBlockingExcludesNmi long: |t| { t.or(control::PIN_CONTROLS, 1 << 5 | 1 << 3); t.set(guest::INTERRUPTIBILITY_STATE, 8); t.inject(2, 2, 0) };
    EnclaveInterruption long: |t| t.set(guest::INTERRUPTIBILITY_STATE, 1 << 4);
    Pdptes pae: |t| t.set(guest::PDPTE0, 0x5003);
    Pdptes pae: |t| t.set(guest::PDPTE1, 0x5021);
    Pdptes pae: |t| t.set(guest::PDPTE3, 1 << 40 | 1);
    Pdptes legacy: |t| { t.set(guest::CR4, 0x2020); t.poke(page::GUEST_CR3, 0x18, 0x101) };
};
