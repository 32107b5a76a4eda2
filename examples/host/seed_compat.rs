//! Code that was written for x86_vcpu's frames, on this toolkit: the imports changed, the code did not.
//!
//! `cargo run -p host-examples --example seed_compat`

// What stood here before:
// use axerrno::AxResult;
// use axvcpu::AxVCpuHal;
// use axaddrspace::{HostPhysAddr, HostVirtAddr};
// use crate::frame::PhysFrame;
use frame_allocator::compat::{AxResult, AxVCpuHal, HostPhysAddr, HostVirtAddr, PhysFrame};
use vmx_structs::VmxRegion;

/// A virtual CPU's own memory, generic over the HAL, unchanged.
struct VCpu<H: AxVCpuHal> {
    vmcs: VmxRegion<H>,
    stack: PhysFrame<H>,
}

impl<H: AxVCpuHal> VCpu<H> {
    fn new(revision_id: u32) -> AxResult<Self> {
        Ok(Self { vmcs: VmxRegion::new(revision_id, false)?, stack: PhysFrame::alloc_zero()? })
    }

    fn host_stack_top(&self) -> HostPhysAddr {
        self.stack.start_paddr() + 4096
    }
}

/// The HAL of a system that brings its own allocator: here the simplest there is, two frames handed out in turn.
struct Hal;

/// Which of the frames of `pool` are taken, one bit each.
static TAKEN: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

fn pool() -> HostPhysAddr {
    static POOL: std::sync::OnceLock<HostPhysAddr> = std::sync::OnceLock::new();
    *POOL.get_or_init(|| host_examples::ram(2).start())
}

// SAFETY: `unsafe`, here and before `dealloc_frame`, is what the seed's implementation gains. The frames of the pool are memory of this
// process, an address is a pointer here, and `TAKEN` gives each frame to one owner at a time.
unsafe impl AxVCpuHal for Hal {
    fn alloc_frame() -> Option<HostPhysAddr> {
        use std::sync::atomic::Ordering;
        (0..2)
            .find(|bit| TAKEN.fetch_or(1 << bit, Ordering::AcqRel) & (1 << bit) == 0)
            .map(|bit| pool() + bit * 4096)
    }

    unsafe fn dealloc_frame(paddr: HostPhysAddr) {
        let bit = (paddr - pool()) / 4096;
        TAKEN.fetch_and(!(1 << bit), std::sync::atomic::Ordering::AcqRel);
    }

    fn phys_to_virt(paddr: HostPhysAddr) -> HostVirtAddr {
        HostVirtAddr::from(paddr.as_usize())
    }
}

fn main() -> AxResult<()> {
    let vcpu = VCpu::<Hal>::new(0x12)?;
    println!("VMCS at {:#x}, host stack down from {:#x}", vcpu.vmcs.phys_addr(), vcpu.host_stack_top());
    assert!(VCpu::<Hal>::new(0x12).is_err(), "both frames are taken: NoMemory, and nothing leaks");
    drop(vcpu);
    assert!(VCpu::<Hal>::new(0x12).is_ok(), "and given back");
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
