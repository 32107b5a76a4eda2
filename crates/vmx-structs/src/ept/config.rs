//! What the processor's EPT can do, and which of it one set of tables uses.
//!
//! The meaning of an EPT entry depends on capabilities (`IA32_VMX_EPT_VPID_CAP`, MAXPHYADDR) and on VM-execution
//! controls (mode-based execute). An [`EptConfig`] holds both. The tables are built by it and the software walk
//! reads them by it, so that what is built is what is walked.

use core::fmt;

use axerrno::AxErrorKind;
use frame_core::PhysAddr;

use super::{EptError, EptFlags, EptLevels, EptMemoryType, EptPointer, EptPointerError};
use crate::{EptVpidCap, GuestPhysAddr, GuestRange, InveptType, PageSize, VmxCapabilities};

/// How one set of EPT tables is built and walked.
///
/// [`new`](Self::new) takes what the processor offers: 4 levels if it has them, write-back tables, accessed and dirty
/// flags, the largest pages. What needs a VM-execution control or costs memory is off until it is asked for.
///
/// ```
/// use vmx_structs::{CpuModel, EptConfig, EptLevels, PageSize};
///
/// let caps = CpuModel::by_id("sandy_bridge").unwrap().capabilities();
/// let config = EptConfig::new(&caps)?.with_largest_page(PageSize::Size2M)?;
/// assert!(config.with_levels(EptLevels::Five).is_err()); // this processor walks 4
/// # Ok::<(), vmx_structs::EptConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EptConfig {
    cap: EptVpidCap,
    physical_width: u8,
    levels: EptLevels,
    table_memory_type: EptMemoryType,
    accessed_dirty: bool,
    mode_based_execute: bool,
    shadow_stack: bool,
    suppress_ve: bool,
    sub_page_write: bool,
    largest: PageSize,
    /// Of the whole processor: what may be switched on.
    has_mode_based_execute: bool,
    has_ve: bool,
    has_spp: bool,
}

impl EptConfig {
    /// The configuration that a processor with these capabilities suggests.
    ///
    /// # Errors
    /// The processor has no EPT, no walk of 4 or 5 levels, no memory type for tables, or no INVEPT.
    pub fn new(caps: &VmxCapabilities) -> Result<Self, EptConfigError> {
        let cap = caps.ept_vpid;
        let has = |bits| cap.contains(bits);
        if !caps.has_ept() || !has(EptVpidCap::INVEPT) {
            return Err(EptConfigError::NoEpt);
        }
        if !cap.intersects(EptVpidCap::INVEPT_SINGLE | EptVpidCap::INVEPT_ALL) {
            return Err(EptConfigError::NoEpt);
        }
        let levels = match (has(EptVpidCap::WALK_4), has(EptVpidCap::WALK_5)) {
            (true, _) => EptLevels::Four,
            (false, true) => EptLevels::Five,
            (false, false) => return Err(EptConfigError::NoEpt),
        };
        let table_memory_type = match (has(EptVpidCap::MEMORY_TYPE_WB), has(EptVpidCap::MEMORY_TYPE_UC)) {
            (true, _) => EptMemoryType::WriteBack,
            (false, true) => EptMemoryType::Uncacheable,
            (false, false) => return Err(EptConfigError::NoEpt),
        };
        let physical_width = caps.cpu.physical_width;
        if !(32..=52).contains(&physical_width) {
            return Err(EptConfigError::PhysicalWidth { width: physical_width });
        }
        let largest = match (has(EptVpidCap::PAGE_2M), has(EptVpidCap::PAGE_1G)) {
            (_, true) => PageSize::Size1G,
            (true, false) => PageSize::Size2M,
            (false, false) => PageSize::Size4K,
        };
        Ok(Self {
            cap,
            physical_width,
            levels,
            table_memory_type,
            accessed_dirty: has(EptVpidCap::ACCESSED_DIRTY),
            mode_based_execute: false,
            shadow_stack: false,
            suppress_ve: false,
            sub_page_write: false,
            largest,
            has_mode_based_execute: caps.has_mode_based_execute(),
            has_ve: caps.has_ve(),
            has_spp: caps.has_spp(),
        })
    }

    /// The same with so many levels.
    ///
    /// # Errors
    /// The processor does not walk that many.
    pub fn with_levels(self, levels: EptLevels) -> Result<Self, EptConfigError> {
        need(self.cap.allows_walk(levels.count()), "walks of this length")?;
        Ok(Self { levels, ..self })
    }

    /// The same with tables of this memory type.
    ///
    /// # Errors
    /// The processor does not take such tables.
    pub fn with_table_memory_type(self, memory_type: EptMemoryType) -> Result<Self, EptConfigError> {
        need(self.cap.allows_memory_type(memory_type as u8), "tables of this memory type")?;
        Ok(Self { table_memory_type: memory_type, ..self })
    }

    /// The same with accessed and dirty flags on or off.
    ///
    /// # Errors
    /// On, but the processor has none.
    pub fn with_accessed_dirty(self, on: bool) -> Result<Self, EptConfigError> {
        need(!on || self.cap.contains(EptVpidCap::ACCESSED_DIRTY), "accessed and dirty flags")?;
        Ok(Self { accessed_dirty: on, ..self })
    }

    /// The same for a VM with "mode-based execute control for EPT" on or off.
    ///
    /// # Errors
    /// On, but the processor does not have the control.
    pub fn with_mode_based_execute(self, on: bool) -> Result<Self, EptConfigError> {
        need(!on || self.has_mode_based_execute, "mode-based execute control")?;
        Ok(Self { mode_based_execute: on, ..self })
    }

    /// The same with supervisor shadow-stack control (bit 7 of the pointer) on or off.
    ///
    /// # Errors
    /// On, but the processor does not have it.
    pub fn with_shadow_stack_control(self, on: bool) -> Result<Self, EptConfigError> {
        need(
            !on || self.cap.contains(EptVpidCap::SUPERVISOR_SHADOW_STACK),
            "supervisor shadow-stack control",
        )?;
        Ok(Self { shadow_stack: on, ..self })
    }

    /// The same for a VM with "EPT-violation #VE" on or off. On, entries that map nothing have suppress-#VE set, so
    /// that only leaves without [`EptFlags::SUPPRESS_VE`] give virtualization exceptions.
    ///
    /// # Errors
    /// On, but the processor does not have the control.
    pub fn with_ve(self, on: bool) -> Result<Self, EptConfigError> {
        need(!on || self.has_ve, "EPT-violation #VE")?;
        Ok(Self { suppress_ve: on, ..self })
    }

    /// The same for a VM with "sub-page write permissions for EPT" on or off.
    ///
    /// # Errors
    /// On, but the processor does not have the control.
    pub fn with_sub_page_write(self, on: bool) -> Result<Self, EptConfigError> {
        need(!on || self.has_spp, "sub-page write permissions")?;
        Ok(Self { sub_page_write: on, ..self })
    }

    /// The same with no page larger than this chosen for a range.
    ///
    /// # Errors
    /// The processor has no pages of this size.
    pub fn with_largest_page(self, largest: PageSize) -> Result<Self, EptConfigError> {
        need(self.supports(largest), "pages of this size")?;
        Ok(Self { largest, ..self })
    }

    /// Levels of the walk.
    #[inline]
    pub const fn levels(&self) -> EptLevels {
        self.levels
    }

    /// Bits of a host-physical address (MAXPHYADDR).
    #[inline]
    pub const fn physical_width(&self) -> u8 {
        self.physical_width
    }

    /// Bits of a guest-physical address.
    #[inline]
    pub const fn guest_width(&self) -> u32 {
        self.levels.guest_width()
    }

    /// Whether accessed and dirty flags are on.
    #[inline]
    pub const fn accessed_dirty(&self) -> bool {
        self.accessed_dirty
    }

    /// Whether mode-based execute control is on.
    #[inline]
    pub const fn mode_based_execute(&self) -> bool {
        self.mode_based_execute
    }

    /// Whether a leaf may allow fetches without reads.
    pub const fn execute_only(&self) -> bool {
        self.cap.contains(EptVpidCap::EXECUTE_ONLY)
    }

    /// Whether VM exits report what the guest's paging said of the linear address.
    pub const fn advanced_exit_info(&self) -> bool {
        self.cap.contains(EptVpidCap::ADVANCED_EXIT_INFO)
    }

    /// The largest page chosen for a range.
    pub const fn largest_page(&self) -> PageSize {
        self.largest
    }

    /// Whether the processor has pages of this size.
    pub const fn supports(&self, size: PageSize) -> bool {
        match size {
            PageSize::Size4K => true,
            PageSize::Size2M => self.cap.contains(EptVpidCap::PAGE_2M),
            PageSize::Size1G => self.cap.contains(EptVpidCap::PAGE_1G),
        }
    }

    /// The INVEPT to use: of one context where the processor has it.
    #[inline]
    pub const fn invept_type(&self) -> InveptType {
        if self.cap.contains(EptVpidCap::INVEPT_SINGLE) {
            InveptType::SingleContext
        } else {
            InveptType::AllContexts
        }
    }

    /// The pointer to tables of this configuration.
    pub(crate) fn pointer(&self, root: PhysAddr) -> Result<EptPointer, EptPointerError> {
        let pointer = EptPointer::new(root, self.levels, self.table_memory_type, self.accessed_dirty)?
            .with_shadow_stack_control(self.shadow_stack);
        pointer.check(self.cap, self.physical_width)?;
        Ok(pointer)
    }

    /// Flags that a leaf may have.
    pub(crate) fn supported_flags(&self) -> EptFlags {
        let mut flags = EptFlags::READ | EptFlags::WRITE | EptFlags::EXECUTE | EptFlags::IGNORE_PAT;
        flags.set(EptFlags::USER_EXECUTE, self.mode_based_execute);
        flags.set(EptFlags::SUPERVISOR_SHADOW_STACK, self.shadow_stack);
        flags.set(EptFlags::SUPPRESS_VE, self.suppress_ve);
        flags.set(EptFlags::SUB_PAGE_WRITE, self.sub_page_write);
        flags
    }

    /// The word of an entry that maps nothing.
    pub(crate) const fn vacant(&self) -> u64 {
        if self.suppress_ve { EptFlags::SUPPRESS_VE.bits() } else { 0 }
    }

    /// The flags of an entry that points to a table: everything allowed, the leaf decides.
    pub(crate) const fn link(&self) -> u64 {
        let user = if self.mode_based_execute { EptFlags::USER_EXECUTE.bits() } else { 0 };
        EptFlags::READ.bits() | EptFlags::WRITE.bits() | EptFlags::EXECUTE.bits() | user
    }

    /// Whether an entry is present: any of bits 2:0, or bit 10 with mode-based execute control (SDM 28.3.2).
    #[inline]
    pub(crate) const fn is_present(&self, word: u64) -> bool {
        word & 7 != 0 || self.mode_based_execute && word & EptFlags::USER_EXECUTE.bits() != 0
    }

    /// The first and last address of a range, if the tables translate both.
    #[inline]
    pub(crate) fn span(&self, range: GuestRange) -> Result<(u64, u64), EptError> {
        let width = self.guest_width();
        let last = range.last();
        if last.as_u64() >> width != 0 {
            return Err(EptError::GuestTooWide { guest: last, width });
        }
        Ok((range.start().as_u64(), last.as_u64()))
    }

    /// The first and last address of one page, if it is aligned and translated.
    pub(crate) fn page(&self, guest: GuestPhysAddr, size: PageSize) -> Result<(u64, u64), EptError> {
        let start = guest.as_u64();
        if start & (size.bytes() - 1) != 0 {
            return Err(EptError::GuestMisaligned { guest, size });
        }
        let width = self.guest_width();
        if start >> width != 0 {
            return Err(EptError::GuestTooWide { guest, width });
        }
        Ok((start, start + (size.bytes() - 1)))
    }

    /// The address of `bytes` bytes (at least 1) from `host` on, if it is aligned to a page and all of them are
    /// within MAXPHYADDR.
    pub(crate) fn check_host(&self, host: PhysAddr, bytes: u64, size: PageSize) -> Result<u64, EptError> {
        let start = host.as_usize() as u64;
        if start & (size.bytes() - 1) != 0 {
            return Err(EptError::HostMisaligned { host, size });
        }
        let width = self.physical_width;
        match start.checked_add(bytes - 1) {
            Some(last) if last >> width == 0 => Ok(start),
            _ => Err(EptError::HostTooWide { host, width }),
        }
    }
}

const fn need(has: bool, what: &'static str) -> Result<(), EptConfigError> {
    if has { Ok(()) } else { Err(EptConfigError::Unsupported { what }) }
}

/// Why there is no such configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EptConfigError {
    /// The processor has no EPT that could be used: no such control, no INVEPT, no walk or no memory type.
    NoEpt,
    /// MAXPHYADDR is not between 32 and 52.
    PhysicalWidth {
        /// What it is said to be, in bits.
        width: u8,
    },
    /// The processor does not have this.
    Unsupported {
        /// What it does not have.
        what: &'static str,
    },
}

impl fmt::Display for EptConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEpt => f.write_str(
                "the processor has no usable EPT: see IA32_VMX_PROCBASED_CTLS2 bit 33 and IA32_VMX_EPT_VPID_CAP",
            ),
            Self::PhysicalWidth { width } => {
                write!(f, "a physical-address width of {width} bits: CPUID.80000008H:EAX[7:0] gives 32 to 52")
            }
            Self::Unsupported { what } => {
                write!(f, "the processor has no {what}: see IA32_VMX_EPT_VPID_CAP and IA32_VMX_PROCBASED_CTLS2")
            }
        }
    }
}

impl core::error::Error for EptConfigError {}

impl From<EptConfigError> for AxErrorKind {
    fn from(_: EptConfigError) -> Self {
        Self::Unsupported
    }
}
