//! Interrupts, NMIs and faults.
//!
//! [`on`] names the function for a vector; a fault that nobody named one for is a panic that says where it
//! happened. Handlers run with interrupts off, on a stack of their own (see [`cpu`]), and must not block on anything
//! that the interrupted code may hold.

use core::{
    arch::{asm, global_asm},
    cell::UnsafeCell,
    mem,
    sync::atomic::{AtomicPtr, Ordering},
};

use crate::{apic, cpu, port};

/// The non-maskable interrupt's vector.
pub const NMI: u8 = 2;
/// The vector that [`smp`](crate::smp) wakes an idle CPU with.
pub(crate) const WAKE: u8 = 0x41;
/// The vector that the local APIC gives when an interrupt went away.
pub(crate) const SPURIOUS: u8 = 0xff;

global_asm!(include_str!("interrupts.s"), dispatch = sym dispatch);

unsafe extern "C" {
    static interrupt_entries: u8;
}

/// What lies on the stack when a handler runs, lowest address first.
#[repr(C)]
#[derive(Debug)]
struct Frame {
    registers: [u64; 15],
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// 256 gates of two words each, written once by CPU 0 before any other CPU runs.
struct Table(UnsafeCell<[[u64; 2]; 256]>);

// SAFETY: written by CPU 0 in `init`, before any gate is used and any other CPU started; only read afterwards.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([[0; 2]; 256]));
static HANDLERS: [AtomicPtr<()>; 256] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 256];

/// Fills the table.
pub(crate) fn init() {
    let entries = (&raw const interrupt_entries).addr() as u64;
    for vector in 0..256 {
        let entry = entries + vector as u64 * 16;
        let ist = match vector as u8 {
            NMI => cpu::IST_NMI,
            0..32 => cpu::IST_FAULT,
            _ => cpu::IST_INTERRUPT,
        };
        // SDM Vol. 3, 6.14.1: a 64-bit interrupt gate, present.
        let low = entry & 0xffff
            | u64::from(cpu::SELECTORS[0]) << 16
            | u64::from(ist) << 32
            | 0x8e << 40
            | (entry >> 16 & 0xffff) << 48;
        // SAFETY: no other CPU runs and interrupts are off (see `Table`).
        unsafe { (*TABLE.0.get())[vector] = [low, entry >> 32] };
    }
    // The two old 8259 controllers raise vectors that now belong to faults: mask all of their lines.
    for port in [0x21, 0xa1] {
        // SAFETY: the mask register of a controller that nothing here uses.
        unsafe { port::write_u8(port, 0xff) };
    }
    on(WAKE, || {});
    on(SPURIOUS, || {});
}

/// Makes the table this CPU's.
pub(crate) fn load() {
    #[repr(C, packed)]
    struct Pointer(u16, u64);
    let pointer = Pointer(size_of::<Table>() as u16 - 1, TABLE.0.get().addr() as u64);
    // SAFETY: the table is static and filled.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack, preserves_flags)) };
}

/// Base address of the interrupt table: what a hypervisor writes into its host state.
pub fn table() -> u64 {
    TABLE.0.get().addr() as u64
}

/// Calls `handler` for `vector`, on every CPU, from now on.
pub fn on(vector: u8, handler: fn()) {
    HANDLERS[usize::from(vector)].store(handler as *mut (), Ordering::Release);
}

extern "C" fn dispatch(frame: &Frame) {
    let vector = frame.vector as u8;
    let handler = HANDLERS[usize::from(vector)].load(Ordering::Acquire);
    if handler.is_null() {
        let address: u64;
        // SAFETY: reading CR2 changes nothing.
        unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
        panic!("unexpected interrupt {vector} (cr2 = {address:#x}): {frame:#x?}");
    }
    // SAFETY: only `on` stores here, and it stores a `fn()`.
    let handler: fn() = unsafe { mem::transmute(handler) };
    handler();
    if vector >= 32 && vector != SPURIOUS {
        apic::end_of_interrupt();
    }
}

/// Whether interrupts are on.
#[inline]
pub fn are_on() -> bool {
    let flags: u64;
    // SAFETY: reads the flags through the stack.
    unsafe { asm!("pushfq; pop {}", out(reg) flags, options(preserves_flags)) };
    flags & 1 << 9 != 0
}

/// Turns interrupts on.
#[inline]
pub fn enable() {
    // SAFETY: every vector has a gate; no `nomem`, so that memory accesses stay on their side of it.
    unsafe { asm!("sti", options(nostack)) };
}

/// Turns interrupts off.
#[inline]
pub fn disable() {
    // SAFETY: as in `enable`.
    unsafe { asm!("cli", options(nostack)) };
}

/// Runs `f` with interrupts off.
#[inline]
pub fn without<R>(f: impl FnOnce() -> R) -> R {
    let on = are_on();
    disable();
    let result = f();
    if on {
        enable();
    }
    result
}

/// Waits for an interrupt; they are on when this returns. Call it with interrupts off, so that one which comes
/// between the caller's last look and the wait is not slept through.
pub(crate) fn wait() {
    // SAFETY: `sti` takes effect behind the next instruction.
    unsafe { asm!("sti; hlt", options(nostack)) };
}
