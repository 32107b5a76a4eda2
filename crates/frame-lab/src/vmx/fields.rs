//! The VMCS field by field, in the order of the SDM's Appendix B, which is that of the encodings.

use serde::Serialize;
use vmx_structs::{VmxCapabilities, vmcs::*};

use super::{
    controls::{self, WordFacts},
    meaning::{self, Known},
    number::Hex,
};

/// A field and what it holds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FieldFacts {
    pub(crate) encoding: Hex,
    pub(crate) name: &'static str,
    /// The section of the SDM's Appendix B that lists it.
    pub(crate) section: &'static str,
    pub(crate) group: &'static str,
    /// In bits; `natural` is that of the processor.
    pub(crate) width: &'static str,
    pub(crate) value: Hex,
    pub(crate) meaning: String,
    /// Of a control word.
    pub(crate) control: Option<WordFacts>,
}

/// A field that this processor does not have.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MissingField {
    pub(crate) encoding: Hex,
    pub(crate) name: &'static str,
}

/// The section of Appendix B, and its title.
pub(crate) const fn section(field: FieldEncoding) -> (&'static str, &'static str) {
    match (field.width(), field.group()) {
        (Width::Bits16, Group::Control) => ("B.1.1", "16-bit control fields"),
        (Width::Bits16, Group::Guest) => ("B.1.2", "16-bit guest-state fields"),
        (Width::Bits16, Group::Host) => ("B.1.3", "16-bit host-state fields"),
        (Width::Bits16, Group::ReadOnly) => ("B.1", "16-bit read-only data fields"),
        (Width::Bits64, Group::Control) => ("B.2.1", "64-bit control fields"),
        (Width::Bits64, Group::ReadOnly) => ("B.2.2", "64-bit read-only data fields"),
        (Width::Bits64, Group::Guest) => ("B.2.3", "64-bit guest-state fields"),
        (Width::Bits64, Group::Host) => ("B.2.4", "64-bit host-state fields"),
        (Width::Bits32, Group::Control) => ("B.3.1", "32-bit control fields"),
        (Width::Bits32, Group::ReadOnly) => ("B.3.2", "32-bit read-only data fields"),
        (Width::Bits32, Group::Guest) => ("B.3.3", "32-bit guest-state fields"),
        (Width::Bits32, Group::Host) => ("B.3.4", "32-bit host-state field"),
        (Width::Natural, Group::Control) => ("B.4.1", "natural-width control fields"),
        (Width::Natural, Group::ReadOnly) => ("B.4.2", "natural-width read-only data fields"),
        (Width::Natural, Group::Guest) => ("B.4.3", "natural-width guest-state fields"),
        (Width::Natural, Group::Host) => ("B.4.4", "natural-width host-state fields"),
    }
}

/// Every field that the processor has.
pub(crate) fn facts(vmcs: &SoftwareVmcs, wanted: &Controls, known: &Known<'_>) -> Vec<FieldFacts> {
    let words = controls::words(known.caps, wanted);
    let fact = |(info, value): (&FieldInfo, u64)| FieldFacts {
        encoding: Hex(info.encoding.raw().into()),
        name: info.name,
        section: section(info.encoding).0,
        group: match info.encoding.group() {
            Group::Control => "control",
            Group::ReadOnly => "read-only",
            Group::Guest => "guest",
            Group::Host => "host",
        },
        width: match info.encoding.width() {
            Width::Bits16 => "16",
            Width::Bits32 => "32",
            Width::Bits64 => "64",
            Width::Natural => "natural",
        },
        value: Hex(value),
        meaning: meaning::of(info.encoding, value, known),
        control: words.iter().find(|word| word.field == info.encoding).map(|word| word.facts(value)),
    };
    vmcs.fields().map(fact).collect()
}

/// The fields that it does not have.
pub(crate) fn missing(caps: &VmxCapabilities) -> Vec<MissingField> {
    let missing = FieldInfo::ALL.iter().filter(|info| !info.exists(caps));
    missing.map(|info| MissingField { encoding: Hex(info.encoding.raw().into()), name: info.name }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_encodings_is_that_of_appendix_b() {
        let sections: Vec<_> = FieldInfo::ALL.iter().map(|info| section(info.encoding).0).collect();
        assert!(sections.is_sorted());
        assert_eq!(FieldInfo::ALL.iter().filter(|info| section(info.encoding).0 == "B.1").count(), 0);
    }
}
