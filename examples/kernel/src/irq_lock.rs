//! The lock for everything that needs one: a spin lock that keeps interrupts off while it is held.
//!
//! An interrupt handler that waits for a lock which the interrupted code holds waits for ever. With interrupts off
//! while any lock is held that cannot happen. NMIs cannot be kept off: their handlers must not take a lock at all, so
//! in them only allocators without locks can be used.

use core::sync::atomic::{AtomicBool, Ordering};

use lock_api::{GuardNoSend, RawMutex};
use machine::interrupts;

/// A spin lock that keeps interrupts off while it is held.
pub struct IrqLock {
    locked: AtomicBool,
    /// Whether interrupts were on before; written and read by the holder alone.
    were_on: AtomicBool,
}

/// A value behind an [`IrqLock`].
pub type Mutex<T> = lock_api::Mutex<IrqLock, T>;

// SAFETY: `locked` goes from false to true in one atomic step, so that one holder has it at a time; taking it acquires
// what the last holder released.
unsafe impl RawMutex for IrqLock {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Self { locked: AtomicBool::new(false), were_on: AtomicBool::new(false) };
    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        while !self.try_lock() {
            core::hint::spin_loop();
        }
    }

    fn try_lock(&self) -> bool {
        let were_on = interrupts::are_on();
        interrupts::disable();
        if self.locked.swap(true, Ordering::Acquire) {
            if were_on {
                interrupts::enable();
            }
            return false;
        }
        self.were_on.store(were_on, Ordering::Relaxed);
        true
    }

    unsafe fn unlock(&self) {
        let were_on = self.were_on.load(Ordering::Relaxed);
        self.locked.store(false, Ordering::Release);
        if were_on {
            interrupts::enable();
        }
    }
}
