//! One function for each instruction. (VMLAUNCH and VMRESUME are in `world_switch`.)

use core::arch::asm;

use frame_core::PhysAddr;

use crate::{
    InveptDescriptor, InveptType, InvvpidDescriptor, InvvpidType,
    vmcs::{FieldEncoding, VmFail, exit},
};

/// The flags after a VMX instruction (SDM 30.2): CF for VMfailInvalid, ZF for VMfailValid with a number in the current
/// VMCS.
///
/// # Safety
/// In VMX root operation; with `valid`, there is a current VMCS.
pub(super) unsafe fn outcome(invalid: u8, valid: u8) -> Result<(), VmFail> {
    if invalid != 0 {
        return Err(VmFail::Invalid);
    }
    if valid == 0 {
        return Ok(());
    }
    let number: u64;
    // SAFETY: VMX root operation is the caller's promise. VMfailValid means that there is a current VMCS, and every
    // processor has this field, so VMREAD succeeds; it changes a register and flags, no memory.
    unsafe {
        asm!(
            "vmread {number}, {field}",
            number = out(reg) number,
            field = in(reg) u64::from(exit::VM_INSTRUCTION_ERROR.encoding().raw()),
            options(nostack),
        );
    }
    Err(VmFail::from_number(number as u32))
}

/// An instruction whose operand is a physical address in memory.
macro_rules! with_address {
    ($($(#[$doc:meta])* $name:ident $instruction:literal)*) => {$(
        $(#[$doc])*
        pub unsafe fn $name(region: PhysAddr) -> Result<(), VmFail> {
            let address = region.as_usize() as u64;
            let (invalid, valid): (u8, u8);
            // SAFETY: that the instruction can be executed, and what it does to the memory of the region, is the
            // caller's promise. The operand is a local of 8 bytes; the flags are read in the same block. Memory is
            // clobbered: the processor reads and writes the region.
            unsafe {
                asm!(
                    concat!($instruction, " [{operand}]"),
                    "setc {invalid}",
                    "setz {valid}",
                    operand = in(reg) &address,
                    invalid = out(reg_byte) invalid,
                    valid = out(reg_byte) valid,
                    options(nostack),
                );
                outcome(invalid, valid)
            }
        }
    )*};
}

with_address! {
    /// VMXON: enters VMX operation with this VMXON region. There is no current VMCS then.
    ///
    /// # Errors
    /// [`VmFail::Invalid`] if the address or the region's revision is wrong; error 15 in VMX root operation.
    ///
    /// # Safety
    /// [`enable`](super::enable) succeeded on this CPU. The region stays what it is, and nobody touches it, until
    /// [`vmxoff`].
    vmxon "vmxon"

    /// VMCLEAR: writes what the processor cached of this VMCS back to its region and makes its launch state clear. If it was
    /// current, there is no current VMCS then.
    ///
    /// # Errors
    /// Error 2 for an invalid address, 3 for the VMXON region ([`VmFail::Invalid`] without a current VMCS).
    ///
    /// # Safety
    /// In VMX root operation. The address is that of a VMCS region which is this CPU's to use, and no
    /// [`CurrentVmcs`](super::CurrentVmcs) of it is used any more.
    vmclear "vmclear"

    /// VMPTRLD: makes this VMCS current.
    ///
    /// # Errors
    /// Error 9 for an invalid address, 10 for the VMXON region, 11 for a wrong revision, or a shadow VMCS where there
    /// is no shadowing ([`VmFail::Invalid`] without a current VMCS).
    ///
    /// # Safety
    /// In VMX root operation. The address is that of a VMCS region which is this CPU's to use, active on no other CPU; it
    /// stays what it is, and nobody touches it, until it is cleared. No [`CurrentVmcs`](super::CurrentVmcs) of another
    /// VMCS is used before that one is loaded again.
    vmptrld "vmptrld"
}

/// VMXOFF: leaves VMX operation.
///
/// # Errors
/// Error 23 under dual-monitor treatment.
///
/// # Safety
/// In VMX root operation. Every VMCS that was active on this CPU has been cleared, and none is used any more.
pub unsafe fn vmxoff() -> Result<(), VmFail> {
    let (invalid, valid): (u8, u8);
    // SAFETY: that the instruction can be executed is the caller's promise; it changes flags only. `outcome` reads the
    // VMCS only after a VMfailValid, and then VMX operation was not left.
    unsafe {
        asm!(
            "vmxoff",
            "setc {invalid}",
            "setz {valid}",
            invalid = out(reg_byte) invalid,
            valid = out(reg_byte) valid,
            options(nostack),
        );
        outcome(invalid, valid)
    }
}

/// VMPTRST: the physical address of the current VMCS, if there is one.
///
/// # Safety
/// In VMX root operation.
pub unsafe fn vmptrst() -> Option<PhysAddr> {
    let mut address = 0_u64;
    // SAFETY: VMX root operation is the caller's promise; the instruction writes 8 bytes to the local.
    unsafe { asm!("vmptrst [{operand}]", operand = in(reg) &mut address, options(nostack)) };
    (address != u64::MAX).then(|| PhysAddr::from(address as usize))
}

/// VMREAD of the current VMCS.
///
/// # Errors
/// [`VmFail::Invalid`] without a current VMCS; error 12 for a field that the processor lacks.
///
/// # Safety
/// In VMX root operation.
#[inline]
pub unsafe fn vmread(field: FieldEncoding) -> Result<u64, VmFail> {
    let value: u64;
    let (invalid, valid): (u8, u8);
    // SAFETY: VMX root operation is the caller's promise; the instruction reads the current VMCS into a register, and the
    // flags are read in the same block.
    unsafe {
        asm!(
            "vmread {value}, {field}",
            "setc {invalid}",
            "setz {valid}",
            // A failed VMREAD leaves the register alone, so it starts with a value of ours.
            value = inout(reg) 0_u64 => value,
            field = in(reg) u64::from(field.raw()),
            invalid = out(reg_byte) invalid,
            valid = out(reg_byte) valid,
            options(nostack),
        );
        outcome(invalid, valid)?;
    }
    Ok(value)
}

/// VMWRITE to the current VMCS.
///
/// # Errors
/// [`VmFail::Invalid`] without a current VMCS; error 12 for a field that the processor lacks, 13 for a read-only one.
///
/// # Safety
/// In VMX root operation. What the fields mean takes effect with VM entries and exits; see
/// [`enter_guest`](super::enter_guest).
#[inline]
pub unsafe fn vmwrite(field: FieldEncoding, value: u64) -> Result<(), VmFail> {
    let (invalid, valid): (u8, u8);
    // SAFETY: VMX root operation is the caller's promise; the instruction writes to the current VMCS, which no reference
    // points to, and the flags are read in the same block.
    unsafe {
        asm!(
            "vmwrite {field}, {value}",
            "setc {invalid}",
            "setz {valid}",
            field = in(reg) u64::from(field.raw()),
            value = in(reg) value,
            invalid = out(reg_byte) invalid,
            valid = out(reg_byte) valid,
            options(nostack),
        );
        outcome(invalid, valid)
    }
}

/// INVEPT: forgets what this CPU cached of translations through EPT. Serves
/// [`Invalidation::complete`](crate::Invalidation::complete) on a machine with one CPU; with more, each executes it.
///
/// # Errors
/// Error 28 for a type that the processor lacks (see [`EptVpidCap`](crate::EptVpidCap)) or an EPT pointer that VM entry
/// would refuse.
///
/// # Safety
/// In VMX root operation, on a processor with INVEPT.
pub unsafe fn invept(kind: InveptType, descriptor: &InveptDescriptor) -> Result<(), VmFail> {
    let (invalid, valid): (u8, u8);
    // SAFETY: that the instruction can be executed is the caller's promise; it reads 16 bytes behind the reference. Memory is
    // clobbered, so that writes to EPT entries come before it.
    unsafe {
        asm!(
            "invept {kind}, [{descriptor}]",
            "setc {invalid}",
            "setz {valid}",
            kind = in(reg) kind as u64,
            descriptor = in(reg) descriptor,
            invalid = out(reg_byte) invalid,
            valid = out(reg_byte) valid,
            options(nostack),
        );
        outcome(invalid, valid)
    }
}

/// INVVPID: forgets what this CPU cached of linear translations of VPIDs.
///
/// # Errors
/// Error 28 for a type that the processor lacks (see [`EptVpidCap`](crate::EptVpidCap)), a VPID of 0 where one is needed, or
/// an address that is not canonical.
///
/// # Safety
/// In VMX root operation, on a processor with INVVPID.
pub unsafe fn invvpid(kind: InvvpidType, descriptor: &InvvpidDescriptor) -> Result<(), VmFail> {
    let (invalid, valid): (u8, u8);
    // SAFETY: as in `invept`.
    unsafe {
        asm!(
            "invvpid {kind}, [{descriptor}]",
            "setc {invalid}",
            "setz {valid}",
            kind = in(reg) kind as u64,
            descriptor = in(reg) descriptor,
            invalid = out(reg_byte) invalid,
            valid = out(reg_byte) valid,
            options(nostack),
        );
        outcome(invalid, valid)
    }
}
