//! The kernel itself: its memory, its heap, its lock, and a way to count checks. `main.rs` is a program on it, and `examples/hypervisor` another.
#![no_std]

pub mod heap;
pub mod irq_lock;
pub mod memory;
pub mod report;
