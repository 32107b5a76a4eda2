//! Features that work over many accesses: memory on demand, flags and logs of what was touched, switching of tables,
//! shadow VMCSs, virtualization exceptions, MSR areas.
//!
//! Each has a twin in software (`vmx-structs` can act as the processor: `Ept::access`, `PmlBuffer::log`, `EptpList::choose`,
//! `VeArea::raise`, `SoftwareVmcs`), and in the end both must hold the same.

mod demand;
mod dirty;
mod edits;
mod msr_areas;
mod shadow;
mod spp;
mod switching;

pub use demand::compare as compare_demand;
pub use dirty::{compare as compare_dirty, compare_log};
pub use edits::compare as compare_edits;
pub use msr_areas::compare as compare_msr_areas;
pub use shadow::compare as compare_shadow;
pub use spp::compare as compare_spp;
pub use switching::compare as compare_switching;

use alloc::{boxed::Box, vec::Vec};
use core::error::Error;

use frame_allocator::{PhysAddr, PhysFrame};
use kernel_example::memory::Kernel;
use vmx_structs::{
    Ept, EptAttributes, EptConfig, GuestPhysAddr, GuestRange, Invalidation, PageSize, instructions::invept,
};

use crate::guest::{LOW_FRAMES, Low};

/// Guest-physical address of the pages that the guest works on.
const PAGES: u64 = 0x1000_0000;

/// Tables that map the guest's low memory.
pub fn tables(config: EptConfig, low: &Low) -> Result<Ept<Kernel>, Box<dyn Error>> {
    let mut ept = Ept::new(config)?;
    let range = GuestRange::new(GuestPhysAddr::new(0), LOW_FRAMES as u64)?;
    ept.map_range(range, low.host(), EptAttributes::RAM)?;
    Ok(ept)
}

/// Page `number` of those that the guest works on.
fn page(number: usize) -> GuestPhysAddr {
    GuestPhysAddr::new(PAGES + number as u64 * 4096)
}

/// Zeroed frames.
fn frames(count: usize) -> Result<Vec<PhysFrame<Kernel>>, Box<dyn Error>> {
    (0..count).map(|_| PhysFrame::alloc_zero().map_err(|error| alloc::format!("{error}").into())).collect()
}

fn map(
    ept: &mut Ept<Kernel>,
    number: usize,
    frame: PhysAddr,
    how: EptAttributes,
) -> Result<(), Box<dyn Error>> {
    Ok(ept.map(page(number), frame, PageSize::Size4K, how)?)
}

/// This CPU alone used the tables.
fn complete(invalidation: Invalidation<Kernel>) -> Result<(), Box<dyn Error>> {
    // SAFETY: in VMX root operation, on a processor with EPT and the INVEPT that its capabilities name.
    let done = invalidation.complete(|kind, descriptor| unsafe { invept(kind, descriptor) });
    done.map_err(|(_, error)| error.into())
}
