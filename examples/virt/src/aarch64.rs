//! The Arm machine: `qemu-system-aarch64 -M virt`, entered at EL1 with the MMU off. The firmware (PSCI) starts other CPUs.

use core::arch::{asm, global_asm};

/// First byte of RAM.
pub const RAM: usize = 0x4000_0000;
const UART: *mut u8 = 0x0900_0000 as *mut u8;

// Two blocks of 1 GiB, each at its own address: devices, and RAM as cached memory, without which exclusive accesses, so
// all atomics, promise nothing (Arm ARM B2.9). Floating-point registers may be used: the compiler copies with them. A
// CPU's number is in TPIDR_EL1, and says which of the stacks is its own.
global_asm!(
    ".section .text.start, \"ax\"
    .global start, start_other
start:
    ldr x2, =bss_start
    ldr x3, =bss_end
2:  cmp x2, x3
    b.hs 3f
    str xzr, [x2], #8
    b 2b
3:  mov x0, #0
    ldr x20, ={first}
    b 4f
start_other:                        // the CPU's number in x0
    ldr x20, ={other}
4:  msr tpidr_el1, x0
    ldr x2, =stacks_end
    sub x2, x2, x0, lsl #18         // 256 KiB for each
    mov sp, x2
    mov x0, #(3 << 20)              // CPACR_EL1.FPEN
    msr cpacr_el1, x0
    ldr x0, =0xff00                 // MAIR_EL1: 0 is device memory, 1 is write-back
    msr mair_el1, x0
    ldr x0, =0x100803519            // TCR_EL1: 39 bits by 4 KiB from TTBR0 alone, write-back, inner shareable
    msr tcr_el1, x0
    ldr x0, =level1
    msr ttbr0_el1, x0
    isb
    mrs x0, sctlr_el1
    ldr x1, =0x1005                 // M, C, I
    orr x0, x0, x1
    msr sctlr_el1, x0
    isb
    br x20
    .ltorg
    .balign 4096
level1:
    .quad 0x0060000000000401        // 0: device, never executed
    .quad 0x0000000040000705        // 1 GiB: RAM, write-back, inner shareable
    .fill 510, 8, 0",
    first = sym crate::first_cpu,
    other = sym crate::smp::other_cpu,
);

/// Writes a byte to the serial line.
pub fn put(byte: u8) {
    // SAFETY: the data register of the PL011, which QEMU never lets wait.
    unsafe { UART.write_volatile(byte) };
}

/// The number of the CPU that runs this.
#[inline]
pub fn index() -> usize {
    let index;
    // SAFETY: set before Rust runs, and never changed.
    unsafe { asm!("mrs {}, tpidr_el1", out(reg) index, options(nomem, nostack, preserves_flags)) };
    index
}

/// Starts a CPU (PSCI, CPU_ON).
pub fn start(cpu: usize) {
    unsafe extern "C" {
        static start_other: u8;
    }
    const CPU_ON: usize = 0xc400_0003;
    let answer: isize;
    // SAFETY: the CPU starts at `start_other` with its number in x0, on a stack of its own. The call keeps to the calling
    // convention of functions.
    unsafe {
        asm!(
            "hvc #0",
            inout("x0") CPU_ON => answer,
            in("x1") cpu,
            in("x2") (&raw const start_other).addr(),
            in("x3") cpu,
            clobber_abi("C"),
        );
    }
    assert_eq!(answer, 0, "CPU {cpu} does not start: does the machine have so many?");
}

/// Ends the machine with this status, by a semihosting call.
pub fn exit(status: usize) -> ! {
    const SYS_EXIT: usize = 0x18;
    const APPLICATION_EXIT: usize = 0x2_0026;
    let block = [APPLICATION_EXIT, status];
    // SAFETY: the call reads the block and does not come back.
    unsafe { asm!("hlt #0xf000", in("x0") SYS_EXIT, in("x1") &raw const block, options(noreturn)) }
}
