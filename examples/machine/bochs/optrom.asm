; The boot loader for Bochs: an option ROM that the BIOS calls during its start. It asks the BIOS for the memory map,
; lays out a Multiboot 1 information block, reads the kernel's flat image from the first disk, sector by sector, and
; enters it as a Multiboot loader does. (Bochs can put an image into RAM by itself, but of 128 KiB at most.)
;
; nasm -f bin -D COMMAND_LINE="'cpus=4'" -D SECTORS=3000 optrom.asm -o optrom.bin

%define ROM_AT      0xd0000     ; where bochsrc puts this
%define KERNEL_AT   0x100000    ; the image's place; its first bytes are its Multiboot header
%define INFO_AT     0x9000      ; the information block ...
%define MAP_AT      0x9080      ; ... and the memory map, 24 bytes for each entry
%define MAP_END     0x9800

bits 16
org 0
    db 0x55, 0xaa, 4                    ; an option ROM of 4 * 512 bytes; the BIOS calls offset 3
    jmp start
    times 0x1a - ($ - $$) db 0          ; offset 0x18: no PCI or PnP header

start:
    cli
    cld
    xor ax, ax
    mov es, ax

    ; The memory map: int 0x15, eax = 0xe820, until ebx is 0 again.
    xor ebx, ebx
    mov di, MAP_AT
.entry:
    mov dword [es:di], 20               ; Multiboot: bytes of the entry that follow
    add di, 4
    mov eax, 0xe820
    mov edx, 0x534d4150                 ; 'SMAP'
    mov ecx, 20
    int 0x15
    jc .no_more
    add di, 20
    test ebx, ebx
    jz .mapped
    cmp di, MAP_END - 24
    jb .entry
    jmp .mapped
.no_more:
    sub di, 4
.mapped:
    cli

    ; The information block: everything 0 but what the flags name.
    push di
    mov di, INFO_AT
    mov cx, 128
    xor al, al
    rep stosb
    pop di
    mov dword [es:INFO_AT], 1 << 2 | 1 << 6
    mov dword [es:INFO_AT + 16], ROM_AT + command_line
    sub di, MAP_AT
    movzx edi, di
    mov [es:INFO_AT + 44], edi
    mov dword [es:INFO_AT + 48], MAP_AT

    ; Address line 20 on, protected mode.
    in al, 0x92
    or al, 2
    and al, ~1
    out 0x92, al
    o32 lgdt [cs:gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword 0x08:ROM_AT + protected

bits 32
protected:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov esp, INFO_AT

    ; The image: ATA commands "read sector" (0x20), one sector each, by 28-bit number.
    mov edi, KERNEL_AT
    xor ebx, ebx                        ; the sector's number
.sector:
    call wait_for_disk
    mov edx, 0x1f2
    mov al, 1                           ; how many
    out dx, al
    mov eax, ebx
    mov ecx, 3
.number:
    inc edx
    out dx, al                          ; 0x1f3, 0x1f4, 0x1f5: bits 0-23 of the number
    shr eax, 8
    loop .number
    inc edx
    or al, 0xe0                         ; 0x1f6: bits 24-27; the first disk, numbered sectors
    out dx, al
    inc edx
    mov al, 0x20
    out dx, al
    call wait_for_disk
    mov edx, 0x1f0
    mov ecx, 256
    rep insw
    inc ebx
    cmp ebx, SECTORS
    jb .sector

    ; Clear .bss, as the header in front of the image says: load_end at 20, bss_end at 24, entry at 28.
    mov edi, [KERNEL_AT + 20]
    mov ecx, [KERNEL_AT + 24]
    sub ecx, edi
    shr ecx, 2
    xor eax, eax
    rep stosd

    mov eax, 0x2badb002
    mov ebx, INFO_AT
    jmp [KERNEL_AT + 28]

wait_for_disk:                          ; until it is not busy
    mov edx, 0x1f7
.busy:
    in al, dx
    test al, 0x80
    jnz .busy
    ret

align 8
gdt:
    dq 0
    dq 0x00cf9a000000ffff               ; 0x08: 32-bit code
    dq 0x00cf92000000ffff               ; 0x10: data
gdtr:
    dw gdtr - gdt - 1
    dd ROM_AT + gdt

command_line:
    db "kernel ", COMMAND_LINE, 0

    times 4 * 512 - ($ - $$) db 0       ; whoever builds this sets the last byte so that all add up to 0
