//! What VM entry depends on beside the VMCS.

use core::fmt;

use crate::{CpuFeatures, VmxCapabilities};

/// The processor at the moment of VMLAUNCH or VMRESUME.
#[derive(Clone, Copy)]
pub struct EntryContext<'a> {
    /// Its capabilities.
    pub caps: &'a VmxCapabilities,
    /// Whether it is in IA-32e mode (`IA32_EFER.LMA`).
    pub ia32e_mode: bool,
    /// Whether it is in system-management mode.
    pub in_smm: bool,
    /// Whether Intel PT is on (`IA32_RTIT_CTL.TraceEn`).
    pub tracing: bool,
    /// Whether an NMI cannot be injected while STI blocks: processors differ (SDM 26.3.1.5).
    pub sti_blocks_nmi_injection: bool,
    /// The physical address of the current VMCS, if known.
    pub current_vmcs: Option<u64>,
    /// The physical address of the VMXON region, if known.
    pub vmxon_region: Option<u64>,
    /// Reads 8 bytes of physical memory at an 8-byte aligned address; `None` for memory that cannot be read. The rules
    /// on VTPR, on the linked VMCS and on PDPTEs without EPT look at memory: without a reader, or where it answers
    /// `None`, they are taken to hold.
    pub read_memory: Option<&'a dyn Fn(u64) -> Option<u64>>,
}

impl<'a> EntryContext<'a> {
    /// A processor with these capabilities that is in IA-32e mode if it has Intel 64, outside SMM and not tracing, with
    /// nothing known about memory.
    pub const fn new(caps: &'a VmxCapabilities) -> Self {
        Self {
            caps,
            ia32e_mode: caps.cpu.features.contains(CpuFeatures::LONG_MODE),
            in_smm: false,
            tracing: false,
            sti_blocks_nmi_injection: true,
            current_vmcs: None,
            vmxon_region: None,
            read_memory: None,
        }
    }

    pub(super) fn memory(&self, address: u64) -> Option<u64> {
        self.read_memory.and_then(|read| read(address))
    }
}

impl fmt::Debug for EntryContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryContext")
            .field("ia32e_mode", &self.ia32e_mode)
            .field("in_smm", &self.in_smm)
            .field("tracing", &self.tracing)
            .field("sti_blocks_nmi_injection", &self.sti_blocks_nmi_injection)
            .field("current_vmcs", &self.current_vmcs)
            .field("vmxon_region", &self.vmxon_region)
            .field("reads_memory", &self.read_memory.is_some())
            .finish_non_exhaustive()
    }
}
