//! The way into Rust: `boot.s` and the two functions that it calls.
//!
//! Invariants that `boot.s` sets up and everything else relies on: virtual equals physical for the first
//! [`MAPPED_BYTES`]; SSE is on; interrupts are off; each CPU stands on a stack of its own.

use core::{arch::global_asm, ops::Range, sync::atomic::AtomicUsize};

use crate::{cpu, interrupts, multiboot::BootInfo, serial, smp};

const MAPPED_GIB: usize = 32;

/// Bytes of physical memory, from 0 on, that the boot page tables map, each at the virtual address that equals its
/// physical one.
pub const MAPPED_BYTES: usize = MAPPED_GIB << 30;

/// Where the next CPU to be started finds its stack (its highest address).
pub(crate) static AP_STACK: AtomicUsize = AtomicUsize::new(0);

global_asm!(
    include_str!("boot.s"),
    mapped_gib = const MAPPED_GIB,
    stack_size = const cpu::STACK_SIZE,
    areas = sym cpu::AREAS,
    ap_stack = sym AP_STACK,
    first_cpu = sym first_cpu,
    other_cpu = sym smp::other_cpu,
);

unsafe extern "C" {
    static image_start: u8;
    static image_end: u8;
    pub(crate) static ap16: u8;
    pub(crate) static ap16_end: u8;
}

unsafe extern "Rust" {
    /// Defined by [`entry!`](crate::entry).
    safe fn machine_entry(boot: &'static BootInfo);
}

/// The physical addresses of the kernel image, `.bss` with the boot stacks and page tables included.
pub fn image() -> Range<usize> {
    (&raw const image_start).addr()..(&raw const image_end).addr()
}

/// Names the kernel's first function, a `fn(&'static BootInfo)`.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        fn machine_entry(boot: &'static $crate::multiboot::BootInfo) {
            let main: fn(&'static $crate::multiboot::BootInfo) = $main;
            main(boot)
        }
    };
}

extern "C" fn first_cpu(magic: u32, info: u32) -> ! {
    serial::init();
    interrupts::init();
    cpu::init(0);
    // SAFETY: `boot.s` hands over what the loader left in eax and ebx, and nothing has written to memory outside
    // the image since.
    let boot = unsafe { BootInfo::read(magic, info) };
    machine_entry(boot);
    panic!("the kernel's main function returned");
}
