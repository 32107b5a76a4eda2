//! The guest's segments and descriptor tables (SDM 26.3.1.2 and 26.3.1.3): reason 33.

use super::{Case, cases};
use vmx_structs::vmcs::guest;

/// Each breaks the rule that it names, and no other, where the processor has what it needs.
pub const BAD: &[Case] = cases! {
    SelectorTi long: |t| t.set(guest::TR_SELECTOR, 4);
    SelectorTi long: |t| { t.set(guest::LDTR_ACCESS_RIGHTS, 0x82); t.set(guest::LDTR_SELECTOR, 4) };
    SsRpl legacy: |t| t.set(guest::CS_SELECTOR, 0xb);
    Base8086 virtual_8086: |t| t.set(guest::CS_BASE, 0x1231);
    Base8086 virtual_8086: |t| t.set(guest::GS_BASE, 0);
    BaseCanonical long: |t| t.set(guest::TR_BASE, 1 << 47);
    BaseCanonical long: |t| t.set(guest::FS_BASE, 1 << 47);
    BaseCanonical long: |t| t.set(guest::GS_BASE, 1 << 63);
    BaseCanonical long: |t| { t.set(guest::LDTR_ACCESS_RIGHTS, 0x82); t.set(guest::LDTR_BASE, 1 << 47) };
    // FS is checked even when it is unusable.
    BaseCanonical long: |t| { t.set(guest::FS_ACCESS_RIGHTS, 1 << 16); t.set(guest::FS_BASE, 1 << 47) };
    BaseUpperHalf long: |t| t.set(guest::CS_BASE, 1 << 32);
    BaseUpperHalf long: |t| t.set(guest::SS_BASE, 1 << 32);
    BaseUpperHalf long: |t| t.set(guest::DS_BASE, 1 << 63);
    BaseUpperHalf long: |t| t.set(guest::ES_BASE, 1 << 32);
    Limit8086 virtual_8086: |t| t.set(guest::SS_LIMIT, 0xfffff);
    Access8086 virtual_8086: |t| t.set(guest::DS_ACCESS_RIGHTS, 0x93);
    Access8086 virtual_8086: |t| t.set(guest::FS_ACCESS_RIGHTS, 0x1_00f3);
    CsType legacy: |t| t.set(guest::CS_ACCESS_RIGHTS, 0xc09a); // not accessed
    CsType real: |t| t.set(guest::CS_ACCESS_RIGHTS, 0x97);
    SsType legacy: |t| t.set(guest::SS_ACCESS_RIGHTS, 0xc091); // read-only
    SsType legacy: |t| t.set(guest::SS_ACCESS_RIGHTS, 0xc09b);
    DataSegmentAccessed legacy: |t| t.set(guest::DS_ACCESS_RIGHTS, 0xc092);
    DataSegmentAccessed legacy: |t| t.set(guest::GS_ACCESS_RIGHTS, 0xc092);
    DataSegmentReadable legacy: |t| t.set(guest::ES_ACCESS_RIGHTS, 0xc099);
    NotSystem legacy: |t| t.set(guest::CS_ACCESS_RIGHTS, 0xc08b);
    NotSystem legacy: |t| t.set(guest::SS_ACCESS_RIGHTS, 0xc083);
    NotSystem legacy: |t| t.set(guest::FS_ACCESS_RIGHTS, 0xc083);
    CsDplOfData real: |t| t.set(guest::CS_ACCESS_RIGHTS, 0xb3);
    CsDplOfCode legacy: |t| t.set(guest::CS_ACCESS_RIGHTS, 0xc0fb);
    CsDplOfConforming legacy: |t| t.set(guest::CS_ACCESS_RIGHTS, 0xc0bf);
    SsDplEqualsRpl legacy: |t| { t.set(guest::SS_ACCESS_RIGHTS, 0xc0f3); t.set(guest::CS_ACCESS_RIGHTS, 0xc0fb) };
    SsDplZero real: |t| { t.set(guest::SS_ACCESS_RIGHTS, 0xf3); t.set(guest::CS_ACCESS_RIGHTS, 0xfb) };
    SsDplZero protected: |t| { t.set(guest::SS_ACCESS_RIGHTS, 0xc0f3); t.set(guest::CS_ACCESS_RIGHTS, 0xc093) };
    DataSegmentDpl legacy: |t| t.set(guest::DS_SELECTOR, 0x13);
    DataSegmentDpl legacy: |t| { t.set(guest::ES_SELECTOR, 0x13); t.set(guest::ES_ACCESS_RIGHTS, 0xc0bb) };
    Present legacy: |t| t.set(guest::CS_ACCESS_RIGHTS, 0xc01b);
    Present legacy: |t| t.set(guest::SS_ACCESS_RIGHTS, 0xc013);
    Present legacy: |t| t.set(guest::GS_ACCESS_RIGHTS, 0xc013);
    Present legacy: |t| t.set(guest::TR_ACCESS_RIGHTS, 0x0b);
    Present legacy: |t| t.set(guest::LDTR_ACCESS_RIGHTS, 0x02);
    AccessReserved legacy: |t| t.set(guest::CS_ACCESS_RIGHTS, 0xc19b);
    AccessReserved legacy: |t| t.set(guest::DS_ACCESS_RIGHTS, 0x8000_c093);
    AccessReserved legacy: |t| t.set(guest::TR_ACCESS_RIGHTS, 0x2_008b);
    AccessReserved legacy: |t| t.set(guest::LDTR_ACCESS_RIGHTS, 0x882);
    CsDefaultSize long: |t| t.set(guest::CS_ACCESS_RIGHTS, 0xe09b);
    Granularity legacy: |t| t.set(guest::CS_LIMIT, 0xffff_fffe);
    Granularity legacy: |t| t.set(guest::SS_LIMIT, 0xffff_fffe);
    Granularity legacy: |t| t.set(guest::DS_ACCESS_RIGHTS, 0x4093);
    Granularity legacy: |t| t.set(guest::TR_LIMIT, 0x10_0000);
    Granularity legacy: |t| { t.set(guest::LDTR_ACCESS_RIGHTS, 0x8082); t.set(guest::LDTR_LIMIT, 0xffe) };
    TrType legacy: |t| t.set(guest::TR_ACCESS_RIGHTS, 0x89); // available, not busy
    TrType long: |t| t.set(guest::TR_ACCESS_RIGHTS, 0x83); // 16-bit in IA-32e mode
    TrUsable legacy: |t| t.set(guest::TR_ACCESS_RIGHTS, 0x1_008b);
    LdtrType legacy: |t| t.set(guest::LDTR_ACCESS_RIGHTS, 0x8b);
    System legacy: |t| t.set(guest::TR_ACCESS_RIGHTS, 0x9b);
    System legacy: |t| t.set(guest::LDTR_ACCESS_RIGHTS, 0x92);
    TableBaseCanonical long: |t| t.set(guest::GDTR_BASE, 1 << 47);
    TableBaseCanonical long: |t| t.set(guest::IDTR_BASE, 1 << 60);
    TableLimit long: |t| t.set(guest::GDTR_LIMIT, 0x1_0000);
    TableLimit long: |t| t.set(guest::IDTR_LIMIT, 0x8000_0000);
};
