//! The bare x86-64 machine under the examples: everything a kernel needs before it can use the toolkit, and
//! nothing of the toolkit itself.
//!
//! Read it in the order in which the machine runs it: `boot.s` (32-bit entry, page tables, long mode) →
//! [`multiboot`] (what the boot loader tells) → [`cpu`] (each CPU's stacks, GDT, TSS) → [`interrupts`] → [`apic`] →
//! [`smp`] (start the other CPUs, run work on all of them) → [`exit`] (end the virtual machine with a status).
//!
//! A kernel names its first function with [`entry!`]; it runs on CPU 0 with interrupts off:
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//! machine::entry!(main);
//! fn main(boot: &'static machine::multiboot::BootInfo) {
//!     machine::println!("hello from {} bytes of command line", boot.command_line().len());
//!     machine::exit::success();
//! }
//! ```
#![no_std]

pub mod apic;
mod boot;
pub mod cpu;
pub mod exit;
pub mod interrupts;
mod memory_functions;
pub mod multiboot;
pub mod nmi_timer;
pub mod port;
pub mod serial;
pub mod smp;

pub use boot::{MAPPED_BYTES, image};
