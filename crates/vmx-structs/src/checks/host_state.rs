//! Host state: control registers and MSRs (SDM 26.2.2), segments and tables (26.2.3), address-space size (26.2.4).

use super::{
    Rule,
    engine::{Checker, is_pat},
};
use crate::vmcs::{EntryControls, ExitControls, SecondaryExitControls, control, host};

const CR0_WP: u64 = 1 << 16;
const CR4_PAE: u64 = 1 << 5;
const CR4_PCIDE: u64 = 1 << 17;
const CR4_CET: u64 = 1 << 23;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

impl Checker<'_> {
    pub(super) fn host_state(&mut self) {
        self.host_control_registers();
        self.host_msrs();
        self.host_segments();
        self.host_address_space();
    }

    fn host_control_registers(&mut self) {
        let (cr0, cr4) = (self.get(host::CR0), self.get(host::CR4));
        self.require(self.caps.cr0.allows(cr0), Rule::HostCr0, host::CR0);
        self.require(self.caps.cr4.allows(cr4), Rule::HostCr4, host::CR4);
        self.require(cr4 & CR4_CET == 0 || cr0 & CR0_WP != 0, Rule::HostCetNeedsWriteProtect, host::CR4);
        let holds = !self.has_intel_64() || self.caps.is_physical(self.get(host::CR3));
        self.require(holds, Rule::HostCr3, host::CR3);
    }

    fn host_msrs(&mut self) {
        self.require_canonical(Rule::HostSysenterCanonical, host::IA32_SYSENTER_ESP);
        self.require_canonical(Rule::HostSysenterCanonical, host::IA32_SYSENTER_EIP);
        if self.exit.contains(ExitControls::LOAD_IA32_PERF_GLOBAL_CTRL) {
            let holds = self.get(host::IA32_PERF_GLOBAL_CTRL) & !self.caps.cpu.perf_global_ctrl == 0;
            self.require(holds, Rule::HostPerfGlobalCtrl, host::IA32_PERF_GLOBAL_CTRL);
        }
        if self.exit.contains(ExitControls::LOAD_IA32_PAT) {
            self.require(is_pat(self.get(host::IA32_PAT)), Rule::HostPat, host::IA32_PAT);
        }
        if self.exit.contains(ExitControls::LOAD_IA32_EFER) {
            let efer = self.get(host::IA32_EFER);
            self.require(efer & !self.caps.cpu.efer() == 0, Rule::HostEferReserved, host::IA32_EFER);
            let long = self.exit.contains(ExitControls::HOST_ADDRESS_SPACE_SIZE);
            let expected = if long { EFER_LMA | EFER_LME } else { 0 };
            self.require(efer & (EFER_LMA | EFER_LME) == expected, Rule::HostEferMode, host::IA32_EFER);
        }
        if self.exit.contains(ExitControls::LOAD_CET_STATE) {
            self.require(self.is_s_cet(self.get(host::IA32_S_CET)), Rule::HostSCet, host::IA32_S_CET);
            let ssp = self.get(host::SSP);
            self.require(ssp & 3 == 0 && self.caps.cpu.is_canonical(ssp), Rule::HostSsp, host::SSP);
            self.require_canonical(Rule::HostSspTable, host::IA32_INTERRUPT_SSP_TABLE_ADDR);
        }
        if self.exit.contains(ExitControls::LOAD_PKRS) {
            self.require(self.get(host::IA32_PKRS) >> 32 == 0, Rule::HostPkrs, host::IA32_PKRS);
        }
        if self.secondary_exit.contains(SecondaryExitControls::LOAD_FRED) {
            let fields = [
                host::IA32_FRED_CONFIG,
                host::IA32_FRED_RSP1,
                host::IA32_FRED_RSP2,
                host::IA32_FRED_RSP3,
                host::IA32_FRED_SSP1,
                host::IA32_FRED_SSP2,
                host::IA32_FRED_SSP3,
            ];
            self.require_fred(Rule::HostFred, fields);
        }
    }

    fn host_segments(&mut self) {
        for field in [
            host::ES_SELECTOR,
            host::CS_SELECTOR,
            host::SS_SELECTOR,
            host::DS_SELECTOR,
            host::FS_SELECTOR,
            host::GS_SELECTOR,
            host::TR_SELECTOR,
        ] {
            self.require(self.get(field) & 7 == 0, Rule::HostSelectorRplTi, field);
        }
        for field in [host::CS_SELECTOR, host::TR_SELECTOR] {
            self.require(self.get(field) != 0, Rule::HostSelectorNull, field);
        }
        let long = self.exit.contains(ExitControls::HOST_ADDRESS_SPACE_SIZE);
        self.require(long || self.get(host::SS_SELECTOR) != 0, Rule::HostSsNull, host::SS_SELECTOR);
        for field in [host::FS_BASE, host::GS_BASE, host::TR_BASE, host::GDTR_BASE, host::IDTR_BASE] {
            self.require_canonical(Rule::HostBaseCanonical, field);
        }
    }

    fn host_address_space(&mut self) {
        let host_64 = self.exit.contains(ExitControls::HOST_ADDRESS_SPACE_SIZE);
        let guest_64 = self.entry.contains(EntryControls::IA32E_MODE_GUEST);
        if !self.context.ia32e_mode {
            self.require(!host_64, Rule::LegacyModeEntersNo64Bit, control::EXIT_CONTROLS);
            self.require(!guest_64, Rule::LegacyModeEntersNo64Bit, control::ENTRY_CONTROLS);
        } else {
            self.require(host_64, Rule::LongModeNeeds64BitHost, control::EXIT_CONTROLS);
        }
        let (cr4, rip) = (self.get(host::CR4), self.get(host::RIP));
        if host_64 {
            self.require(cr4 & CR4_PAE != 0, Rule::Host64NeedsPae, host::CR4);
            self.require_canonical(Rule::Host64Rip, host::RIP);
            return;
        }
        // Outside IA-32e mode the first rule has said so already.
        let holds = !guest_64 || !self.context.ia32e_mode;
        self.require(holds, Rule::Host32ExcludesIa32eGuest, control::ENTRY_CONTROLS);
        self.require(cr4 & CR4_PCIDE == 0, Rule::Host32ExcludesPcid, host::CR4);
        self.require(rip >> 32 == 0, Rule::Host32Rip, host::RIP);
        if self.exit.contains(ExitControls::LOAD_CET_STATE) {
            self.require(self.get(host::IA32_S_CET) >> 32 == 0, Rule::Host32Cet, host::IA32_S_CET);
            self.require(self.get(host::SSP) >> 32 == 0, Rule::Host32Cet, host::SSP);
        }
    }
}
