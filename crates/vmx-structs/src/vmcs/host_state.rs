//! The state that a VM exit puts the host in (SDM 24.5).

use super::{CetState, ExitControls, VmcsAccess, WriteError, host};

/// What the host's registers hold after a VM exit.
///
/// An MSR that is `None` is not loaded: the guest's value stays (IA32_EFER is adjusted to the address-space size).
/// `HostState::current` (feature `instructions`) reads the running processor's; RSP and RIP are the world switch's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "registers, by their names")]
pub struct HostState {
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub rsp: u64,
    pub rip: u64,
    pub es_selector: u16,
    pub cs_selector: u16,
    pub ss_selector: u16,
    pub ds_selector: u16,
    pub fs_selector: u16,
    pub gs_selector: u16,
    pub tr_selector: u16,
    pub fs_base: u64,
    pub gs_base: u64,
    pub tr_base: u64,
    pub gdtr_base: u64,
    pub idtr_base: u64,
    pub sysenter_cs: u32,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: Option<u64>,
    pub efer: Option<u64>,
    pub perf_global_ctrl: Option<u64>,
    pub pkrs: Option<u32>,
    pub cet: Option<CetState>,
    /// Whether the host runs in 64-bit mode.
    pub long_mode: bool,
}

impl HostState {
    /// The VM-exit controls that this state needs.
    pub fn exit_controls(&self) -> ExitControls {
        let mut controls = ExitControls::SAVE_DEBUG_CONTROLS;
        controls.set(ExitControls::HOST_ADDRESS_SPACE_SIZE, self.long_mode);
        controls.set(ExitControls::LOAD_IA32_PAT, self.pat.is_some());
        controls.set(ExitControls::LOAD_IA32_EFER, self.efer.is_some());
        controls.set(ExitControls::LOAD_IA32_PERF_GLOBAL_CTRL, self.perf_global_ctrl.is_some());
        controls.set(ExitControls::LOAD_PKRS, self.pkrs.is_some());
        controls.set(ExitControls::LOAD_CET_STATE, self.cet.is_some());
        controls
    }

    /// Writes the host-state fields, but no control word.
    ///
    /// # Errors
    /// The first field that is refused: the processor lacks it.
    pub fn write_to(&self, vmcs: &mut impl VmcsAccess) -> Result<(), WriteError> {
        for (field, value) in [
            (host::ES_SELECTOR, self.es_selector),
            (host::CS_SELECTOR, self.cs_selector),
            (host::SS_SELECTOR, self.ss_selector),
            (host::DS_SELECTOR, self.ds_selector),
            (host::FS_SELECTOR, self.fs_selector),
            (host::GS_SELECTOR, self.gs_selector),
            (host::TR_SELECTOR, self.tr_selector),
        ] {
            WriteError::at(field, value, vmcs)?;
        }
        for (field, value) in [
            (host::CR0, self.cr0),
            (host::CR3, self.cr3),
            (host::CR4, self.cr4),
            (host::RSP, self.rsp),
            (host::RIP, self.rip),
            (host::FS_BASE, self.fs_base),
            (host::GS_BASE, self.gs_base),
            (host::TR_BASE, self.tr_base),
            (host::GDTR_BASE, self.gdtr_base),
            (host::IDTR_BASE, self.idtr_base),
            (host::IA32_SYSENTER_ESP, self.sysenter_esp),
            (host::IA32_SYSENTER_EIP, self.sysenter_eip),
        ] {
            WriteError::at(field, value, vmcs)?;
        }
        WriteError::at(host::IA32_SYSENTER_CS, self.sysenter_cs, vmcs)?;
        for (field, value) in [
            (host::IA32_PAT, self.pat),
            (host::IA32_EFER, self.efer),
            (host::IA32_PERF_GLOBAL_CTRL, self.perf_global_ctrl),
            (host::IA32_PKRS, self.pkrs.map(u64::from)),
        ] {
            if let Some(value) = value {
                WriteError::at(field, value, vmcs)?;
            }
        }
        if let Some(cet) = self.cet {
            WriteError::at(host::IA32_S_CET, cet.s_cet, vmcs)?;
            WriteError::at(host::SSP, cet.ssp, vmcs)?;
            WriteError::at(host::IA32_INTERRUPT_SSP_TABLE_ADDR, cet.interrupt_ssp_table, vmcs)?;
        }
        Ok(())
    }
}
