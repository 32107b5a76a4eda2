//! The VMX instructions, for x86-64 (feature `instructions`): all the unsafe code that VMX needs.
//!
//! | step | here |
//! |---|---|
//! | learn what the processor can do | [`capabilities`] |
//! | allow VMXON, fix CR0 and CR4 | [`enable`] |
//! | enter VMX operation, leave it | [`vmxon`], [`vmxoff`] |
//! | make a VMCS current | [`CurrentVmcs::load`] |
//! | fill it in | a [`VmcsImage`](crate::vmcs::VmcsImage) through [`VmcsAccess`](crate::vmcs::VmcsAccess) |
//! | run the guest until it exits | [`CurrentVmcs::run`] |
//! | forget cached translations | [`invept`], [`invvpid`] |
//!
//! # Invariants
//! - An instruction and the flags by which it reports stand in one `asm!` block: between two blocks the compiler may
//!   change RFLAGS.
//! - Every function that executes a VMX instruction is unsafe: outside VMX operation, or in real, virtual-8086 or
//!   compatibility mode, they fault with #UD; at CPL 3 with #GP.
//! - What is current is a matter of one CPU: [`CurrentVmcs`] is neither `Send` nor `Sync`.

mod asm;
mod current;
mod enable;
mod registers;
mod world_switch;

pub use asm::{invept, invvpid, vmclear, vmptrld, vmptrst, vmread, vmwrite, vmxoff, vmxon};
pub use current::CurrentVmcs;
pub use enable::{EnableError, capabilities, enable};
pub use world_switch::{GuestRegisters, Launch, enter_guest};
