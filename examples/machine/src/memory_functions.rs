//! What compiled Rust expects from a C library, and the two stubs that the prebuilt `core` asks for.
//!
//! In assembly, so that the compiler cannot turn a copying loop into a call of itself.

use core::arch::global_asm;

global_asm!(
    ".global memcpy, memmove, memset, memcmp, bcmp, strlen, rust_eh_personality, _Unwind_Resume",
    // (rdi = to, rsi = from, rdx = bytes) -> rax = to
    "memmove:",
    "    mov rax, rdi",
    "    sub rax, rsi",
    "    cmp rax, rdx", // unsigned: true only if `to` lies inside the source
    "    jae memcpy",
    "    mov rax, rdi",
    "    mov rcx, rdx",
    "    lea rdi, [rdi + rdx - 1]",
    "    lea rsi, [rsi + rdx - 1]",
    "    std",
    "    rep movsb",
    "    cld",
    "    ret",
    "memcpy:",
    "    mov rax, rdi",
    "    mov rcx, rdx",
    "    shr rcx, 3",
    "    rep movsq",
    "    mov ecx, edx",
    "    and ecx, 7",
    "    rep movsb",
    "    ret",
    // (rdi = to, sil = byte, rdx = bytes) -> rax = to
    "memset:",
    "    mov r8, rdi",
    "    movzx eax, sil",
    "    mov rcx, 0x0101010101010101",
    "    imul rax, rcx",
    "    mov rcx, rdx",
    "    shr rcx, 3",
    "    rep stosq",
    "    mov ecx, edx",
    "    and ecx, 7",
    "    rep stosb",
    "    mov rax, r8",
    "    ret",
    // (rdi, rsi, rdx = bytes) -> eax: difference of the first bytes that differ
    "memcmp:",
    "bcmp:",
    "    xor eax, eax",
    "    mov rcx, rdx",
    "    test rcx, rcx", // `repe` with a count of 0 leaves the flags as they are
    "    jz 2f",
    "    repe cmpsb",
    "    movzx eax, byte ptr [rdi - 1]",
    "    movzx ecx, byte ptr [rsi - 1]",
    "    sub ecx, eax",
    "    mov eax, ecx",
    "2:  ret",
    // (rdi = text) -> rax = bytes before the first zero
    "strlen:",
    "    mov rdx, rdi",
    "    xor eax, eax",
    "    mov rcx, -1",
    "    repne scasb",
    "    lea rax, [rdi - 1]",
    "    sub rax, rdx",
    "    ret",
    // `core` was built for unwinding; with panic = "abort" neither is ever called.
    "rust_eh_personality:",
    "_Unwind_Resume:",
    "    ud2",
);
