# What the guest runs: one instruction on trial each, then HLT. Intel syntax, 64-bit mode. Copied into guest memory.

.section .rodata
.code64
.balign 16
.global stubs, stubs_end, stub_in8, stub_in16, stub_in32, stub_out8, stub_out16, stub_out32
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
stubs_end:

.text
