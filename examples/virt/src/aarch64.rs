//! The Arm machine: `qemu-system-aarch64 -M virt`, entered at EL1 with the MMU off.

use core::arch::{asm, global_asm};

/// First byte of RAM.
pub const RAM: usize = 0x4000_0000;
const UART: *mut u8 = 0x0900_0000 as *mut u8;

// Two blocks of 1 GiB, each at its own address: devices, and RAM as cached memory, without which exclusive accesses, so
// all atomics, promise nothing (Arm ARM B2.9). Floating-point registers may be used: the compiler copies with them.
global_asm!(
    ".section .text.start, \"ax\"
    .global start
start:
    mov x0, #(3 << 20)              // CPACR_EL1.FPEN
    msr cpacr_el1, x0
    ldr x0, =0xff00                 // MAIR_EL1: 0 is device memory, 1 is write-back
    msr mair_el1, x0
    ldr x0, =0x100803519            // TCR_EL1: 39 bits by 4 KiB from TTBR0 alone, write-back, inner shareable
    msr tcr_el1, x0
    adr x0, level1
    msr ttbr0_el1, x0
    isb
    mrs x0, sctlr_el1
    ldr x1, =0x1005                 // M, C, I
    orr x0, x0, x1
    msr sctlr_el1, x0
    isb
    ldr x0, =stack_top
    mov sp, x0
    ldr x0, =bss_start
    ldr x1, =bss_end
2:  cmp x0, x1
    b.hs 3f
    str xzr, [x0], #8
    b 2b
3:  bl {main}
    .ltorg
    .balign 4096
level1:
    .quad 0x0060000000000401        // 0: device, never executed
    .quad 0x0000000040000705        // 1 GiB: RAM, write-back, inner shareable
    .fill 510, 8, 0",
    main = sym crate::main,
);

/// Writes a byte to the serial line.
pub fn put(byte: u8) {
    // SAFETY: the data register of the PL011, which QEMU never lets wait.
    unsafe { UART.write_volatile(byte) };
}

/// Ends the machine with this status, by a semihosting call.
pub fn exit(status: usize) -> ! {
    const SYS_EXIT: usize = 0x18;
    const APPLICATION_EXIT: usize = 0x2_0026;
    let block = [APPLICATION_EXIT, status];
    // SAFETY: the call reads the block and does not come back.
    unsafe { asm!("hlt #0xf000", in("x0") SYS_EXIT, in("x1") &raw const block, options(noreturn)) }
}
