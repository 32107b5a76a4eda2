//! Running a guest: enter it, see why it stopped, do what it asked for, enter it again.

use alloc::{boxed::Box, format, string::String};
use core::error::Error;

use machine::println;
use vmx_structs::{
    GuestPhysAddr,
    instructions::CurrentVmcs,
    vmcs::{ExitReason, IoQualification, VmcsAccess, exit, guest},
};

use crate::{
    guests::SIGNATURE,
    vm::{CONSOLE_PORT, POWER_PORT, Vm},
};

/// The hypervisor's own MSR: the number of the VM. Outside of what the MSR bitmap covers, so it always exits.
const MSR_VM_NUMBER: u32 = 0x4000_0000;

/// What a guest did.
#[derive(Debug, Default)]
pub struct Story {
    /// What it printed.
    pub said: String,
    /// Exits, by what they were for.
    pub port: usize,
    /// CPUID.
    pub cpuid: usize,
    /// RDMSR and WRMSR.
    pub msr: usize,
    /// Memory that was not there yet.
    pub memory: usize,
    /// All of them.
    pub exits: usize,
    /// How it ended.
    pub end: Option<End>,
}

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By HLT.
    Halted,
    /// By the power port.
    PoweredOff,
}

/// Runs the VM, number `number`, until it ends. Prints what it prints, line by line, with `name` in front.
pub fn run(vm: &mut Vm, number: u64, name: &str) -> Result<Story, Box<dyn Error>> {
    // SAFETY: the callers are in VMX root operation with no other VMCS in use. The region is the VM's, which runs
    // nowhere else and outlives the value.
    let mut vmcs = unsafe { CurrentVmcs::load(vm.region())? };
    vm.image().write_to(&mut vmcs)?;

    let mut story = Story::default();
    let mut line = String::new();
    while story.end.is_none() {
        let mut registers = vm.registers;
        // SAFETY: the host's state is this CPU's (`Vm::new` ran on it). The guest is confined: EPT shows it frames of its
        // own (and one page to read), and every port and MSR exits but the two that are harmless.
        let reason = unsafe { vmcs.run(&mut registers)? };
        story.exits += 1;
        let qualification = vmcs.read(exit::EXIT_QUALIFICATION)?;
        let mut skip = true;
        match reason.reason() {
            ExitReason::IoInstruction => {
                story.port += 1;
                let io = IoQualification::from_raw(qualification);
                match (io.port(), io.is_in()) {
                    (CONSOLE_PORT, false) => {
                        let character = char::from(registers.rax as u8);
                        story.said.push(character);
                        if character == '\n' {
                            println!("[{name}] {line}");
                            line.clear();
                        } else {
                            line.push(character);
                        }
                    }
                    (POWER_PORT, false) => story.end = Some(End::PoweredOff),
                    _ => return Err(unexpected(&vmcs, &format!("{io:x?}"))),
                }
            }
            ExitReason::Cpuid => {
                story.cpuid += 1;
                let leaf = registers.rax as u32;
                let word = |at: usize| {
                    u64::from(u32::from_le_bytes(*SIGNATURE[at..].first_chunk().expect("4 bytes")))
                };
                [registers.rax, registers.rbx, registers.rcx, registers.rdx] = match leaf {
                    MSR_VM_NUMBER => [leaf.into(), word(0), word(4), word(8)],
                    _ => [0; 4], // this guest asks for nothing else
                };
            }
            ExitReason::Rdmsr if registers.rcx as u32 == MSR_VM_NUMBER => {
                story.msr += 1;
                (registers.rax, registers.rdx) = (number & 0xffff_ffff, number >> 32);
            }
            ExitReason::EptViolation => {
                story.memory += 1;
                let address = GuestPhysAddr::new(vmcs.read(exit::GUEST_PHYSICAL_ADDRESS)?);
                if !vm.demand(address)? {
                    return Err(unexpected(&vmcs, &format!("no memory at {address}")));
                }
                skip = false; // the instruction runs again
            }
            ExitReason::Hlt => story.end = Some(End::Halted),
            _ => return Err(unexpected(&vmcs, &format!("{reason}, qualification {qualification:#x}"))),
        }
        if skip {
            let next = vmcs.read(guest::RIP)? + u64::from(vmcs.read(exit::EXIT_INSTRUCTION_LENGTH)?);
            vmcs.write(guest::RIP, next)?;
        }
        vm.registers = registers;
    }
    vmcs.unload()?;
    Ok(story)
}

fn unexpected(vmcs: &CurrentVmcs, what: &str) -> Box<dyn Error> {
    format!("the guest stopped at {:#x?}: {what}", vmcs.read(guest::RIP)).into()
}
