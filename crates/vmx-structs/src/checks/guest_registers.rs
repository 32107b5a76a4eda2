//! Guest control registers, debug registers and MSRs (SDM 26.3.1.1), RIP, RFLAGS and SSP (26.3.1.4).

use super::{
    Rule,
    engine::{Checker, is_pat},
};
use crate::vmcs::{EntryControls, EventKind, SecondaryControls, SegmentFields, guest};

pub(super) const CR0_PE: u64 = 1 << 0;
pub(super) const CR0_PG: u64 = 1 << 31;
pub(super) const CR4_PAE: u64 = 1 << 5;
const CR0_WP: u64 = 1 << 16;
const CR4_PCIDE: u64 = 1 << 17;
const CR4_CET: u64 = 1 << 23;
pub(super) const RFLAGS_IF: u64 = 1 << 9;
pub(super) const RFLAGS_VM: u64 = 1 << 17;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

impl Checker<'_> {
    pub(super) fn guest_state(&mut self) {
        self.guest_control_registers();
        self.guest_debug_controls();
        self.guest_msrs();
        self.guest_optional_msrs();
        self.guest_segments();
        self.guest_rip_and_rflags();
        self.guest_non_register_state();
        self.guest_pdptes();
    }

    pub(super) fn is_ia32e_guest(&self) -> bool {
        self.entry.contains(EntryControls::IA32E_MODE_GUEST)
    }

    pub(super) fn is_unrestricted(&self) -> bool {
        self.secondary.contains(SecondaryControls::UNRESTRICTED_GUEST)
    }

    fn guest_control_registers(&mut self) {
        let (cr0, cr4) = (self.get(guest::CR0), self.get(guest::CR4));
        let exempt = if self.is_unrestricted() { CR0_PE | CR0_PG } else { 0 };
        self.require(self.caps.cr0.exempting(exempt).allows(cr0), Rule::GuestCr0, guest::CR0);
        if self.is_unrestricted() {
            let holds = cr0 & CR0_PG == 0 || cr0 & CR0_PE != 0;
            self.require(holds, Rule::GuestPagingNeedsProtection, guest::CR0);
        }
        self.require(self.caps.cr4.allows(cr4), Rule::GuestCr4, guest::CR4);
        self.require(cr4 & CR4_CET == 0 || cr0 & CR0_WP != 0, Rule::GuestCetNeedsWriteProtect, guest::CR4);
        if self.is_ia32e_guest() {
            self.require(cr0 & CR0_PG != 0, Rule::Ia32eGuestNeedsPaging, guest::CR0);
            self.require(cr4 & CR4_PAE != 0, Rule::Ia32eGuestNeedsPae, guest::CR4);
        } else {
            self.require(cr4 & CR4_PCIDE == 0, Rule::LegacyGuestExcludesPcid, guest::CR4);
        }
        let holds = !self.has_intel_64() || self.caps.is_physical(self.get(guest::CR3));
        self.require(holds, Rule::GuestCr3, guest::CR3);
    }

    fn guest_debug_controls(&mut self) {
        if self.entry.contains(EntryControls::LOAD_DEBUG_CONTROLS) {
            let holds = self.get(guest::IA32_DEBUGCTL) & !self.caps.cpu.debugctl == 0;
            self.require(holds, Rule::GuestDebugctl, guest::IA32_DEBUGCTL);
            self.require(self.get(guest::DR7) >> 32 == 0, Rule::GuestDr7, guest::DR7);
        }
    }

    fn guest_msrs(&mut self) {
        self.require_canonical(Rule::GuestSysenterCanonical, guest::IA32_SYSENTER_ESP);
        self.require_canonical(Rule::GuestSysenterCanonical, guest::IA32_SYSENTER_EIP);
        if self.entry.contains(EntryControls::LOAD_IA32_PERF_GLOBAL_CTRL) {
            let holds = self.get(guest::IA32_PERF_GLOBAL_CTRL) & !self.caps.cpu.perf_global_ctrl == 0;
            self.require(holds, Rule::GuestPerfGlobalCtrl, guest::IA32_PERF_GLOBAL_CTRL);
        }
        if self.entry.contains(EntryControls::LOAD_IA32_PAT) {
            self.require(is_pat(self.get(guest::IA32_PAT)), Rule::GuestPat, guest::IA32_PAT);
        }
        if self.entry.contains(EntryControls::LOAD_IA32_EFER) {
            let efer = self.get(guest::IA32_EFER);
            self.require(efer & !self.caps.cpu.efer() == 0, Rule::GuestEferReserved, guest::IA32_EFER);
            let lma = efer & EFER_LMA != 0;
            self.require(lma == self.is_ia32e_guest(), Rule::GuestEferLma, guest::IA32_EFER);
            let paging = self.get(guest::CR0) & CR0_PG != 0;
            let holds = !paging || lma == (efer & EFER_LME != 0);
            self.require(holds, Rule::GuestEferLme, guest::IA32_EFER);
        }
    }

    /// MSRs that only newer processors load.
    fn guest_optional_msrs(&mut self) {
        if self.entry.contains(EntryControls::LOAD_CET_STATE) {
            let s_cet = self.get(guest::IA32_S_CET);
            let narrow = self.is_ia32e_guest() || s_cet >> 32 == 0;
            self.require(self.is_s_cet(s_cet) && narrow, Rule::GuestSCet, guest::IA32_S_CET);
            self.require_canonical(Rule::GuestSspTable, guest::IA32_INTERRUPT_SSP_TABLE_ADDR);
        }
        if self.entry.contains(EntryControls::LOAD_IA32_BNDCFGS) {
            let bndcfgs = self.get(guest::IA32_BNDCFGS);
            let holds = bndcfgs & 0xffc == 0 && self.caps.cpu.is_canonical(bndcfgs);
            self.require(holds, Rule::GuestBndcfgs, guest::IA32_BNDCFGS);
        }
        if self.entry.contains(EntryControls::LOAD_IA32_RTIT_CTL) {
            let holds = self.get(guest::IA32_RTIT_CTL) & !self.caps.cpu.rtit_ctl == 0;
            self.require(holds, Rule::GuestRtitCtl, guest::IA32_RTIT_CTL);
        }
        if self.entry.contains(EntryControls::LOAD_PKRS) {
            self.require(self.get(guest::IA32_PKRS) >> 32 == 0, Rule::GuestPkrs, guest::IA32_PKRS);
        }
        if self.entry.contains(EntryControls::LOAD_UINV) {
            self.require(self.get(guest::UINV) >> 8 == 0, Rule::GuestUinv, guest::UINV);
        }
        if self.entry.contains(EntryControls::LOAD_IA32_LBR_CTL) {
            let holds = self.get(guest::IA32_LBR_CTL) & !self.caps.cpu.lbr_ctl == 0;
            self.require(holds, Rule::GuestLbrCtl, guest::IA32_LBR_CTL);
        }
        if self.entry.contains(EntryControls::LOAD_FRED) {
            let fields = [
                guest::IA32_FRED_CONFIG,
                guest::IA32_FRED_RSP1,
                guest::IA32_FRED_RSP2,
                guest::IA32_FRED_RSP3,
                guest::IA32_FRED_SSP1,
                guest::IA32_FRED_SSP2,
                guest::IA32_FRED_SSP3,
            ];
            self.require_fred(Rule::GuestFred, fields);
        }
    }

    fn guest_rip_and_rflags(&mut self) {
        let rip = self.get(guest::RIP);
        let long = self.is_ia32e_guest() && self.access(SegmentFields::CS).is_long();
        if long {
            // Not canonical: bit N-1 may differ, and the first fetch faults.
            self.require(self.fits_linear_width(rip), Rule::RipLinearWidth, guest::RIP);
        } else {
            self.require(rip >> 32 == 0, Rule::RipUpperHalf, guest::RIP);
        }

        let rflags = self.get(guest::RFLAGS);
        // Bits 63:22, 15, 5 and 3 are 0; bit 1 is 1.
        let reserved = !0x3f_ffff | 1 << 15 | 1 << 5 | 1 << 3;
        self.require(rflags & reserved == 0 && rflags & 2 != 0, Rule::RflagsReserved, guest::RFLAGS);
        let real = self.get(guest::CR0) & CR0_PE == 0;
        let holds = rflags & RFLAGS_VM == 0 || !(self.is_ia32e_guest() || real);
        self.require(holds, Rule::RflagsVirtual8086, guest::RFLAGS);
        let interrupt = self.injected().is_some_and(|event| event.kind() == EventKind::ExternalInterrupt);
        self.require(!interrupt || rflags & RFLAGS_IF != 0, Rule::RflagsInterruptInjection, guest::RFLAGS);

        if self.entry.contains(EntryControls::LOAD_CET_STATE) {
            let ssp = self.get(guest::SSP);
            let fits = if self.is_ia32e_guest() { self.fits_linear_width(ssp) } else { ssp >> 32 == 0 };
            self.require(ssp & 3 == 0 && fits, Rule::GuestSsp, guest::SSP);
        }
    }
}
