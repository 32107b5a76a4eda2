//! A timer whose signal is an NMI.
//!
//! A CPU that sends itself an NMI takes it at that very instruction, so it never interrupts anything else. The old timer of
//! the PC (8254, channel 0) comes when it comes. Its line goes to input 2 of the I/O APIC, and an input there says
//! what becomes of a signal: here a non-maskable interrupt of one CPU.

use core::ptr;

use crate::{apic, port};

/// The I/O APIC, where every PC has it: one register chooses, another shows what was chosen.
const IO_APIC: usize = 0xfec0_0000;
const DATA: usize = 0x10;
/// Two words of an input: what becomes of it, and whose it is.
const INPUT_2: u32 = 0x10 + 2 * 2;
const MODE_NMI: u32 = 4 << 8;

fn write(register: u32, value: u32) {
    // SAFETY: the I/O APIC answers at this address, which the boot page tables map; what the registers do is this
    // module's business.
    unsafe {
        ptr::with_exposed_provenance_mut::<u32>(IO_APIC).write_volatile(register);
        ptr::with_exposed_provenance_mut::<u32>(IO_APIC + DATA).write_volatile(value);
    }
}

/// Raises one NMI on the CPU that calls this, in `ticks` ticks of some 838 nanoseconds. One CPU at a time may use it.
pub fn set(ticks: u16) {
    write(INPUT_2 + 1, u32::from(apic::id()) << 24);
    write(INPUT_2, MODE_NMI);
    // Channel 0, low byte then high byte, mode 0: the line rises when the count is down, and stays up until the next.
    const COMMAND: u8 = 0b0011_0000;
    for (port, value) in [(0x43, COMMAND), (0x40, ticks as u8), (0x40, (ticks >> 8) as u8)] {
        // SAFETY: the registers of a timer that nothing else uses.
        unsafe { port::write_u8(port, value) };
    }
}
