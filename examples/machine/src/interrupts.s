# The 256 entries of the interrupt table, 16 bytes apart. Intel syntax.
#
# Each brings the stack to one shape (see `Frame` in interrupts.rs): an error code, which the processor pushes for
# some faults only, then the vector.
.balign 16
interrupt_entries:
.set vector, 0
.rept 256
    .balign 16
    .if (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21)
    .else
    push 0
    .endif
    push vector
    jmp interrupt_common
    .set vector, vector + 1
.endr

interrupt_common:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    mov rdi, rsp
    mov rbp, rsp
    sub rsp, 512                        # the interrupted code's SSE registers
    and rsp, -16
    fxsave64 [rsp]
    cld
    call {dispatch}
    fxrstor64 [rsp]
    mov rsp, rbp
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq
