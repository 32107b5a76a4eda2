//! The operands of INVEPT and INVVPID (SDM 30.3).

use core::fmt;

use crate::EptPointer;

/// What INVEPT invalidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u64)]
pub enum InveptType {
    /// What was cached for one EPT pointer.
    SingleContext = 1,
    /// What was cached for all EPT pointers.
    AllContexts = 2,
}

/// The memory operand of INVEPT: 128 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct InveptDescriptor {
    eptp: u64,
    /// Bits 127:64 must be 0.
    reserved: u64,
}

impl InveptDescriptor {
    /// For one EPT pointer; INVEPT of all contexts does not look at it.
    pub const fn new(pointer: EptPointer) -> Self {
        Self { eptp: pointer.bits(), reserved: 0 }
    }

    /// The EPT pointer.
    pub const fn pointer(&self) -> EptPointer {
        EptPointer::from_bits(self.eptp)
    }

    /// The 128 bits, low half first.
    pub const fn words(&self) -> [u64; 2] {
        [self.eptp, self.reserved]
    }
}

impl fmt::Debug for InveptDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InveptDescriptor").field(&self.pointer()).finish()
    }
}

/// What INVVPID invalidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u64)]
pub enum InvvpidType {
    /// One linear address of one VPID.
    IndividualAddress = 0,
    /// All of one VPID.
    SingleContext = 1,
    /// All VPIDs but 0.
    AllContexts = 2,
    /// All of one VPID but global translations.
    SingleContextRetainingGlobals = 3,
}

/// The memory operand of INVVPID: 128 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct InvvpidDescriptor {
    /// Bits 15:0 the VPID; bits 63:16 must be 0.
    vpid: u64,
    linear: u64,
}

impl InvvpidDescriptor {
    /// For one VPID; INVVPID of all contexts does not look at it. The processor fails a VPID of 0.
    pub const fn new(vpid: u16) -> Self {
        Self { vpid: vpid as u64, linear: 0 }
    }

    /// For one linear address of a VPID. The processor fails an address that is not canonical.
    pub const fn for_address(vpid: u16, linear: u64) -> Self {
        Self { vpid: vpid as u64, linear }
    }

    /// The VPID.
    pub const fn vpid(&self) -> u16 {
        self.vpid as u16
    }

    /// The linear address.
    pub const fn linear_address(&self) -> u64 {
        self.linear
    }

    /// The 128 bits, low half first.
    pub const fn words(&self) -> [u64; 2] {
        [self.vpid, self.linear]
    }
}

impl fmt::Debug for InvvpidDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvvpidDescriptor")
            .field("vpid", &self.vpid())
            .field("linear", &format_args!("{:#x}", self.linear))
            .finish()
    }
}

const _: () = assert!(size_of::<InveptDescriptor>() == 16 && size_of::<InvvpidDescriptor>() == 16);
