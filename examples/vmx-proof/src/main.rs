//! Every check that software can make is made by the processor too.
//!
//! `vmx-structs` says in software what a processor with VMX would do: whether it takes a VMCS, which ports and MSRs
//! exit, what becomes of an access through EPT. This kernel asks the processor, case by case, and compares the two. See
//! README.md for the groups and how to add a case.
//!
//! All CPUs work at the same time: each goes through the groups in which they could disturb each other, and the other groups
//! are dealt out among them. The command line says how many CPUs there are: `cpus=4`.
#![no_std]
#![no_main]

extern crate alloc;

mod decoded;
mod ept;
mod features;
mod fields;
mod guest;
mod instructions;
mod msrs;
mod ports;
mod random;
mod report;
mod vmcs;
mod vmx;

use frame_allocator::FrameAllocator;
use kernel_example::{heap, memory};
use machine::{multiboot::BootInfo, println, smp};
use vmx_structs::{CpuModel, VmxCapabilities, instructions::capabilities};

machine::entry!(main);

fn main(boot: &'static BootInfo) {
    let cpus = boot.argument("cpus").map_or(1, |text| text.parse().expect("a number of CPUs"));
    memory::init(boot, cpus);
    smp::start(cpus);
    // SAFETY: the kernel runs at CPL 0.
    let caps = unsafe { capabilities() }.expect("a processor with VMX");
    println!("{cpus} CPUs, {} free frames", memory::FRAMES.stats().free_frames);
    let model = boot.argument("model").unwrap_or_default();
    smp::on_all_cpus(&|cpu| {
        report::group(cpu, "capabilities", |report| compare_capabilities(report, model));
        prove(cpu, &caps);
        memory::FRAMES.drain_local();
    });
    report::group(0, "frames given back", |report| {
        report.compare(
            "frames in use, but for the heap's",
            &heap::frames(),
            &memory::FRAMES.stats().used_frames(),
        );
        Ok(())
    });
    report::finish()
}

/// The capability MSRs of each CPU, beside those that are written down for its model.
fn compare_capabilities(report: &mut report::Report, model: &str) -> report::Outcome {
    let software = CpuModel::ALL.iter().find(|known| known.id() == model).map(|known| known.capabilities());
    // SAFETY: the kernel runs at CPL 0.
    let processor = unsafe { capabilities() };
    report.compare(format_args!("the model {model}"), &software, &processor);
    Ok(())
}

/// What each CPU does: all of that in which several CPUs could disturb each other, and its share of the rest.
fn prove(cpu: usize, caps: &VmxCapabilities) {
    report::group(cpu, "instructions", |report| instructions::compare(report, caps));
    let operation = match vmx::VmxOperation::enter(caps) {
        Ok(operation) => operation,
        Err(error) => return report::group(cpu, "VMXON", |_| Err(error)),
    };
    report::group(cpu, "VM entry", |report| vmcs::compare(report, caps, &operation));
    report::group(cpu, "exits, decoded", |report| decoded::compare(report, caps));
    report::group(cpu, "EPT, all levels", |report| ept::compare_together(report, caps));
    report::group(cpu, "EPT, guest's tables", |report| ept::compare_structures(report, caps));
    report::group(cpu, "demand paging", |report| features::compare_demand(report, caps));
    report::group(cpu, "EPT, edits", |report| features::compare_edits(report, caps));
    report::group(cpu, "accessed and dirty", |report| features::compare_dirty(report, caps));
    report::group(cpu, "dirty logging", |report| features::compare_log(report, caps));
    report::group(cpu, "EPTP switching", |report| features::compare_switching(report, caps));
    report::group(cpu, "sub-page writes", |report| features::compare_spp(report, caps));
    report::group(cpu, "MSR areas", |report| features::compare_msr_areas(report, caps));
    // The rest is long, and made once: on a machine with several CPUs each of them gets a share, at the same time.
    let mine = |number: usize| number % smp::cpus() == cpu;
    // The emulator knows which fields there are on its first CPU alone: the others take every encoding.
    if mine(0) {
        report::group(cpu, "VMCS fields", |report| fields::compare(report, caps));
        report::group(cpu, "shadow VMCS", |report| features::compare_shadow(report, caps));
    }
    if mine(1) {
        report::group(cpu, "VM entry, two faults", |report| vmcs::compare_pairs(report, caps, &operation));
        report::group(cpu, "I/O bitmaps", |report| ports::compare(report, caps));
    }
    if mine(2) {
        report::group(cpu, "EPT entries", |report| ept::compare_entries(report, caps));
    }
    if mine(3) {
        report::group(cpu, "VM entry, random", |report| vmcs::compare_random(report, caps, &operation));
        report::group(cpu, "MSR bitmap", |report| msrs::compare(report, caps));
        report::group(cpu, "virtualization exceptions", |report| ept::compare_exceptions(report, caps));
    }
    operation.leave();
}
