#![doc = include_str!("../README.md")]
#![no_std]
#![deny(unsafe_code)]

mod apic;
mod ax;
mod bits;
pub mod capabilities;
pub mod checks;
mod descriptors;
mod ept;
mod eptp_list;
mod field_bitmap;
mod guest;
mod guest_memory;
#[cfg(all(feature = "instructions", target_arch = "x86_64"))]
#[allow(unsafe_code)]
pub mod instructions;
mod io_bitmap;
mod msr_area;
mod msr_bitmap;
mod pml;
mod posted_interrupt;
mod region;
#[allow(unsafe_code)]
mod seed_region;
mod spp;
mod trie;
mod ve_area;
pub mod vmcs;
mod vpid;

pub use apic::{ApicAccessPage, ApicRegister, VirtualApicPage};
pub use capabilities::{
    CpuFacts, CpuFeatures, CpuModel, EptVpidCap, FeatureControl, VmxBasic, VmxCapabilities, VmxMisc,
};
pub use descriptors::{InveptDescriptor, InveptType, InvvpidDescriptor, InvvpidType};
pub use ept::{
    AttributeError, EPTPointer, Ept, EptAccess, EptAttributes, EptConfig, EptConfigError, EptError, EptFault,
    EptFlags, EptLeaf, EptLeaves, EptLevels, EptMemoryType, EptMisconfiguration, EptPointer, EptPointerError,
    EptQualification, EptRun, EptRuns, EptSession, EptTranslation, EptView, EptViolation, GuestPaging,
    Invalidation, MisconfigurationCause, walk_ept,
};
pub use eptp_list::{EptpList, EptpListError};
pub use field_bitmap::{EncodingError, FieldBitmap, Vmread, VmreadBitmap, Vmwrite, VmwriteBitmap};
pub use guest::{GuestPhysAddr, GuestRange, GuestRangeError, PageSize};
pub use guest_memory::{Contents, GuestMemory, GuestMemoryError, GuestRun, GuestRuns};
pub use io_bitmap::{IOBitmap, InterceptedPorts, IoBitmap, IoWidth, PortError};
pub use msr_area::{MsrArea, MsrAreaError, MsrEntry};
pub use msr_bitmap::{MsrAccess, MsrBitmap, MsrError};
pub use pml::{PmlBuffer, PmlFull};
pub use posted_interrupt::{PostedInterruptDescriptor, PostedInterruptPage};
pub use region::{RegionError, VmcsRegion, VmxonRegion};
pub use seed_region::VmxRegion;
pub use spp::{SppError, SppTable, SppVerdict};
pub use ve_area::{VeArea, VeInfo};
pub use vpid::{RetiredVpid, Vpid, VpidAllocator, VpidError};
