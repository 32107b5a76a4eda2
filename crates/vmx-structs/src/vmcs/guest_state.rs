//! The state that a guest starts with (SDM 24.4).
//!
//! [`GuestState`] is plain data; three constructors give the usual starts (real mode, flat protected mode, 64-bit
//! mode), adjusted to the bits that a processor fixes in CR0 and CR4.

use super::{
    AccessRights, ControlWord, DescriptorTable, EntryControls, Field, Guest, Natural, Segment, SegmentFields,
    VmcsAccess, WriteError, guest,
};
use crate::VmxCapabilities;

/// Bits of CR0.
mod cr0 {
    pub(super) const PE: u64 = 1 << 0;
    pub(super) const ET: u64 = 1 << 4;
    pub(super) const PG: u64 = 1 << 31;
}

/// Bit of CR4: physical-address extension.
const CR4_PAE: u64 = 1 << 5;
/// IA32_EFER with LME and LMA.
const EFER_LONG_MODE: u64 = 1 << 8 | 1 << 10;

/// What a guest's registers hold at VM entry.
///
/// An MSR that is `None` is not loaded: the host's value stays. [`entry_controls`](Self::entry_controls) says which
/// controls the state needs; [`VmcsBuilder::guest`](super::VmcsBuilder::guest) takes care of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "registers, by their names")]
pub struct GuestState {
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub dr7: u64,
    pub rsp: u64,
    pub rip: u64,
    pub rflags: u64,
    pub es: Segment,
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ldtr: Segment,
    pub tr: Segment,
    pub gdtr: DescriptorTable,
    pub idtr: DescriptorTable,
    pub sysenter_cs: u32,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub debugctl: u64,
    pub pat: Option<u64>,
    pub efer: Option<u64>,
    pub perf_global_ctrl: Option<u64>,
    pub pkrs: Option<u32>,
    pub cet: Option<CetState>,
    /// The four PDPTEs, used with EPT when the guest has PAE paging and is not in IA-32e mode.
    pub pdptes: [u64; 4],
    /// Whether the guest runs in IA-32e mode (64-bit or compatibility mode).
    pub ia32e_mode: bool,
    /// 0 active, 1 HLT, 2 shutdown, 3 wait-for-SIPI.
    pub activity_state: u32,
    /// Blocking of interrupts, SMIs and NMIs (SDM Table 24-3).
    pub interruptibility: u32,
    /// Pending debug exceptions (SDM Table 24-4).
    pub pending_debug: u64,
    /// The shadow VMCS, or all ones for none.
    pub vmcs_link_pointer: u64,
}

/// Control-flow enforcement: what is loaded with "load CET state".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CetState {
    /// IA32_S_CET.
    pub s_cet: u64,
    /// Shadow-stack pointer.
    pub ssp: u64,
    /// IA32_INTERRUPT_SSP_TABLE_ADDR.
    pub interrupt_ssp_table: u64,
}

impl GuestState {
    /// A guest in real mode that starts at `cs:ip`, with all segments at 0 but CS and the stack below `cs:ip`. Needs
    /// "unrestricted guest".
    pub fn real_mode(caps: &VmxCapabilities, cs: u16, ip: u16) -> Self {
        let data = Segment::real_mode(0, AccessRights::DATA_16);
        Self {
            cr0: caps.cr0.exempting(cr0::PE | cr0::PG).adjust(cr0::ET) & !(cr0::PE | cr0::PG),
            rip: ip.into(),
            rsp: ip.into(),
            cs: Segment::real_mode(cs, AccessRights::CODE_16),
            ss: Segment::real_mode(cs, AccessRights::DATA_16),
            idtr: DescriptorTable { base: 0, limit: 0x3ff },
            gdtr: DescriptorTable { base: 0, limit: 0xffff },
            ..Self::with_data(caps, data)
        }
    }

    /// A guest in flat 32-bit protected mode without paging that starts at `eip`. Needs "unrestricted guest".
    pub fn protected_mode(caps: &VmxCapabilities, eip: u32, esp: u32) -> Self {
        Self {
            cr0: caps.cr0.exempting(cr0::PG).adjust(cr0::PE | cr0::ET) & !cr0::PG,
            rip: eip.into(),
            rsp: esp.into(),
            cs: Segment::flat(0x08, AccessRights::CODE_32),
            ..Self::with_data(caps, Segment::flat(0x10, AccessRights::DATA_32))
        }
    }

    /// A guest in 64-bit mode that starts at `rip`, with the page tables at `cr3` and flat segments (CS 8, others 16)
    /// that no descriptor table stands behind yet.
    pub fn long_mode(caps: &VmxCapabilities, cr3: u64, rip: u64, rsp: u64) -> Self {
        let state = Self::with_data(caps, Segment::flat(0x10, AccessRights::DATA_32));
        Self {
            cr0: caps.cr0.adjust(cr0::PE | cr0::ET | cr0::PG),
            cr3,
            cr4: state.cr4 | CR4_PAE,
            rip,
            rsp,
            cs: Segment::flat(0x08, AccessRights::CODE_64),
            // Without the control, VM entry itself sets LME and LMA.
            efer: EntryControls::LOAD_IA32_EFER.is_available(caps).then_some(EFER_LONG_MODE),
            ia32e_mode: true,
            ..state
        }
    }

    fn with_data(caps: &VmxCapabilities, data: Segment) -> Self {
        Self {
            cr0: caps.cr0.adjust(cr0::PE | cr0::ET | cr0::PG),
            cr3: 0,
            cr4: caps.cr4.adjust(0),
            dr7: 0x400,
            rsp: 0,
            rip: 0,
            rflags: 2,
            es: data,
            cs: data,
            ss: data,
            ds: data,
            fs: data,
            gs: data,
            ldtr: Segment::UNUSABLE,
            tr: Segment { selector: 0, base: 0, limit: 0x67, access: AccessRights::TSS_BUSY },
            gdtr: DescriptorTable::default(),
            idtr: DescriptorTable::default(),
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            debugctl: 0,
            pat: None,
            efer: None,
            perf_global_ctrl: None,
            pkrs: None,
            cet: None,
            pdptes: [0; 4],
            ia32e_mode: false,
            activity_state: 0,
            interruptibility: 0,
            pending_debug: 0,
            vmcs_link_pointer: u64::MAX,
        }
    }

    /// The VM-entry controls that this state needs.
    pub fn entry_controls(&self) -> EntryControls {
        let mut controls = EntryControls::LOAD_DEBUG_CONTROLS;
        controls.set(EntryControls::IA32E_MODE_GUEST, self.ia32e_mode);
        controls.set(EntryControls::LOAD_IA32_PAT, self.pat.is_some());
        controls.set(EntryControls::LOAD_IA32_EFER, self.efer.is_some());
        controls.set(EntryControls::LOAD_IA32_PERF_GLOBAL_CTRL, self.perf_global_ctrl.is_some());
        controls.set(EntryControls::LOAD_PKRS, self.pkrs.is_some());
        controls.set(EntryControls::LOAD_CET_STATE, self.cet.is_some());
        controls
    }

    /// Writes the guest-state fields, but no control word.
    ///
    /// # Errors
    /// The first field that is refused: the processor lacks it.
    pub fn write_to(&self, vmcs: &mut impl VmcsAccess) -> Result<(), WriteError> {
        let segments = [self.es, self.cs, self.ss, self.ds, self.fs, self.gs, self.ldtr, self.tr];
        for (segment, fields) in segments.into_iter().zip(SegmentFields::ALL) {
            WriteError::at(fields.selector, segment.selector, vmcs)?;
            WriteError::at(fields.base, segment.base, vmcs)?;
            WriteError::at(fields.limit, segment.limit, vmcs)?;
            WriteError::at(fields.access_rights, segment.access.raw(), vmcs)?;
        }
        let natural: [(Field<Natural, Guest>, u64); 12] = [
            (guest::CR0, self.cr0),
            (guest::CR3, self.cr3),
            (guest::CR4, self.cr4),
            (guest::DR7, self.dr7),
            (guest::RSP, self.rsp),
            (guest::RIP, self.rip),
            (guest::RFLAGS, self.rflags),
            (guest::GDTR_BASE, self.gdtr.base),
            (guest::IDTR_BASE, self.idtr.base),
            (guest::IA32_SYSENTER_ESP, self.sysenter_esp),
            (guest::IA32_SYSENTER_EIP, self.sysenter_eip),
            (guest::PENDING_DEBUG_EXCEPTIONS, self.pending_debug),
        ];
        for (field, value) in natural {
            WriteError::at(field, value, vmcs)?;
        }
        WriteError::at(guest::GDTR_LIMIT, self.gdtr.limit, vmcs)?;
        WriteError::at(guest::IDTR_LIMIT, self.idtr.limit, vmcs)?;
        WriteError::at(guest::IA32_SYSENTER_CS, self.sysenter_cs, vmcs)?;
        WriteError::at(guest::IA32_DEBUGCTL, self.debugctl, vmcs)?;
        WriteError::at(guest::ACTIVITY_STATE, self.activity_state, vmcs)?;
        WriteError::at(guest::INTERRUPTIBILITY_STATE, self.interruptibility, vmcs)?;
        WriteError::at(guest::VMCS_LINK_POINTER, self.vmcs_link_pointer, vmcs)?;
        for (field, value) in [
            (guest::IA32_PAT, self.pat),
            (guest::IA32_EFER, self.efer),
            (guest::IA32_PERF_GLOBAL_CTRL, self.perf_global_ctrl),
            (guest::IA32_PKRS, self.pkrs.map(u64::from)),
        ] {
            if let Some(value) = value {
                WriteError::at(field, value, vmcs)?;
            }
        }
        if let Some(cet) = self.cet {
            WriteError::at(guest::IA32_S_CET, cet.s_cet, vmcs)?;
            WriteError::at(guest::SSP, cet.ssp, vmcs)?;
            WriteError::at(guest::IA32_INTERRUPT_SSP_TABLE_ADDR, cet.interrupt_ssp_table, vmcs)?;
        }
        // These fields exist with EPT only; without it the processor reads the PDPTEs from memory.
        if self.pdptes != [0; 4] {
            for (field, value) in
                [guest::PDPTE0, guest::PDPTE1, guest::PDPTE2, guest::PDPTE3].into_iter().zip(self.pdptes)
            {
                WriteError::at(field, value, vmcs)?;
            }
        }
        Ok(())
    }
}
