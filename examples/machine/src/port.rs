//! I/O ports.

use core::arch::asm;

/// Writes a byte.
///
/// # Safety
/// What the device behind the port does with it must be sound.
pub unsafe fn write_u8(port: u16, value: u8) {
    // SAFETY: `out` touches no memory; its effect on the device is the caller's promise.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) }
}

/// Reads a byte.
///
/// # Safety
/// As [`write_u8`]: reading may change the device.
pub unsafe fn read_u8(port: u16) -> u8 {
    let value: u8;
    // SAFETY: `in` touches no memory; its effect on the device is the caller's promise.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Writes a 32-bit word.
///
/// # Safety
/// As [`write_u8`].
pub unsafe fn write_u32(port: u16, value: u32) {
    // SAFETY: `out` touches no memory; its effect on the device is the caller's promise.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags)) }
}

/// Reads a 32-bit word.
///
/// # Safety
/// As [`read_u8`].
pub unsafe fn read_u32(port: u16) -> u32 {
    let value: u32;
    // SAFETY: `in` touches no memory; its effect on the device is the caller's promise.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Waits for about `count` microseconds: a read of port 0x80 takes about one on a PC.
pub fn pause_us(count: usize) {
    for _ in 0..count {
        // SAFETY: port 0x80 shows power-on self-test codes; reading it does nothing.
        unsafe { read_u8(0x80) };
    }
}
