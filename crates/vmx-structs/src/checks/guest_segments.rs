//! Guest segment registers (SDM 26.3.1.2) and descriptor tables (26.3.1.3).

use super::{
    Rule,
    engine::Checker,
    guest_registers::{CR0_PE, RFLAGS_VM},
};
use crate::vmcs::{AccessRights, SegmentFields, guest};

/// CS, SS, DS, ES, FS and GS.
const CODE_AND_DATA: [SegmentFields; 6] = [
    SegmentFields::CS,
    SegmentFields::SS,
    SegmentFields::DS,
    SegmentFields::ES,
    SegmentFields::FS,
    SegmentFields::GS,
];
const DATA: [SegmentFields; 4] = [SegmentFields::DS, SegmentFields::ES, SegmentFields::FS, SegmentFields::GS];

impl Checker<'_> {
    pub(super) fn access(&self, fields: SegmentFields) -> AccessRights {
        AccessRights::from_raw(self.get(fields.access_rights) as u32)
    }

    fn is_usable(&self, fields: SegmentFields) -> bool {
        !self.access(fields).is_unusable()
    }

    fn rpl(&self, fields: SegmentFields) -> u32 {
        self.get(fields.selector) as u32 & 3
    }

    pub(super) fn guest_segments(&mut self) {
        if self.get(guest::RFLAGS) & RFLAGS_VM != 0 {
            self.virtual_8086_segments();
        } else {
            self.code_segment();
            self.stack_segment();
            self.data_segments();
        }
        self.task_register();
        self.ldtr();
        for field in [guest::GDTR_BASE, guest::IDTR_BASE] {
            self.require_canonical(Rule::TableBaseCanonical, field);
        }
        for field in [guest::GDTR_LIMIT, guest::IDTR_LIMIT] {
            self.require(self.get(field) >> 16 == 0, Rule::TableLimit, field);
        }
    }

    fn virtual_8086_segments(&mut self) {
        for fields in CODE_AND_DATA {
            let base = self.get(fields.selector) << 4;
            self.require(self.get(fields.base) == base, Rule::Base8086, fields.base);
            self.require(self.get(fields.limit) == 0xffff, Rule::Limit8086, fields.limit);
            let holds = self.access(fields) == AccessRights::VIRTUAL_8086;
            self.require(holds, Rule::Access8086, fields.access_rights);
        }
    }

    fn code_segment(&mut self) {
        let cs = self.access(SegmentFields::CS);
        let ss_dpl = self.access(SegmentFields::SS).dpl();
        let field = guest::CS_ACCESS_RIGHTS;
        self.require(self.get(guest::CS_BASE) >> 32 == 0, Rule::BaseUpperHalf, guest::CS_BASE);
        match cs.segment_type() {
            3 if self.is_unrestricted() => self.require(cs.dpl() == 0, Rule::CsDplOfData, field),
            9 | 11 => self.require(cs.dpl() == ss_dpl, Rule::CsDplOfCode, field),
            13 | 15 => self.require(cs.dpl() <= ss_dpl, Rule::CsDplOfConforming, field),
            _ => self.require(false, Rule::CsType, field),
        }
        let long = self.is_ia32e_guest() && cs.is_long();
        self.require(!(long && cs.is_big()), Rule::CsDefaultSize, field);
        self.code_or_data(SegmentFields::CS);
    }

    fn stack_segment(&mut self) {
        let ss = self.access(SegmentFields::SS);
        let field = guest::SS_ACCESS_RIGHTS;
        if !self.is_unrestricted() {
            let rpl = self.rpl(SegmentFields::SS);
            self.require(rpl == self.rpl(SegmentFields::CS), Rule::SsRpl, guest::SS_SELECTOR);
            self.require(ss.dpl() == rpl, Rule::SsDplEqualsRpl, field);
        }
        let real = self.get(guest::CR0) & CR0_PE == 0;
        let data = self.access(SegmentFields::CS).segment_type() == 3;
        self.require(!(real || data) || ss.dpl() == 0, Rule::SsDplZero, field);
        if !ss.is_unusable() {
            self.require(matches!(ss.segment_type(), 3 | 7), Rule::SsType, field);
            self.require(self.get(guest::SS_BASE) >> 32 == 0, Rule::BaseUpperHalf, guest::SS_BASE);
            self.code_or_data(SegmentFields::SS);
        }
    }

    fn data_segments(&mut self) {
        for field in [guest::FS_BASE, guest::GS_BASE] {
            self.require_canonical(Rule::BaseCanonical, field);
        }
        for (index, fields) in DATA.into_iter().enumerate() {
            let access = self.access(fields);
            if access.is_unusable() {
                continue;
            }
            let (kind, field) = (access.segment_type(), fields.access_rights);
            self.require(kind & 1 == 1, Rule::DataSegmentAccessed, field);
            self.require(kind & 8 == 0 || kind & 2 != 0, Rule::DataSegmentReadable, field);
            // Data, or code that is not conforming.
            let guarded = kind <= 11 && !self.is_unrestricted();
            self.require(!guarded || access.dpl() >= self.rpl(fields), Rule::DataSegmentDpl, field);
            // DS and ES: FS and GS have 64-bit bases.
            if index < 2 {
                self.require(self.get(fields.base) >> 32 == 0, Rule::BaseUpperHalf, fields.base);
            }
            self.code_or_data(fields);
        }
    }

    /// What CS and usable data segments share.
    fn code_or_data(&mut self, fields: SegmentFields) {
        let access = self.access(fields);
        self.require(access.is_code_or_data(), Rule::NotSystem, fields.access_rights);
        self.present_and_consistent(fields);
    }

    /// What every usable segment shares.
    fn present_and_consistent(&mut self, fields: SegmentFields) {
        let (access, limit) = (self.access(fields), self.get(fields.limit));
        self.require(access.is_present(), Rule::Present, fields.access_rights);
        self.require(access.reserved() == 0, Rule::AccessReserved, fields.access_rights);
        let holds = if access.is_page_granular() { limit & 0xfff == 0xfff } else { limit >> 20 == 0 };
        self.require(holds, Rule::Granularity, fields.access_rights);
    }

    fn task_register(&mut self) {
        let tr = self.access(SegmentFields::TR);
        let field = guest::TR_ACCESS_RIGHTS;
        self.require(self.get(guest::TR_SELECTOR) & 4 == 0, Rule::SelectorTi, guest::TR_SELECTOR);
        self.require_canonical(Rule::BaseCanonical, guest::TR_BASE);
        let busy = tr.segment_type() == 11 || (tr.segment_type() == 3 && !self.is_ia32e_guest());
        self.require(busy, Rule::TrType, field);
        self.require(!tr.is_code_or_data(), Rule::System, field);
        self.require(!tr.is_unusable(), Rule::TrUsable, field);
        self.present_and_consistent(SegmentFields::TR);
    }

    fn ldtr(&mut self) {
        if !self.is_usable(SegmentFields::LDTR) {
            return;
        }
        let ldtr = self.access(SegmentFields::LDTR);
        let field = guest::LDTR_ACCESS_RIGHTS;
        self.require(self.get(guest::LDTR_SELECTOR) & 4 == 0, Rule::SelectorTi, guest::LDTR_SELECTOR);
        self.require_canonical(Rule::BaseCanonical, guest::LDTR_BASE);
        self.require(ldtr.segment_type() == 2, Rule::LdtrType, field);
        self.require(!ldtr.is_code_or_data(), Rule::System, field);
        self.present_and_consistent(SegmentFields::LDTR);
    }
}
