//! What the checks share: fields read once, violations reported, the verdict kept.

use super::{EntryContext, Rule, Stage, Verdict, Violation};
use crate::{
    CpuFeatures, VmxCapabilities,
    vmcs::{
        EntryControls, ExitControls, Field, FieldGroup, FieldWidth, PinControls, PrimaryControls,
        SecondaryControls, SecondaryExitControls, TertiaryControls, VmInstructionError, VmcsAccess, control,
    },
};

/// The state of one check.
///
/// The words that must be activated (secondary, tertiary, secondary exit) count as 0 if they are not.
pub(super) struct Checker<'a> {
    vmcs: &'a dyn VmcsAccess,
    report: &'a mut dyn FnMut(Violation),
    pub(super) context: &'a EntryContext<'a>,
    pub(super) caps: &'a VmxCapabilities,
    pub(super) pin: PinControls,
    pub(super) primary: PrimaryControls,
    pub(super) secondary: SecondaryControls,
    pub(super) tertiary: TertiaryControls,
    pub(super) exit: ExitControls,
    pub(super) secondary_exit: SecondaryExitControls,
    pub(super) entry: EntryControls,
    /// The first rule that was broken, of each stage.
    first: [Option<Rule>; 3],
}

impl<'a> Checker<'a> {
    pub(super) fn new(
        vmcs: &'a dyn VmcsAccess,
        context: &'a EntryContext<'a>,
        report: &'a mut dyn FnMut(Violation),
    ) -> Self {
        let mut checker = Self {
            vmcs,
            report,
            context,
            caps: context.caps,
            pin: PinControls::empty(),
            primary: PrimaryControls::empty(),
            secondary: SecondaryControls::empty(),
            tertiary: TertiaryControls::empty(),
            exit: ExitControls::empty(),
            secondary_exit: SecondaryExitControls::empty(),
            entry: EntryControls::empty(),
            first: [None; 3],
        };
        checker.pin = PinControls::from_bits_retain(checker.get(control::PIN_CONTROLS) as u32);
        checker.primary = PrimaryControls::from_bits_retain(checker.get(control::PRIMARY_CONTROLS) as u32);
        checker.exit = ExitControls::from_bits_retain(checker.get(control::EXIT_CONTROLS) as u32);
        checker.entry = EntryControls::from_bits_retain(checker.get(control::ENTRY_CONTROLS) as u32);
        if checker.primary.contains(PrimaryControls::ACTIVATE_SECONDARY_CONTROLS) {
            let word = checker.get(control::SECONDARY_CONTROLS) as u32;
            checker.secondary = SecondaryControls::from_bits_retain(word);
        }
        if checker.primary.contains(PrimaryControls::ACTIVATE_TERTIARY_CONTROLS) {
            checker.tertiary = TertiaryControls::from_bits_retain(checker.get(control::TERTIARY_CONTROLS));
        }
        if checker.exit.contains(ExitControls::ACTIVATE_SECONDARY_CONTROLS) {
            let word = checker.get(control::SECONDARY_EXIT_CONTROLS);
            checker.secondary_exit = SecondaryExitControls::from_bits_retain(word);
        }
        checker
    }

    /// What a field holds; 0 if the processor lacks it.
    pub(super) fn get<W: FieldWidth, G: FieldGroup>(&self, field: Field<W, G>) -> u64 {
        self.vmcs.read_raw(field.encoding()).unwrap_or(0)
    }

    /// Reports a violation of `rule` by `field`, unless it `holds`.
    pub(super) fn require<W: FieldWidth, G: FieldGroup>(
        &mut self,
        holds: bool,
        rule: Rule,
        field: Field<W, G>,
    ) {
        if holds {
            return;
        }
        self.first[rule.stage() as usize].get_or_insert(rule);
        let value = self.get(field);
        (self.report)(Violation { rule, field: field.encoding(), value });
    }

    pub(super) fn verdict(&self) -> Verdict {
        match self.first {
            [Some(_), ..] => Verdict::Fails(VmInstructionError::EntryInvalidControls),
            [_, Some(_), _] => Verdict::Fails(VmInstructionError::EntryInvalidHostState),
            [.., Some(rule)] => Verdict::Exits {
                reason: Verdict::INVALID_GUEST_STATE,
                qualification: match rule {
                    Rule::Pdptes => 2,
                    Rule::StiExcludesNmi => 3,
                    Rule::LinkPointerAddress
                    | Rule::LinkPointerRevision
                    | Rule::LinkPointerShadow
                    | Rule::LinkPointerCurrent => 4,
                    _ => 0,
                },
            },
            [None, None, None] => Verdict::Enters,
        }
    }

    /// Whether an address that the VMCS holds can be accessed.
    pub(super) fn is_physical(&self, address: u64) -> bool {
        is_physical(self.context, address)
    }

    /// Requires that `field` holds a physical address with the low `align_bits` bits 0.
    pub(super) fn require_address<W: FieldWidth, G: FieldGroup>(
        &mut self,
        align_bits: u32,
        rule: Rule,
        field: Field<W, G>,
    ) {
        let address = self.get(field);
        let aligned = address & ((1 << align_bits) - 1) == 0;
        self.require(aligned && self.is_physical(address), rule, field);
    }

    /// Requires that an area of MSRs, if it has entries, is aligned and lies within the physical-address width.
    pub(super) fn require_msr_area<W: FieldWidth, V: FieldWidth, G: FieldGroup>(
        &mut self,
        rule: Rule,
        count: Field<W, G>,
        address: Field<V, G>,
    ) {
        let (entries, start) = (self.get(count), self.get(address));
        if entries == 0 {
            return;
        }
        let last = start.checked_add(entries * 16 - 1);
        let fits = last.is_some_and(|last| self.is_physical(start) && self.is_physical(last));
        self.require(start % 16 == 0 && fits, rule, address);
    }

    /// Whether the processor has Intel 64: some rules bind only then.
    pub(super) fn has_intel_64(&self) -> bool {
        self.caps.cpu.features.contains(CpuFeatures::LONG_MODE)
    }

    /// Requires a canonical address, where there are such.
    pub(super) fn require_canonical<W: FieldWidth, G: FieldGroup>(&mut self, rule: Rule, field: Field<W, G>) {
        let holds = !self.has_intel_64() || self.caps.cpu.is_canonical(self.get(field));
        self.require(holds, rule, field);
    }

    /// Whether bits 63:N are all the same, with N the linear-address width. Bit N-1 may differ: weaker than canonical.
    pub(super) fn fits_linear_width(&self, value: u64) -> bool {
        let width = u32::from(self.caps.cpu.linear_width);
        width >= 64 || matches!(value as i64 >> width, 0 | -1)
    }

    /// Whether `IA32_S_CET` could be written with this value: canonical, bits 9:6 reserved, not SUPPRESS and TRACKER.
    pub(super) fn is_s_cet(&self, value: u64) -> bool {
        const SUPPRESS_AND_TRACKER: u64 = 0b11 << 10;
        self.caps.cpu.is_canonical(value)
            && value & 0x3c0 == 0
            && value & SUPPRESS_AND_TRACKER != SUPPRESS_AND_TRACKER
    }

    /// Requires of the FRED MSRs (configuration, three stack pointers, stack levels, three shadow-stack pointers) what WRMSR
    /// would.
    pub(super) fn require_fred<W: FieldWidth, G: FieldGroup>(
        &mut self,
        rule: Rule,
        fields: [Field<W, G>; 7],
    ) {
        const CONFIG_RESERVED: u64 = 1 << 11 | 0b11 << 4 | 1 << 2;
        for (index, field) in fields.into_iter().enumerate() {
            let reserved = match index {
                0 => CONFIG_RESERVED,
                1..=3 => 0x3f,
                _ => 0b111,
            };
            let value = self.get(field);
            // The low 12 bits of the configuration are no address.
            self.require(value & reserved == 0 && self.caps.cpu.is_canonical(value), rule, field);
        }
    }
}

/// Whether an address can be accessed: within the physical-address width, and below 4 GiB where `IA32_VMX_BASIC` bit
/// 48 says so.
pub(super) fn is_physical(context: &EntryContext<'_>, address: u64) -> bool {
    let limit = context.caps.basic.addresses_limited_to_32_bits();
    context.caps.is_physical(address) && (!limit || address >> 32 == 0)
}

/// Whether each byte is a memory type that IA32_PAT may hold.
pub(super) fn is_pat(value: u64) -> bool {
    value.to_le_bytes().iter().all(|memory_type| matches!(memory_type, 0 | 1 | 4..=7))
}

// `first` is indexed by the stage.
const _: () = assert!(Stage::GuestState as usize == 2);
