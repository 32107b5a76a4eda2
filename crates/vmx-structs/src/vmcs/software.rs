//! A VMCS in plain memory: for tests, for tools, and for what a nested hypervisor's guest believes to be its VMCS.
//!
//! It has a place for every field, refuses what the processor would refuse, and allocates nothing (1.7 KiB).
//! Unlike the processor's, its fields start at 0.

use core::fmt;

use super::{
    Field, FieldEncoding, FieldGroup, FieldInfo, FieldWidth, Group, VmFail, VmInstructionError, VmcsAccess,
    fields::FIELD_COUNT,
};
use crate::VmxCapabilities;

/// A set of fields, by their place in [`FieldInfo::ALL`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct FieldSet([u64; FIELD_COUNT.div_ceil(64)]);

impl FieldSet {
    pub(super) const EMPTY: Self = Self([0; FIELD_COUNT.div_ceil(64)]);
    pub(super) const ALL: Self = Self([u64::MAX; FIELD_COUNT.div_ceil(64)]);

    pub(super) const fn contains(&self, slot: usize) -> bool {
        self.0[slot / 64] >> (slot % 64) & 1 == 1
    }

    pub(super) const fn insert(&mut self, slot: usize) {
        self.0[slot / 64] |= 1 << (slot % 64);
    }
}

/// A VMCS held in memory by software.
///
/// ```
/// use vmx_structs::{CpuModel, vmcs::{FieldEncoding, SoftwareVmcs, VmFail, VmcsAccess, control, exit}};
///
/// let old = CpuModel::by_id("sandy_bridge").unwrap().capabilities();
/// let mut vmcs = SoftwareVmcs::for_processor(&old);
/// vmcs.write(control::TSC_OFFSET, 0x1_0000_0002)?;
/// assert_eq!(vmcs.read_raw(FieldEncoding::from_raw(0x2011)), Ok(1)); // the upper half
/// // A field that this processor lacks, and a read-only one:
/// assert_eq!(vmcs.read(control::PML_ADDRESS), Err(VmFail::from_number(12)));
/// assert_eq!(vmcs.write_raw(exit::EXIT_REASON.encoding(), 0), Err(VmFail::from_number(13)));
/// // The processor's part, in tests and in a nested hypervisor:
/// vmcs.set(exit::EXIT_REASON, 12);
/// # Ok::<(), VmFail>(())
/// ```
#[derive(Clone)]
pub struct SoftwareVmcs {
    values: [u64; FIELD_COUNT],
    existing: FieldSet,
    writes_read_only: bool,
}

impl SoftwareVmcs {
    /// A VMCS with every field that this crate knows, all 0.
    pub const fn new() -> Self {
        Self { values: [0; FIELD_COUNT], existing: FieldSet::ALL, writes_read_only: false }
    }

    /// A VMCS with the fields that a processor has, all 0. Read-only fields can be written where
    /// [`VmxMisc::writes_read_only_fields`](crate::VmxMisc::writes_read_only_fields) says so.
    pub fn for_processor(caps: &VmxCapabilities) -> Self {
        let mut existing = FieldSet::EMPTY;
        for (slot, _) in FieldInfo::ALL.iter().enumerate().filter(|(_, info)| info.exists(caps)) {
            existing.insert(slot);
        }
        Self { values: [0; FIELD_COUNT], existing, writes_read_only: caps.misc.writes_read_only_fields() }
    }

    /// Sets any field, read-only ones too, whether or not the processor has it: what the processor does, and tests.
    pub fn set<W: FieldWidth, G: FieldGroup>(&mut self, field: Field<W, G>, value: W::Value) {
        if let Some(slot) = FieldInfo::index_of(field.encoding()) {
            self.values[slot] = value.into();
        }
    }

    /// Reads any field, whether or not the processor has it.
    pub fn get<W: FieldWidth, G: FieldGroup>(&self, field: Field<W, G>) -> W::Value {
        W::truncate(FieldInfo::index_of(field.encoding()).map_or(0, |slot| self.values[slot]))
    }

    /// The fields that there are, with their values, by ascending encoding.
    pub fn fields(&self) -> impl Iterator<Item = (&'static FieldInfo, u64)> + '_ {
        (0..FIELD_COUNT)
            .filter(|slot| self.existing.contains(*slot))
            .map(|slot| (&FieldInfo::ALL[slot], self.values[slot]))
    }

    fn slot(&self, field: FieldEncoding) -> Result<usize, VmFail> {
        let slot = if field.is_well_formed() { FieldInfo::index_of(field.full()) } else { None };
        slot.filter(|slot| self.existing.contains(*slot))
            .ok_or(VmFail::Valid(VmInstructionError::UnsupportedField))
    }
}

impl Default for SoftwareVmcs {
    fn default() -> Self {
        Self::new()
    }
}

impl VmcsAccess for SoftwareVmcs {
    fn read_raw(&self, field: FieldEncoding) -> Result<u64, VmFail> {
        let value = self.values[self.slot(field)?];
        Ok(if field.is_high() { value >> 32 } else { value })
    }

    fn write_raw(&mut self, field: FieldEncoding, value: u64) -> Result<(), VmFail> {
        let slot = self.slot(field)?;
        if matches!(field.group(), Group::ReadOnly) && !self.writes_read_only {
            return Err(VmFail::Valid(VmInstructionError::ReadOnlyField));
        }
        self.values[slot] = if field.is_high() {
            self.values[slot] & 0xffff_ffff | value << 32
        } else {
            value & field.width().mask()
        };
        Ok(())
    }
}

/// The fields that are not 0.
impl fmt::Debug for SoftwareVmcs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (info, value) in self.fields().filter(|(_, value)| *value != 0) {
            map.entry(&format_args!("{}", info.encoding), &format_args!("{value:#x}"));
        }
        map.finish()
    }
}
