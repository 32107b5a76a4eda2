//! The EPT pointer: where the tables are, and how the processor walks them (SDM 24.6.11).

use core::fmt;

use axerrno::AxErrorKind;
use frame_core::{FRAME_SIZE, PhysAddr};

use super::EptMemoryType;
use crate::EptVpidCap;

const MEMORY_TYPE: u64 = 7;
const WALK_SHIFT: u32 = 3;
const ACCESSED_DIRTY: u64 = 1 << 6;
const SHADOW_STACK: u64 = 1 << 7;
const RESERVED: u64 = 0xf00;
const ADDRESS: u64 = !(FRAME_SIZE as u64 - 1);
/// No processor has more physical-address bits.
const MAX_WIDTH: u8 = 52;

/// How many levels of tables a walk goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EptLevels {
    /// 4 levels: guest-physical addresses of 48 bits.
    Four,
    /// 5 levels: guest-physical addresses of 57 bits.
    Five,
}

impl EptLevels {
    /// 4 or 5.
    pub const fn count(self) -> u32 {
        match self {
            Self::Four => 4,
            Self::Five => 5,
        }
    }

    /// Bits of a guest-physical address that are translated.
    pub const fn guest_width(self) -> u32 {
        12 + 9 * self.count()
    }
}

/// The value of the EPT pointer field: any 64 bits. The constructors refuse what no processor takes;
/// [`check`](Self::check) says what one processor thinks of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EptPointer(u64);

/// The seed's name.
pub type EPTPointer = EptPointer;

impl EptPointer {
    /// The seed's pointer: write-back tables, 4 levels, accessed and dirty flags. It is for processors known to have
    /// these flags; [`Ept::pointer`](super::Ept::pointer) looks at the capabilities.
    ///
    /// ```
    /// use frame_core::PhysAddr;
    /// use vmx_structs::EptPointer;
    ///
    /// assert_eq!(EptPointer::from_table_phys(PhysAddr::from(0x1234_5000))?.bits(), 0x1234_505e);
    /// assert!(EptPointer::from_table_phys(PhysAddr::from(0x1234_5678)).is_err()); // not rounded in silence
    /// # Ok::<(), vmx_structs::EptPointerError>(())
    /// ```
    ///
    /// # Errors
    /// The address is not aligned to 4 KiB, or has more than 52 bits.
    pub fn from_table_phys(root: PhysAddr) -> Result<Self, EptPointerError> {
        Self::new(root, EptLevels::Four, EptMemoryType::WriteBack, true)
    }

    /// A pointer to a table of the highest level.
    ///
    /// # Errors
    /// The address is not aligned to 4 KiB, or has more than 52 bits; the memory type is neither write-back nor
    /// uncacheable.
    pub fn new(
        root: PhysAddr,
        levels: EptLevels,
        memory_type: EptMemoryType,
        accessed_dirty: bool,
    ) -> Result<Self, EptPointerError> {
        let address = root.as_usize() as u64;
        if address & !ADDRESS != 0 {
            return Err(EptPointerError::Misaligned { root: address });
        }
        if address >> MAX_WIDTH != 0 {
            return Err(EptPointerError::TooWide { root: address, width: MAX_WIDTH });
        }
        if !matches!(memory_type, EptMemoryType::WriteBack | EptMemoryType::Uncacheable) {
            return Err(EptPointerError::MemoryType { memory_type: memory_type as u8 });
        }
        let walk = u64::from(levels.count() - 1) << WALK_SHIFT;
        let flags = if accessed_dirty { ACCESSED_DIRTY } else { 0 };
        Ok(Self(address | memory_type as u64 | walk | flags))
    }

    /// Any value, as a VMCS may hold it.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The value, for the VMCS.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The same pointer with supervisor shadow-stack control switched on or off (bit 7).
    #[must_use]
    pub const fn with_shadow_stack_control(self, on: bool) -> Self {
        Self(if on { self.0 | SHADOW_STACK } else { self.0 & !SHADOW_STACK })
    }

    /// The table of the highest level.
    pub fn root(self) -> PhysAddr {
        PhysAddr::from((self.0 & ADDRESS) as usize)
    }

    /// Levels of the walk; `None` for a length that no processor has.
    pub const fn levels(self) -> Option<EptLevels> {
        match self.0 >> WALK_SHIFT & 7 {
            3 => Some(EptLevels::Four),
            4 => Some(EptLevels::Five),
            _ => None,
        }
    }

    /// The memory type of the tables, bits 2:0: 6 is write-back, 0 uncacheable.
    pub const fn memory_type(self) -> u8 {
        (self.0 & MEMORY_TYPE) as u8
    }

    /// Whether accessed and dirty flags are on.
    pub const fn accessed_dirty(self) -> bool {
        self.0 & ACCESSED_DIRTY != 0
    }

    /// Whether supervisor shadow-stack control is on.
    pub const fn shadow_stack_control(self) -> bool {
        self.0 & SHADOW_STACK != 0
    }

    /// Whether VM entry takes this pointer on a processor with these capabilities and this physical-address width
    /// (SDM 26.2.1.1).
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(self, cap: EptVpidCap, physical_width: u8) -> Result<(), EptPointerError> {
        let memory_type = self.memory_type();
        if !cap.allows_memory_type(memory_type) {
            return Err(EptPointerError::MemoryType { memory_type });
        }
        let walk = (self.0 >> WALK_SHIFT & 7) as u32 + 1;
        if !cap.allows_walk(walk) {
            return Err(EptPointerError::Levels { levels: walk });
        }
        if self.accessed_dirty() && !cap.contains(EptVpidCap::ACCESSED_DIRTY) {
            return Err(EptPointerError::AccessedDirty);
        }
        if self.shadow_stack_control() && !cap.contains(EptVpidCap::SUPERVISOR_SHADOW_STACK) {
            return Err(EptPointerError::ShadowStack);
        }
        if self.0 & RESERVED != 0 {
            return Err(EptPointerError::Reserved { bits: self.0 & RESERVED });
        }
        if physical_width < 64 && self.0 >> physical_width != 0 {
            return Err(EptPointerError::TooWide { root: self.0 & ADDRESS, width: physical_width });
        }
        Ok(())
    }
}

impl fmt::Debug for EptPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EptPointer")
            .field("root", &format_args!("{:#x}", self.0 & ADDRESS))
            .field("levels", &((self.0 >> WALK_SHIFT & 7) + 1))
            .field("memory_type", &self.memory_type())
            .field("accessed_dirty", &self.accessed_dirty())
            .field("shadow_stack_control", &self.shadow_stack_control())
            .finish()
    }
}

/// What is wrong with an EPT pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EptPointerError {
    /// The table is not aligned to 4 KiB.
    Misaligned {
        /// Its address.
        root: u64,
    },
    /// The table lies beyond the physical-address width.
    TooWide {
        /// Its address.
        root: u64,
        /// The width, in bits.
        width: u8,
    },
    /// Tables of this memory type are not supported.
    MemoryType {
        /// Bits 2:0.
        memory_type: u8,
    },
    /// Walks of this length are not supported.
    Levels {
        /// Bits 5:3, plus 1.
        levels: u32,
    },
    /// Accessed and dirty flags (bit 6) are not supported.
    AccessedDirty,
    /// Supervisor shadow-stack control (bit 7) is not supported.
    ShadowStack,
    /// Reserved bits are set.
    Reserved {
        /// Those bits.
        bits: u64,
    },
}

impl fmt::Display for EptPointerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misaligned { root } => write!(f, "the EPT table at {root:#x} is not aligned to 4 KiB"),
            Self::TooWide { root, width } => {
                write!(f, "the EPT table at {root:#x} lies beyond the {width} bits of a physical address")
            }
            Self::MemoryType { memory_type } => write!(
                f,
                "EPT tables of memory type {memory_type} are not supported: see IA32_VMX_EPT_VPID_CAP bits 8 and 14"
            ),
            Self::Levels { levels } => {
                write!(
                    f,
                    "an EPT walk of {levels} levels is not supported: see IA32_VMX_EPT_VPID_CAP bits 6 and 7"
                )
            }
            Self::AccessedDirty => f.write_str(
                "accessed and dirty flags of EPT are not supported: see IA32_VMX_EPT_VPID_CAP bit 21",
            ),
            Self::ShadowStack => f.write_str(
                "supervisor shadow-stack control is not supported: see IA32_VMX_EPT_VPID_CAP bit 23",
            ),
            Self::Reserved { bits } => write!(f, "reserved bits {bits:#x} of the EPT pointer are set"),
        }
    }
}

impl core::error::Error for EptPointerError {}

impl From<EptPointerError> for AxErrorKind {
    fn from(_: EptPointerError) -> Self {
        Self::InvalidInput
    }
}
