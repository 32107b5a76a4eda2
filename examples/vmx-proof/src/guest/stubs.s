# What the guest runs: one instruction on trial each, then HLT. Intel syntax, 64-bit mode. Copied into guest memory.

.section .rodata
.code64
.balign 16
.global stubs, stubs_end, stub_in8, stub_in16, stub_in32, stub_out8, stub_out16, stub_out32
.global stub_to_cr0, stub_to_cr3, stub_to_cr4, stub_to_cr8, stub_from_cr3, stub_from_cr8, stub_clts, stub_lmsw
.global stub_lmsw_memory, stub_in_immediate, stub_out_immediate, stub_ins, stub_rep_ins, stub_outs, stub_rep_outs
.global stub_int3, stub_ud2, stub_int1, stub_divide, stub_write_nowhere, stub_write_unmapped
.global stub_rdmsr, stub_wrmsr, stub_read, stub_write, stub_vmread, stub_vmwrite, stub_vmfunc, stub_touch

stubs:
stub_in8:                               # port in dx
    in al, dx
    hlt
stub_in16:
    in ax, dx
    hlt
stub_in32:
    in eax, dx
    hlt
stub_out8:
    out dx, al
    hlt
stub_out16:
    out dx, ax
    hlt
stub_out32:
    out dx, eax
    hlt

stub_rdmsr:                             # MSR in ecx
    rdmsr
    hlt
stub_wrmsr:                             # value in edx:eax
    wrmsr
    hlt

stub_read:                              # address in rbx, word in rax
    mov rax, [rbx]
    hlt
stub_write:
    mov [rbx], rax
    hlt

stub_vmread:                            # field in rbx, value in rax; cl = CF, ch = ZF
    vmread rax, rbx
    setc cl
    setz ch
    hlt
stub_vmwrite:
    vmwrite rbx, rax
    setc cl
    setz ch
    hlt

stub_vmfunc:                            # function in eax, EPTP index in ecx; then reads the word at rbx into rdx
    vmfunc
    mov rdx, [rbx]
    hlt

stub_touch:                             # rcx words from rbx on, a page apart, are added to rax and written back + 1
    mov rdx, [rbx]
    add rax, rdx
    inc rdx
    mov [rbx], rdx
    add rbx, 4096
    dec rcx
    jnz stub_touch
    hlt

# Each exits where it stands (decoded.rs).
stub_to_cr0:
    mov cr0, rax
stub_to_cr3:
    mov cr3, r9
stub_to_cr4:
    mov cr4, rbx
stub_to_cr8:
    mov cr8, rax
stub_from_cr3:
    mov rsi, cr3
stub_from_cr8:
    mov r15, cr8
stub_clts:
    clts
stub_lmsw:
    lmsw ax
stub_lmsw_memory:
    lmsw [rsi]
stub_in_immediate:
    in al, 0x81
stub_out_immediate:
    out 0xfe, eax
stub_ins:
    insb
stub_rep_ins:
    rep insd
stub_outs:
    outsb
stub_rep_outs:
    rep outsw
stub_int3:
    int3
stub_ud2:
    ud2
stub_int1:
    .byte 0xf1
stub_divide:
    xor edx, edx
    xor ecx, ecx
    div ecx
stub_write_nowhere:
    mov rbx, 1
    shl rbx, 63
    mov [rbx], rax
stub_write_unmapped:
    mov rbx, 0x7f0000000000
    mov [rbx], rax
    hlt
stubs_end:

.text
