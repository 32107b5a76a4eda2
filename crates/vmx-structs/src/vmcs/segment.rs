//! Segment registers as a VMCS holds them (SDM 24.4.1).

use core::fmt;

use super::{Bits16, Bits32, Field, Guest, Natural, guest};

/// A segment's access rights (SDM Table 24-2): bits 23:8 of the upper half of its descriptor, and an *unusable* bit.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AccessRights(u32);

impl AccessRights {
    /// 64-bit code: present, readable, accessed, DPL 0.
    pub const CODE_64: Self = Self(0xa09b);
    /// 32-bit code of 4 GiB.
    pub const CODE_32: Self = Self(0xc09b);
    /// 16-bit code of 64 KiB.
    pub const CODE_16: Self = Self(0x009b);
    /// 32-bit data of 4 GiB.
    pub const DATA_32: Self = Self(0xc093);
    /// 16-bit data of 64 KiB. Also what CS may be for an unrestricted guest in real mode.
    pub const DATA_16: Self = Self(0x0093);
    /// Any segment in virtual-8086 mode.
    pub const VIRTUAL_8086: Self = Self(0x00f3);
    /// A busy 64-bit or 32-bit TSS.
    pub const TSS_BUSY: Self = Self(0x008b);
    /// A busy 16-bit TSS.
    pub const TSS_16_BUSY: Self = Self(0x0083);
    /// A local descriptor table.
    pub const LDT: Self = Self(0x0082);
    /// No segment: loaded with a null selector.
    pub const UNUSABLE: Self = Self(1 << 16);

    /// From the field's bits. Any value; VM entry checks it.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The field's bits.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Type (bits 3:0).
    pub const fn segment_type(self) -> u32 {
        self.0 & 0xf
    }

    /// Whether it is a code or data segment, not a system segment (bit 4, S).
    pub const fn is_code_or_data(self) -> bool {
        self.0 >> 4 & 1 == 1
    }

    /// Descriptor privilege level (bits 6:5).
    pub const fn dpl(self) -> u32 {
        self.0 >> 5 & 3
    }

    /// Present (bit 7).
    pub const fn is_present(self) -> bool {
        self.0 >> 7 & 1 == 1
    }

    /// Reserved bits that are 1: 11:8 and 31:17.
    pub const fn reserved(self) -> u32 {
        self.0 & 0xfffe_0f00
    }

    /// 64-bit code (bit 13, L; for CS only).
    pub const fn is_long(self) -> bool {
        self.0 >> 13 & 1 == 1
    }

    /// Default operation size (bit 14, D/B).
    pub const fn is_big(self) -> bool {
        self.0 >> 14 & 1 == 1
    }

    /// Granularity (bit 15): the limit counts pages.
    pub const fn is_page_granular(self) -> bool {
        self.0 >> 15 & 1 == 1
    }

    /// Whether the register holds no segment (bit 16).
    pub const fn is_unusable(self) -> bool {
        self.0 >> 16 & 1 == 1
    }
}

impl fmt::Debug for AccessRights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessRights({:#x}", self.0)?;
        if self.is_unusable() {
            return f.write_str(": unusable)");
        }
        let kind = match (self.is_code_or_data(), self.segment_type()) {
            (true, 8..) => "code",
            (true, _) => "data",
            (false, 2) => "LDT",
            (false, 3) => "busy 16-bit TSS",
            (false, 11) => "busy TSS",
            (false, _) => "system",
        };
        write!(f, ": {kind}, DPL {}", self.dpl())?;
        for (flag, text) in [
            (!self.is_present(), ", not present"),
            (self.is_long(), ", 64-bit"),
            (self.is_big(), ", 32-bit"),
            (self.is_page_granular(), ", pages"),
            (self.reserved() != 0, ", reserved bits"),
        ] {
            if flag {
                f.write_str(text)?;
            }
        }
        f.write_str(")")
    }
}

/// A segment register: CS, SS, DS, ES, FS, GS, LDTR or TR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    /// The selector.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes, whatever the granularity.
    pub limit: u32,
    /// Access rights.
    pub access: AccessRights,
}

impl Segment {
    /// No segment.
    pub const UNUSABLE: Self = Self { selector: 0, base: 0, limit: 0, access: AccessRights::UNUSABLE };

    /// All 4 GiB (or, in 64-bit mode, everything) from address 0 on.
    pub const fn flat(selector: u16, access: AccessRights) -> Self {
        Self { selector, base: 0, limit: u32::MAX, access }
    }

    /// A segment of real mode: 64 KiB from 16 × selector on.
    pub const fn real_mode(selector: u16, access: AccessRights) -> Self {
        Self { selector, base: (selector as u64) << 4, limit: 0xffff, access }
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DescriptorTable {
    /// Base address.
    pub base: u64,
    /// Limit: the size in bytes, less 1.
    pub limit: u32,
}

/// The four guest-state fields of a segment register.
#[derive(Clone, Copy, Debug)]
pub struct SegmentFields {
    /// The register's name: `"CS"`.
    pub name: &'static str,
    /// Its selector.
    pub selector: Field<Bits16, Guest>,
    /// Its base address.
    pub base: Field<Natural, Guest>,
    /// Its limit.
    pub limit: Field<Bits32, Guest>,
    /// Its access rights.
    pub access_rights: Field<Bits32, Guest>,
}

macro_rules! segment_fields {
    ($($register:ident: $name:literal $selector:ident $base:ident $limit:ident $access:ident;)*) => {
        impl SegmentFields {
            $(
                #[doc = concat!("The fields of ", $name, ".")]
                pub const $register: Self = Self {
                    name: $name,
                    selector: guest::$selector,
                    base: guest::$base,
                    limit: guest::$limit,
                    access_rights: guest::$access,
                };
            )*
            /// ES, CS, SS, DS, FS, GS, LDTR and TR: in the order of their encodings.
            pub const ALL: [Self; 8] = [$(Self::$register),*];
        }
    };
}

segment_fields! {
    ES: "ES" ES_SELECTOR ES_BASE ES_LIMIT ES_ACCESS_RIGHTS;
    CS: "CS" CS_SELECTOR CS_BASE CS_LIMIT CS_ACCESS_RIGHTS;
    SS: "SS" SS_SELECTOR SS_BASE SS_LIMIT SS_ACCESS_RIGHTS;
    DS: "DS" DS_SELECTOR DS_BASE DS_LIMIT DS_ACCESS_RIGHTS;
    FS: "FS" FS_SELECTOR FS_BASE FS_LIMIT FS_ACCESS_RIGHTS;
    GS: "GS" GS_SELECTOR GS_BASE GS_LIMIT GS_ACCESS_RIGHTS;
    LDTR: "LDTR" LDTR_SELECTOR LDTR_BASE LDTR_LIMIT LDTR_ACCESS_RIGHTS;
    TR: "TR" TR_SELECTOR TR_BASE TR_LIMIT TR_ACCESS_RIGHTS;
}
