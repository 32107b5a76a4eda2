//! A virtual machine: every structure that the processor reads, made of frames of the kernel's allocator.
//!
//! The guest's memory, at guest-physical addresses:
//!
//! ```text
//!  0x0000_0000  16 MiB of RAM                      as large pages as the frames allow
//!  0x1000_0000  3 frames of RAM                    4 KiB pages
//!  0x2000_0000  16 MiB that are not there yet      a frame when it is first touched
//!  0x4000_0000  the hypervisor's first gibibyte    one 1 GiB page, read-only, if the guest has a window
//! ```

use alloc::{boxed::Box, format, string::String};
use core::error::Error;

use frame_allocator::{AxError, PhysAddr};
use kernel_example::memory::Kernel;
use vmx_structs::{
    Contents, Ept, EptAttributes, EptConfig, EptFlags, GuestMemory, GuestPhysAddr, GuestRange,
    InveptDescriptor, IoBitmap, MsrAccess, MsrBitmap, PageSize, VmcsRegion, VmxCapabilities, Vpid,
    VpidAllocator,
    instructions::{self, GuestRegisters},
    vmcs::{HostState, PrimaryControls, SecondaryControls, VmcsBuilder, VmcsImage},
};

use crate::guests::{Guest, WINDOW_WORD};

/// Prints a character.
pub const CONSOLE_PORT: u16 = 0xe9;
/// Ends the guest.
pub const POWER_PORT: u16 = 0x604;
/// Harmless: a guest uses it without the hypervisor.
const DELAY_PORT: u16 = 0x80;
/// The VMCS holds the guest's and the host's: a guest may change its own.
const IA32_FS_BASE: u32 = 0xc000_0100;

const RAM: GuestPhysAddr = GuestPhysAddr::new(0);
const SMALL_PAGES: GuestPhysAddr = GuestPhysAddr::new(0x1000_0000);
const ON_DEMAND: GuestPhysAddr = GuestPhysAddr::new(0x2000_0000);
const WINDOW: GuestPhysAddr = GuestPhysAddr::new(0x4000_0000);

static VPIDS: VpidAllocator<1> = VpidAllocator::new();

/// A VM. Call [`Vm::destroy`] in the end: the processor must forget it before its frames are given back.
pub struct Vm {
    memory: GuestMemory<Kernel>,
    ept: Ept<Kernel>,
    // Referred to by the VMCS through their addresses.
    _ports: IoBitmap<Kernel>,
    _msrs: MsrBitmap<Kernel>,
    vpid: Vpid<'static>,
    region: VmcsRegion<Kernel>,
    image: VmcsImage,
    on_demand: GuestRange,
    /// The general-purpose registers.
    pub registers: GuestRegisters,
}

impl Vm {
    /// Builds a VM for a guest. `window` says whether this processor can show it a 1 GiB page.
    pub fn new(caps: &VmxCapabilities, guest: &Guest) -> Result<Self, Box<dyn Error>> {
        let config = EptConfig::new(caps)?;

        let mut memory = GuestMemory::new(&config)?;
        memory.add(GuestRange::new(RAM, 4096)?, Contents::Zeroed)?;
        memory.add(GuestRange::new(SMALL_PAGES, 3)?, Contents::Zeroed)?;
        for (address, bytes) in &guest.memory {
            memory.write(*address, bytes)?;
        }

        let mut ept = Ept::new(config)?;
        ept.map_memory(&memory, EptAttributes::RAM)?;
        let mut registers = GuestRegisters::default();
        if guest.window {
            let read_only = EptAttributes::RAM.with_flags(EptFlags::READ);
            ept.map(WINDOW, PhysAddr::from(0), PageSize::Size1G, read_only)?;
            registers.rdi = 1;
            registers.rsi = WINDOW.as_u64() + (&raw const WINDOW_WORD).addr() as u64;
        }

        // Everything is intercepted but what is known to be harmless.
        let mut ports = IoBitmap::intercept_all().map_err(text)?;
        ports.set_intercept(DELAY_PORT.into(), false)?;
        let mut msrs = MsrBitmap::intercept_all().map_err(text)?;
        msrs.set_intercept(IA32_FS_BASE, MsrAccess::Read, false)?;
        msrs.set_intercept(IA32_FS_BASE, MsrAccess::Write, false)?;

        let vpid = VPIDS.alloc()?;
        let region = VmcsRegion::new(caps.basic)?;
        // SAFETY: the kernel runs at CPL 0 in 64-bit mode, with a GDT and a TSS of its own for this CPU.
        let host = unsafe { HostState::current() };
        let (a, b) = ports.phys_addr();
        let mut builder = VmcsBuilder::new(caps);
        builder
            .want(PrimaryControls::HLT_EXITING)
            .io_bitmaps(a, b)
            .msr_bitmap(msrs.phys_addr())
            .ept(ept.pointer())
            .vpid(vpid.get())
            .guest(&guest.state)
            .host(&host);
        if caps.has_unrestricted_guest() {
            builder.want(SecondaryControls::UNRESTRICTED_GUEST);
        }
        let image = builder.build()?;
        let on_demand = GuestRange::new(ON_DEMAND, 4096)?;
        Ok(Self { memory, ept, _ports: ports, _msrs: msrs, vpid, region, image, on_demand, registers })
    }

    /// What is to be written into its VMCS.
    pub fn image(&self) -> &VmcsImage {
        &self.image
    }

    /// Where its VMCS lies.
    pub fn region(&self) -> PhysAddr {
        self.region.phys_addr()
    }

    /// Its page tables.
    pub fn ept(&self) -> &Ept<Kernel> {
        &self.ept
    }

    /// Frames of guest memory.
    pub fn frames(&self) -> u64 {
        self.memory.frames()
    }

    /// The guest touched an address that is not mapped. Backs it with a frame, if it is one that may be backed, and
    /// returns whether it is.
    pub fn demand(&mut self, address: GuestPhysAddr) -> Result<bool, Box<dyn Error>> {
        if !self.on_demand.contains(address) {
            return Ok(false);
        }
        let page = GuestRange::new(GuestPhysAddr::new(address.as_u64() & !0xfff), 1)?;
        self.memory.add(page, Contents::Zeroed)?;
        // What was not mapped cannot have been cached: no INVEPT.
        self.ept.map_memory_in(&self.memory, page, EptAttributes::RAM)?;
        Ok(true)
    }

    /// Makes this CPU forget what it cached of the VM, and gives its frames back.
    ///
    /// # Safety
    /// This CPU is in VMX root operation, no other CPU ran the VM, and its VMCS is not current any more.
    pub unsafe fn destroy(self, caps: &VmxCapabilities) -> Result<(), Box<dyn Error>> {
        let (kind, descriptor) = (self.ept.config().invept_type(), InveptDescriptor::new(self.ept.pointer()));
        // SAFETY: in VMX root operation by the caller's promise; the processor has EPT, so it has this INVEPT.
        unsafe { instructions::invept(kind, &descriptor)? };
        // SAFETY: as above, for a processor with VPIDs.
        let invvpid = |kind, descriptor: &_| unsafe { instructions::invvpid(kind, descriptor) };
        self.vpid.retire().complete(caps.ept_vpid, invvpid).map_err(|(_, error)| error)?;
        Ok(())
    }
}

/// `AxError` is no `core::error::Error`.
fn text(error: AxError) -> String {
    format!("{error}")
}
