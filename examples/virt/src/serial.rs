//! The serial line, one CPU at a time.

use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicBool, Ordering},
};

static LOCKED: AtomicBool = AtomicBool::new(false);

struct Line;

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(crate::board::put);
        Ok(())
    }
}

/// Prints a line.
#[macro_export]
macro_rules! println {
    ($($what:tt)*) => { $crate::serial::write(format_args!("{}\n", format_args!($($what)*))) };
}

/// What `println!` calls.
pub fn write(what: fmt::Arguments<'_>) {
    while LOCKED.swap(true, Ordering::Acquire) {
        core::hint::spin_loop();
    }
    let _ = Line.write_fmt(what);
    LOCKED.store(false, Ordering::Release);
}

/// Prints, whoever prints now: for the last words of a panic.
pub fn seize(what: fmt::Arguments<'_>) {
    let _ = Line.write_fmt(what);
}
