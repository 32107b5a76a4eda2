//! VMX operation on a CPU.

use alloc::boxed::Box;
use core::error::Error;

use frame_allocator::PhysAddr;
use kernel_example::memory::Kernel;
use vmx_structs::{VmxCapabilities, VmxonRegion, instructions};

/// A CPU in VMX root operation, with the region that it needs for that.
pub struct VmxOperation {
    region: VmxonRegion<Kernel>,
}

impl VmxOperation {
    /// Enters VMX operation on the CPU that runs this.
    pub fn enter(caps: &VmxCapabilities) -> Result<Self, Box<dyn Error>> {
        let region = VmxonRegion::new(caps.basic)?;
        // SAFETY: the kernel runs at CPL 0, all CPUs are alike, and its exception handlers expect numeric errors as
        // exceptions. The region lives as long as the value that is returned.
        unsafe {
            instructions::enable(caps)?;
            instructions::vmxon(region.phys_addr())?;
        }
        Ok(Self { region })
    }

    /// The VMXON region.
    pub fn region(&self) -> PhysAddr {
        self.region.phys_addr()
    }

    /// Leaves it, on the same CPU.
    pub fn leave(self) {
        // SAFETY: in VMX root operation since `enter`; the groups clear each VMCS when they are done with it.
        unsafe { instructions::vmxoff() }.expect("there is no SMM monitor");
    }
}
