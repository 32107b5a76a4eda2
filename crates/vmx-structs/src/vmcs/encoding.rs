//! How a VMCS field is named: its encoding, and the type that says what may be done with it.
//!
//! VMREAD and VMWRITE name a field by a 32-bit *encoding* (SDM 24.11.2):
//!
//! ```text
//! 31       15  14  13  12  11  10  9                  1    0
//! ┌──────────┬───────┬───┬───────┬───────────────────┬────────┐
//! │ 0        │ width │ 0 │ type  │ index             │ access │
//! └──────────┴───────┴───┴───────┴───────────────────┴────────┘
//! width: 0 16 bits, 1 64 bits, 2 32 bits, 3 natural; type: 0 control, 1 read-only, 2 guest, 3 host;
//! access: 1 names the upper half of a 64-bit field.
//! ```
//!
//! A [`Field<W, G>`] carries width and group in its type, so a value of the wrong width, or a write to a read-only
//! field, does not compile. A [`FieldEncoding`] is the same without types, for what comes from outside.

use core::{fmt, hash::Hash, marker::PhantomData};

use super::FieldInfo;

/// The encoding of a VMCS field, as VMREAD and VMWRITE take it. Any 32 bits; the field need not exist.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldEncoding(u32);

impl FieldEncoding {
    /// From the bits.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The bits.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Whether the upper half of a 64-bit field is named (bit 0).
    pub const fn is_high(self) -> bool {
        self.0 & 1 == 1
    }

    /// The whole field: bit 0 cleared.
    pub const fn full(self) -> Self {
        Self(self.0 & !1)
    }

    /// The number of the field among those of its width and group (bits 9:1).
    pub const fn index(self) -> u32 {
        self.0 >> 1 & 0x1ff
    }

    /// The width of the field (bits 14:13).
    pub const fn width(self) -> Width {
        match self.0 >> 13 & 3 {
            0 => Width::Bits16,
            1 => Width::Bits64,
            2 => Width::Bits32,
            _ => Width::Natural,
        }
    }

    /// The group of the field (bits 11:10).
    pub const fn group(self) -> Group {
        match self.0 >> 10 & 3 {
            0 => Group::Control,
            1 => Group::ReadOnly,
            2 => Group::Guest,
            _ => Group::Host,
        }
    }

    /// Whether the encoding keeps the rules: reserved bits 0, and only 64-bit fields have an upper half.
    pub const fn is_well_formed(self) -> bool {
        self.0 & !0x6fff == 0 && (!self.is_high() || matches!(self.width(), Width::Bits64))
    }

    /// What is known of the field, or of the field whose upper half this is.
    pub fn info(self) -> Option<&'static FieldInfo> {
        if !self.is_well_formed() {
            return None;
        }
        FieldInfo::index_of(self.full()).map(|slot| &FieldInfo::ALL[slot])
    }
}

impl fmt::Debug for FieldEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The SDM's name where there is one, and the number.
impl fmt::Display for FieldEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.info() {
            Some(info) if self.is_high() => write!(f, "{} (high) [{:#06x}]", info.name, self.0),
            Some(info) => write!(f, "{} [{:#06x}]", info.name, self.0),
            None => write!(f, "no VMCS field [{:#06x}]", self.0),
        }
    }
}

/// The width of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// 16 bits.
    Bits16,
    /// 64 bits, on every processor.
    Bits64,
    /// 32 bits.
    Bits32,
    /// 64 bits on a processor with Intel 64, else 32.
    Natural,
}

impl Width {
    /// Bits that a value can have (natural width: 64).
    pub const fn mask(self) -> u64 {
        match self {
            Self::Bits16 => 0xffff,
            Self::Bits32 => 0xffff_ffff,
            Self::Bits64 | Self::Natural => u64::MAX,
        }
    }
}

/// The group of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// Controls of VM execution, exit and entry: software writes them.
    Control,
    /// VM-exit information: the processor writes it.
    ReadOnly,
    /// Guest state: both write it.
    Guest,
    /// Host state: software writes it.
    Host,
}

mod sealed {
    pub trait Sealed {}
}

/// A width, as a type.
pub trait FieldWidth: sealed::Sealed + 'static {
    /// The same, as a value.
    const WIDTH: Width;
    /// What a field of this width holds.
    type Value: Copy + Eq + Hash + Into<u64> + fmt::Debug + fmt::LowerHex + 'static;
    /// The low bits of `value`.
    fn truncate(value: u64) -> Self::Value;
}

/// A group, as a type.
pub trait FieldGroup: sealed::Sealed + 'static {
    /// The same, as a value.
    const GROUP: Group;
}

/// A group whose fields software writes: every group but [`ReadOnly`].
pub trait WritableGroup: FieldGroup {}

macro_rules! widths {
    ($($(#[$doc:meta])* $name:ident: $value:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}
        impl sealed::Sealed for $name {}
        impl FieldWidth for $name {
            const WIDTH: Width = Width::$name;
            type Value = $value;
            fn truncate(value: u64) -> $value {
                value as $value
            }
        }
    )*};
}

widths! {
    /// 16 bits: `u16`.
    Bits16: u16;
    /// 32 bits: `u32`.
    Bits32: u32;
    /// 64 bits: `u64`.
    Bits64: u64;
    /// Natural width: `u64`, whatever the processor.
    Natural: u64;
}

macro_rules! groups {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}
        impl sealed::Sealed for $name {}
        impl FieldGroup for $name {
            const GROUP: Group = Group::$name;
        }
    )*};
}

groups! {
    /// Controls.
    Control;
    /// VM-exit information.
    ReadOnly;
    /// Guest state.
    Guest;
    /// Host state.
    Host;
}

impl WritableGroup for Control {}
impl WritableGroup for Guest {}
impl WritableGroup for Host {}

/// A field of width `W` in group `G`. The constants of [`control`](super::control), [`guest`](super::guest),
/// [`host`](super::host) and [`exit`](super::exit) are all there are.
pub struct Field<W: FieldWidth, G: FieldGroup> {
    encoding: FieldEncoding,
    _types: PhantomData<fn() -> (W, G)>,
}

impl<W: FieldWidth, G: FieldGroup> Field<W, G> {
    /// # Panics
    /// The encoding does not say what the type says; used in constants only, so it fails when compiled.
    pub(super) const fn new(raw: u32) -> Self {
        let encoding = FieldEncoding(raw);
        assert!(encoding.is_well_formed() && !encoding.is_high(), "not the encoding of a whole field");
        assert!(encoding.width() as u8 == W::WIDTH as u8, "the encoding has another width");
        assert!(encoding.group() as u8 == G::GROUP as u8, "the encoding has another group");
        Self { encoding, _types: PhantomData }
    }

    /// The encoding.
    pub const fn encoding(self) -> FieldEncoding {
        self.encoding
    }

    /// The SDM's name.
    pub fn name(self) -> &'static str {
        self.encoding.info().map_or("", |info| info.name)
    }
}

impl<W: FieldWidth, G: FieldGroup> Clone for Field<W, G> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W: FieldWidth, G: FieldGroup> Copy for Field<W, G> {}

impl<W: FieldWidth, G: FieldGroup> fmt::Debug for Field<W, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.encoding.fmt(f)
    }
}
