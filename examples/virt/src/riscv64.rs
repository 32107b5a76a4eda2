//! The RISC-V machine: `qemu-system-riscv64 -M virt -bios none`, entered in machine mode by all CPUs (harts) at once. All but
//! the first wait until it is their turn.

use core::{
    arch::{asm, global_asm},
    sync::atomic::{AtomicUsize, Ordering},
};

/// First byte of RAM.
pub const RAM: usize = 0x8000_0000;
const UART: *mut u8 = 0x1000_0000 as *mut u8;
const TEST: *mut u32 = 0x10_0000 as *mut u32;

/// Harts below this number may start. Read before `.bss` is cleared, so it does not lie there.
#[unsafe(link_section = ".data")]
static MAY_START: AtomicUsize = AtomicUsize::new(1);

// Floating-point registers may be used: the target's compiler takes them for granted. Each hart has a stack of 256 KiB.
global_asm!(
    ".section .text.start, \"ax\"
    .global start
start:
    li t0, 1 << 13                  // mstatus.FS
    csrs mstatus, t0
    csrr t1, mhartid
    la sp, stacks_end
    slli t2, t1, 18
    sub sp, sp, t2
    bnez t1, 4f
    la t0, bss_start
    la t1, bss_end
2:  bgeu t0, t1, 3f
    sd zero, 0(t0)
    addi t0, t0, 8
    j 2b
3:  call {first}
4:  la t0, {may_start}
5:  ld t2, 0(t0)
    bgeu t1, t2, 5b
    fence rw, rw
    call {other}",
    first = sym crate::first_cpu,
    other = sym crate::smp::other_cpu,
    may_start = sym MAY_START,
);

/// Writes a byte to the serial line.
pub fn put(byte: u8) {
    // SAFETY: the data register of the 16550, which QEMU never lets wait.
    unsafe { UART.write_volatile(byte) };
}

/// The number of the CPU that runs this.
#[inline]
pub fn index() -> usize {
    let index;
    // SAFETY: reading the register changes nothing; this is machine mode.
    unsafe { asm!("csrr {}, mhartid", out(reg) index, options(nomem, nostack, preserves_flags)) };
    index
}

/// Starts a CPU. They are started one by one.
pub fn start(cpu: usize) {
    MAY_START.store(cpu + 1, Ordering::Release);
}

/// Ends the machine with this status.
pub fn exit(status: usize) -> ! {
    let word = if status == 0 { 0x5555 } else { (status as u32) << 16 | 0x3333 };
    // SAFETY: the test device ends the machine.
    unsafe { TEST.write_volatile(word) };
    loop {
        core::hint::spin_loop();
    }
}
