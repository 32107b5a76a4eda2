//! The builder: which fields it writes, in which order, and what it refuses.

mod vmcs_support;

use frame_core::PhysAddr;
use vmcs_support::{caps, has_intel_64, host, long};
use vmx_structs::{
    CpuModel, EptPointer,
    vmcs::{self, *},
};

#[test]
fn every_field_of_the_processor_is_written_once_in_order() {
    for model in CpuModel::ALL {
        let caps = model.capabilities();
        let image = VmcsBuilder::new(&caps).build().unwrap();
        let writes: Vec<VmcsWrite> = image.writes().collect();
        let expected: Vec<FieldEncoding> = [Group::Control, Group::Guest, Group::Host]
            .into_iter()
            .flat_map(|group| {
                FieldInfo::ALL
                    .iter()
                    .filter(move |info| info.encoding.group() == group)
                    .map(|info| info.encoding)
            })
            .filter(|field| field.info().unwrap().exists(&caps))
            .collect();
        assert_eq!(writes.iter().map(|write| write.field).collect::<Vec<_>>(), expected);
        // A VMCS that held something else holds the image afterwards.
        let mut vmcs = SoftwareVmcs::for_processor(&caps);
        for field in &expected {
            vmcs.write_raw(*field, 0x5a5a_5a5a_5a5a_5a5a).unwrap();
        }
        image.write_to(&mut vmcs).unwrap();
        for write in writes {
            assert_eq!(vmcs.read_raw(write.field), Ok(write.value), "{}", write.field);
        }
        assert_eq!(vmcs.read(guest::VMCS_LINK_POINTER), Ok(u64::MAX));
    }
}

/// Each method sets its fields and asks for the control that makes the processor look at them.
#[test]
#[rustfmt::skip]
fn structures_come_with_their_controls() {
    let caps = caps("everything");
    let at = PhysAddr::from(0x1234_5000);
    let next = PhysAddr::from(0x1234_6000);
    type Method = fn(&mut VmcsBuilder<'_>, PhysAddr, PhysAddr);
    let table: [(Method, &[(FieldEncoding, u64)]); 15] = [
        (|b, a, n| { b.io_bitmaps(a, n); }, &[(control::IO_BITMAP_A.encoding(), 0x1234_5000), (control::IO_BITMAP_B.encoding(), 0x1234_6000), (control::PRIMARY_CONTROLS.encoding(), 1 << 25)]),
        (|b, a, _| { b.msr_bitmap(a); }, &[(control::MSR_BITMAPS.encoding(), 0x1234_5000), (control::PRIMARY_CONTROLS.encoding(), 1 << 28)]),
        (|b, _, _| { b.ept(EptPointer::from_bits(0x1234_501e)); }, &[(control::EPT_POINTER.encoding(), 0x1234_501e), (control::SECONDARY_CONTROLS.encoding(), 1 << 1), (control::PRIMARY_CONTROLS.encoding(), 1 << 31)]),
        (|b, _, _| { b.vpid(7); }, &[(control::VPID.encoding(), 7), (control::SECONDARY_CONTROLS.encoding(), 1 << 5), (control::PRIMARY_CONTROLS.encoding(), 1 << 31)]),
        (|b, a, _| { b.virtual_apic(a, 3); }, &[(control::VIRTUAL_APIC_ADDRESS.encoding(), 0x1234_5000), (control::TPR_THRESHOLD.encoding(), 3), (control::PRIMARY_CONTROLS.encoding(), 1 << 21)]),
        (|b, a, _| { b.apic_access(a); }, &[(control::APIC_ACCESS_ADDRESS.encoding(), 0x1234_5000), (control::SECONDARY_CONTROLS.encoding(), 1)]),
        (|b, a, _| { b.posted_interrupts(0xf2, a); }, &[(control::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS.encoding(), 0x1234_5000), (control::POSTED_INTERRUPT_NOTIFICATION_VECTOR.encoding(), 0xf2), (control::PIN_CONTROLS.encoding(), 1 << 7 | 1), (control::SECONDARY_CONTROLS.encoding(), 1 << 9), (control::EXIT_CONTROLS.encoding(), 1 << 15)]),
        (|b, a, _| { b.pml(a); }, &[(control::PML_ADDRESS.encoding(), 0x1234_5000), (guest::PML_INDEX.encoding(), 511), (control::SECONDARY_CONTROLS.encoding(), 1 << 17)]),
        (|b, a, _| { b.eptp_list(a); }, &[(control::EPTP_LIST_ADDRESS.encoding(), 0x1234_5000), (control::VM_FUNCTION_CONTROLS.encoding(), 1), (control::SECONDARY_CONTROLS.encoding(), 1 << 13)]),
        (|b, a, n| { b.vmcs_shadowing(a, n, a); }, &[(control::VMREAD_BITMAP_ADDRESS.encoding(), 0x1234_5000), (control::VMWRITE_BITMAP_ADDRESS.encoding(), 0x1234_6000), (guest::VMCS_LINK_POINTER.encoding(), 0x1234_5000), (control::SECONDARY_CONTROLS.encoding(), 1 << 14)]),
        (|b, a, _| { b.ve_information(a); }, &[(control::VE_INFORMATION_ADDRESS.encoding(), 0x1234_5000), (control::SECONDARY_CONTROLS.encoding(), 1 << 18)]),
        (|b, a, _| { b.sub_page_permissions(a); }, &[(control::SPP_TABLE_POINTER.encoding(), 0x1234_5000), (control::SECONDARY_CONTROLS.encoding(), 1 << 23)]),
        (|b, a, _| { b.exit_msr_store(a, 2); }, &[(control::EXIT_MSR_STORE_ADDRESS.encoding(), 0x1234_5000), (control::EXIT_MSR_STORE_COUNT.encoding(), 2)]),
        (|b, a, _| { b.exit_msr_load(a, 3); }, &[(control::EXIT_MSR_LOAD_ADDRESS.encoding(), 0x1234_5000), (control::EXIT_MSR_LOAD_COUNT.encoding(), 3)]),
        (|b, a, _| { b.entry_msr_load(a, 4); }, &[(control::ENTRY_MSR_LOAD_ADDRESS.encoding(), 0x1234_5000), (control::ENTRY_MSR_LOAD_COUNT.encoding(), 4)]),
    ];
    let plain = VmcsBuilder::new(&caps).build().unwrap();
    for (number, (method, expected)) in table.into_iter().enumerate() {
        let mut builder = VmcsBuilder::new(&caps);
        method(&mut builder, at, next);
        let image = builder.build().unwrap();
        for write in image.writes() {
            let before = plain.as_vmcs().read_raw(write.field).unwrap();
            let words = expected.iter().find(|(field, _)| *field == write.field);
            match words {
                // A control word gets these bits on top of those that must be 1.
                Some((field, bits)) if field.info().unwrap().name.ends_with("controls") => {
                    assert_eq!(write.value, before | bits, "row {number}: {field}");
                }
                Some((field, value)) => assert_eq!(write.value, *value, "row {number}: {field}"),
                // The secondary controls are activated.
                None if write.field == control::PRIMARY_CONTROLS.encoding() => {
                    assert_eq!(write.value & !(1 << 31), before, "row {number}");
                }
                None => assert_eq!(write.value, before, "row {number}: {}", write.field),
            }
        }
    }
}

#[test]
fn what_the_processor_lacks_is_refused_by_name() {
    let caps = caps("sandy_bridge");
    let unavailable = |builder: &mut VmcsBuilder<'_>| match builder.build() {
        Err(BuildError::Unavailable(unavailable)) => (unavailable.word, unavailable.bits),
        other => panic!("{other:?}"),
    };
    let page = PhysAddr::from(0x1000);
    let new = || VmcsBuilder::new(&caps);
    let secondary = SecondaryControls::NAME;
    assert_eq!(unavailable(new().pml(page)), (secondary, 1 << 17));
    assert_eq!(
        unavailable(new().ve_information(page).sub_page_permissions(page)),
        (secondary, 1 << 18 | 1 << 23)
    );
    assert_eq!(unavailable(new().want(TertiaryControls::ENABLE_HLAT)), (TertiaryControls::NAME, 1 << 1));
    assert_eq!(unavailable(new().want(PinControls::PROCESS_POSTED_INTERRUPTS)), (PinControls::NAME, 1 << 7));
    assert_eq!(unavailable(new().want(EntryControls::LOAD_PKRS)), (EntryControls::NAME, 1 << 22));
    let exit = SecondaryExitControls::LOAD_FRED;
    assert_eq!(unavailable(new().want(exit)), (SecondaryExitControls::NAME, 1 << 1));
    // A field alone, without its control.
    let error = new().set(control::PML_ADDRESS, 0x1000).build().unwrap_err();
    let field = WriteError { field: control::PML_ADDRESS.encoding(), fail: VmFail::from_number(12) };
    assert_eq!(error, BuildError::Field(field));
    assert!(error.to_string().contains("PML address"), "{error}");
    // Without secondary controls at all.
    let oldest = vmcs_support::caps("first_generation");
    assert_eq!(unavailable(VmcsBuilder::new(&oldest).vpid(1)), (secondary, 1 << 5));
}

#[test]
fn an_image_for_one_processor_does_not_fit_an_older_one() {
    let (new, old) = (caps("tigerlake"), caps("sandy_bridge"));
    let image = VmcsBuilder::new(&new).build().unwrap();
    let error = image.write_to(&mut SoftwareVmcs::for_processor(&old)).unwrap_err();
    assert_eq!(error.fail, VmFail::from_number(12));
    assert!(!error.field.info().unwrap().exists(&old) && error.field.info().unwrap().exists(&new));
}

#[test]
fn states_arrive_in_their_fields() {
    let caps = caps("everything");
    let segment = |seed: u16| Segment {
        selector: seed,
        base: 0x1_0000 * u64::from(seed),
        limit: 0x100 + u32::from(seed),
        access: AccessRights::from_raw(0x10 * u32::from(seed)),
    };
    let state = GuestState {
        cr0: 101,
        cr3: 102,
        cr4: 103,
        dr7: 104,
        rsp: 105,
        rip: 106,
        rflags: 107,
        es: segment(1),
        cs: segment(2),
        ss: segment(3),
        ds: segment(4),
        fs: segment(5),
        gs: segment(6),
        ldtr: segment(7),
        tr: segment(8),
        gdtr: DescriptorTable { base: 108, limit: 109 },
        idtr: DescriptorTable { base: 110, limit: 111 },
        sysenter_cs: 112,
        sysenter_esp: 113,
        sysenter_eip: 114,
        debugctl: 115,
        pat: Some(116),
        efer: Some(117),
        perf_global_ctrl: Some(118),
        pkrs: Some(119),
        cet: Some(CetState { s_cet: 120, ssp: 121, interrupt_ssp_table: 122 }),
        pdptes: [123, 124, 125, 126],
        ia32e_mode: true,
        activity_state: 127,
        interruptibility: 128,
        pending_debug: 129,
        vmcs_link_pointer: 130,
    };
    let image = VmcsBuilder::new(&caps).guest(&state).build().unwrap();
    let vmcs = image.as_vmcs();
    for (seed, fields) in (1_u16..).zip(SegmentFields::ALL) {
        let expected = segment(seed);
        assert_eq!(vmcs.get(fields.selector), expected.selector, "{}", fields.name);
        assert_eq!(vmcs.get(fields.base), expected.base);
        assert_eq!(vmcs.get(fields.limit), expected.limit);
        assert_eq!(vmcs.get(fields.access_rights), expected.access.raw());
    }
    // By the numbers of SDM Appendix B.
    for (encoding, value) in [
        (0x6800, 101),
        (0x6802, 102),
        (0x6804, 103),
        (0x681a, 104),
        (0x681c, 105),
        (0x681e, 106),
        (0x6820, 107),
        (0x6816, 108),
        (0x4810, 109),
        (0x6818, 110),
        (0x4812, 111),
        (0x482a, 112),
        (0x6824, 113),
        (0x6826, 114),
        (0x2802, 115),
        (0x2804, 116),
        (0x2806, 117),
        (0x2808, 118),
        (0x2818, 119),
        (0x6828, 120),
        (0x682a, 121),
        (0x682c, 122),
        (0x280a, 123),
        (0x280c, 124),
        (0x280e, 125),
        (0x2810, 126),
        (0x4826, 127),
        (0x4824, 128),
        (0x6822, 129),
        (0x2800, 130),
    ] {
        assert_eq!(vmcs.read_raw(FieldEncoding::from_raw(encoding)), Ok(value), "{encoding:#x}");
    }
    let entry = EntryControls::from_bits_retain(vmcs.get(control::ENTRY_CONTROLS));
    assert!(entry.contains(
        EntryControls::IA32E_MODE_GUEST
            | EntryControls::LOAD_DEBUG_CONTROLS
            | EntryControls::LOAD_IA32_PAT
            | EntryControls::LOAD_IA32_EFER
            | EntryControls::LOAD_IA32_PERF_GLOBAL_CTRL
            | EntryControls::LOAD_PKRS
            | EntryControls::LOAD_CET_STATE
    ));

    let state = HostState {
        cr0: 1,
        cr3: 2,
        cr4: 3,
        rsp: 4,
        rip: 5,
        es_selector: 6,
        cs_selector: 7,
        ss_selector: 8,
        ds_selector: 9,
        fs_selector: 10,
        gs_selector: 11,
        tr_selector: 12,
        fs_base: 13,
        gs_base: 14,
        tr_base: 15,
        gdtr_base: 16,
        idtr_base: 17,
        sysenter_cs: 18,
        sysenter_esp: 19,
        sysenter_eip: 20,
        pat: Some(21),
        efer: Some(22),
        perf_global_ctrl: Some(23),
        pkrs: Some(24),
        cet: Some(CetState { s_cet: 25, ssp: 26, interrupt_ssp_table: 27 }),
        long_mode: true,
    };
    let image = VmcsBuilder::new(&caps).host(&state).build().unwrap();
    let vmcs = image.as_vmcs();
    for (encoding, value) in [
        (0x6c00, 1),
        (0x6c02, 2),
        (0x6c04, 3),
        (0x6c14, 4),
        (0x6c16, 5),
        (0xc00, 6),
        (0xc02, 7),
        (0xc04, 8),
        (0xc06, 9),
        (0xc08, 10),
        (0xc0a, 11),
        (0xc0c, 12),
        (0x6c06, 13),
        (0x6c08, 14),
        (0x6c0a, 15),
        (0x6c0c, 16),
        (0x6c0e, 17),
        (0x4c00, 18),
        (0x6c10, 19),
        (0x6c12, 20),
        (0x2c00, 21),
        (0x2c02, 22),
        (0x2c04, 23),
        (0x2c06, 24),
        (0x6c18, 25),
        (0x6c1a, 26),
        (0x6c1c, 27),
    ] {
        assert_eq!(vmcs.read_raw(FieldEncoding::from_raw(encoding)), Ok(value), "{encoding:#x}");
    }
    let exit = ExitControls::from_bits_retain(vmcs.get(control::EXIT_CONTROLS));
    assert!(exit.contains(
        ExitControls::HOST_ADDRESS_SPACE_SIZE
            | ExitControls::SAVE_DEBUG_CONTROLS
            | ExitControls::LOAD_IA32_PAT
            | ExitControls::LOAD_IA32_EFER
            | ExitControls::LOAD_IA32_PERF_GLOBAL_CTRL
            | ExitControls::LOAD_PKRS
            | ExitControls::LOAD_CET_STATE
    ));
}

/// A shadow VMCS given to the builder is not lost when the guest's state comes later.
#[test]
fn the_link_pointer_survives_the_guest_state() {
    let caps = caps("haswell");
    let page = |number: usize| PhysAddr::from(number * 0x1000);
    let mut builder = VmcsBuilder::new(&caps);
    builder.vmcs_shadowing(page(1), page(2), page(3));
    builder.guest(&GuestState::long_mode(&caps, 0x1000, 0, 0));
    assert_eq!(builder.build().unwrap().as_vmcs().get(guest::VMCS_LINK_POINTER), 0x3000);
}

#[test]
fn starts_of_guests_keep_the_fixed_bits() {
    for model in CpuModel::ALL {
        let caps = model.capabilities();
        let real = GuestState::real_mode(&caps, 0xf000, 0xfff0);
        assert_eq!(real.cr0 & 0x8000_0001, 0, "neither paging nor protection");
        assert!(caps.cr0.exempting(0x8000_0001).allows(real.cr0) && caps.cr4.allows(real.cr4));
        assert_eq!((real.cs.base, real.cs.selector, real.rip), (0xf_0000, 0xf000, 0xfff0));
        let protected = GuestState::protected_mode(&caps, 1, 2);
        assert_eq!(protected.cr0 & 0x8000_0001, 1);
        if has_intel_64(&caps) {
            let long = GuestState::long_mode(&caps, 0x1000, 1, 2);
            assert!(caps.cr0.allows(long.cr0) && caps.cr4.allows(long.cr4) && long.cr4 & 0x20 != 0);
        }
    }
}

#[test]
fn a_software_vmcs_is_printed_by_name() {
    let caps = caps("haswell");
    let text = format!("{:#?}", long(&caps));
    for line in ["Guest CS access rights [0x4816]: 0xa09b", "Host RIP [0x6c16]: 0xffff800000100000"] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let text = format!("{:?}", AccessRights::from_raw(0xa09b));
    assert_eq!(text, "AccessRights(0xa09b: code, DPL 0, 64-bit, pages)");
    assert_eq!(format!("{:?}", AccessRights::UNUSABLE), "AccessRights(0x10000: unusable)");
    let _ = (vmcs::FIELD_COUNT, host(&caps));
}
