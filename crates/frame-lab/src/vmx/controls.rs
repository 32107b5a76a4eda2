//! The control words bit by bit: what a bit is, what the processor allows, and who wanted it.

use serde::Serialize;
use vmx_structs::{VmxCapabilities, capabilities::msr, vmcs::*};

use super::number::Hex;

/// A control word: its field, its bits, and what a processor allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word {
    pub(crate) field: FieldEncoding,
    pub(crate) bits: &'static [ControlBit],
    /// The MSR that says what is allowed.
    pub(crate) capability: (&'static str, u32),
    pub(crate) must: u64,
    pub(crate) may: u64,
    /// The bits that this VM asked for.
    pub(crate) wanted: u64,
}

/// The seven control words.
pub(crate) fn words(caps: &VmxCapabilities, wanted: &Controls) -> [Word; 7] {
    fn word<W: ControlWord>(
        caps: &VmxCapabilities,
        field: FieldEncoding,
        capability: (&'static str, u32),
        wanted: W,
    ) -> Word
    where
        W::Bits: Into<u64>,
    {
        let (must, may) = W::allowed(caps);
        let (must, may) = (must.bits().into(), may.bits().into());
        Word { field, bits: W::BITS, capability, must, may, wanted: wanted.bits().into() }
    }
    let plain_or_true = |plain, true_form| if caps.basic.has_true_controls() { true_form } else { plain };
    let pin = plain_or_true(
        ("IA32_VMX_PINBASED_CTLS", msr::IA32_VMX_PINBASED_CTLS),
        ("IA32_VMX_TRUE_PINBASED_CTLS", msr::IA32_VMX_TRUE_PINBASED_CTLS),
    );
    let primary = plain_or_true(
        ("IA32_VMX_PROCBASED_CTLS", msr::IA32_VMX_PROCBASED_CTLS),
        ("IA32_VMX_TRUE_PROCBASED_CTLS", msr::IA32_VMX_TRUE_PROCBASED_CTLS),
    );
    let exit = plain_or_true(
        ("IA32_VMX_EXIT_CTLS", msr::IA32_VMX_EXIT_CTLS),
        ("IA32_VMX_TRUE_EXIT_CTLS", msr::IA32_VMX_TRUE_EXIT_CTLS),
    );
    let entry = plain_or_true(
        ("IA32_VMX_ENTRY_CTLS", msr::IA32_VMX_ENTRY_CTLS),
        ("IA32_VMX_TRUE_ENTRY_CTLS", msr::IA32_VMX_TRUE_ENTRY_CTLS),
    );
    let secondary = ("IA32_VMX_PROCBASED_CTLS2", msr::IA32_VMX_PROCBASED_CTLS2);
    let tertiary = ("IA32_VMX_PROCBASED_CTLS3", msr::IA32_VMX_PROCBASED_CTLS3);
    let secondary_exit = ("IA32_VMX_EXIT_CTLS2", msr::IA32_VMX_EXIT_CTLS2);
    [
        word(caps, control::PIN_CONTROLS.encoding(), pin, wanted.pin),
        word(caps, control::PRIMARY_CONTROLS.encoding(), primary, wanted.primary),
        word(caps, control::SECONDARY_CONTROLS.encoding(), secondary, wanted.secondary),
        word(caps, control::TERTIARY_CONTROLS.encoding(), tertiary, wanted.tertiary),
        word(caps, control::EXIT_CONTROLS.encoding(), exit, wanted.exit),
        word(caps, control::SECONDARY_EXIT_CONTROLS.encoding(), secondary_exit, wanted.secondary_exit),
        word(caps, control::ENTRY_CONTROLS.encoding(), entry, wanted.entry),
    ]
}

/// A control word in a VMCS.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WordFacts {
    /// The MSR that says what is allowed.
    pub(crate) capability_msr: &'static str,
    pub(crate) capability_msr_number: Hex,
    /// Bits whose allowed 0-setting is 1.
    pub(crate) must_be_one: Hex,
    /// Bits whose allowed 1-setting is 1.
    pub(crate) may_be_one: Hex,
    pub(crate) bits: Vec<BitFacts>,
}

/// A bit of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BitFacts {
    pub(crate) bit: u32,
    /// The SDM's name; `None` for a reserved bit.
    pub(crate) name: Option<&'static str>,
    pub(crate) about: Option<&'static str>,
    pub(crate) value: bool,
    pub(crate) allowed: Allowed,
    pub(crate) reason: Reason,
}

/// What the capability MSR lets a bit be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Allowed {
    Either,
    OnlyOne,
    OnlyZero,
}

/// Why a bit has its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// This VM asked for it.
    Wanted,
    /// Nobody asked, and the processor demands it.
    Forced,
    /// Nobody asked, and it could be 1.
    Unused,
    /// The processor does not have it.
    Unavailable,
    /// It was set by hand to what the processor does not allow.
    Refused,
    /// It was set by hand.
    ByHand,
}

impl Word {
    /// What a value of the word says. Reserved bits come along if they are 1 or must be.
    pub(crate) fn facts(&self, value: u64) -> WordFacts {
        let name = |bit: u32| self.bits.iter().find(|named| named.bit == bit);
        let width = self.field.width().mask();
        let shown = (0..64)
            .filter(|bit| width >> bit & 1 == 1)
            .filter(|&bit| name(bit).is_some() || (value | self.must) >> bit & 1 == 1);
        let bits = shown.map(|bit| {
            let is = |set: u64| set >> bit & 1 == 1;
            let allowed = match (is(self.must), is(self.may)) {
                (true, _) => Allowed::OnlyOne,
                (false, true) => Allowed::Either,
                (false, false) => Allowed::OnlyZero,
            };
            let reason = match (is(value), is(self.wanted), allowed) {
                (true, _, Allowed::OnlyZero) | (false, _, Allowed::OnlyOne) => Reason::Refused,
                (true, true, _) => Reason::Wanted,
                (true, false, Allowed::OnlyOne) => Reason::Forced,
                (false, false, Allowed::Either) => Reason::Unused,
                (false, _, Allowed::OnlyZero) => Reason::Unavailable,
                // "Activate secondary controls" follows from the secondary controls: nobody asks for it by name.
                (true, false, Allowed::Either)
                    if name(bit).is_some_and(|n| n.name.starts_with("Activate ")) =>
                {
                    Reason::Wanted
                }
                _ => Reason::ByHand,
            };
            let named = name(bit);
            BitFacts {
                bit,
                name: named.map(|named| named.name),
                about: named.map(|named| named.about),
                value: is(value),
                allowed,
                reason,
            }
        });
        WordFacts {
            capability_msr: self.capability.0,
            capability_msr_number: Hex(self.capability.1.into()),
            must_be_one: Hex(self.must),
            may_be_one: Hex(self.may),
            bits: bits.collect(),
        }
    }
}
