//! What an EPT leaf says about its page beside the address: permissions, memory type, and the rest.

use core::fmt;

use bitflags::bitflags;

use super::EptConfig;

bitflags! {
    /// Flags of an EPT leaf, at the places where the processor reads them (SDM 28.3.2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct EptFlags: u64 {
        /// Reads are allowed.
        const READ = 1 << 0;
        /// Writes are allowed. Needs [`READ`](Self::READ).
        const WRITE = 1 << 1;
        /// Fetches are allowed; with mode-based execute control, from supervisor-mode addresses.
        const EXECUTE = 1 << 2;
        /// The memory type of the leaf alone counts; the guest's PAT is ignored.
        const IGNORE_PAT = 1 << 6;
        /// Fetches from user-mode addresses are allowed. Ignored without mode-based execute control.
        const USER_EXECUTE = 1 << 10;
        /// A supervisor shadow stack may lie here (supervisor shadow-stack control).
        const SUPERVISOR_SHADOW_STACK = 1 << 60;
        /// The SPP table says which sub-pages of 128 bytes may be written (4 KiB pages).
        const SUB_PAGE_WRITE = 1 << 61;
        /// A violation here always exits, never becomes a virtualization exception.
        const SUPPRESS_VE = 1 << 63;

        /// Reads, writes and fetches.
        const RWX = Self::READ.bits() | Self::WRITE.bits() | Self::EXECUTE.bits() | Self::USER_EXECUTE.bits();
        /// Reads and writes.
        const RW = Self::READ.bits() | Self::WRITE.bits();
        /// Reads and fetches.
        const RX = Self::READ.bits() | Self::EXECUTE.bits() | Self::USER_EXECUTE.bits();
    }
}

/// The memory type of a page, or of the tables (SDM 28.3.7). The numbers between are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EptMemoryType {
    /// Uncacheable: devices.
    Uncacheable = 0,
    /// Write-combining: frame buffers.
    WriteCombining = 1,
    /// Write-through.
    WriteThrough = 4,
    /// Write-protected.
    WriteProtected = 5,
    /// Write-back: RAM.
    WriteBack = 6,
}

impl EptMemoryType {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Uncacheable, Self::WriteCombining, Self::WriteThrough, Self::WriteProtected, Self::WriteBack];

    /// The type that a leaf has; write-back for a reserved number.
    #[inline]
    pub(crate) const fn in_leaf(word: u64) -> Self {
        match word >> 3 & 7 {
            0 => Self::Uncacheable,
            1 => Self::WriteCombining,
            4 => Self::WriteThrough,
            5 => Self::WriteProtected,
            _ => Self::WriteBack,
        }
    }

    /// Of its number; `None` for a reserved one.
    #[inline]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Uncacheable),
            1 => Some(Self::WriteCombining),
            4 => Some(Self::WriteThrough),
            5 => Some(Self::WriteProtected),
            6 => Some(Self::WriteBack),
            _ => None,
        }
    }
}

/// What a leaf says about its page.
///
/// ```
/// use vmx_structs::{EptAttributes, EptFlags, EptMemoryType};
///
/// let rom = EptAttributes::RAM.with_flags(EptFlags::RX);
/// let frame_buffer = EptAttributes::DEVICE.with_memory_type(EptMemoryType::WriteCombining);
/// assert!(!rom.flags.contains(EptFlags::WRITE));
/// assert_eq!(frame_buffer.flags, EptFlags::RW);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EptAttributes {
    /// Permissions and the rest.
    pub flags: EptFlags,
    /// The memory type.
    pub memory_type: EptMemoryType,
}

impl EptAttributes {
    /// Everything allowed, write-back.
    pub const RAM: Self = Self { flags: EptFlags::RWX, memory_type: EptMemoryType::WriteBack };
    /// Reads and writes, uncacheable.
    pub const DEVICE: Self = Self { flags: EptFlags::RW, memory_type: EptMemoryType::Uncacheable };

    /// The same with other flags.
    #[must_use]
    pub const fn with_flags(self, flags: EptFlags) -> Self {
        Self { flags, ..self }
    }

    /// The same with another memory type.
    #[must_use]
    pub const fn with_memory_type(self, memory_type: EptMemoryType) -> Self {
        Self { memory_type, ..self }
    }

    /// The bits of a leaf, if the processor takes them.
    ///
    /// Without mode-based execute control [`EptFlags::USER_EXECUTE`] beside [`EptFlags::EXECUTE`] means nothing more
    /// and is left out.
    ///
    /// # Errors
    /// The combination would be no mapping, a misconfiguration, or would do nothing on this processor.
    pub(crate) fn encode(self, config: &EptConfig) -> Result<u64, AttributeError> {
        use EptFlags as F;
        let mut flags = self.flags;
        if !config.mode_based_execute() {
            if flags.contains(F::USER_EXECUTE) && !flags.contains(F::EXECUTE) {
                return Err(AttributeError::UserExecute);
            }
            flags.remove(F::USER_EXECUTE);
        }
        if !flags.intersects(F::READ | F::WRITE | F::EXECUTE | F::USER_EXECUTE) {
            return Err(AttributeError::NoAccess);
        }
        if !flags.contains(F::READ) {
            if flags.contains(F::WRITE) {
                return Err(AttributeError::WriteWithoutRead);
            }
            if !config.execute_only() {
                return Err(AttributeError::ExecuteOnly);
            }
        }
        let unsupported = flags & !config.supported_flags();
        if !unsupported.is_empty() {
            return Err(AttributeError::Unsupported { flags: unsupported });
        }
        Ok(flags.bits() | (self.memory_type as u64) << 3)
    }

    /// What the bits of a leaf say; `None` for a reserved memory type.
    #[inline]
    pub(crate) const fn decode(word: u64) -> Option<Self> {
        match EptMemoryType::from_number((word >> 3 & 7) as u8) {
            Some(memory_type) => Some(Self { flags: EptFlags::from_bits_truncate(word), memory_type }),
            None => None,
        }
    }
}

/// Attributes that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttributeError {
    /// Neither reads nor writes nor fetches: no mapping at all.
    NoAccess,
    /// Writes without reads: a misconfiguration.
    WriteWithoutRead,
    /// Fetches without reads, which this processor does not support.
    ExecuteOnly,
    /// Fetches from user-mode addresses alone, without mode-based execute control.
    UserExecute,
    /// Flags whose feature the processor does not have, or the configuration does not use.
    Unsupported {
        /// Those flags.
        flags: EptFlags,
    },
}

impl fmt::Display for AttributeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAccess => f.write_str("a leaf that allows no access maps nothing: unmap instead"),
            Self::WriteWithoutRead => f.write_str("an EPT leaf cannot allow writes without reads"),
            Self::ExecuteOnly => {
                f.write_str("this processor has no execute-only leaves (IA32_VMX_EPT_VPID_CAP bit 0): allow reads")
            }
            Self::UserExecute => f.write_str(
                "fetches from user-mode addresses alone need mode-based execute control: switch it on in EptConfig",
            ),
            Self::Unsupported { flags } => {
                write!(f, "{flags:?} would do nothing: the processor, or this EptConfig, does not have the feature")
            }
        }
    }
}

impl core::error::Error for AttributeError {}
