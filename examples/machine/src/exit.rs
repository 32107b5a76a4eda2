//! The end: panic, and the status that the emulator leaves with.
//!
//! | | QEMU's `isa-debug-exit` (port 0xf4): status | Bochs (port 0x8900): status |
//! |---|---|---|
//! | [`success`] | 0x10 → 33 | `D`, the debugger's break → 0 |
//! | [`failure`] | 0x11 → 35 | `Shutdown` → 1 |
//!
//! Each emulator ignores the other's port, so both are written.

use core::{
    panic::PanicInfo,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{cpu, interrupts, port, serial};

/// Ends the machine with the status of success.
pub fn success() -> ! {
    end(0x10, b"D")
}

/// Ends the machine with the status of failure.
pub fn failure() -> ! {
    end(0x11, b"Shutdown")
}

fn end(qemu: u8, bochs: &[u8]) -> ! {
    serial::drain();
    // SAFETY: both ports exist to be written by a guest that wants to end.
    unsafe {
        port::write_u8(0xf4, qemu);
        for &byte in bochs {
            port::write_u8(0x8900, byte);
        }
    }
    cpu::halt_forever()
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    static PANICKING: AtomicBool = AtomicBool::new(false);
    interrupts::disable();
    if PANICKING.swap(true, Ordering::AcqRel) {
        cpu::halt_forever(); // another CPU, or the panic message itself: the first one ends the machine
    }
    serial::seize(format_args!("\nPANIC on CPU {}: {info}\n", cpu::index()));
    failure()
}
