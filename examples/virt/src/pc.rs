//! What the kernel asks a PC for, as far as this machine can give it: the same names as in `examples/machine`.
//!
//! There are no interrupts. A message to another CPU is a mark, which that CPU finds when it has nothing to do
//! ([`smp`](crate::smp)). The boot loader is the host: it lays the command line into the last frame of memory.

use crate::board::{self, RAM};

/// As much as QEMU is told (`-m 256`). Both machines could read it in a device tree.
const RAM_BYTES: usize = 256 << 20;
/// All memory lies below.
pub const MAPPED_BYTES: usize = RAM + RAM_BYTES;
/// The host writes the command line here; what is behind it is 0.
const COMMAND_LINE: usize = MAPPED_BYTES - FRAME;
const FRAME: usize = 4096;

/// The kernel's image, its stacks included.
pub fn image() -> core::ops::Range<usize> {
    unsafe extern "C" {
        static image_start: u8;
        static image_end: u8;
    }
    (&raw const image_start).addr()..(&raw const image_end).addr()
}

/// What the boot loader tells.
pub mod multiboot {
    use core::{ops::Range, ptr, slice};

    use super::{COMMAND_LINE, FRAME, RAM, RAM_BYTES};

    /// All of it is known beforehand, but for the command line.
    pub struct BootInfo;

    /// A range of memory.
    pub struct MapEntry {
        /// First byte.
        pub base: u64,
        /// Bytes.
        pub len: u64,
    }

    impl MapEntry {
        /// It is.
        pub fn is_usable(&self) -> bool {
            true
        }
    }

    impl BootInfo {
        /// The value of `key=value` on the command line.
        pub fn argument(&self, key: &str) -> Option<&'static str> {
            // SAFETY: RAM, reached at its own address, which the kernel leaves alone (`in_use`).
            let frame: &[u8] =
                unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(COMMAND_LINE), FRAME) };
            let end = frame.iter().position(|&byte| byte == 0).unwrap_or(FRAME);
            let text = core::str::from_utf8(&frame[..end]).unwrap_or_default();
            text.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        }

        /// All RAM.
        pub fn memory_map(&self) -> impl Iterator<Item = MapEntry> + use<> {
            [MapEntry { base: RAM as u64, len: RAM_BYTES as u64 }].into_iter()
        }

        /// There are none.
        pub fn modules(&self) -> impl Iterator<Item = &'static [u8]> + use<> {
            core::iter::empty()
        }

        /// The command line.
        pub fn in_use(&self) -> impl Iterator<Item = Range<usize>> + use<> {
            core::iter::once(COMMAND_LINE..COMMAND_LINE + FRAME)
        }
    }
}

/// Messages from one CPU to another.
pub mod apic {
    use core::sync::atomic::{AtomicU8, Ordering};

    use super::cpu::MAX_CPUS;

    /// The vector of the message that a CPU was sent last; 0 is none.
    static SENT: [AtomicU8; MAX_CPUS] = [const { AtomicU8::new(0) }; MAX_CPUS];

    /// Sends a message. One that was not seen yet is forgotten: the kernel has one kind of them.
    pub fn send(cpu: u8, vector: u8) {
        SENT[usize::from(cpu)].store(vector, Ordering::Release);
    }

    /// Takes a CPU's message.
    pub fn received(cpu: usize) -> Option<u8> {
        let sent = &SENT[cpu];
        (sent.load(Ordering::Relaxed) != 0).then(|| sent.swap(0, Ordering::Acquire))
    }
}

/// No interrupts, but functions for messages.
pub mod interrupts {
    use core::{
        mem, ptr,
        sync::atomic::{AtomicPtr, Ordering},
    };

    static HANDLERS: [AtomicPtr<()>; 256] = [const { AtomicPtr::new(ptr::null_mut()) }; 256];

    /// Calls `handler` for `vector`, on every CPU, from now on.
    pub fn on(vector: u8, handler: fn()) {
        HANDLERS[usize::from(vector)].store(handler as *mut (), Ordering::Release);
    }

    /// Does what a message asks for.
    pub fn handle(vector: u8) {
        let handler = HANDLERS[usize::from(vector)].load(Ordering::Acquire);
        assert!(!handler.is_null(), "nobody is there for message {vector}");
        // SAFETY: only `on` stores here, and it stores a `fn()`.
        let handler: fn() = unsafe { mem::transmute(handler) };
        handler();
    }

    /// They are always off.
    pub fn are_on() -> bool {
        false
    }

    /// Never called: they are never found on.
    pub fn enable() {}

    /// They are off.
    pub fn disable() {}
}

/// Which CPU is this?
pub mod cpu {
    /// The most CPUs that there is room for: stacks in `image.ld`.
    pub const MAX_CPUS: usize = 4;

    /// Counted from 0.
    pub fn index() -> usize {
        crate::board::index()
    }
}

/// The end.
pub mod exit {
    /// With the status of success.
    pub fn success() -> ! {
        super::board::exit(0)
    }

    /// With the status of failure.
    pub fn failure() -> ! {
        super::board::exit(1)
    }
}

/// Waiting.
pub mod port {
    /// Waits for about `count` microseconds.
    pub fn pause_us(count: usize) {
        (0..count * 100).for_each(|_| core::hint::spin_loop());
    }
}
