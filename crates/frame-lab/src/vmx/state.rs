//! What the VM starts with: the guest's registers, a host that stands in for the real one, and the controls.
//!
//! The guest starts as simply as the processor lets it: in real mode where there is "unrestricted guest", else with
//! paging on, in 64-bit mode or, without Intel 64, in 32-bit mode. Its page tables say that linear addresses are
//! physical ones.

use vmx_structs::{CpuFeatures, VmxCapabilities, vmcs::*};

use super::ram;

/// The first instructions: OUT 0x80, AL; HLT. The same bytes in every mode.
pub(crate) const CODE: &[u8] = &[0xe6, 0x80, 0xf4];
/// The value of IA32_PAT after a reset.
const PAT: u64 = 0x0007_0406_0007_0406;
/// SCE, LME, LMA and NXE.
const EFER: u64 = 0xd01;
/// A present, writable entry.
const ENTRY: u64 = 0b11;
/// A page of 2 MiB.
const LARGE: u64 = 1 << 7;

/// The mode that the guest starts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Real,
    Long,
    /// 32-bit, with paging.
    Legacy,
}

impl Mode {
    pub(crate) fn of(caps: &VmxCapabilities) -> Self {
        match () {
            () if caps.has_unrestricted_guest() => Self::Real,
            () if is_64_bit(caps) => Self::Long,
            () => Self::Legacy,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Real => "real mode",
            Self::Long => "64-bit mode",
            Self::Legacy => "32-bit protected mode with paging",
        }
    }
}

pub(crate) fn is_64_bit(caps: &VmxCapabilities) -> bool {
    caps.cpu.features.contains(CpuFeatures::LONG_MODE)
}

/// Page tables in guest memory, for a guest that needs paging and has EPT below it: where CR3 points, and what to write
/// where. They map the first GiB in pages of 2 MiB.
pub(crate) fn guest_page_tables() -> (u64, Vec<(u64, u64)>) {
    let directory = (0..512).map(|i| (0x3000 + i * 8, i << 21 | LARGE | ENTRY));
    (0x1000, [(0x1000, 0x2000 | ENTRY), (0x2000, 0x3000 | ENTRY)].into_iter().chain(directory).collect())
}

/// The guest's registers. `cr3` counts where the guest has paging on.
pub(crate) fn guest(caps: &VmxCapabilities, mode: Mode, cr3: u64) -> GuestState {
    let state = match mode {
        Mode::Real => GuestState::real_mode(caps, 0, ram::ENTRY as u16),
        Mode::Long => GuestState::long_mode(caps, cr3, ram::ENTRY, ram::ENTRY),
        Mode::Legacy => {
            let flat = GuestState::protected_mode(caps, ram::ENTRY as u32, ram::ENTRY as u32);
            GuestState { cr0: caps.cr0.adjust(0x8000_0011), cr3, ..flat }
        }
    };
    let loads = |control: EntryControls| control.is_available(caps);
    GuestState {
        pat: loads(EntryControls::LOAD_IA32_PAT).then_some(PAT),
        efer: state.efer.or(loads(EntryControls::LOAD_IA32_EFER).then_some(0)),
        ..state
    }
}

/// A host that could be: a kernel in the upper half of its addresses.
pub(crate) fn host(caps: &VmxCapabilities, page_tables: u64) -> HostState {
    let long = is_64_bit(caps);
    let top = if long { 0xffff_8000_0000_0000 } else { 0xc000_0000 };
    let loads = |control: ExitControls| control.is_available(caps);
    HostState {
        cr0: caps.cr0.adjust(0x8005_0033),
        cr3: page_tables,
        cr4: caps.cr4.adjust(0x20),
        rsp: top + 0x8000,
        rip: top + 0x10_0000,
        cs_selector: 0x08,
        ss_selector: 0x10,
        ds_selector: 0x10,
        es_selector: 0x10,
        tr_selector: 0x18,
        gs_base: top + 0x1000,
        tr_base: top + 0x2000,
        gdtr_base: top + 0x3000,
        idtr_base: top + 0x4000,
        sysenter_esp: top + 0x5000,
        sysenter_eip: top + 0x6000,
        pat: loads(ExitControls::LOAD_IA32_PAT).then_some(PAT),
        efer: (long && loads(ExitControls::LOAD_IA32_EFER)).then_some(EFER),
        long_mode: long,
        ..HostState::default()
    }
}

/// Asks for the controls that a small hypervisor would use beside those of its structures, as far as the processor has
/// them.
pub(crate) fn want_controls(builder: &mut VmcsBuilder<'_>, caps: &VmxCapabilities) {
    fn some<W: ControlWord>(builder: &mut VmcsBuilder<'_>, caps: &VmxCapabilities, bits: W) {
        builder.want(bits.intersection(W::allowed(caps).1));
    }
    use {
        ExitControls as Exit, PinControls as Pin, PrimaryControls as Primary, SecondaryControls as Secondary,
    };
    some(builder, caps, Pin::EXTERNAL_INTERRUPT_EXITING | Pin::NMI_EXITING | Pin::VIRTUAL_NMIS);
    some(builder, caps, Primary::HLT_EXITING | Primary::USE_TSC_OFFSETTING);
    some(builder, caps, Secondary::ENABLE_RDTSCP | Secondary::ENABLE_INVPCID | Secondary::ENABLE_XSAVES);
    some(builder, caps, Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT | Exit::SAVE_IA32_PAT | Exit::SAVE_IA32_EFER);
}
