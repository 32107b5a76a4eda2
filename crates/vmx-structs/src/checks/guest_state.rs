//! Guest non-register state (SDM 26.3.1.5) and PDPTEs (26.3.1.6).

use super::{
    Rule,
    engine::Checker,
    guest_registers::{CR0_PG, CR4_PAE, RFLAGS_IF},
};
use crate::{
    CpuFeatures,
    vmcs::{EntryControls, EventInfo, EventKind, PinControls, SecondaryControls, SegmentFields, guest},
};

const RFLAGS_TF: u64 = 1 << 8;
const DEBUGCTL_BTF: u64 = 1 << 1;

/// Activity states.
const ACTIVE: u64 = 0;
const HLT: u64 = 1;
const SHUTDOWN: u64 = 2;
const WAIT_FOR_SIPI: u64 = 3;

/// Bits of the interruptibility state.
const BY_STI: u64 = 1 << 0;
const BY_MOV_SS: u64 = 1 << 1;
const BY_SMI: u64 = 1 << 2;
const BY_NMI: u64 = 1 << 3;
const ENCLAVE: u64 = 1 << 4;

/// Bits of the pending debug exceptions.
const ENABLED_BREAKPOINT: u64 = 1 << 12;
const SINGLE_STEP: u64 = 1 << 14;
const RTM: u64 = 1 << 16;

impl Checker<'_> {
    pub(super) fn guest_non_register_state(&mut self) {
        self.link_pointer();
        self.pending_debug();
        self.activity();
        self.interruptibility();
        if let Some(event) = self.injected() {
            self.injection(event);
        }
        // Outside SMM the control itself is refused.
        if self.context.in_smm && self.entry.contains(EntryControls::ENTRY_TO_SMM) {
            let holds = self.get(guest::ACTIVITY_STATE) != WAIT_FOR_SIPI;
            self.require(holds, Rule::SmmExcludesWaitForSipi, guest::ACTIVITY_STATE);
            let holds = self.get(guest::INTERRUPTIBILITY_STATE) & BY_SMI != 0;
            self.require(holds, Rule::SmmEntryNeedsSmiBlocking, guest::INTERRUPTIBILITY_STATE);
        }
    }

    fn link_pointer(&mut self) {
        let (field, pointer) = (guest::VMCS_LINK_POINTER, self.get(guest::VMCS_LINK_POINTER));
        if pointer == u64::MAX {
            return;
        }
        if pointer % 4096 != 0 || !self.is_physical(pointer) {
            return self.require(false, Rule::LinkPointerAddress, field);
        }
        if let Some(header) = self.context.memory(pointer) {
            let revision = header as u32 & 0x7fff_ffff;
            self.require(revision == self.caps.basic.revision(), Rule::LinkPointerRevision, field);
            let shadowing = self.secondary.contains(SecondaryControls::VMCS_SHADOWING);
            self.require((header >> 31 & 1 == 1) == shadowing, Rule::LinkPointerShadow, field);
        }
        let into_smm = self.entry.contains(EntryControls::ENTRY_TO_SMM);
        let forbidden = if self.context.in_smm && !into_smm {
            self.context.vmxon_region
        } else {
            self.context.current_vmcs
        };
        self.require(forbidden != Some(pointer), Rule::LinkPointerCurrent, field);
    }

    fn pending_debug(&mut self) {
        let (field, pending) = (guest::PENDING_DEBUG_EXCEPTIONS, self.get(guest::PENDING_DEBUG_EXCEPTIONS));
        let blocking = self.get(guest::INTERRUPTIBILITY_STATE);
        // Bits 63:17, 15, 13 and 11:4.
        let reserved = !0x1_ffff | 1 << 15 | 1 << 13 | 0xff0;
        self.require(pending & reserved == 0, Rule::PendingDebugReserved, field);
        if blocking & (BY_STI | BY_MOV_SS) != 0 || self.get(guest::ACTIVITY_STATE) == HLT {
            let trap = self.get(guest::RFLAGS) & RFLAGS_TF != 0;
            let branch = self.get(guest::IA32_DEBUGCTL) & DEBUGCTL_BTF != 0;
            let holds = (pending & SINGLE_STEP != 0) == (trap && !branch);
            self.require(holds, Rule::PendingDebugSingleStep, field);
        }
        if pending & RTM != 0 {
            let alone = pending & 0x1_ffff == RTM | ENABLED_BREAKPOINT;
            let supported = self.caps.cpu.features.contains(CpuFeatures::RTM);
            let holds = alone && supported && blocking & BY_MOV_SS == 0;
            self.require(holds, Rule::PendingDebugRtm, field);
        }
    }

    fn activity(&mut self) {
        let (field, state) = (guest::ACTIVITY_STATE, self.get(guest::ACTIVITY_STATE));
        self.require(self.caps.misc.allows_activity_state(state as u32), Rule::ActivityState, field);
        let holds = state != HLT || self.access(SegmentFields::SS).dpl() == 0;
        self.require(holds, Rule::HltNeedsDplZero, field);
        let blocked = self.get(guest::INTERRUPTIBILITY_STATE) & (BY_STI | BY_MOV_SS) != 0;
        self.require(!blocked || state == ACTIVE, Rule::BlockingNeedsActive, field);
    }

    fn interruptibility(&mut self) {
        let (field, state) = (guest::INTERRUPTIBILITY_STATE, self.get(guest::INTERRUPTIBILITY_STATE));
        self.require(state >> 5 == 0, Rule::InterruptibilityReserved, field);
        let both = BY_STI | BY_MOV_SS;
        self.require(state & both != both, Rule::BlockingExclusive, field);
        let enabled = self.get(guest::RFLAGS) & RFLAGS_IF != 0;
        self.require(state & BY_STI == 0 || enabled, Rule::StiBlockingNeedsIf, field);
        self.require(state & BY_SMI == 0 || self.context.in_smm, Rule::SmiBlockingNeedsSmm, field);
        let sgx = self.caps.cpu.features.contains(CpuFeatures::SGX);
        let holds = state & ENCLAVE == 0 || (sgx && state & BY_MOV_SS == 0);
        self.require(holds, Rule::EnclaveInterruption, field);
    }

    /// Whether the activity state and the blocking let the injected event in.
    fn injection(&mut self, event: EventInfo) {
        let state = self.get(guest::ACTIVITY_STATE);
        let machine_check = event.kind() == EventKind::HardwareException && event.vector() == 18;
        let debug = event.kind() == EventKind::HardwareException && event.vector() == 1;
        let monitor_trap = event.kind() == EventKind::Other && event.vector() == 0;
        let nmi = event.kind() == EventKind::Nmi;
        let interrupt = event.kind() == EventKind::ExternalInterrupt;
        let holds = match state {
            HLT => interrupt || nmi || debug || machine_check || monitor_trap,
            SHUTDOWN => nmi || machine_check,
            WAIT_FOR_SIPI => false,
            _ => true,
        };
        self.require(holds, Rule::ActivityInjection, guest::ACTIVITY_STATE);

        let (field, blocking) = (guest::INTERRUPTIBILITY_STATE, self.get(guest::INTERRUPTIBILITY_STATE));
        let holds = !interrupt || blocking & (BY_STI | BY_MOV_SS) == 0;
        self.require(holds, Rule::BlockingExcludesInterrupt, field);
        if nmi {
            self.require(blocking & BY_MOV_SS == 0, Rule::MovSsExcludesNmi, field);
            let holds = blocking & BY_STI == 0 || !self.context.sti_blocks_nmi_injection;
            self.require(holds, Rule::StiExcludesNmi, field);
            let holds = blocking & BY_NMI == 0 || !self.pin.contains(PinControls::VIRTUAL_NMIS);
            self.require(holds, Rule::NmiBlockingExcludesNmi, field);
        }
    }

    pub(super) fn guest_pdptes(&mut self) {
        let paging = self.get(guest::CR0) & CR0_PG != 0 && self.get(guest::CR4) & CR4_PAE != 0;
        if !paging || self.is_ia32e_guest() {
            return;
        }
        let fields = [guest::PDPTE0, guest::PDPTE1, guest::PDPTE2, guest::PDPTE3];
        // Bits 2:1 and 8:5, and those beyond the physical-address width.
        let is_valid = |entry: u64, caps: &crate::VmxCapabilities| {
            entry & 1 == 0 || (entry & 0x1e6 == 0 && caps.is_physical(entry))
        };
        if self.secondary.contains(SecondaryControls::ENABLE_EPT) {
            for field in fields {
                self.require(is_valid(self.get(field), self.caps), Rule::Pdptes, field);
            }
            return;
        }
        // Without EPT they lie where CR3 points; the violation names CR3.
        let table = self.get(guest::CR3) & 0xffff_ffe0;
        let entries = [0, 8, 16, 24].map(|offset| self.context.memory(table + offset));
        let holds = entries.into_iter().flatten().all(|entry| is_valid(entry, self.caps));
        self.require(holds, Rule::Pdptes, guest::CR3);
    }
}
