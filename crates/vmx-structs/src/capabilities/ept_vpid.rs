//! `IA32_VMX_EPT_VPID_CAP`: what EPT and VPID can do (SDM A.10).

use bitflags::bitflags;

bitflags! {
    /// The value of `IA32_VMX_EPT_VPID_CAP`. Bits that have no name here are kept.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct EptVpidCap: u64 {
        /// An EPT entry may allow fetches without allowing reads.
        const EXECUTE_ONLY = 1 << 0;
        /// A walk of 4 levels.
        const WALK_4 = 1 << 6;
        /// A walk of 5 levels.
        const WALK_5 = 1 << 7;
        /// EPT paging structures may be uncacheable.
        const MEMORY_TYPE_UC = 1 << 8;
        /// EPT paging structures may be write-back.
        const MEMORY_TYPE_WB = 1 << 14;
        /// A page-directory entry may map 2 MiB.
        const PAGE_2M = 1 << 16;
        /// A page-directory-pointer entry may map 1 GiB.
        const PAGE_1G = 1 << 17;
        /// INVEPT is supported.
        const INVEPT = 1 << 20;
        /// Accessed and dirty flags.
        const ACCESSED_DIRTY = 1 << 21;
        /// Advanced VM-exit information for EPT violations.
        const ADVANCED_EXIT_INFO = 1 << 22;
        /// Supervisor shadow-stack control (bit 7 of the EPT pointer).
        const SUPERVISOR_SHADOW_STACK = 1 << 23;
        /// INVEPT of one context.
        const INVEPT_SINGLE = 1 << 25;
        /// INVEPT of all contexts.
        const INVEPT_ALL = 1 << 26;
        /// INVVPID is supported.
        const INVVPID = 1 << 32;
        /// INVVPID of one address.
        const INVVPID_ADDRESS = 1 << 40;
        /// INVVPID of one context.
        const INVVPID_SINGLE = 1 << 41;
        /// INVVPID of all contexts.
        const INVVPID_ALL = 1 << 42;
        /// INVVPID of one context, keeping global translations.
        const INVVPID_SINGLE_RETAINING_GLOBALS = 1 << 43;

        const _ = !0;
    }
}

impl EptVpidCap {
    /// From the MSR's value.
    pub const fn from_raw(raw: u64) -> Self {
        Self::from_bits_retain(raw)
    }

    /// The MSR's value.
    pub const fn raw(self) -> u64 {
        self.bits()
    }

    /// Whether an EPT walk may have this many levels (4 or 5).
    pub const fn allows_walk(self, levels: u32) -> bool {
        match levels {
            4 => self.contains(Self::WALK_4),
            5 => self.contains(Self::WALK_5),
            _ => false,
        }
    }

    /// Whether EPT paging structures may have this memory type (0 uncacheable, 6 write-back).
    pub const fn allows_memory_type(self, memory_type: u8) -> bool {
        match memory_type {
            0 => self.contains(Self::MEMORY_TYPE_UC),
            6 => self.contains(Self::MEMORY_TYPE_WB),
            _ => false,
        }
    }

    /// The largest HLAT prefix size (bits 53:48).
    pub const fn max_hlat_prefix(self) -> u32 {
        (self.bits() >> 48) as u32 & 0x3f
    }
}
