//! Exit reasons, qualifications, events, instruction errors and feature control, against the numbers of the SDM.

use vmx_structs::{
    FeatureControl,
    vmcs::{
        CrAccess, EventInfo, EventKind, ExitReason, ExitReasonField, Gpr, IoQualification, VmFail,
        VmInstructionError,
    },
};

#[test]
fn every_exit_reason_keeps_its_number() {
    for number in 0..=u16::MAX {
        let reason = ExitReason::from_number(number);
        assert_eq!(reason.number(), number);
        assert_eq!(reason.description().is_none(), matches!(reason, ExitReason::Other(_)));
    }
    // SDM Table C-1: the numbers that stay unused.
    let unused: Vec<u16> =
        (0..=79).filter(|number| ExitReason::from_number(*number).description().is_none()).collect();
    assert_eq!(unused, [35, 38, 42, 71]);
    for (number, reason) in [
        (0, ExitReason::ExceptionOrNmi),
        (1, ExitReason::ExternalInterrupt),
        (2, ExitReason::TripleFault),
        (10, ExitReason::Cpuid),
        (12, ExitReason::Hlt),
        (18, ExitReason::Vmcall),
        (28, ExitReason::ControlRegisterAccess),
        (30, ExitReason::IoInstruction),
        (31, ExitReason::Rdmsr),
        (32, ExitReason::Wrmsr),
        (33, ExitReason::EntryFailureGuestState),
        (34, ExitReason::EntryFailureMsrLoading),
        (48, ExitReason::EptViolation),
        (49, ExitReason::EptMisconfiguration),
        (52, ExitReason::PreemptionTimerExpired),
        (62, ExitReason::PageModificationLogFull),
    ] {
        assert_eq!(ExitReason::from_number(number), reason);
    }
}

#[test]
fn bits_of_the_exit_reason_field() {
    let flags = |raw: u32| {
        let field = ExitReasonField::from_raw(raw);
        assert_eq!(field.raw(), raw);
        [
            field.shadow_stack_prematurely_busy(),
            field.bus_lock(),
            field.enclave(),
            field.pending_monitor_trap(),
            field.from_root(),
            field.is_entry_failure(),
        ]
    };
    for (index, bit) in [25, 26, 27, 28, 29, 31].into_iter().enumerate() {
        let mut expected = [false; 6];
        expected[index] = true;
        assert_eq!(flags(1 << bit | 12), expected);
        assert_eq!(ExitReasonField::from_raw(1 << bit | 12).reason(), ExitReason::Hlt);
    }
    assert_eq!(flags(0x51ff_ffff & !(0xf << 25)), [false; 6]);
}

/// SDM Table 27-5, bit by bit.
#[test]
fn every_io_qualification() {
    for size in [1_u32, 2, 4] {
        for bits in 0..16_u64 {
            for port in [0_u16, 0x3f8, 0xffff] {
                let raw = u64::from(size - 1) | bits << 3 | u64::from(port) << 16;
                let io = IoQualification::from_raw(raw);
                assert_eq!((io.size(), io.port()), (size, port));
                let flags = [io.is_in(), io.is_string(), io.is_repeated(), io.is_immediate()];
                assert_eq!(flags, [0, 1, 2, 3].map(|bit| bits >> bit & 1 == 1));
            }
        }
    }
    let _ = IoQualification::from_raw(u64::MAX);
}

/// SDM Table 27-3.
#[test]
fn every_control_register_access() {
    for register in [0_u8, 3, 4, 8] {
        for number in 0..16 {
            let raw = u64::from(register) | u64::from(number) << 8;
            let general = Gpr::from_number(number);
            assert_eq!(general.number(), number);
            assert_eq!(CrAccess::from_raw(raw), CrAccess::MovTo { register, source: general });
            let from = CrAccess::MovFrom { register, destination: general };
            assert_eq!(CrAccess::from_raw(raw | 1 << 4), from);
        }
    }
    assert_eq!(CrAccess::from_raw(2 << 4), CrAccess::Clts);
    assert_eq!(
        CrAccess::from_raw(3 << 4 | 0xabcd << 16),
        CrAccess::Lmsw { value: 0xabcd, from_memory: false }
    );
    assert_eq!(CrAccess::from_raw(7 << 4 | 1 << 16), CrAccess::Lmsw { value: 1, from_memory: true });
}

#[test]
fn events_keep_their_bits() {
    let kinds = [
        EventKind::ExternalInterrupt,
        EventKind::Reserved,
        EventKind::Nmi,
        EventKind::HardwareException,
        EventKind::SoftwareInterrupt,
        EventKind::PrivilegedSoftwareException,
        EventKind::SoftwareException,
        EventKind::Other,
    ];
    for (number, kind) in (0_u32..).zip(kinds) {
        for vector in 0..=255 {
            let event = EventInfo::new(kind, vector);
            assert_eq!(event.raw(), 1 << 31 | number << 8 | u32::from(vector));
            assert_eq!((event.kind(), event.vector(), event.is_valid()), (kind, vector, true));
            assert!(!event.has_error_code());
            assert_eq!(event.with_error_code().raw(), event.raw() | 1 << 11);
            assert!(event.with_error_code().has_error_code());
        }
        assert_eq!(kind.has_instruction_length(), matches!(number, 4..=6));
    }
    assert!(!EventInfo::NONE.is_valid() && !EventInfo::from_raw(0x7fff_ffff).is_valid());
}

#[test]
fn instruction_errors_keep_their_numbers() {
    for number in 0..100 {
        let error = VmInstructionError::from_number(number);
        assert_eq!(error.number(), number);
        assert_eq!(VmFail::from_number(number), VmFail::Valid(error));
        assert!(error.to_string().contains(&number.to_string()));
    }
    // SDM Table 30-1: the numbers that stay unused.
    let unused: Vec<u32> =
        (0..=28).filter(|number| VmInstructionError::from_number(*number).description().is_none()).collect();
    assert_eq!(unused, [0, 14, 21, 27]);
    assert_eq!(VmInstructionError::from_number(7), VmInstructionError::EntryInvalidControls);
    assert_eq!(VmInstructionError::from_number(12), VmInstructionError::UnsupportedField);
    assert_eq!(VmInstructionError::from_number(28), VmInstructionError::InvalidInvalidation);
}

/// All eight combinations of the bits that count.
#[test]
fn feature_control() {
    for bits in 0..8_u64 {
        let (locked, outside) = (bits & 1 == 1, bits & 4 != 0);
        let control = FeatureControl::from_bits_retain(bits | 1 << 20);
        assert_eq!(control.allows_vmxon(), locked && outside);
        let expected = match (locked, outside) {
            (true, false) => None,
            _ => Some(bits | 5 | 1 << 20),
        };
        assert_eq!(control.enabling().map(|value| value.bits()), expected, "{bits:#b}");
    }
}
