//! Registers that VMX set-up reads and writes: control registers, MSRs, CPUID, segments.

use core::arch::{asm, x86_64::__cpuid_count};

use crate::vmcs::HostState;

/// RDMSR.
///
/// # Safety
/// At CPL 0; the MSR exists.
pub(super) unsafe fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller's promise; RDMSR of the MSRs used here has no side effect.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// WRMSR.
///
/// # Safety
/// At CPL 0; the MSR exists, takes the value, and the caller answers for what it does.
pub(super) unsafe fn wrmsr(msr: u32, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "wrmsr",
            in("ecx") msr,
            in("eax") value as u32,
            in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags),
        );
    }
}

/// CPUID: EAX, EBX, ECX, EDX.
pub(super) fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    // Every processor with Intel 64 has CPUID. (Newer compilers know that this is safe.)
    #[allow(unused_unsafe)]
    // SAFETY: CPUID has no side effect that a program could see.
    let result = unsafe { __cpuid_count(leaf, subleaf) };
    [result.eax, result.ebx, result.ecx, result.edx]
}

macro_rules! control_registers {
    ($($read:ident $write:ident $register:literal)*) => {$(
        /// Reads the register.
        ///
        /// # Safety
        /// At CPL 0.
        pub(super) unsafe fn $read() -> u64 {
            let value: u64;
            // SAFETY: at CPL 0 by the caller's promise, reading has no effect.
            unsafe {
                asm!(
                    concat!("mov {}, ", $register),
                    out(reg) value,
                    options(nomem, nostack, preserves_flags),
                );
            }
            value
        }

        /// Writes the register.
        ///
        /// # Safety
        /// At CPL 0; the caller answers for the value.
        #[allow(dead_code, reason = "CR3 is only read")]
        pub(super) unsafe fn $write(value: u64) {
            // SAFETY: the caller's promise.
            unsafe { asm!(concat!("mov ", $register, ", {}"), in(reg) value, options(nostack, preserves_flags)) }
        }
    )*};
}

control_registers! {
    cr0 set_cr0 "cr0"
    cr3 set_cr3 "cr3"
    cr4 set_cr4 "cr4"
}

const IA32_SYSENTER_CS: u32 = 0x174;
const IA32_SYSENTER_ESP: u32 = 0x175;
const IA32_SYSENTER_EIP: u32 = 0x176;
const IA32_PAT: u32 = 0x277;
const IA32_EFER: u32 = 0xc000_0080;
const IA32_FS_BASE: u32 = 0xc000_0100;
const IA32_GS_BASE: u32 = 0xc000_0101;

/// What SGDT and SIDT store.
#[repr(C, packed)]
struct TableRegister {
    limit: u16,
    base: u64,
}

macro_rules! selectors {
    ($($name:ident $register:literal)*) => {$(
        fn $name() -> u16 {
            let selector: u16;
            // SAFETY: reading a selector has no effect.
            unsafe {
                asm!(
                    concat!("mov {0:x}, ", $register),
                    out(reg) selector,
                    options(nomem, nostack, preserves_flags),
                );
            }
            selector
        }
    )*};
}

selectors! {
    es "es"
    cs "cs"
    ss "ss"
    ds "ds"
    fs "fs"
    gs "gs"
}

impl HostState {
    /// The state of the running CPU, for VM exits to come back to. RSP and RIP are 0: the world switch sets them.
    ///
    /// VM exits set the limits of GDTR and IDTR to FFFFH and leave LDTR unusable (SDM 27.5.2). A selector's RPL and TI
    /// must be 0 here: null the data segments that are not needed.
    ///
    /// # Safety
    /// At CPL 0 in 64-bit mode. The GDT can be read, and TR holds a 64-bit TSS.
    pub unsafe fn current() -> Self {
        let mut gdtr = TableRegister { limit: 0, base: 0 };
        let mut idtr = TableRegister { limit: 0, base: 0 };
        let tr: u16;
        // SAFETY: the stores write 10 bytes to the locals and a register; at CPL 0 they cannot fault.
        unsafe {
            asm!("sgdt [{}]", in(reg) &mut gdtr, options(nostack, preserves_flags));
            asm!("sidt [{}]", in(reg) &mut idtr, options(nostack, preserves_flags));
            asm!("str {0:x}", out(reg) tr, options(nomem, nostack, preserves_flags));
        }
        // SAFETY: every processor with Intel 64 has these MSRs; CPL 0 is the caller's promise, and so is that the GDT can be
        // read at TR's descriptor.
        unsafe {
            Self {
                cr0: cr0(),
                cr3: cr3(),
                cr4: cr4(),
                rsp: 0,
                rip: 0,
                es_selector: es(),
                cs_selector: cs(),
                ss_selector: ss(),
                ds_selector: ds(),
                fs_selector: fs(),
                gs_selector: gs(),
                tr_selector: tr,
                fs_base: rdmsr(IA32_FS_BASE),
                gs_base: rdmsr(IA32_GS_BASE),
                tr_base: system_segment_base(gdtr.base, tr),
                gdtr_base: gdtr.base,
                idtr_base: idtr.base,
                sysenter_cs: rdmsr(IA32_SYSENTER_CS) as u32,
                sysenter_esp: rdmsr(IA32_SYSENTER_ESP),
                sysenter_eip: rdmsr(IA32_SYSENTER_EIP),
                pat: Some(rdmsr(IA32_PAT)),
                efer: Some(rdmsr(IA32_EFER)),
                perf_global_ctrl: None,
                pkrs: None,
                cet: None,
                long_mode: true,
            }
        }
    }
}

/// The base address in a 16-byte system descriptor (SDM Figure 7-4).
///
/// # Safety
/// 16 bytes can be read at the selector's place in the table.
unsafe fn system_segment_base(table: u64, selector: u16) -> u64 {
    let descriptor = (table + u64::from(selector & !7)) as *const u64;
    // SAFETY: the caller's promise; descriptors may lie unaligned.
    let (low, high) = unsafe { (descriptor.read_unaligned(), descriptor.add(1).read_unaligned()) };
    low >> 16 & 0xff_ffff | low >> 32 & 0xff00_0000 | high << 32
}
