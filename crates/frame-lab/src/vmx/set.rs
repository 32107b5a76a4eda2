//! `--set`: a VMCS broken, or mended, by hand.
//!
//! A field goes by the SDM's name, by its name in `vmx-structs`, or by its encoding; case and punctuation do not
//! matter. What the processor would refuse as a VMWRITE is refused here.

use std::fmt;

use serde::Serialize;
use vmx_structs::{CpuModel, VmxCapabilities, vmcs::*};

use super::{
    controls,
    number::{self, Hex},
    state,
};

/// A field to change.
#[derive(Clone, Debug)]
pub(crate) struct Assignment {
    text: String,
    field: FieldEncoding,
    operation: Operation,
    value: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Assign,
    Or,
    And,
    Xor,
}

/// A field that was changed.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Change {
    pub(crate) encoding: Hex,
    pub(crate) name: &'static str,
    pub(crate) before: Hex,
    pub(crate) after: Hex,
}

impl Assignment {
    /// Reads `FIELD=VALUE` for a processor.
    pub(crate) fn parse(text: &str, caps: &VmxCapabilities) -> Result<Self, SetError> {
        let error = |why| SetError { text: text.to_owned(), why };
        let (left, right) = text.split_once('=').ok_or(error(Why::NoEquals))?;
        let (name, operation) = match left.char_indices().last() {
            Some((at, '|')) => (&left[..at], Operation::Or),
            Some((at, '&')) => (&left[..at], Operation::And),
            Some((at, '^')) => (&left[..at], Operation::Xor),
            _ => (left, Operation::Assign),
        };
        let field = field(name).map_err(error)?;
        let info = field.info().ok_or(error(Why::UnknownField { near: Vec::new() }))?;
        if !info.exists(caps) {
            return Err(error(Why::Missing { field, requires: info.requires }));
        }
        if field.group() == Group::ReadOnly && !caps.misc.writes_read_only_fields() {
            return Err(error(Why::ReadOnly { field }));
        }
        let mask = match field.width() {
            _ if field.is_high() => 0xffff_ffff,
            // A natural-width field has the width of the processor.
            Width::Natural if !state::is_64_bit(caps) => 0xffff_ffff,
            width => width.mask(),
        };
        let (inverted, terms) = match right.trim().strip_prefix('~') {
            Some(terms) => (true, terms),
            None => (false, right),
        };
        let mut value = 0;
        for term in terms.split('|') {
            value |= number::parse(term)
                .or_else(|| control_bit(field, term))
                .ok_or_else(|| error(Why::NoValue { term: term.trim().to_owned(), field }))?;
        }
        if value & !mask != 0 {
            return Err(error(Why::TooWide { field, bits: mask.count_ones() }));
        }
        let value = if inverted { !value & mask } else { value };
        Ok(Self { text: text.to_owned(), field, operation, value })
    }

    /// Changes the field.
    pub(crate) fn apply(&self, vmcs: &mut SoftwareVmcs) -> Result<Change, SetError> {
        let error = |fail| SetError { text: self.text.clone(), why: Why::Refused { fail } };
        let before = vmcs.read_raw(self.field).map_err(error)?;
        let value = match self.operation {
            Operation::Assign => self.value,
            Operation::Or => before | self.value,
            Operation::And => before & self.value,
            Operation::Xor => before ^ self.value,
        };
        vmcs.write_raw(self.field, value).map_err(error)?;
        let after = vmcs.read_raw(self.field).map_err(error)?;
        let name = self.field.info().map_or("", |info| info.name);
        Ok(Change { encoding: Hex(self.field.raw().into()), name, before: Hex(before), after: Hex(after) })
    }
}

/// Letters and digits, in lower case: what names are compared by.
fn letters(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Every name that a field goes by.
fn names(info: &FieldInfo) -> Vec<String> {
    let mut names = vec![letters(info.name), letters(info.ident)];
    let group = match info.encoding.group() {
        Group::Control => "control",
        Group::ReadOnly => "exit",
        Group::Guest => "guest",
        Group::Host => "host",
    };
    names.push(letters(&format!("{group}::{}", info.ident)));
    // "EPT pointer (EPTP)" goes by either part.
    if let Some((long, short)) = info.name.split_once('(') {
        names.extend([letters(long), letters(short)]);
    }
    names
}

/// The field that a person means.
fn field(name: &str) -> Result<FieldEncoding, Why> {
    if let Some(raw) = number::parse(name) {
        let field = u32::try_from(raw).ok().map(FieldEncoding::from_raw);
        return field.filter(|field| field.info().is_some()).ok_or(Why::UnknownEncoding { raw });
    }
    let asked = letters(name);
    let found: Vec<_> = FieldInfo::ALL.iter().filter(|info| names(info).contains(&asked)).collect();
    match found[..] {
        [only] => Ok(only.encoding),
        [] => Err(Why::UnknownField { near: near(name) }),
        _ => Err(Why::Ambiguous { fields: found.into_iter().map(|info| info.name).collect() }),
    }
}

/// Fields whose names share most with what was asked: at most 5.
fn near(name: &str) -> Vec<&'static str> {
    let asked: Vec<String> = name.split(|c: char| !c.is_alphanumeric()).map(letters).collect();
    let score = |info: &FieldInfo| {
        let all = letters(info.name);
        asked
            .iter()
            .filter(|word| word.len() > 1 && all.contains(word.as_str()))
            .map(String::len)
            .sum::<usize>()
    };
    let mut scored: Vec<_> = FieldInfo::ALL.iter().map(|info| (score(info), info.name)).collect();
    let best = scored.iter().map(|(score, _)| *score).max().unwrap_or(0);
    scored.retain(|(score, _)| *score == best && best > 0);
    scored.into_iter().take(5).map(|(_, name)| name).collect()
}

/// The bits of a control word.
fn word(field: FieldEncoding) -> Option<&'static [ControlBit]> {
    let any = CpuModel::ALL.first()?.capabilities(); // the bits' names do not depend on the processor
    let word = controls::words(&any, &Controls::NONE).into_iter().find(|word| word.field == field)?;
    Some(word.bits)
}

/// The bit that a name stands for in a control word.
fn control_bit(field: FieldEncoding, name: &str) -> Option<u64> {
    let bit = word(field)?.iter().find(|bit| letters(bit.name) == letters(name))?;
    Some(1 << bit.bit)
}

/// An assignment that means nothing, or that no VMWRITE could do.
#[derive(Clone, Debug)]
pub(crate) struct SetError {
    text: String,
    why: Why,
}

#[derive(Clone, Debug)]
enum Why {
    NoEquals,
    UnknownField { near: Vec<&'static str> },
    UnknownEncoding { raw: u64 },
    Ambiguous { fields: Vec<&'static str> },
    Missing { field: FieldEncoding, requires: Requires },
    ReadOnly { field: FieldEncoding },
    NoValue { term: String, field: FieldEncoding },
    TooWide { field: FieldEncoding, bits: u32 },
    Refused { fail: VmFail },
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--set {}: ", self.text)?;
        match &self.why {
            Why::NoEquals => f.write_str("give FIELD=VALUE, such as 'Guest CR0=0x20' or 0x6800=0x20"),
            Why::UnknownField { near } => {
                f.write_str("no VMCS field has this name")?;
                match near[..] {
                    [] => f.write_str("; `frame-lab vmx` lists them all"),
                    _ => write!(f, "; near it: {}", near.join(", ")),
                }
            }
            Why::UnknownEncoding { raw } => {
                write!(f, "no VMCS field has the encoding {raw:#x}; `frame-lab vmx` lists them all")
            }
            Why::Ambiguous { fields } => write!(f, "this may be {}: say which", fields.join(" or ")),
            Why::Missing { field, requires } => write!(
                f,
                "this processor has no {field} (VMWRITE fails with error 12): it comes with {requires:?}; take another \
                 --cpu"
            ),
            Why::ReadOnly { field } => write!(
                f,
                "{field} is read-only (VMWRITE fails with error 13), and bit 29 of this processor's IA32_VMX_MISC \
                 makes no exception"
            ),
            Why::NoValue { term, field } => {
                write!(f, "`{term}` is no number (0x20, 32)")?;
                if word(*field).is_some() { write!(f, ", and no bit of {field}") } else { Ok(()) }
            }
            Why::TooWide { field, bits } => {
                write!(f, "the value does not fit into the {bits} bits of {field}")
            }
            Why::Refused { fail } => fail.fmt(f),
        }
    }
}

impl std::error::Error for SetError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(id: &str) -> VmxCapabilities {
        CpuModel::by_id(id).unwrap().capabilities()
    }

    fn refused(text: &str, cpu: &str) -> String {
        Assignment::parse(text, &caps(cpu)).unwrap_err().to_string()
    }

    #[test]
    fn every_field_is_found_by_name_and_by_encoding() {
        for info in FieldInfo::ALL {
            assert_eq!(field(info.name).unwrap(), info.encoding);
            assert_eq!(field(&info.name.to_uppercase()).unwrap(), info.encoding);
            assert_eq!(field(&format!("{:#x}", info.encoding.raw())).unwrap(), info.encoding);
        }
        for (name, encoding) in [
            ("eptp", 0x201a),
            ("EPT pointer", 0x201a),
            ("guest cr0", 0x6800),
            ("host::CR0", 0x6c00),
            ("IO_BITMAP_A", 0x2000),
            ("0x2001", 0x2001),
        ] {
            assert_eq!(field(name).unwrap().raw(), encoding, "{name}");
        }
    }

    #[test]
    fn operations() {
        let caps = caps("skylake_x");
        let mut vmcs = SoftwareVmcs::for_processor(&caps);
        for (text, value) in [
            ("guest::CR0=0x33", 0x33),
            ("guest::CR0|=0x100", 0x133),
            ("guest::CR0&=~0x30", 0x103),
            ("guest::CR0 ^= 3", 0x100),
        ] {
            let change = Assignment::parse(text, &caps).unwrap().apply(&mut vmcs).unwrap();
            assert_eq!((change.after.0, vmcs.get(guest::CR0)), (value, value), "{text}");
        }
        let bits = "Pin-based VM-execution controls=NMI exiting|virtual NMIs|1";
        Assignment::parse(bits, &caps).unwrap().apply(&mut vmcs).unwrap();
        assert_eq!(vmcs.get(control::PIN_CONTROLS), 0x29);
        Assignment::parse("0x2001=0x12", &caps).unwrap().apply(&mut vmcs).unwrap();
        assert_eq!(vmcs.get(control::IO_BITMAP_A), 0x12_0000_0000);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, cpu, part) in [
            ("VPID", "skylake_x", "FIELD=VALUE"),
            ("guest cs selektor=1", "skylake_x", "near it: Guest CS selector"),
            ("qq=1", "skylake_x", "lists them all"),
            ("0x9999=1", "skylake_x", "encoding 0x9999"),
            ("CR0=1", "skylake_x", "Guest CR0 or Host CR0"),
            ("VPID=0x10000", "skylake_x", "16 bits"),
            ("0x2001=0x100000000", "skylake_x", "32 bits"),
            ("Guest RIP=0x100000000", "first_generation", "32 bits"),
            ("EPTP=1", "core2_penryn", "error 12"),
            ("Exit reason=1", "first_generation", "error 13"),
            ("VPID=one", "skylake_x", "`one` is no number"),
            ("VPID=", "skylake_x", "no number"),
        ] {
            let error = refused(text, cpu);
            assert!(error.starts_with(&format!("--set {text}: ")) && error.contains(part), "{error}");
        }
    }
}
