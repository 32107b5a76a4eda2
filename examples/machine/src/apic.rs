//! The local APIC: a timer for each CPU, and messages from one CPU to another (SDM Vol. 3, chapter 11).

use core::ptr;

use crate::interrupts;

const BASE: usize = 0xfee0_0000;
const ID: usize = 0x20;
const END_OF_INTERRUPT: usize = 0xb0;
const SPURIOUS: usize = 0xf0;
const COMMAND_LOW: usize = 0x300;
const COMMAND_HIGH: usize = 0x310;
const TIMER: usize = 0x320;
const TIMER_START: usize = 0x380;
const TIMER_DIVIDE: usize = 0x3e0;

const ENABLED: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const ASSERT: u32 = 1 << 14;
const MODE_FIXED: u32 = 0;
const MODE_NMI: u32 = 4 << 8;
const MODE_INIT: u32 = 5 << 8;
const MODE_STARTUP: u32 = 6 << 8;

fn read(register: usize) -> u32 {
    // SAFETY: the APIC of the CPU that runs this answers at this address, which the boot page tables map.
    unsafe { ptr::with_exposed_provenance::<u32>(BASE + register).read_volatile() }
}

fn write(register: usize, value: u32) {
    // SAFETY: as in `read`; what the registers do is this module's business.
    unsafe { ptr::with_exposed_provenance_mut::<u32>(BASE + register).write_volatile(value) };
}

/// Switches this CPU's APIC on.
pub(crate) fn init() {
    write(SPURIOUS, ENABLED | u32::from(interrupts::SPURIOUS));
}

/// This CPU's APIC number.
pub fn id() -> u8 {
    (read(ID) >> 24) as u8
}

pub(crate) fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

/// Raises `vector` on this CPU, once, in `ticks` ticks of the APIC's clock (its speed is the machine's).
pub fn set_timer(vector: u8, ticks: u32) {
    write(TIMER_DIVIDE, 0b1011); // by 1
    write(TIMER, u32::from(vector));
    write(TIMER_START, ticks);
}

/// Stops this CPU's timer.
pub fn stop_timer() {
    write(TIMER, MASKED);
    write(TIMER_START, 0);
}

/// Raises `vector` on the CPU with this APIC number.
pub fn send(apic_id: u8, vector: u8) {
    command(apic_id, MODE_FIXED | ASSERT | u32::from(vector));
}

/// Raises an NMI on the CPU with this APIC number.
pub fn send_nmi(apic_id: u8) {
    command(apic_id, MODE_NMI | ASSERT);
}

pub(crate) fn send_init(apic_id: u8) {
    command(apic_id, MODE_INIT | ASSERT);
}

/// The CPU starts in real mode at `page << 12`.
pub(crate) fn send_startup(apic_id: u8, page: u8) {
    command(apic_id, MODE_STARTUP | ASSERT | u32::from(page));
}

fn command(apic_id: u8, command: u32) {
    // An interrupt between the two writes could send a message of its own. So could an NMI, which nothing keeps off: it
    // leaves the first word as it was.
    interrupts::without(|| {
        let interrupted = read(COMMAND_HIGH);
        wait_for_delivery();
        write(COMMAND_HIGH, u32::from(apic_id) << 24);
        write(COMMAND_LOW, command);
        wait_for_delivery();
        write(COMMAND_HIGH, interrupted);
    });
}

fn wait_for_delivery() {
    const DELIVERY_PENDING: u32 = 1 << 12;
    while read(COMMAND_LOW) & DELIVERY_PENDING != 0 {
        core::hint::spin_loop();
    }
}
