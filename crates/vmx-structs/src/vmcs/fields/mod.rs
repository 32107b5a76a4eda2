//! All 210 VMCS fields (SDM Appendix B, and newer ones as public implementations use them).
//!
//! | width | control | read-only | guest | host |
//! |---|---|---|---|---|
//! | 16 | 6 | 0 | 11 | 7 |
//! | 64 | 39 | 4 | 25 | 14 |
//! | 32 | 20 | 8 | 23 | 1 |
//! | natural | 8 | 6 | 23 | 15 |
//!
//! A processor has a field only if it has the feature that the field serves: [`FieldInfo::exists`] tells.

// The group modules say `use super::*`, so that a line of their tables needs no path.
use super::controls::*;
use super::encoding::*;
use super::requires::Requires::{self, *};

/// Turns a table of fields into typed constants and a table of the same for programs.
macro_rules! fields {
    ($group:ident: $($width:ident { $($encoding:literal $ident:ident $name:literal $requires:expr;)* })*) => {
        $($(
            #[doc = $name]
            pub const $ident: Field<$width, $group> = Field::new($encoding);
        )*)*
        pub(super) const TABLE: &[FieldInfo] = &[$($(FieldInfo {
            encoding: $ident.encoding(),
            name: $name,
            ident: stringify!($ident),
            requires: $requires,
        },)*)*];
    };
}

pub mod control;
pub mod exit;
pub mod guest;
pub mod host;

/// What is known of a field.
#[derive(Clone, Copy, Debug)]
pub struct FieldInfo {
    /// Its encoding.
    pub encoding: FieldEncoding,
    /// The SDM's name.
    pub name: &'static str,
    /// The name of the constant in this crate.
    pub ident: &'static str,
    /// What a processor must support to have the field.
    pub requires: Requires,
}

impl FieldInfo {
    /// Every field, by ascending encoding.
    pub const ALL: &'static [Self; FIELD_COUNT] = &sorted();

    /// Whether a processor has the field.
    pub fn exists(&self, caps: &crate::VmxCapabilities) -> bool {
        self.requires.holds(caps)
    }

    /// Where in [`ALL`](Self::ALL) the field with this encoding stands.
    pub(crate) fn index_of(encoding: FieldEncoding) -> Option<usize> {
        Self::ALL.binary_search_by_key(&encoding, |info| info.encoding).ok()
    }
}

/// Fields that this crate knows.
pub const FIELD_COUNT: usize =
    control::TABLE.len() + exit::TABLE.len() + guest::TABLE.len() + host::TABLE.len();

/// The four tables in one, sorted when compiled.
const fn sorted() -> [FieldInfo; FIELD_COUNT] {
    let tables = [control::TABLE, exit::TABLE, guest::TABLE, host::TABLE];
    let mut all = [control::TABLE[0]; FIELD_COUNT];
    let mut count = 0;
    let mut table = 0;
    while table < tables.len() {
        let mut row = 0;
        while row < tables[table].len() {
            // Insertion: what is greater moves up.
            let mut at = count;
            let encoding = tables[table][row].encoding.raw();
            while at > 0 && all[at - 1].encoding.raw() > encoding {
                all[at] = all[at - 1];
                at -= 1;
            }
            all[at] = tables[table][row];
            count += 1;
            row += 1;
        }
        table += 1;
    }
    all
}
