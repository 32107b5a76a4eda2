# The programs that the guests run. Intel syntax. Each is copied into guest memory, so it must not care where it lies.
#
# Port 0xe9 prints a character. The hypervisor intercepts it.

.section .rodata

# ---------------------------------------------------------------------- real mode
# cs:0 is the first byte.
.global guest16, guest16_end
.code16
guest16:
    call .Lprint16                      # the return address is the text's
    .asciz "hello from real mode: the 20th Fibonacci number is "

    xor ax, ax                          # Fibonacci numbers: ax, bx = F(n), F(n + 1)
    mov bx, 1
    mov cx, 20
.Lfibonacci:
    add ax, bx
    xchg ax, bx
    loop .Lfibonacci

    mov bx, 10                          # decimal digits, the last one first
    xor cx, cx
.Ldivide16:
    xor dx, dx
    div bx
    push dx
    inc cx
    test ax, ax
    jnz .Ldivide16
.Ldigit16:
    pop ax
    add al, '0'
    out 0xe9, al
    loop .Ldigit16

    mov al, '\n'
    out 0xe9, al
    hlt                                 # the end

.Lprint16:                              # what lies behind the call, up to a zero; goes on behind that
    pop si
.Lcharacter16:
    lods al, byte ptr cs:[si]
    test al, al
    jz .Lprinted16
    out 0xe9, al
    jmp .Lcharacter16
.Lprinted16:
    jmp si
guest16_end:

# ---------------------------------------------------------------------- 64-bit mode
# rdi = 1 if the hypervisor shows this guest some of its own memory, rsi = the address of a word in it.
.global guest64, guest64_end
.code64
.balign 16
guest64:
    mov r12, rdi
    mov r13, rsi

    lea rsi, [rip + .Lhello]
    call .Lprint
    mov ecx, 0x40000000                 # an MSR that no bitmap covers: it always exits
    rdmsr
    mov eax, eax
    call .Lprint_number

    lea rsi, [rip + .Lhypervisor]
    call .Lprint
    mov eax, 0x40000000                 # CPUID always exits
    cpuid
    mov r8d, ebx
    call .Lprint_word
    mov r8d, ecx
    call .Lprint_word
    mov r8d, edx
    call .Lprint_word

    lea rsi, [rip + .Lprimes]
    call .Lprint
    xor r8d, r8d                        # how many
    xor r9d, r9d                        # their sum
    mov ebx, 2
.Lcandidate:
    mov ecx, 2
.Ldivisor:
    mov eax, ecx
    imul eax, ecx
    cmp eax, ebx
    ja .Lprime
    mov eax, ebx
    xor edx, edx
    div ecx
    test edx, edx
    jz .Lnot_prime
    inc ecx
    jmp .Ldivisor
.Lprime:
    inc r8d
    add r9d, ebx
.Lnot_prime:
    inc ebx
    cmp ebx, 1000
    jb .Lcandidate
    mov eax, r8d
    call .Lprint_number
    lea rsi, [rip + .Lsum]
    call .Lprint
    mov eax, r9d
    call .Lprint_number

    lea rsi, [rip + .Lmemory]
    call .Lprint
    mov edi, 0x200000                   # RAM, a 2 MiB page
    call .Lwrite_and_read
    mov edi, 0x10000000                 # 4 KiB pages
    call .Lwrite_and_read
    mov edi, 0x20000000                 # nothing, until it is touched
    call .Lwrite_and_read

    mov ecx, 100                        # a port that is not intercepted
.Lharmless:
    out 0x80, al
    loop .Lharmless

    mov ecx, 0xc0000100                 # FS base, which the guest may change by itself
    mov eax, 0x1234
    xor edx, edx
    wrmsr
    xor eax, eax
    rdmsr
    cmp eax, 0x1234
    lea rsi, [rip + .Lbroken]
    jne .Lfs
    lea rsi, [rip + .Lfine]
.Lfs:
    call .Lprint

    test r12, r12
    jz .Ldone
    lea rsi, [rip + .Lwindow]
    call .Lprint
    mov rax, [r13]
    call .Lprint_number

.Ldone:
    mov al, '\n'
    out 0xe9, al
    mov edx, 0x604                      # as ACPI's power-off is in QEMU's machine
    mov eax, 0x2000
    out dx, ax
    ud2

.Lwrite_and_read:                       # rdi, in words of 8 bytes at both ends of a page, which are zero before
    lea rsi, [rip + .Lbroken]
    mov rax, [rdi]
    or rax, [rdi + 4088]
    jnz .Lprint
    mov [rdi], rdi
    mov rax, rdi
    not rax
    mov [rdi + 4088], rax
    cmp [rdi], rdi
    jne .Lprint
    cmp [rdi + 4088], rax
    jne .Lprint
    lea rsi, [rip + .Lfine]             # falls through

.Lprint:                                # rsi, up to a zero
    lodsb
    test al, al
    jz .Lprinted
    out 0xe9, al
    jmp .Lprint
.Lprinted:
    ret

.Lprint_word:                           # the 4 characters of r8d
    mov esi, 4
.Lcharacter:
    mov eax, r8d
    out 0xe9, al
    shr r8d, 8
    dec esi
    jnz .Lcharacter
    ret

.Lprint_number:                         # rax, in decimal
    mov r10d, 10
    xor r11d, r11d
.Ldivide:
    xor edx, edx
    div r10
    push rdx
    inc r11d
    test rax, rax
    jnz .Ldivide
.Ldigit:
    pop rax
    add al, '0'
    out 0xe9, al
    dec r11d
    jnz .Ldigit
    ret

.Lhello: .asciz "hello from 64-bit mode, this is VM "
.Lhypervisor: .asciz "\nthe hypervisor calls itself "
.Lprimes: .asciz "\nprimes below 1000: "
.Lsum: .asciz ", their sum: "
.Lmemory: .asciz "\nmemory and FS base:"
.Lfine: .asciz " fine"
.Lbroken: .asciz " BROKEN"
.Lwindow: .asciz "\nthe hypervisor's own memory says "
guest64_end:

.text
