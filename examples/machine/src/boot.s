# From the boot loader to Rust. Intel syntax.
#
# The loader (QEMU, GRUB, or the option ROM for Bochs) enters at `boot32` in 32-bit protected mode without paging:
# eax = Multiboot's magic number, ebx = its information block. The other CPUs enter at `ap16` in real mode.
# Both ways meet in `enter_long_mode`.

# ---------------------------------------------------------------------- Multiboot 1 header
.section .multiboot, "a"
.balign 4
multiboot_header:
    .long 0x1badb002                    # magic
    .long 0x00010003                    # modules page-aligned, memory map wanted, addresses below are valid
    .long -(0x1badb002 + 0x00010003)    # checksum
    .long multiboot_header
    .long image_start
    .long image_load_end
    .long image_end
    .long boot32

# ---------------------------------------------------------------------- first CPU, 32 bits
.section .boot, "ax"
.code32
.global boot32
boot32:
    cli
    cld
    mov ebp, eax                        # magic; ebx stays: nothing below changes either

    # One linear map of 2 MiB pages: virtual = physical for the first {mapped_gib} GiB.
    xor ecx, ecx
2:  mov eax, ecx
    shl eax, 21
    or eax, 0x83                        # present, writable, large
    mov dword ptr [page_directories + ecx * 8], eax
    mov eax, ecx
    shr eax, 11                         # address bits from 32 up
    mov dword ptr [page_directories + ecx * 8 + 4], eax
    inc ecx
    cmp ecx, {mapped_gib} * 512
    jb 2b

    mov eax, offset page_directories + 3
    xor ecx, ecx
3:  mov dword ptr [page_pointers + ecx * 8], eax
    add eax, 4096
    inc ecx
    cmp ecx, {mapped_gib}
    jb 3b

    mov eax, offset page_pointers + 3
    mov dword ptr [page_root], eax

    mov esi, offset boot64
    # falls through

# esi = where to go on in 64-bit mode. Needs no stack. Changes eax, ecx, edx.
enter_long_mode:
    mov eax, offset page_root
    mov cr3, eax
    mov eax, cr4
    or eax, 0x620                       # PAE, OSFXSR, OSXMMEXCPT: SSE before any Rust runs
    mov cr4, eax
    mov ecx, 0xc0000080                 # EFER
    rdmsr
    or eax, 0x100                       # LME
    wrmsr
    mov eax, cr0
    and eax, 0x9ffffff3                 # CD, NW, EM, TS off: caches and SSE on
    or eax, 0x80010023                  # PG, WP, NE (VMX wants it), MP, PE
    mov cr0, eax
    lgdt [boot_gdtr]
    .byte 0xea                          # far jump to 0x08:long_mode
    .long long_mode
    .word 0x08

.code64
long_mode:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    xor eax, eax
    mov fs, ax
    mov gs, ax
    mov esi, esi
    jmp rsi

boot64:
    lea rsp, [{areas} + {stack_size}]   # the stack of CPU 0
    mov edi, ebp
    mov esi, ebx
    xor ebp, ebp                        # ends a stack trace
    call {first_cpu}
    ud2

ap64:
    mov rsp, [{ap_stack}]
    xor ebp, ebp
    call {other_cpu}
    ud2

# ---------------------------------------------------------------------- other CPUs, 16 bits
# Copied to a page below 1 MiB; a start-up IPI enters at its first byte with cs = page / 16.
.global ap16, ap16_end
.code16
.balign 4
ap16:
    cli
    jmp 4f
    .balign 4
    .word boot_gdt_end - boot_gdt - 1   # at offset 4: where the GDT lies
    .long boot_gdt
4:  cld
    mov ax, cs
    mov ds, ax
    mov bx, 4
    .byte 0x66                          # 32-bit operand: all of the base address
    lgdt [bx]
    mov eax, cr0
    or eax, 1
    mov cr0, eax
    .byte 0x66, 0xea                    # far jump to 0x18:ap32
    .long ap32
    .word 0x18
ap16_end:

.code32
ap32:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esi, offset ap64
    jmp enter_long_mode

# ---------------------------------------------------------------------- data
.code64
.section .rodata
.balign 8
boot_gdt:                               # 0x08 and 0x10 are the same in each CPU's own GDT
    .quad 0
    .quad 0x00af9a000000ffff            # 0x08: 64-bit code
    .quad 0x00cf92000000ffff            # 0x10: data
    .quad 0x00cf9a000000ffff            # 0x18: 32-bit code
boot_gdt_end:
boot_gdtr:
    .word boot_gdt_end - boot_gdt - 1
    .quad boot_gdt

.section .bss
.balign 4096
page_root: .skip 4096
page_pointers: .skip 4096
page_directories: .skip {mapped_gib} * 4096

.text
