//! The RISC-V machine: `qemu-system-riscv64 -M virt -bios none`, entered in machine mode.

use core::arch::global_asm;

/// First byte of RAM.
pub const RAM: usize = 0x8000_0000;
const UART: *mut u8 = 0x1000_0000 as *mut u8;
const TEST: *mut u32 = 0x10_0000 as *mut u32;

// Floating-point registers may be used: the target's compiler takes them for granted.
global_asm!(
    ".section .text.start, \"ax\"
    .global start
start:
    li t0, 1 << 13                  // mstatus.FS
    csrs mstatus, t0
    la sp, stack_top
    la t0, bss_start
    la t1, bss_end
2:  bgeu t0, t1, 3f
    sd zero, 0(t0)
    addi t0, t0, 8
    j 2b
3:  call {main}",
    main = sym crate::main,
);

/// Writes a byte to the serial line.
pub fn put(byte: u8) {
    // SAFETY: the data register of the 16550, which QEMU never lets wait.
    unsafe { UART.write_volatile(byte) };
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
