//! A small hypervisor on the example kernel.
//!
//! Every CPU enters VMX operation and runs two guests of its own, at the same time as the others: one in real mode, one
//! in 64-bit mode. [`vm`] builds a VM, all of it from frames of the kernel's allocator; [`exits`] runs it; [`guests`] is
//! what runs in it. The command line says how many CPUs there are: `cpus=4`.
#![no_std]
#![no_main]

extern crate alloc;

mod exits;
mod guests;
mod vm;
mod vmx;

use alloc::{boxed::Box, format, vec::Vec};
use core::error::Error;

use exits::{End, Story};
use frame_allocator::{AllocError, FrameAllocator, FrameLayout, PhysFrames};
use guests::Guest;
use kernel_example::{
    check, check_eq, heap,
    memory::{self, Kernel},
    report,
};
use machine::{multiboot::BootInfo, println, smp};
use vm::Vm;
use vmx::VmxOperation;
use vmx_structs::{
    EptConfig, PageSize, VmxCapabilities,
    checks::{self, EntryContext},
    instructions,
};

machine::entry!(main);

fn main(boot: &'static BootInfo) {
    let cpus = boot.argument("cpus").map_or(1, |text| text.parse().expect("a number of CPUs"));
    memory::init(boot, cpus);
    smp::start(cpus);
    println!("{cpus} CPUs run, {} frames are free", memory::FRAMES.stats().free_frames);

    leave_dirty().expect("free memory");

    // SAFETY: the kernel runs at CPL 0.
    let caps = unsafe { instructions::capabilities() }.expect("a processor with VMX");
    describe(&caps);

    smp::on_all_cpus(&|cpu| {
        let result = run_guests(cpu, &caps);
        check!(result.is_ok(), "CPU {cpu}: {result:?}");
        memory::FRAMES.drain_local();
    });
    check_eq!(memory::FRAMES.stats().used_frames(), heap::frames(), "frames in use after all VMs are gone");
    report::finish("hypervisor")
}

/// Fills memory with ones and gives it back, as it is found on a machine that has run for a while: no table and no guest
/// may count on zeroes that it did not write.
fn leave_dirty() -> Result<(), AllocError> {
    let mut runs = Vec::new();
    for _ in 0..16 {
        let mut run = PhysFrames::<Kernel>::try_alloc(FrameLayout::HUGE_2M)?;
        run.fill(0xff);
        runs.push(run);
    }
    Ok(())
}

fn describe(caps: &VmxCapabilities) {
    println!(
        "VMX: revision {:#x}, EPT {}, VPID {}, unrestricted guest {}",
        caps.basic.revision(),
        caps.has_ept(),
        caps.has_vpid(),
        caps.has_unrestricted_guest()
    );
}

/// What one CPU does.
fn run_guests(cpu: usize, caps: &VmxCapabilities) -> Result<(), Box<dyn Error>> {
    let operation = VmxOperation::enter(caps)?;
    if caps.has_unrestricted_guest() {
        let guest = guests::real_mode(caps);
        let story = run(cpu, caps, &guest)?;
        check_eq!(story.end, Some(End::Halted), "the end");
        check_eq!(story.exits, guest.says.len() + 1, "exits: one for each character, and HLT");
    }

    let window = EptConfig::new(caps)?.supports(PageSize::Size1G);
    let guest = guests::long_mode(caps, cpu as u64 + 1, window);
    let story = run(cpu, caps, &guest)?;
    check_eq!(story.end, Some(End::PoweredOff), "the end");
    check_eq!(story.port, guest.says.len() + 1, "exits for ports: the console and the power port alone");
    check_eq!((story.cpuid, story.msr), (1, 1), "exits for CPUID, and for the one MSR that is intercepted");
    check_eq!(story.memory, 1, "exits for memory that was not there yet");
    check_eq!(story.exits, story.port + 3, "exits in all");
    operation.leave()
}

/// Builds a VM, runs the guest in it, and gives everything back.
fn run(cpu: usize, caps: &VmxCapabilities, guest: &Guest) -> Result<Story, Box<dyn Error>> {
    let name = format!("CPU {cpu}, {}", guest.name);
    let mut vm = Vm::new(caps, guest)?;
    let leaves = |size| vm.ept().leaves().filter(|leaf| leaf.size() == size).count();
    println!(
        "[{name}] {} frames of memory in {} + {} + {} pages of 4 KiB, 2 MiB and 1 GiB, {} frames of tables",
        vm.frames(),
        leaves(PageSize::Size4K),
        leaves(PageSize::Size2M),
        leaves(PageSize::Size1G),
        vm.ept().table_frames()
    );
    let verdict = checks::verdict(vm.image().as_vmcs(), &EntryContext::new(caps));
    check!(verdict.enters(), "[{name}] VM entry, by the checks in software: {verdict}");

    let story = exits::run(&mut vm, cpu as u64 + 1, &name)?;
    check_eq!(story.said, guest.says, "[{name}] what the guest said");
    println!("[{name}] {:?} after {} exits", story.end, story.exits);
    // SAFETY: this CPU alone ran the VM, is in VMX root operation, and the VMCS was unloaded.
    unsafe { vm.destroy(caps)? };
    Ok(story)
}
