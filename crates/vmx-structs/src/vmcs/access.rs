//! Reading and writing fields, wherever the VMCS is.
//!
//! [`VmcsAccess`] is implemented by the processor's current VMCS (feature `instructions`), by
//! [`SoftwareVmcs`](super::SoftwareVmcs), and by whatever else holds fields: a nested hypervisor's copy, a shadow.
//! An implementor gives two untyped functions; users call the typed ones.

use super::{Field, FieldEncoding, FieldGroup, FieldWidth, VmFail, WritableGroup};

/// Something that holds VMCS fields.
///
/// Writing a read-only field does not compile:
/// ```compile_fail,E0277
/// # use vmx_structs::vmcs::{SoftwareVmcs, VmcsAccess, exit};
/// SoftwareVmcs::new().write(exit::EXIT_REASON, 0);
/// ```
/// nor does a value of another width:
/// ```compile_fail,E0308
/// # use vmx_structs::vmcs::{SoftwareVmcs, VmcsAccess, guest};
/// SoftwareVmcs::new().write(guest::CS_SELECTOR, 8_u32);
/// ```
/// nor reading into one:
/// ```compile_fail,E0308
/// # use vmx_structs::vmcs::{SoftwareVmcs, VmcsAccess, guest};
/// let rip: u32 = SoftwareVmcs::new().read(guest::RIP).unwrap();
/// ```
/// This does:
/// ```
/// use vmx_structs::vmcs::{SoftwareVmcs, VmcsAccess, exit, guest};
///
/// let mut vmcs = SoftwareVmcs::new();
/// vmcs.write(guest::CS_SELECTOR, 8)?;
/// assert_eq!(vmcs.read(guest::CS_SELECTOR), Ok(8_u16));
/// assert_eq!(vmcs.read(exit::EXIT_REASON), Ok(0_u32));
/// # Ok::<(), vmx_structs::vmcs::VmFail>(())
/// ```
pub trait VmcsAccess {
    /// Reads a field, or the upper half of one, as VMREAD does: zero-extended.
    ///
    /// # Errors
    /// As VMREAD: [`VmFail::Invalid`] without a current VMCS, error 12 for a field that is not supported.
    fn read_raw(&self, field: FieldEncoding) -> Result<u64, VmFail>;

    /// Writes a field, or the upper half of one, as VMWRITE does: bits beyond the width are dropped.
    ///
    /// # Errors
    /// As VMWRITE: [`VmFail::Invalid`] without a current VMCS, error 12 for a field that is not supported, error 13 for
    /// a read-only one.
    fn write_raw(&mut self, field: FieldEncoding, value: u64) -> Result<(), VmFail>;

    /// Reads a field.
    ///
    /// # Errors
    /// As [`read_raw`](Self::read_raw): the processor may not have the field.
    #[inline]
    fn read<W: FieldWidth, G: FieldGroup>(&self, field: Field<W, G>) -> Result<W::Value, VmFail>
    where
        Self: Sized,
    {
        self.read_raw(field.encoding()).map(W::truncate)
    }

    /// Writes a field.
    ///
    /// # Errors
    /// As [`write_raw`](Self::write_raw): the processor may not have the field.
    #[inline]
    fn write<W: FieldWidth, G: WritableGroup>(
        &mut self,
        field: Field<W, G>,
        value: W::Value,
    ) -> Result<(), VmFail>
    where
        Self: Sized,
    {
        self.write_raw(field.encoding(), value.into())
    }
}

impl<V: VmcsAccess + ?Sized> VmcsAccess for &mut V {
    #[inline]
    fn read_raw(&self, field: FieldEncoding) -> Result<u64, VmFail> {
        (**self).read_raw(field)
    }

    #[inline]
    fn write_raw(&mut self, field: FieldEncoding, value: u64) -> Result<(), VmFail> {
        (**self).write_raw(field, value)
    }
}
