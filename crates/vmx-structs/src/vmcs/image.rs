//! What is to be written into a VMCS, as a list of VMWRITEs.

use core::fmt;

use super::{
    Field, FieldEncoding, FieldInfo, FieldWidth, Group, SoftwareVmcs, VmFail, VmcsAccess, WritableGroup,
};
use crate::VmxCapabilities;

/// One VMWRITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmcsWrite {
    /// The field.
    pub field: FieldEncoding,
    /// Its value.
    pub value: u64,
}

/// A filled-in VMCS, not yet anywhere: what [`VmcsBuilder::build`](super::VmcsBuilder::build) gives.
///
/// It holds a value for every control, guest and host field that the processor has: a new VMCS holds what happened to
/// lie in its memory, so every field is written, those that are 0 too.
#[derive(Clone, Debug)]
pub struct VmcsImage {
    vmcs: SoftwareVmcs,
}

impl VmcsImage {
    pub(super) fn new(caps: &VmxCapabilities) -> Self {
        Self { vmcs: SoftwareVmcs::for_processor(caps) }
    }

    /// The VMWRITEs in order: controls, guest state, host state, each by ascending encoding.
    pub fn writes(&self) -> impl Iterator<Item = VmcsWrite> + '_ {
        [Group::Control, Group::Guest, Group::Host].into_iter().flat_map(|group| {
            let in_group = move |(info, _): &(&FieldInfo, u64)| info.encoding.group() == group;
            self.vmcs.fields().filter(in_group).map(|(info, value)| VmcsWrite { field: info.encoding, value })
        })
    }

    /// Does the VMWRITEs.
    ///
    /// # Errors
    /// The first field that is refused; those before it are written.
    pub fn write_to(&self, vmcs: &mut impl VmcsAccess) -> Result<(), WriteError> {
        self.writes().try_for_each(|write| {
            vmcs.write_raw(write.field, write.value).map_err(|fail| WriteError { field: write.field, fail })
        })
    }

    /// The same as a VMCS in software: for the [checks](crate::checks), or to be printed.
    pub fn as_vmcs(&self) -> &SoftwareVmcs {
        &self.vmcs
    }

    /// The same, to be changed by hand.
    pub fn as_vmcs_mut(&mut self) -> &mut SoftwareVmcs {
        &mut self.vmcs
    }
}

/// A field that could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteError {
    /// The field.
    pub field: FieldEncoding,
    /// Why: error 12 if the processor lacks it.
    pub fail: VmFail,
}

impl WriteError {
    /// Writes `field`, and says which it was if that fails.
    pub(super) fn at<W: FieldWidth, G: WritableGroup>(
        field: Field<W, G>,
        value: W::Value,
        vmcs: &mut impl VmcsAccess,
    ) -> Result<(), Self> {
        vmcs.write(field, value).map_err(|fail| Self { field: field.encoding(), fail })
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write {}: {}", self.field, self.fail)
    }
}

impl core::error::Error for WriteError {}
