//! The world switch: from host to guest by VMLAUNCH or VMRESUME, and back at the VM exit.
//!
//! The processor switches what the VMCS holds (RIP, RSP, RFLAGS, segments, control registers, some MSRs). This code
//! switches the other general-purpose registers, and arranges that the VM exit comes back to where it started:
//!
//! ```text
//!  host                                     guest
//!  ────                                     ─────
//!  push RFLAGS and callee-saved registers
//!  push the address of GuestRegisters
//!  host RSP := RSP, host RIP := label 3
//!  load the guest's registers
//!  VMLAUNCH or VMRESUME ──────────────────► runs
//!    │ failed: flags say why                  │
//!    ▼                                        │ VM exit
//!  label 3: save the guest's registers ◄──────┘
//!  pop callee-saved registers and RFLAGS
//!  return
//! ```
//!
//! Not switched: x87, SSE and AVX state, CR2, DR0-DR3 and DR6, XCR0, and the MSRs that no VMCS field holds (such as
//! IA32_STAR, IA32_LSTAR, IA32_KERNEL_GS_BASE). A hypervisor that lets its guest use them switches them around this, or with
//! the MSR areas. A VM exit clears RFLAGS; here they come back with the interrupt flag as it was.

use core::{arch::global_asm, mem::offset_of};

use super::asm::outcome;
use crate::vmcs::{VmFail, host};

/// The guest's general-purpose registers that no VMCS field holds. (RSP is [`guest::RSP`](crate::vmcs::guest::RSP).)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs, reason = "registers, by their names")]
pub struct GuestRegisters {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rbp: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

/// Which instruction enters the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Launch {
    /// VMLAUNCH: the first entry after VMCLEAR.
    Launch = 0,
    /// VMRESUME: every other.
    Resume = 1,
}

global_asm!(
    // (rdi: *mut GuestRegisters, sil: Launch) -> al: CF, ah: ZF of the instruction that failed; 0 after a VM exit.
    ".text",
    ".p2align 4",
    // Global, because the caller may lie in another object file.
    ".globl vmx_structs_world_switch",
    "vmx_structs_world_switch:",
    "pushfq",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rdi",
    // Where the VM exit is to come back to.
    "mov eax, {host_rsp}",
    "vmwrite rax, rsp",
    "jbe 2f",
    "mov eax, {host_rip}",
    "lea rdx, [rip + 3f]",
    "vmwrite rax, rdx",
    "jbe 2f",
    // MOV leaves the flags alone, so the test survives the loads.
    "test sil, sil",
    "mov rax, [rdi + {rax}]",
    "mov rcx, [rdi + {rcx}]",
    "mov rdx, [rdi + {rdx}]",
    "mov rbx, [rdi + {rbx}]",
    "mov rbp, [rdi + {rbp}]",
    "mov rsi, [rdi + {rsi}]",
    "mov r8, [rdi + {r8}]",
    "mov r9, [rdi + {r9}]",
    "mov r10, [rdi + {r10}]",
    "mov r11, [rdi + {r11}]",
    "mov r12, [rdi + {r12}]",
    "mov r13, [rdi + {r13}]",
    "mov r14, [rdi + {r14}]",
    "mov r15, [rdi + {r15}]",
    "mov rdi, [rdi + {rdi}]",
    "jnz 4f",
    "vmlaunch",
    "jmp 2f",
    "4:",
    "vmresume",
    // A VMX instruction failed: nothing was switched, RSP is still ours.
    "2:",
    "setc al",
    "setz ah",
    "lea rsp, [rsp + 8]",
    "jmp 5f",
    // The VM exit: RSP is ours, the other registers are the guest's.
    "3:",
    "push rdi",
    "mov rdi, [rsp + 8]",
    "mov [rdi + {rax}], rax",
    "mov [rdi + {rcx}], rcx",
    "mov [rdi + {rdx}], rdx",
    "mov [rdi + {rbx}], rbx",
    "mov [rdi + {rbp}], rbp",
    "mov [rdi + {rsi}], rsi",
    "mov [rdi + {r8}], r8",
    "mov [rdi + {r9}], r9",
    "mov [rdi + {r10}], r10",
    "mov [rdi + {r11}], r11",
    "mov [rdi + {r12}], r12",
    "mov [rdi + {r13}], r13",
    "mov [rdi + {r14}], r14",
    "mov [rdi + {r15}], r15",
    "pop qword ptr [rdi + {rdi}]",
    "pop rdi",
    "xor eax, eax",
    "5:",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "popfq",
    "ret",
    host_rsp = const host::RSP.encoding().raw(),
    host_rip = const host::RIP.encoding().raw(),
    rax = const offset_of!(GuestRegisters, rax),
    rcx = const offset_of!(GuestRegisters, rcx),
    rdx = const offset_of!(GuestRegisters, rdx),
    rbx = const offset_of!(GuestRegisters, rbx),
    rbp = const offset_of!(GuestRegisters, rbp),
    rsi = const offset_of!(GuestRegisters, rsi),
    rdi = const offset_of!(GuestRegisters, rdi),
    r8 = const offset_of!(GuestRegisters, r8),
    r9 = const offset_of!(GuestRegisters, r9),
    r10 = const offset_of!(GuestRegisters, r10),
    r11 = const offset_of!(GuestRegisters, r11),
    r12 = const offset_of!(GuestRegisters, r12),
    r13 = const offset_of!(GuestRegisters, r13),
    r14 = const offset_of!(GuestRegisters, r14),
    r15 = const offset_of!(GuestRegisters, r15),
);

unsafe extern "sysv64" {
    fn vmx_structs_world_switch(registers: *mut GuestRegisters, launch: Launch) -> u16;
}

/// Enters the guest of the current VMCS with these registers, and returns when it has exited, with what they hold then.
/// The exit reason is in the VMCS. It also returns `Ok` when the processor refused the guest's state: that is an exit
/// with a reason of its own (see [`ExitReasonField::is_entry_failure`](crate::vmcs::ExitReasonField::is_entry_failure)).
///
/// # Errors
/// VMLAUNCH or VMRESUME failed, and the guest did not run: errors 4, 5, 7, 8, 26, or [`VmFail::Invalid`] without a current
/// VMCS.
///
/// # Safety
/// In VMX root operation, in 64-bit mode at CPL 0. The current VMCS's host state is that of this CPU
/// ([`HostState::current`](crate::vmcs::HostState::current)), but for RSP and RIP, which are set here; its controls
/// and structures confine the guest to memory, ports and MSRs that are its own.
pub unsafe fn enter_guest(registers: &mut GuestRegisters, launch: Launch) -> Result<(), VmFail> {
    // SAFETY: the VM exit comes back behind the entry with the host's state by the caller's promise, and the code restores
    // what the calling convention asks for. The registers are ours for the time of the call.
    unsafe {
        let [invalid, valid] = vmx_structs_world_switch(registers, launch).to_le_bytes();
        outcome(invalid, valid)
    }
}
