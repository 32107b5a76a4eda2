//! What each CPU has of its own: stacks, GDT, TSS, and its number.
//!
//! Interrupts never run on the stack of the code they interrupt: Rust's prebuilt `core` may keep data below the
//! stack pointer (the "red zone"), which a push by the processor would destroy. So every gate names a stack in the
//! TSS (an "IST"): one for interrupts, one for NMIs, one for faults. An NMI in an interrupt handler, or a fault in
//! an NMI handler, finds its own stack empty.

use core::{
    arch::asm,
    cell::UnsafeCell,
    sync::atomic::{AtomicUsize, Ordering},
};

/// The most CPUs that there is room for.
pub const MAX_CPUS: usize = 16;
pub(crate) const STACK_SIZE: usize = 64 << 10;
const INTERRUPT_STACK_SIZE: usize = 16 << 10;

/// Interrupt-stack-table numbers, as gates use them.
pub(crate) const IST_INTERRUPT: u8 = 1;
pub(crate) const IST_NMI: u8 = 2;
pub(crate) const IST_FAULT: u8 = 3;

const CODE: u16 = 0x08;
const DATA: u16 = 0x10;
const TSS: u16 = 0x18;

/// Selectors, in the order code, data, TSS: what a hypervisor writes into its host state.
pub const SELECTORS: [u16; 3] = [CODE, DATA, TSS];

/// The memory of one CPU. The stack comes first: `boot.s` counts on it.
#[repr(C, align(4096))]
pub(crate) struct Area {
    stack: UnsafeCell<[u8; STACK_SIZE]>,
    interrupt_stacks: UnsafeCell<[[u8; INTERRUPT_STACK_SIZE]; 3]>,
    tss: UnsafeCell<TaskState>,
    gdt: UnsafeCell<[u64; 5]>,
    index: AtomicUsize,
}

// SAFETY: the cells are memory of one CPU, which sets them up in `init` and then leaves them to its hardware.
unsafe impl Sync for Area {}

/// All zero: it lies in `.bss` and takes no room in the image.
pub(crate) static AREAS: [Area; MAX_CPUS] = [const {
    Area {
        stack: UnsafeCell::new([0; STACK_SIZE]),
        interrupt_stacks: UnsafeCell::new([[0; INTERRUPT_STACK_SIZE]; 3]),
        tss: UnsafeCell::new(TaskState::ZERO),
        gdt: UnsafeCell::new([0; 5]),
        index: AtomicUsize::new(0),
    }
}; MAX_CPUS];

/// The 64-bit task-state segment: only its stacks are used (SDM Vol. 3, 8.7).
#[repr(C, packed(4))]
struct TaskState {
    reserved: u32,
    privilege_stacks: [u64; 3],
    reserved2: u64,
    interrupt_stacks: [u64; 7],
    reserved3: u64,
    reserved4: u16,
    io_map: u16,
}

impl TaskState {
    const ZERO: Self = Self {
        reserved: 0,
        privilege_stacks: [0; 3],
        reserved2: 0,
        interrupt_stacks: [0; 7],
        reserved3: 0,
        reserved4: 0,
        io_map: 0,
    };
}

const _: () = assert!(size_of::<TaskState>() == 104);

/// Highest address of a CPU's stack.
pub(crate) fn stack_top(index: usize) -> usize {
    AREAS[index].stack.get().addr() + STACK_SIZE
}

/// Loads this CPU's GDT, TSS and IDT, and sets its number.
pub(crate) fn init(index: usize) {
    let area = &AREAS[index];
    area.index.store(index, Ordering::Relaxed);
    let stacks = area.interrupt_stacks.get().addr();
    let tss = area.tss.get();
    // SAFETY: this CPU alone uses its area, and its TSS is not loaded yet.
    unsafe {
        for ist in 0..3 {
            (*tss).interrupt_stacks[ist] = (stacks + (ist + 1) * INTERRUPT_STACK_SIZE) as u64;
        }
        (*tss).io_map = size_of::<TaskState>() as u16;
    }

    // SDM Vol. 3, 3.4.5 (code and data, the same as in `boot.s`) and 8.2.3 (a TSS descriptor takes two entries).
    let base = tss.addr() as u64;
    let limit = size_of::<TaskState>() as u64 - 1;
    let tss_low = limit | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
    let gdt = area.gdt.get();
    // SAFETY: this CPU alone uses its area, and its GDT is not loaded yet.
    unsafe { *gdt = [0, 0x00af_9a00_0000_ffff, 0x00cf_9200_0000_ffff, tss_low, base >> 32] };

    #[repr(C, packed)]
    struct Pointer(u16, u64);
    let pointer = Pointer(size_of::<[u64; 5]>() as u16 - 1, gdt.addr() as u64);
    // SAFETY: the GDT is static and holds, under the selectors in use, the descriptors in use; the TSS is static and
    // not busy.
    unsafe {
        asm!("lgdt [{}]", in(reg) &raw const pointer, options(readonly, nostack, preserves_flags));
        asm!("ltr {:x}", in(reg) TSS, options(nostack, preserves_flags));
    }
    // SAFETY: no code here uses GS for anything but this.
    unsafe { write_msr(IA32_GS_BASE, (&raw const area.index).addr() as u64) };
    crate::interrupts::load();
}

/// The number of the CPU that runs this, counted from 0. Steady while the caller runs: nothing here moves work from
/// one CPU to another.
#[inline]
pub fn index() -> usize {
    let index;
    // SAFETY: from `init` on GS's base is the address of this CPU's number.
    unsafe { asm!("mov {}, gs:[0]", out(reg) index, options(nostack, readonly, preserves_flags)) };
    index
}

/// GDT base, TSS base and GS base of this CPU: what a hypervisor writes into its host state.
pub fn bases() -> [u64; 3] {
    let area = &AREAS[index()];
    [area.gdt.get().addr() as u64, area.tss.get().addr() as u64, (&raw const area.index).addr() as u64]
}

/// Stops this CPU for good.
pub fn halt_forever() -> ! {
    loop {
        // SAFETY: touches nothing.
        unsafe { asm!("cli; hlt", options(nomem, nostack)) };
    }
}

const IA32_GS_BASE: u32 = 0xc000_0101;

/// Writes a model-specific register.
///
/// # Safety
/// The register exists, and what it changes is sound for all code that runs afterwards.
pub unsafe fn write_msr(msr: u32, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(nostack, preserves_flags));
    }
}

/// Reads a model-specific register.
///
/// # Safety
/// The register exists; on a CPU without it this is a general-protection fault.
pub unsafe fn read_msr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller's promise; reading changes nothing.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}
