//! A trial: a VMCS that is good, and what is then changed in it and in the memory that it refers to.

use frame_allocator::{FrameLayout, PhysAddr, PhysFrames};
use kernel_example::memory::Kernel;
use vmx_structs::{
    VmxCapabilities,
    checks::{EntryContext, Verdict, Violation, check},
    vmcs::{Bits32, Field, FieldWidth, HostState, SecondaryControls, SoftwareVmcs, WritableGroup, control},
};

use alloc::{boxed::Box, vec::Vec};
use core::error::Error;

/// The pages of memory that the VMCSs refer to, by what lies there.
pub mod page {
    pub const IO_A: usize = 0;
    pub const IO_B: usize = 1;
    pub const MSR_BITMAP: usize = 2;
    pub const EXIT_STORE: usize = 3;
    pub const EXIT_LOAD: usize = 4;
    pub const ENTRY_LOAD: usize = 5;
    pub const VIRTUAL_APIC: usize = 6;
    pub const APIC_ACCESS: usize = 7;
    /// Empty: with EPT, the guest's first fetch is a violation.
    pub const EPT: usize = 8;
    pub const EPTP_LIST: usize = 9;
    pub const VMREAD_BITMAP: usize = 10;
    pub const VMWRITE_BITMAP: usize = 11;
    pub const SHADOW: usize = 12;
    pub const VE: usize = 13;
    pub const PML: usize = 14;
    pub const SPP: usize = 15;
    /// Empty: without EPT, the guest's first fetch is a page fault.
    pub const GUEST_CR3: usize = 16;
    pub const COUNT: usize = 17;
}

/// Entries of the MSR areas of the good VMCSs.
pub const MSR_ENTRIES: u32 = 4;
/// An MSR that may be loaded at will: this kernel does not use SYSCALL.
const IA32_LSTAR: u64 = 0xc000_0082;

/// What all trials on a CPU share.
pub struct Setup<'c> {
    pub caps: &'c VmxCapabilities,
    pub host: HostState,
    /// Address of the VMCS region.
    pub current: u64,
    /// Address of the VMXON region.
    pub vmxon: u64,
    pages: PhysFrames<Kernel>,
}

impl<'c> Setup<'c> {
    pub fn new(
        caps: &'c VmxCapabilities,
        current: PhysAddr,
        vmxon: PhysAddr,
    ) -> Result<Self, Box<dyn Error>> {
        // SAFETY: the kernel runs at CPL 0 in 64-bit mode, with a GDT and a TSS of its own for this CPU.
        let mut host = unsafe { HostState::current() };
        (host.pat, host.efer) = (None, None);
        for selector in
            [&mut host.ds_selector, &mut host.es_selector, &mut host.fs_selector, &mut host.gs_selector]
        {
            *selector = 0;
        }
        let pages = PhysFrames::try_alloc(FrameLayout::contiguous(page::COUNT)?)?;
        let (current, vmxon) = (current.as_usize() as u64, vmxon.as_usize() as u64);
        Ok(Self { caps, host, current, vmxon, pages })
    }

    /// Physical address of a page.
    pub fn page(&self, number: usize) -> PhysAddr {
        self.pages.start_paddr() + number * 4096
    }

    /// The pages as they are before a trial: zero, but for the MSR areas and the shadow VMCS.
    pub fn reset(&self) {
        for number in 0..page::COUNT {
            for at in (0..4096).step_by(8) {
                self.poke(number, at, 0);
            }
        }
        for number in [page::EXIT_STORE, page::EXIT_LOAD, page::ENTRY_LOAD] {
            for entry in 0..MSR_ENTRIES as usize {
                self.poke(number, entry * 16, IA32_LSTAR);
            }
        }
        self.poke(page::SHADOW, 0, u64::from(self.caps.basic.revision()) | 1 << 31);
    }

    pub fn poke(&self, number: usize, offset: usize, value: u64) {
        assert!(number < page::COUNT && offset < 4096);
        // SAFETY: the word lies in a frame of `pages`, which is mapped at its own address. Nobody holds a reference into
        // it; the processor reads it during VM entry.
        unsafe {
            core::ptr::with_exposed_provenance_mut::<u64>(self.page(number).as_usize() + offset)
                .write_volatile(value)
        }
    }
}

/// A VMCS on trial.
pub struct Trial<'s> {
    pub vmcs: SoftwareVmcs,
    pub setup: &'s Setup<'s>,
}

impl Trial<'_> {
    pub fn set<W: FieldWidth, G: WritableGroup>(&mut self, field: Field<W, G>, value: W::Value) {
        self.vmcs.set(field, value);
    }

    /// Sets bits.
    pub fn or<G: WritableGroup>(&mut self, field: Field<Bits32, G>, bits: u32) {
        self.vmcs.set(field, self.vmcs.get(field) | bits);
    }

    /// Clears bits.
    pub fn clear<G: WritableGroup>(&mut self, field: Field<Bits32, G>, bits: u32) {
        self.vmcs.set(field, self.vmcs.get(field) & !bits);
    }

    /// Adds secondary controls, and activates them.
    pub fn secondary(&mut self, bits: SecondaryControls) {
        self.or(control::PRIMARY_CONTROLS, 1 << 31);
        self.or(control::SECONDARY_CONTROLS, bits.bits());
    }

    /// Injects an event: type, vector, other bits.
    pub fn inject(&mut self, event_type: u32, vector: u32, more: u32) {
        self.set(control::ENTRY_INTERRUPTION_INFO, 1 << 31 | event_type << 8 | vector | more);
    }

    /// Writes into a page that the VMCS refers to.
    pub fn poke(&mut self, page: usize, offset: usize, value: u64) {
        self.setup.poke(page, offset, value);
    }

    pub fn page(&self, number: usize) -> u64 {
        self.setup.page(number).as_usize() as u64
    }

    /// An EPT pointer that every processor takes.
    pub fn eptp(&self) -> u64 {
        self.page(page::EPT) | 3 << 3 | 6
    }

    /// What the software says: all violations, and the verdict.
    pub fn judge(&self) -> (Vec<Violation>, Verdict) {
        let mut context = EntryContext::new(self.setup.caps);
        context.current_vmcs = Some(self.setup.current);
        context.vmxon_region = Some(self.setup.vmxon);
        context.read_memory = Some(&read_memory);
        let mut found = Vec::new();
        let verdict = check(&self.vmcs, &context, &mut |violation| found.push(violation));
        (found, verdict)
    }
}

/// Memory as the processor sees it; where there is none, all ones.
fn read_memory(address: u64) -> Option<u64> {
    const MEMORY: u64 = 256 << 20;
    if address > MEMORY - 8 {
        return Some(u64::MAX);
    }
    // SAFETY: the emulated machine has this memory, and it is mapped at its own address. Any value is a `u64`; what else
    // uses the word does not matter for a check.
    Some(unsafe { core::ptr::with_exposed_provenance::<u64>(address as usize).read_volatile() })
}
