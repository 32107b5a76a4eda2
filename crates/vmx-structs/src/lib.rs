//! Every memory-resident VMX structure, on any frame allocator, right by construction.
#![no_std]
#![deny(unsafe_code)]

mod bits;
pub mod capabilities;
pub mod checks;
mod descriptors;
mod ept;
mod guest;
mod io_bitmap;
mod msr_bitmap;
mod region;
#[allow(unsafe_code)]
mod seed_region;
pub mod vmcs;

pub use capabilities::{CpuFacts, CpuFeatures, CpuModel, EptVpidCap, VmxBasic, VmxCapabilities, VmxMisc};
pub use descriptors::{InveptDescriptor, InveptType, InvvpidDescriptor, InvvpidType};
pub use ept::{
    AttributeError, EPTPointer, Ept, EptAccess, EptAttributes, EptConfig, EptConfigError, EptError, EptFault,
    EptFlags, EptLeaf, EptLeaves, EptLevels, EptMemoryType, EptMisconfiguration, EptPointer, EptPointerError,
    EptQualification, EptRun, EptRuns, EptTranslation, EptViolation, GuestPaging, Invalidation,
    MisconfigurationCause, walk_ept,
};
pub use guest::{GuestPhysAddr, GuestRange, GuestRangeError, PageSize};
pub use io_bitmap::{IOBitmap, InterceptedPorts, IoBitmap, IoWidth, PortError};
pub use msr_bitmap::{MsrAccess, MsrBitmap, MsrError};
pub use region::{RegionError, VmcsRegion, VmxonRegion};
pub use seed_region::VmxRegion;
