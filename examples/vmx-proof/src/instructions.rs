//! The VMX instructions and the ways in which they fail (SDM 30.3, errors of Table 30-1).
//!
//! Where `vmx-structs` has a verdict of its own it is the software's: which EPT pointers INVEPT takes
//! (`EptPointer::check`), which types of INVEPT and INVVPID there are (`EptVpidCap`). For the rest the table says what the SDM says.

use alloc::{format, vec::Vec};
use core::arch::asm;

use frame_allocator::{PhysAddr, PhysFrame};
use kernel_example::memory::Kernel;
use vmx_structs::{
    EptPointer, EptVpidCap, InveptDescriptor, InveptType, InvvpidDescriptor, InvvpidType, VmcsRegion,
    VmxCapabilities, VmxonRegion,
    instructions::{
        CurrentVmcs, GuestRegisters, Launch, enable, enter_guest, invept, invvpid, vmclear, vmptrld, vmptrst,
        vmread, vmwrite, vmxoff, vmxon,
    },
    vmcs::{FieldInfo, Group, VmFail, VmInstructionError as Error, VmcsAccess, exit, guest},
};

use crate::report::{Outcome, Report};

type Answer = Result<(), VmFail>;

const INVALID: Answer = Err(VmFail::Invalid);

const fn error(error: Error) -> Answer {
    Err(VmFail::Valid(error))
}

/// A frame that looks like a region with this first word.
fn region(word: u32) -> Result<PhysFrame<Kernel>, alloc::string::String> {
    let mut frame = PhysFrame::alloc_zero().map_err(|error| format!("{error}"))?;
    frame.as_bytes_mut()[..4].copy_from_slice(&word.to_le_bytes());
    Ok(frame)
}

pub fn compare(report: &mut Report, caps: &VmxCapabilities) -> Outcome {
    let on = VmxonRegion::<Kernel>::new(caps.basic)?;
    let vmcs = VmcsRegion::<Kernel>::new(caps.basic)?;
    // SAFETY: the kernel runs at CPL 0 in 64-bit mode with numeric errors as exceptions. Here and in all that follows, every
    // region is a frame of this function's own, the instructions that succeed are undone before the frames are freed,
    // and no guest is entered.
    unsafe {
        enable(caps)?;
        entering(report, caps, &on)?;
        without_vmcs(report, caps, &on);
        pointers(report, caps, &on, &vmcs)?;
        launching(report, &vmcs)?;
        two_vmcss(report, caps, &vmcs)?;
        invalidations(report, caps, &vmcs)?;
        report.compare("VMXOFF", &Ok(()), &vmxoff());
    }
    report.blind("VMCALL in VMX root operation (error 1) and GETSEC end the emulator: not tried");
    Ok(())
}

/// Addresses that no region can have.
fn bad_addresses(caps: &VmxCapabilities, good: PhysAddr) -> [(&'static str, PhysAddr); 4] {
    let width = u32::from(caps.cpu.physical_width);
    [
        ("not aligned to 4 KiB", good + 8),
        ("aligned to 2 KiB", good + 0x800),
        ("the first beyond the physical-address width", PhysAddr::from(1_usize << width)),
        ("bit 63 set", PhysAddr::from(good.as_usize() | 1 << 63)),
    ]
}

/// # Safety
/// As in `compare`; outside VMX operation, and in it afterwards.
unsafe fn entering(report: &mut Report, caps: &VmxCapabilities, on: &VmxonRegion<Kernel>) -> Outcome {
    // SAFETY: the caller's promise; each of these is refused.
    unsafe {
        for (what, address) in bad_addresses(caps, on.phys_addr()) {
            report.compare(format_args!("VMXON, address {what}"), &INVALID, &vmxon(address));
        }
        let revision = caps.basic.revision();
        for (what, word) in [
            ("0", 0),
            ("one too high", revision + 1),
            ("with bit 31", revision | 1 << 31),
            ("all ones", u32::MAX),
        ] {
            let frame = region(word)?;
            report.compare(format_args!("VMXON, revision {what}"), &INVALID, &vmxon(frame.start_paddr()));
        }
        report.compare("VMXON of a VmxonRegion", &Ok(()), &vmxon(on.phys_addr()));
    }
    Ok(())
}

/// Without a current VMCS there is no place for an error number.
///
/// # Safety
/// As in `compare`, in VMX root operation.
unsafe fn without_vmcs(report: &mut Report, caps: &VmxCapabilities, on: &VmxonRegion<Kernel>) {
    let rip = guest::RIP.encoding();
    let field = |answer: Result<u64, VmFail>| answer.map(drop);
    // SAFETY: the caller's promise; each of these is refused.
    unsafe {
        report.compare("VMPTRST without a current VMCS", &None, &vmptrst());
        report.compare("VMXON without a current VMCS", &INVALID, &vmxon(on.phys_addr()));
        report.compare("VMREAD without a current VMCS", &INVALID, &field(vmread(rip)));
        report.compare("VMWRITE without a current VMCS", &INVALID, &vmwrite(rip, 0));
        report.compare("VMCLEAR of the VMXON region", &INVALID, &vmclear(on.phys_addr()));
        report.compare("VMPTRLD of the VMXON region", &INVALID, &vmptrld(on.phys_addr()));
        for (what, address) in bad_addresses(caps, on.phys_addr()) {
            report.compare(format_args!("VMCLEAR without VMCS, address {what}"), &INVALID, &vmclear(address));
            report.compare(format_args!("VMPTRLD without VMCS, address {what}"), &INVALID, &vmptrld(address));
        }
        for launch in [Launch::Launch, Launch::Resume] {
            let entered = enter_guest(&mut GuestRegisters::default(), launch);
            report.compare(format_args!("VM{launch:?} without a current VMCS"), &INVALID, &entered);
        }
    }
}

/// # Safety
/// As in `compare`, in VMX root operation.
unsafe fn pointers(
    report: &mut Report,
    caps: &VmxCapabilities,
    on: &VmxonRegion<Kernel>,
    vmcs: &VmcsRegion<Kernel>,
) -> Outcome {
    let address = vmcs.phys_addr();
    let revision = caps.basic.revision();
    // SAFETY: the caller's promise; what is loaded here is cleared again.
    unsafe {
        report.compare("VMCLEAR of a VmcsRegion", &Ok(()), &vmclear(address));
        report.compare("VMPTRLD of a VmcsRegion", &Ok(()), &vmptrld(address));
        report.compare("VMPTRST", &Some(address), &vmptrst());
        report.compare("VMXON in root operation", &error(Error::VmxonInRoot), &vmxon(on.phys_addr()));
        for (what, bad) in bad_addresses(caps, address) {
            let (clear, load) = (error(Error::VmclearInvalidAddress), error(Error::VmptrldInvalidAddress));
            report.compare(format_args!("VMCLEAR, address {what}"), &clear, &vmclear(bad));
            report.compare(format_args!("VMPTRLD, address {what}"), &load, &vmptrld(bad));
        }
        let wanted = error(Error::VmclearVmxonPointer);
        report.compare("VMCLEAR of the VMXON region", &wanted, &vmclear(on.phys_addr()));
        let wanted = error(Error::VmptrldVmxonPointer);
        report.compare("VMPTRLD of the VMXON region", &wanted, &vmptrld(on.phys_addr()));
        let wanted = error(Error::VmptrldWrongRevision);
        for (what, word) in [("0", 0), ("one too high", revision + 1), ("all ones", u32::MAX)] {
            let frame = region(word)?;
            report.compare(format_args!("VMPTRLD, revision {what}"), &wanted, &vmptrld(frame.start_paddr()));
        }
        report.compare("VMPTRST after what failed", &Some(address), &vmptrst());

        let shadow = VmcsRegion::<Kernel>::new_shadow(caps.basic)?;
        let wanted = if caps.has_vmcs_shadowing() { Ok(()) } else { wanted };
        report.compare("VMPTRLD of a shadow VMCS", &wanted, &vmptrld(shadow.phys_addr()));
        report.compare("VMCLEAR of a shadow VMCS", &Ok(()), &vmclear(shadow.phys_addr()));
        report.compare("VMCLEAR of the current VMCS", &Ok(()), &vmclear(address));
        report.compare("VMPTRST after VMCLEAR", &None, &vmptrst());
    }
    Ok(())
}

/// # Safety
/// As in `compare`, in VMX root operation.
unsafe fn launching(report: &mut Report, vmcs: &VmcsRegion<Kernel>) -> Outcome {
    // SAFETY: the caller's promise. The VMCS is all zero: no entry succeeds with it.
    unsafe {
        let mut current = CurrentVmcs::load(vmcs.phys_addr())?;
        // Fields of a cleared region are whatever the frame held: zero, but these are written to be sure.
        for info in FieldInfo::ALL.iter().filter(|info| info.encoding.group() == Group::Control) {
            _ = current.write_raw(info.encoding, 0);
        }
        let resumed = enter_guest(&mut GuestRegisters::default(), Launch::Resume);
        report.compare("VMRESUME of what was not launched", &error(Error::VmresumeNotLaunched), &resumed);
        let launched = enter_guest(&mut GuestRegisters::default(), Launch::Launch);
        report.compare("VMLAUNCH of zeroes", &error(Error::EntryInvalidControls), &launched);
        let blocked = error(Error::EntryBlockedByMovSs);
        report.compare("VMLAUNCH behind MOV SS", &blocked, &launch_behind_mov_ss());
        current.unload()?;
    }
    Ok(())
}

/// VMLAUNCH in the shadow of MOV SS, which is looked at before the VMCS is (SDM 26.1).
///
/// # Safety
/// In VMX root operation with a current VMCS whose controls no processor takes.
unsafe fn launch_behind_mov_ss() -> Answer {
    let valid: u8;
    // SAFETY: SS is loaded with what it holds; the launch fails in any case, by the caller's promise.
    unsafe {
        asm!(
            "mov {ss:x}, ss",
            "mov ss, {ss:x}",
            "vmlaunch",
            "setz {valid}",
            ss = out(reg) _,
            valid = out(reg_byte) valid,
            options(nostack),
        );
        if valid == 0 {
            return INVALID;
        }
        let number = vmread(exit::VM_INSTRUCTION_ERROR.encoding())?;
        Err(VmFail::from_number(number as u32))
    }
}

/// Fields stay with their VMCS, whichever is current.
///
/// # Safety
/// As in `compare`, in VMX root operation.
unsafe fn two_vmcss(report: &mut Report, caps: &VmxCapabilities, first: &VmcsRegion<Kernel>) -> Outcome {
    let second = VmcsRegion::<Kernel>::new(caps.basic)?;
    let regions = [first.phys_addr(), second.phys_addr()];
    // SAFETY: the caller's promise; both are cleared in the end.
    unsafe {
        for (value, region) in (1..).zip(regions) {
            vmclear(region)?;
            vmptrld(region)?;
            vmwrite(guest::RIP.encoding(), value)?;
        }
        for (value, region) in (1..).zip(regions) {
            vmptrld(region)?;
            report.compare("a field of one of two VMCSs", &Ok(value), &vmread(guest::RIP.encoding()));
        }
        for region in regions {
            vmclear(region)?;
        }
        vmptrld(regions[0])?;
        report.compare("a field after VMCLEAR", &Ok(1), &vmread(guest::RIP.encoding()));
        vmclear(regions[0])?;
    }
    Ok(())
}

/// Operands of INVEPT and INVVPID.
///
/// # Safety
/// As in `compare`, in VMX root operation.
unsafe fn invalidations(report: &mut Report, caps: &VmxCapabilities, vmcs: &VmcsRegion<Kernel>) -> Outcome {
    use InvvpidType as Type;
    let cap = caps.ept_vpid;
    let refused = error(Error::InvalidInvalidation);
    // SAFETY: the caller's promise; forgetting translations is always sound.
    unsafe {
        let current = CurrentVmcs::load(vmcs.phys_addr())?;
        // Single-context INVEPT takes the pointers that VM entry takes.
        for bits in ept_pointers(caps) {
            let pointer = EptPointer::from_bits(bits);
            let good = cap.contains(EptVpidCap::INVEPT_SINGLE)
                && pointer.check(cap, caps.cpu.physical_width).is_ok();
            let software = if good { Ok(()) } else { refused };
            let processor = invept(InveptType::SingleContext, &InveptDescriptor::new(pointer));
            report.compare(format_args!("INVEPT of the pointer {bits:#x}"), &software, &processor);
        }
        let all = invept(InveptType::AllContexts, &InveptDescriptor::new(EptPointer::from_bits(0)));
        report.compare("INVEPT of all contexts", &Ok(()), &all);
        for (kind, bit, uses_vpid) in [
            (Type::IndividualAddress, EptVpidCap::INVVPID_ADDRESS, true),
            (Type::SingleContext, EptVpidCap::INVVPID_SINGLE, true),
            (Type::AllContexts, EptVpidCap::INVVPID_ALL, false),
            (Type::SingleContextRetainingGlobals, EptVpidCap::INVVPID_SINGLE_RETAINING_GLOBALS, true),
        ] {
            for (vpid, linear) in [(0, 0), (1, 0), (0xffff, 0x1000), (1, 1 << 47), (0, 1 << 63)] {
                let canonical = kind != Type::IndividualAddress || caps.cpu.is_canonical(linear);
                let good = cap.contains(bit) && (!uses_vpid || vpid != 0) && canonical;
                let software = if good { Ok(()) } else { refused };
                let processor = invvpid(kind, &InvvpidDescriptor::for_address(vpid, linear));
                let case = format_args!("INVVPID {kind:?} of VPID {vpid}, address {linear:#x}");
                report.compare(case, &software, &processor);
            }
        }
        current.unload()?;
    }
    Ok(())
}

/// Good and bad EPT pointers: every memory type and walk length, A/D, each reserved bit, the edges of the address.
fn ept_pointers(caps: &VmxCapabilities) -> Vec<u64> {
    const GOOD: u64 = 0x20_0000 | 3 << 3 | 6;
    let width = u32::from(caps.cpu.physical_width);
    let memory_types = (0..8).map(|number| GOOD & !7 | number);
    let walks = (0..8).map(|length| GOOD & !(7 << 3) | length << 3);
    let bits = (6..12).chain([width - 1, width, 51, 52, 63]).map(|bit| GOOD | 1 << bit);
    memory_types.chain(walks).chain(bits).collect()
}
