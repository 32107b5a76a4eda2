//! The serial line: [`print!`](crate::print) and [`println!`](crate::println) for any CPU.
//!
//! One call is one piece of output: a lock, held with interrupts off, keeps the CPUs' lines apart. NMI handlers and
//! the panic handler must not wait for it: the first do not print, the second [breaks](seize) it.

use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{interrupts, port};

const COM1: u16 = 0x3f8;

static LOCKED: AtomicBool = AtomicBool::new(false);

/// Sets COM1 to 115,200 baud, 8N1.
pub(crate) fn init() {
    // Divisor latch on; divisor 1; latch off and 8N1; FIFOs on and cleared; DTR and RTS.
    for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 0xc7), (4, 3)] {
        // SAFETY: the 16550 at COM1 is used by this module alone, and these are its registers.
        unsafe { port::write_u8(COM1 + register, value) };
    }
}

/// Prints to the serial line.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::serial::write(format_args!($($arg)*)) };
}

/// Prints a line to the serial line.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => { $crate::print!("{}\n", format_args!($($arg)*)) };
}

/// What [`print!`](crate::print) calls.
pub fn write(arguments: fmt::Arguments<'_>) {
    interrupts::without(|| {
        while LOCKED.swap(true, Ordering::Acquire) {
            core::hint::spin_loop();
        }
        let _ = Line.write_fmt(arguments);
        LOCKED.store(false, Ordering::Release);
    });
}

/// Prints although another CPU, or this one, may be in the middle of a line: for the last words of a panic.
pub(crate) fn seize(arguments: fmt::Arguments<'_>) {
    for _ in 0..1_000_000 {
        if !LOCKED.swap(true, Ordering::Acquire) {
            break;
        }
        core::hint::spin_loop();
    }
    let _ = Line.write_fmt(arguments);
}

/// Waits until the last byte has left: an emulator that ends at once would swallow what is still in the FIFO.
pub(crate) fn drain() {
    // SAFETY: status register of the 16550 that this module owns.
    while unsafe { port::read_u8(COM1 + 5) } & 0x40 == 0 {}
}

struct Line;

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: status and data register of the 16550 that this module owns.
            unsafe {
                while port::read_u8(COM1 + 5) & 0x20 == 0 {}
                port::write_u8(COM1, byte);
            }
        }
        Ok(())
    }
}
