//! The kernel of `examples/kernel`, file by file, on machines that are no x86.
//!
//! Its embedding, its heap, its lock, its allocators and its checks are the same sources. What differs lies under them: here
//! this crate is the `machine` that they know, made of [`board`] (the processor's own: start, serial line, end), [`smp`] and
//! [`pc`] (what a kernel asks a PC for).
#![no_std]
#![no_main]

extern crate alloc;
extern crate self as machine;

#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(target_arch = "riscv64", path = "riscv64.rs")]
mod board;
mod pc;
mod serial;
mod smp;

#[allow(dead_code)] // what only interrupts ask for
#[path = "../../kernel/src/backends.rs"]
mod backends;
#[path = "../../kernel/src/checks/mod.rs"]
mod checks;
#[path = "../../kernel/src/heap.rs"]
mod heap;
#[path = "../../kernel/src/irq_lock.rs"]
mod irq_lock;
#[path = "../../kernel/src/ledger.rs"]
mod ledger;
#[path = "../../kernel/src/look_like.rs"]
mod look_like;
#[allow(dead_code)]
#[path = "../../kernel/src/memory.rs"]
mod memory;
#[path = "../../kernel/src/report.rs"]
mod report;
#[path = "../../kernel/src/run.rs"]
mod run;

use pc::{MAPPED_BYTES, apic, cpu, exit, image, interrupts, multiboot, port};

/// CPU 0, on its stack, with memory as the compiler expects it.
extern "C" fn first_cpu() -> ! {
    run::run(&multiboot::BootInfo);
    panic!("the kernel's main function returned")
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    serial::seize(format_args!("\nPANIC on CPU {}: {info}\n", cpu::index()));
    exit::failure()
}
