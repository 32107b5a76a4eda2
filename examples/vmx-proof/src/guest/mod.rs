//! A guest that runs one instruction at a time: in 64-bit mode, with page tables of its own, until it exits.
//!
//! ```text
//! guest-physical                              guest-linear
//! 0x0000            nothing                   0 ..            the first 2 MiB, as they are
//! 0x1000            the stubs (stubs.s)       WINDOW ..       512 pages of 2 MiB, each where a test wants it
//! 0x2000            PML4                      STRUCTURE ..    a page directory where a test wants it
//! 0x3000            PDPT
//! 0x4000, 0x5000    page directories
//! ```

use alloc::boxed::Box;
use core::{arch::global_asm, error::Error, slice};

use frame_allocator::{FrameLayout, PhysAddr, PhysFrames};
use kernel_example::memory::Kernel;
use vmx_structs::{
    EptPointer, VmcsRegion, VmxCapabilities,
    checks::{EntryContext, verdict},
    instructions::{CurrentVmcs, GuestRegisters},
    vmcs::{
        ExitReason, ExitReasonField, GuestState, HostState, PrimaryControls, VmFail, VmcsAccess, VmcsBuilder,
        control, exit, guest,
    },
};

global_asm!(include_str!("stubs.s"));

/// Guest-linear address of 512 pages of 2 MiB that go where [`Low::open_window`] says.
pub const WINDOW: u64 = 0x4000_0000;
/// Guest-linear address of the gibibyte whose page directory is where [`Low::place_structure`] says.
pub const STRUCTURE: u64 = 0x8000_0000;

const STUBS: usize = 0x1000;
const PML4: usize = 0x2000;
const PDPT: usize = 0x3000;
const LOW_DIRECTORY: usize = 0x4000;
const WINDOW_DIRECTORY: usize = 0x5000;
/// Where the stubs lie.
pub const STUB_PAGE: u64 = STUBS as u64;
/// The entries of page tables that the processor reads to fetch a stub, and to reach the first 2 MiB of the window.
pub const FETCH_WALK: [u64; 3] = [PML4 as u64, PDPT as u64, LOW_DIRECTORY as u64];
pub const DATA_WALK: [u64; 3] = [PML4 as u64, PDPT as u64 + 8, WINDOW_DIRECTORY as u64];
/// Frames of low memory.
pub const LOW_FRAMES: usize = 6;

/// Present, writable, accessed: an entry that points to a table.
const TABLE: u64 = 0x23;
/// The same, dirty and large: nothing is left for the processor to set.
pub const LARGE_PAGE: u64 = 0xe3;

macro_rules! stubs {
    ($($variant:ident $symbol:ident;)*) => {
        unsafe extern "C" {
            static stubs: u8;
            static stubs_end: u8;
            $(static $symbol: u8;)*
        }

        /// An instruction that the guest can run; what it takes and gives is in `stubs.s`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Stub {
            $($variant,)*
        }

        impl Stub {
            /// Its guest address.
            pub fn address(self) -> u64 {
                let symbol = match self {
                    $(Self::$variant => &raw const $symbol,)*
                };
                (STUBS + symbol.addr() - (&raw const stubs).addr()) as u64
            }
        }
    };
}

stubs! {
    In8 stub_in8;
    In16 stub_in16;
    In32 stub_in32;
    Out8 stub_out8;
    Out16 stub_out16;
    Out32 stub_out32;
    Rdmsr stub_rdmsr;
    Wrmsr stub_wrmsr;
    Read stub_read;
    Write stub_write;
    Vmread stub_vmread;
    Vmwrite stub_vmwrite;
    Vmfunc stub_vmfunc;
    Touch stub_touch;
    ToCr0 stub_to_cr0;
    ToCr3 stub_to_cr3;
    ToCr4 stub_to_cr4;
    ToCr8 stub_to_cr8;
    FromCr3 stub_from_cr3;
    FromCr8 stub_from_cr8;
    Clts stub_clts;
    Lmsw stub_lmsw;
    LmswMemory stub_lmsw_memory;
    InImmediate stub_in_immediate;
    OutImmediate stub_out_immediate;
    Ins stub_ins;
    RepIns stub_rep_ins;
    Outs stub_outs;
    RepOuts stub_rep_outs;
    Int3 stub_int3;
    Ud2 stub_ud2;
    Int1 stub_int1;
    Divide stub_divide;
    WriteNowhere stub_write_nowhere;
    WriteUnmapped stub_write_unmapped;
}

/// The guest's low memory: stubs and page tables, contiguous frames that go to guest-physical 0.
pub struct Low(PhysFrames<Kernel>);

impl Low {
    pub fn new() -> Result<Self, Box<dyn Error>> {
        let mut frames = PhysFrames::<Kernel>::try_alloc(FrameLayout::contiguous(LOW_FRAMES)?)?;
        frames.fill(0);
        // SAFETY: `stubs.s` lays its code between the two symbols.
        let code = unsafe {
            let start = &raw const stubs;
            slice::from_raw_parts(start, (&raw const stubs_end).addr() - start.addr())
        };
        frames.as_bytes_mut()[STUBS..STUBS + code.len()].copy_from_slice(code);
        let mut low = Self(frames);
        low.set(PML4, 0, PDPT as u64 | TABLE);
        low.set(PDPT, 0, LOW_DIRECTORY as u64 | TABLE);
        low.set(PDPT, 1, WINDOW_DIRECTORY as u64 | TABLE);
        low.set(LOW_DIRECTORY, 0, LARGE_PAGE);
        Ok(low)
    }

    fn set(&mut self, table: usize, index: usize, entry: u64) {
        self.0.as_bytes_mut()[table + index * 8..][..8].copy_from_slice(&entry.to_le_bytes());
    }

    /// Where it lies.
    pub fn host(&self) -> PhysAddr {
        self.0.start_paddr()
    }

    /// Lets 2 MiB of the window go to guest-physical memory. Returns the linear address of `guest`, which is in them.
    pub fn open_window(&mut self, index: usize, guest: u64) -> u64 {
        let within = (1 << 21) - 1;
        self.set(WINDOW_DIRECTORY, index, guest & !within | LARGE_PAGE);
        WINDOW + ((index as u64) << 21) + (guest & within)
    }

    /// Says where, in guest-physical memory, the page directory of [`STRUCTURE`] lies.
    pub fn place_structure(&mut self, guest: u64) {
        self.set(PDPT, 2, guest | TABLE);
    }
}

/// How a run of the guest ended.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    pub reason: ExitReasonField,
    pub qualification: u64,
    pub guest_physical: u64,
    pub linear: u64,
    /// Vector of the exception, if it was one.
    pub exception: Option<u8>,
    pub registers: GuestRegisters,
}

impl Stop {
    /// The instruction on trial went through.
    pub fn is_done(&self) -> bool {
        self.reason.reason() == ExitReason::Hlt
    }
}

/// A virtual machine, ready to run stubs. Call [`end`](Self::end): the processor must forget it before its frames go.
pub struct Vm {
    pub vmcs: CurrentVmcs,
    _region: VmcsRegion<Kernel>,
}

impl Vm {
    /// Builds it with these tables, and with what `more` asks for, and makes it current.
    pub fn new(
        caps: &VmxCapabilities,
        pointer: EptPointer,
        more: impl FnOnce(&mut VmcsBuilder<'_>),
    ) -> Result<Self, Box<dyn Error>> {
        let region = VmcsRegion::<Kernel>::new(caps.basic)?;
        // SAFETY: the kernel runs at CPL 0 in 64-bit mode, with a GDT and a TSS of its own for this CPU.
        let host = unsafe { HostState::current() };
        let mut builder = VmcsBuilder::new(caps);
        builder
            .want(PrimaryControls::HLT_EXITING)
            .set(control::EXCEPTION_BITMAP, u32::MAX)
            .ept(pointer)
            .guest(&GuestState::long_mode(caps, PML4 as u64, STUBS as u64, 0))
            .host(&host);
        more(&mut builder);
        let image = builder.build()?;
        let software = verdict(image.as_vmcs(), &EntryContext::new(caps));
        if !software.enters() {
            return Err(alloc::format!("a VMCS that should be good: {software}").into());
        }
        // SAFETY: in VMX root operation, with no other VMCS of this CPU in use. The region lives as long as the value.
        let mut vmcs = unsafe { CurrentVmcs::load(region.phys_addr())? };
        image.write_to(&mut vmcs)?;
        Ok(Self { vmcs, _region: region })
    }

    /// Runs a stub.
    pub fn run(&mut self, stub: Stub, registers: GuestRegisters) -> Result<Stop, VmFail> {
        self.run_at(stub.address(), registers)
    }

    /// Runs what lies at a linear address.
    pub fn run_at(&mut self, rip: u64, mut registers: GuestRegisters) -> Result<Stop, VmFail> {
        let vmcs = &mut self.vmcs;
        vmcs.write(guest::RIP, rip)?;
        vmcs.write(guest::ACTIVITY_STATE, 0)?;
        vmcs.write(guest::INTERRUPTIBILITY_STATE, 0)?;
        // SAFETY: the host's state is this CPU's (`new` ran on it). The guest reaches frames of its test alone, and ports
        // and MSRs of which the test knows that they do no harm.
        let reason = unsafe { vmcs.run(&mut registers)? };
        let event = vmcs.read(exit::EXIT_INTERRUPTION_INFO)?;
        let exception = (reason.reason() == ExitReason::ExceptionOrNmi).then_some(event as u8);
        Ok(Stop {
            reason,
            qualification: vmcs.read(exit::EXIT_QUALIFICATION)?,
            guest_physical: vmcs.read(exit::GUEST_PHYSICAL_ADDRESS)?,
            linear: vmcs.read(exit::GUEST_LINEAR_ADDRESS)?,
            exception,
            registers,
        })
    }

    /// Makes the processor forget it.
    pub fn end(self) -> Result<(), VmFail> {
        self.vmcs.unload()
    }
}
