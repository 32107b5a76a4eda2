//! Capabilities from MSRs, from CPUID and from text; control words adjusted to them.

use vmx_structs::{
    CpuFacts, CpuFeatures, CpuModel, EptVpidCap, VmxCapabilities,
    capabilities::{ParseError, ParseErrorKind, msr},
    vmcs::{
        ControlWord, EntryControls, ExitControls, PinControls, PrimaryControls, SecondaryControls,
        SecondaryExitControls, TertiaryControls,
    },
};

fn caps(id: &str) -> VmxCapabilities {
    CpuModel::by_id(id).unwrap().capabilities()
}

#[test]
fn every_model_parses_and_is_sane() {
    for model in CpuModel::ALL {
        let caps =
            VmxCapabilities::parse(model.text()).unwrap_or_else(|error| panic!("{}: {error}", model.id()));
        assert_eq!(caps, model.capabilities());
        assert_ne!(model.name(), model.id(), "has a name line");
        assert!((1..=4096).contains(&caps.basic.region_size()));
        assert!(matches!(caps.basic.memory_type(), 0 | 6));
        // A bit that must be 1 may be 1; CR0.PE, NE and PG, and CR4.VMXE, are always fixed.
        for (must, may) in [
            (caps.pin.must_be_one(), caps.pin.may_be_one()),
            (caps.primary.must_be_one(), caps.primary.may_be_one()),
            (caps.secondary.must_be_one(), caps.secondary.may_be_one()),
            (caps.exit.must_be_one(), caps.exit.may_be_one()),
            (caps.entry.must_be_one(), caps.entry.may_be_one()),
        ] {
            assert_eq!(must & !may, 0, "{}", model.id());
        }
        assert_eq!((caps.cr0.must_be_one(), caps.cr4.must_be_one()), (0x8000_0021, 0x2000));
        assert!(caps.cr4.may_be_one() & 0x2000 != 0);
        // SDM A.10, A.3.3: features that need others.
        assert!(!caps.has_unrestricted_guest() || caps.has_ept());
        assert!(!caps.has_pml() || caps.ept_vpid.contains(EptVpidCap::ACCESSED_DIRTY));
        assert_eq!(caps.has_ept() || caps.has_vpid(), !caps.ept_vpid.is_empty());
        assert_eq!(caps.has_vmfunc(), caps.vmfunc != 0);
    }
}

#[test]
fn default1_masks_of_the_plain_msrs() {
    // SDM A.2: reserved bits that must be 1 without the TRUE MSRs.
    let caps = caps("first_generation");
    assert!(!caps.basic.has_true_controls() && caps.basic.addresses_limited_to_32_bits());
    assert_eq!(caps.pin.must_be_one(), 0x16);
    assert_eq!(caps.primary.must_be_one(), 0x0401_e172);
    assert_eq!(caps.exit.must_be_one(), 0x0003_6dff);
    assert_eq!(caps.entry.must_be_one(), 0x0000_11ff);
}

/// What `bare-metal` runs rely on: the features of the emulated models.
#[test]
fn features_of_the_emulated_models() {
    // unrestricted, 1G, A/D, VMFUNC, shadow VMCS, #VE, PML, SPP
    for (id, expected) in [
        ("core2_penryn", [false; 8]),
        ("lynnfield", [false; 8]),
        ("arrandale", [true, false, false, false, false, false, false, false]),
        ("sandy_bridge", [true, false, false, false, false, false, false, false]),
        ("ivy_bridge", [true, false, false, false, false, false, false, false]),
        ("haswell", [true, true, true, true, true, true, false, false]),
        ("broadwell", [true, true, true, true, true, true, false, false]),
        ("skylake_x", [true, true, true, true, true, true, true, false]),
        ("icelake", [true, true, true, true, true, true, true, true]),
        ("tigerlake", [true, true, true, true, true, true, true, true]),
        ("everything", [true; 8]),
    ] {
        let caps = caps(id);
        let has = |bit| caps.ept_vpid.contains(bit);
        let found = [
            caps.has_unrestricted_guest(),
            has(EptVpidCap::PAGE_1G),
            has(EptVpidCap::ACCESSED_DIRTY),
            caps.has_vmfunc(),
            caps.has_vmcs_shadowing(),
            caps.has_ve(),
            caps.has_pml(),
            caps.has_spp(),
        ];
        assert_eq!(found, expected, "{id}");
    }
    assert_eq!(caps("sandy_bridge").basic.revision(), 0x2b);
    assert_eq!(caps("tigerlake").basic.revision(), 0x4);
    assert_eq!(caps("tigerlake").cpu.physical_width, 40);
    assert!(caps("everything").ept_vpid.allows_walk(5) && !caps("tigerlake").ept_vpid.allows_walk(5));
}

#[test]
fn only_msrs_that_exist_are_read() {
    let cpu = CpuFacts::new(40, 48);
    let asked = |basic: u64, primary: u64, secondary: u64, exit: u64| {
        let mut asked = Vec::new();
        VmxCapabilities::read(cpu, |msr| {
            asked.push(msr);
            match msr {
                msr::IA32_VMX_BASIC => basic,
                msr::IA32_VMX_PROCBASED_CTLS | msr::IA32_VMX_TRUE_PROCBASED_CTLS => primary,
                msr::IA32_VMX_PROCBASED_CTLS2 => secondary,
                msr::IA32_VMX_EXIT_CTLS | msr::IA32_VMX_TRUE_EXIT_CTLS => exit,
                _ => 0,
            }
        });
        asked.sort_unstable();
        asked
    };
    let always = [0x480, 0x481, 0x482, 0x483, 0x484, 0x485, 0x486, 0x487, 0x488, 0x489, 0x48a];
    assert_eq!(asked(0, 0, 0, 0), always);
    let with_true = [0x480, 0x485, 0x486, 0x487, 0x488, 0x489, 0x48a, 0x48d, 0x48e, 0x48f, 0x490];
    assert_eq!(asked(1 << 55, 0, 0, 0), with_true);
    let may = |bit: u32| 1_u64 << (bit + 32);
    let extra = |asked: Vec<u32>| asked.into_iter().filter(|msr| !always.contains(msr)).collect::<Vec<_>>();
    assert_eq!(extra(asked(0, may(31), 0, 0)), [0x48b]);
    assert_eq!(extra(asked(0, may(31), may(1), 0)), [0x48b, 0x48c]); // EPT
    assert_eq!(extra(asked(0, may(31), may(5), 0)), [0x48b, 0x48c]); // VPID
    assert_eq!(extra(asked(0, may(31), may(13), 0)), [0x48b, 0x491]); // VM functions
    assert_eq!(extra(asked(0, 0, may(1), 0)), []); // no secondary controls
    assert_eq!(extra(asked(0, may(17), 0, 0)), [0x492]);
    assert_eq!(extra(asked(0, 0, 0, may(31))), [0x493]);
}

#[test]
fn the_true_msrs_count_only_where_basic_says_so() {
    let read = |basic| {
        VmxCapabilities::read(CpuFacts::new(40, 48), |msr| match msr {
            msr::IA32_VMX_BASIC => basic,
            msr::IA32_VMX_PINBASED_CTLS => 0x7f_0000_0016,
            msr::IA32_VMX_TRUE_PINBASED_CTLS => 0xff_0000_0006,
            _ => 0,
        })
    };
    assert_eq!((read(0).pin.must_be_one(), read(0).pin.may_be_one()), (0x16, 0x7f));
    assert_eq!((read(1 << 55).pin.must_be_one(), read(1 << 55).pin.may_be_one()), (0x6, 0xff));
}

#[test]
fn fields_of_basic_and_misc() {
    let basic = vmx_structs::VmxBasic::from_raw(0x05db_1000_8000_002b);
    assert_eq!(basic.revision(), 0x2b, "bit 31 is not part of the revision");
    assert_eq!((basic.region_size(), basic.memory_type()), (4096, 6));
    assert!(basic.addresses_limited_to_32_bits() && basic.has_dual_monitor() && basic.reports_ins_outs());
    assert!(basic.has_true_controls() && basic.error_code_for_any_vector() && basic.has_nested_exceptions());
    let none = vmx_structs::VmxBasic::from_raw(0);
    assert!(!none.addresses_limited_to_32_bits() && !none.has_dual_monitor() && !none.reports_ins_outs());
    assert!(!none.has_true_controls() && !none.error_code_for_any_vector() && !none.has_nested_exceptions());

    let misc = vmx_structs::VmxMisc::from_raw(0x1234_5678_7604_c1e7);
    assert_eq!(
        (misc.preemption_timer_shift(), misc.cr3_target_count(), misc.mseg_revision()),
        (7, 4, 0x1234_5678)
    );
    assert_eq!(misc.msr_area_limit(), 4 * 512);
    assert_eq!(
        [0, 1, 2, 3, 4].map(|state| misc.allows_activity_state(state)),
        [true, true, true, true, false]
    );
    let hlt_only = vmx_structs::VmxMisc::from_raw(1 << 6);
    assert_eq!([0, 1, 2, 3].map(|state| hlt_only.allows_activity_state(state)), [true, true, false, false]);
    assert_eq!(vmx_structs::VmxMisc::from_raw(0).msr_area_limit(), 512);
}

#[test]
fn cpuid_gives_widths_and_masks() {
    // A made-up processor: MAXPHYADDR 46, 57 linear bits, RTM, SGX, PT with two ranges, 8 + 4 counters, LBRs.
    let facts = CpuFacts::from_cpuid(|leaf, subleaf| match (leaf, subleaf) {
        (0, _) => [0x14, 0, 0, 0],
        (7, 0) => [0, 1 << 11 | 1 << 2 | 1 << 25, 1 << 24, 1 << 19],
        (10, _) => [0x0830_0805, 0, 0, 4],
        (0x14, 0) => [1, 0b1111, 1, 0],
        (0x14, 1) => [2, 0, 0, 0],
        (0x8000_0000, _) => [0x8000_0008, 0, 0, 0],
        (0x8000_0001, _) => [0, 0, 0, 1 << 29 | 1 << 20 | 1 << 11],
        (0x8000_0008, _) => [0x392e, 0, 0, 0],
        _ => [0; 4],
    });
    assert_eq!((facts.physical_width, facts.linear_width), (46, 57));
    assert_eq!(facts.features, CpuFeatures::all());
    assert_eq!(facts.debugctl, 0xdfc7);
    assert_eq!(facts.perf_global_ctrl, 0xf_0000_00ff);
    // TraceEn OS User TSCEn DisRETC BranchEn, CR3Filter, CYCEn and its fields, MTC, ToPA, two ranges.
    assert_eq!(facts.rtit_ctl, 0x2c0d | 0x80 | 0x0f78_0002 | 0x3_c200 | 0x100 | 0xff << 32);
    assert_eq!(facts.lbr_ctl, 0x7f_000f);
    assert_eq!(facts.efer(), 0xd01);
    // No extended leaves: the widths follow from PAE.
    let old = CpuFacts::from_cpuid(|leaf, _| if leaf == 1 { [0, 0, 0, 1 << 6] } else { [leaf ^ 1, 0, 0, 0] });
    assert_eq!((old.physical_width, old.linear_width, old.features), (36, 32, CpuFeatures::empty()));
    assert_eq!((old.perf_global_ctrl, old.rtit_ctl, old.lbr_ctl), (0, 0, 0));
}

#[test]
fn canonical_addresses() {
    let check = |width, address| CpuFacts::new(40, width).is_canonical(address);
    for (width, top) in [(48, 47), (57, 56)] {
        assert!(check(width, (1 << top) - 1) && !check(width, 1 << top));
        assert!(check(width, u64::MAX << top) && !check(width, u64::MAX << top << 1 & u64::MAX >> 1));
        assert!(!check(width, (u64::MAX << top) - 1) && check(width, u64::MAX) && check(width, 0));
    }
    assert!(CpuFacts::new(52, 48).is_physical((1 << 52) - 1) && !CpuFacts::new(52, 48).is_physical(1 << 52));
    assert!(CpuFacts::new(64, 48).is_physical(u64::MAX) && CpuFacts::new(255, 48).is_physical(u64::MAX));
}

#[test]
fn texts_that_are_wrong_are_refused_with_their_line() {
    let good = CpuModel::by_id("haswell").unwrap().text();
    let parse = |text: &str| VmxCapabilities::parse(text).unwrap_err();
    let at = |line, kind| ParseError { line, kind };
    assert_eq!(parse("# only a comment"), at(0, ParseErrorKind::NoWidths));
    assert_eq!(parse("physical-width 40"), at(1, ParseErrorKind::NoEquals));
    assert_eq!(parse("\n\nspeed = 3"), at(3, ParseErrorKind::UnknownKey));
    assert_eq!(parse("msr x = 3"), at(1, ParseErrorKind::UnknownKey));
    assert_eq!(parse("physical-width = 0"), at(1, ParseErrorKind::BadNumber));
    assert_eq!(parse("physical-width = 65"), at(1, ParseErrorKind::BadNumber));
    assert_eq!(parse("physical-width = 0x"), at(1, ParseErrorKind::BadNumber));
    assert_eq!(parse("debugctl = 0x1_0000_0000_0000_0000"), at(1, ParseErrorKind::BadNumber));
    assert_eq!(parse("debugctl = 12z"), at(1, ParseErrorKind::BadNumber));
    assert_eq!(parse("features = long-mode warp"), at(1, ParseErrorKind::UnknownFeature));
    for (number, _) in good.lines().filter_map(|line| line.strip_prefix("msr ")?.split_once(" =")) {
        let without: String =
            good.lines().filter(|line| !line.contains(number)).map(|l| l.to_owned() + "\n").collect();
        let msr = u32::from_str_radix(&number[2..], 16).unwrap();
        let plain = (0x481..=0x484).contains(&msr); // not asked for: the TRUE forms are there
        let expected = at(0, ParseErrorKind::MissingMsr { msr });
        assert_eq!(VmxCapabilities::parse(&without).err(), (!plain).then_some(expected), "{number}");
    }
    assert!(parse("\nspeed = 3").to_string().starts_with("line 2: "));
}

/// The rule of SDM A.3-A.5, bit by bit, for every word of every model.
/// The table for people says the same as the constants for programs.
#[test]
fn every_named_bit_has_its_name_and_a_sentence() {
    fn check<W: ControlWord>() -> usize
    where
        W::Bits: Into<u64>,
    {
        assert_eq!(W::BITS.len(), W::FLAGS.iter().filter(|flag| flag.is_named()).count());
        for (bit, flag) in W::BITS.iter().zip(W::FLAGS) {
            assert_eq!(1 << bit.bit, flag.value().bits().into(), "{}", bit.name);
            let letters = |text: &str| text.replace(|c: char| !c.is_alphanumeric(), "").to_uppercase();
            let name = letters(bit.name.trim_start_matches("Intel "));
            assert!(name.starts_with(&letters(flag.name())), "{} {}", bit.name, flag.name());
            assert!(bit.about.ends_with('.') && bit.about == bit.about.trim(), "{}", bit.about);
        }
        assert!(W::BITS.is_sorted_by_key(|bit| bit.bit));
        W::BITS.len()
    }
    let named = [
        check::<PinControls>(),
        check::<PrimaryControls>(),
        check::<SecondaryControls>(),
        check::<TertiaryControls>(),
        check::<ExitControls>(),
        check::<SecondaryExitControls>(),
        check::<EntryControls>(),
    ];
    assert_eq!(named, [5, 22, 31, 8, 18, 4, 16]);
}

#[test]
fn adjusting_is_exact_for_every_bit() {
    fn check<W: ControlWord>(caps: &VmxCapabilities, allowed0: u64, allowed1: u64, bits: u32)
    where
        W::Bits: TryFrom<u64> + Into<u64>,
    {
        let word = |value: u64| W::from_bits_retain(value.try_into().ok().unwrap());
        let all = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
        let mut wanted: Vec<u64> = (0..bits).map(|bit| 1 << bit).collect();
        wanted.extend([0, all, 0x5555_5555_5555_5555 & all, 0xaaaa_aaaa_aaaa_aaaa & all]);
        for value in wanted {
            let adjusted = word(value).adjust(caps);
            let (got, added, unavailable): (u64, u64, u64) = (
                adjusted.value.bits().into(),
                adjusted.added.bits().into(),
                adjusted.unavailable.bits().into(),
            );
            for bit in 0..bits {
                let is = |word: u64| word >> bit & 1 == 1;
                let expected = match (is(allowed0), is(allowed1)) {
                    (true, _) => true,
                    (false, may) => may && is(value),
                };
                assert_eq!(is(got), expected, "{} bit {bit} of {value:#x}", W::NAME);
                assert_eq!(is(added), is(allowed0) && !is(value));
                assert_eq!(is(unavailable), is(value) && !is(allowed1));
            }
            assert_eq!(adjusted.all_available().is_ok(), unavailable == 0);
            // Adjusting again changes nothing.
            assert_eq!(adjusted.value.adjust(caps).value, adjusted.value);
        }
    }
    for model in CpuModel::ALL {
        let c = &model.capabilities();
        let raw = |msr: u32| {
            let key = format!("msr {msr:#x} = ");
            let line = model.text().lines().find_map(|line| line.strip_prefix(key.as_str())).unwrap_or("0x0");
            let digits = line.split('#').next().unwrap().trim()[2..].replace('_', "");
            u64::from_str_radix(&digits, 16).unwrap()
        };
        let offset = if raw(0x480) >> 55 & 1 == 1 { 0x48d - 0x481 } else { 0 };
        let split = |msr: u32| (raw(msr) & 0xffff_ffff, raw(msr) >> 32);
        let ((a, b), (d, e)) = (split(0x481 + offset), split(0x482 + offset));
        check::<PinControls>(c, a, b, 32);
        check::<PrimaryControls>(c, d, e, 32);
        let ((a, b), (d, e)) = (split(0x483 + offset), split(0x484 + offset));
        check::<ExitControls>(c, a, b, 32);
        check::<EntryControls>(c, d, e, 32);
        let (a, b) = split(0x48b);
        check::<SecondaryControls>(c, a, b, 32);
        check::<TertiaryControls>(c, 0, raw(0x492), 64);
        check::<SecondaryExitControls>(c, 0, raw(0x493), 64);
    }
}
