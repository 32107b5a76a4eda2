//! The walk that a processor makes, in software: what becomes of one access (SDM 28.3.2, 28.3.3).
//!
//! From the highest table down, each entry is looked at in this order: one that is not present ends the walk with an
//! **EPT violation**; one that has a value no processor takes ends it with an **EPT misconfiguration**; one that maps
//! a page ends it with a translation. Only then are the permissions looked at, of all entries together: so an entry
//! further down that is misconfigured wins over a permission that is missing further up.
//!
//! [`walk_ept`] walks any tables that it is given words of, a guest hypervisor's own EPT for instance;
//! [`Ept::translate`] walks an [`Ept`].

use frame_core::{FrameHal, PhysAddr, TableRef};

use super::entry::{ACCESSED, ADDRESS, DIRTY, LARGE, index, slot_mask};
use super::{
    Ept, EptAccess, EptConfig, EptFault, EptFlags, EptMemoryType, EptMisconfiguration, EptQualification,
    EptTranslation, EptViolation, MisconfigurationCause,
};
use crate::{GuestPhysAddr, PageSize};

/// Address bits that no physical address has.
const fn beyond(config: &EptConfig) -> u64 {
    ADDRESS & !((1 << config.physical_width()) - 1)
}

/// What is wrong with a present entry, and whether it maps a page.
fn inspect(config: &EptConfig, word: u64, level: u32) -> Result<bool, MisconfigurationCause> {
    use MisconfigurationCause as Cause;
    let has = |flag: EptFlags| word & flag.bits() != 0;
    if !has(EptFlags::READ) {
        if has(EptFlags::WRITE) {
            return Err(Cause::WriteWithoutRead);
        }
        // Not readable, not writable, but present: it allows fetches of some kind.
        if !config.execute_only() {
            return Err(Cause::ExecuteWithoutRead);
        }
    }
    let large = word & LARGE != 0;
    let size = PageSize::of_level(level).filter(|size| *size == PageSize::Size4K || large);
    let reserved = match size {
        // Where bit 7 cannot mean a large page, it is reserved as well.
        None => 0x78 | LARGE,
        Some(size) if !config.supports(size) => LARGE,
        // The address bits below the page.
        Some(size) => (size.bytes() - 1) & ADDRESS,
    };
    if word & (reserved | beyond(config)) != 0 {
        return Err(Cause::ReservedBits);
    }
    if size.is_some() && EptMemoryType::from_number((word >> 3 & 7) as u8).is_none() {
        return Err(Cause::MemoryType);
    }
    Ok(size.is_some())
}

/// Walks EPT tables as a processor does. `read` gives the word at an index of the table at an address; `None` where it
/// cannot. `root` is the table of the highest level. Nothing is written, accessed and dirty flags neither.
///
/// # Errors
/// The access is a violation or a misconfiguration, or `read` gave none.
pub fn walk_ept(
    config: &EptConfig,
    root: PhysAddr,
    guest: GuestPhysAddr,
    access: EptAccess,
    mut read: impl FnMut(PhysAddr, usize) -> Option<u64>,
) -> Result<EptTranslation, EptFault> {
    walk(config, guest, access, root, |table, i| {
        let word = read(*table, i).ok_or(EptFault::Unreadable { table: *table })?;
        *table = PhysAddr::from((word & ADDRESS) as usize);
        Ok(word)
    })
}

/// `step(table, i)` gives word `i` of the table and makes the table that which the word points to, if it does.
fn walk<T>(
    config: &EptConfig,
    guest: GuestPhysAddr,
    access: EptAccess,
    mut table: T,
    mut step: impl FnMut(&mut T, usize) -> Result<u64, EptFault>,
) -> Result<EptTranslation, EptFault> {
    let address = guest.as_u64();
    // With accessed and dirty flags, the processor treats its accesses to guest paging structures as writes.
    let as_write = access.paging_structure && config.accessed_dirty();
    let violation = |allowed: EptFlags, last_word: u64| {
        let mut qualification = access_bits(config, access, as_write);
        qualification.set(EptQualification::READABLE, allowed.contains(EptFlags::READ));
        qualification.set(EptQualification::WRITABLE, allowed.contains(EptFlags::WRITE));
        qualification.set(EptQualification::EXECUTABLE, allowed.contains(EptFlags::EXECUTE));
        let user = config.mode_based_execute() && allowed.contains(EptFlags::USER_EXECUTE);
        qualification.set(EptQualification::USER_EXECUTABLE, user);
        let convertible = last_word & EptFlags::SUPPRESS_VE.bits() == 0;
        EptFault::Violation(EptViolation { guest, qualification, convertible })
    };
    // Address bits that no table translates must be 0 (SDM 28.3.2).
    if address >> config.guest_width() != 0 {
        return Err(violation(EptFlags::empty(), EptFlags::SUPPRESS_VE.bits()));
    }
    let mut allowed = EptFlags::RWX;
    let mut level = config.levels().count();
    let (open, looked_at) = open_entry(config);
    loop {
        let word = step(&mut table, index(address, level))?;
        if word & looked_at == open && level > 1 {
            level -= 1;
            continue;
        }
        if !config.is_present(word) {
            // Bits 5:3 of the qualification are 0 if any entry is not present.
            return Err(violation(EptFlags::empty(), word));
        }
        let is_leaf = inspect(config, word, level)
            .map_err(|cause| EptFault::Misconfiguration(EptMisconfiguration { guest, level, word, cause }))?;
        allowed &= EptFlags::from_bits_truncate(word);
        if is_leaf {
            return match translation(config, address, level, word, allowed) {
                Some(translation) if allowed.contains(needed(config, access)) => Ok(translation),
                _ => Err(violation(allowed, word)),
            };
        }
        level -= 1;
    }
}

/// What an entry looks like that points to a table and allows everything, and the bits to look at for that. Most entries
/// are so, and need no more looking at.
#[inline]
const fn open_entry(config: &EptConfig) -> (u64, u64) {
    let open = config.link();
    (open, 0x7f | LARGE | open | beyond(config))
}

/// What the entries must allow for an access.
#[inline]
pub(super) fn needed(config: &EptConfig, access: EptAccess) -> EptFlags {
    // With accessed and dirty flags, the processor treats its accesses to guest paging structures as writes.
    let write = access.write || access.paging_structure && config.accessed_dirty();
    let user = config.mode_based_execute() && access.linear.is_some_and(|linear| linear.user);
    let mut needed = EptFlags::empty();
    needed.set(EptFlags::READ, access.read);
    needed.set(EptFlags::WRITE, write);
    needed.set(if user { EptFlags::USER_EXECUTE } else { EptFlags::EXECUTE }, access.fetch);
    needed
}

/// What a leaf makes of an address; `None` if it is none that the processor takes.
#[inline]
fn translation(
    config: &EptConfig,
    address: u64,
    level: u32,
    word: u64,
    allowed: EptFlags,
) -> Option<EptTranslation> {
    let mut flags = allowed;
    if !config.mode_based_execute() {
        flags.remove(EptFlags::USER_EXECUTE);
    }
    let others = EptFlags::from_bits_truncate(word) & !EptFlags::RWX;
    let offset = address & slot_mask(level);
    Some(EptTranslation {
        host: PhysAddr::from((word & ADDRESS | offset) as usize),
        size: PageSize::of_level(level)?,
        flags: flags & EptFlags::RWX | others,
        memory_type: EptMemoryType::from_number((word >> 3 & 7) as u8)?,
    })
}

/// The bits of the qualification that tell of the access.
fn access_bits(config: &EptConfig, access: EptAccess, as_write: bool) -> EptQualification {
    use EptQualification as Q;
    let mut bits = Q::empty();
    bits.set(Q::READ, access.read || as_write);
    bits.set(Q::WRITE, access.write || as_write);
    bits.set(Q::FETCH, access.fetch);
    bits.set(Q::NMI_UNBLOCKING, access.nmi_unblocking);
    if let Some(linear) = access.linear {
        bits |= Q::LINEAR_ADDRESS;
        if !access.paging_structure {
            bits |= Q::TRANSLATED;
            if config.advanced_exit_info() {
                bits.set(Q::USER_ADDRESS, linear.user);
                bits.set(Q::GUEST_WRITABLE, linear.writable);
                bits.set(Q::GUEST_EXECUTE_DISABLE, linear.execute_disable);
            }
        }
    }
    bits
}

impl<H: FrameHal> Ept<H> {
    /// What a processor would make of an access: a translation, a violation with its qualification, or a
    /// misconfiguration. Changes nothing.
    ///
    /// # Errors
    /// The access would be a violation or a misconfiguration.
    #[inline(always)]
    pub fn translate(&self, guest: GuestPhysAddr, access: EptAccess) -> Result<EptTranslation, EptFault> {
        match self.translate_fast(guest.as_u64(), access) {
            Some(translation) => Ok(translation),
            None => match self.translate_slow(guest, access) {
                // Field by field, so that the common case need not go through memory.
                Ok(EptTranslation { host, size, flags, memory_type }) => {
                    Ok(EptTranslation { host, size, flags, memory_type })
                }
                Err(fault) => Err(fault),
            },
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn translate_slow(
        &self,
        guest: GuestPhysAddr,
        access: EptAccess,
    ) -> Result<EptTranslation, EptFault> {
        walk(self.config(), guest, access, self.tree.words(), step)
    }

    /// As [`translate`](Self::translate), and sets accessed and dirty flags as the processor would (SDM 28.3.5), if
    /// they are on: for software that acts as a guest, and for tests.
    ///
    /// # Errors
    /// As [`translate`](Self::translate). No flag is set then.
    pub fn access(&self, guest: GuestPhysAddr, access: EptAccess) -> Result<EptTranslation, EptFault> {
        let translation = self.translate(guest, access)?;
        if self.config().accessed_dirty() {
            let mut table = self.tree.words();
            let mut level = self.levels();
            loop {
                let i = index(guest.as_u64(), level);
                if level == translation.size.level() {
                    let written = access.write || access.paging_structure;
                    table.set_bits(i, if written { ACCESSED | DIRTY } else { ACCESSED });
                    break;
                }
                table.set_bits(i, ACCESSED);
                let Some(child) = table.child(i) else { break };
                table = child;
                level -= 1;
            }
        }
        Ok(translation)
    }
}

fn step<H: FrameHal>(table: &mut TableRef<'_, H>, i: usize) -> Result<u64, EptFault> {
    let entry = table.entry(i);
    if let Some(child) = entry.child() {
        *table = child;
    }
    Ok(entry.word())
}
