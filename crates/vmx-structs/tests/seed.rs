//! The seed's API as documented, and each of the faults that the seed has.

use frame_core::{AxError, AxResult, PhysAddr};
use frame_testkit::{TestHal, test_hal};
use vmx_structs::{
    EPTPointer, EptPointer, EptPointerError, EptVpidCap, IOBitmap, IoBitmap, IoWidth, MsrAccess, MsrBitmap,
    RegionError, VmcsRegion, VmxBasic, VmxRegion, VmxonRegion,
};

test_hal! {
    /// One HAL for the file: its scopes take turns.
    struct Hal
}

/// The frame's contents as the processor finds them, through the HAL.
fn bytes(at: PhysAddr) -> &'static [u8; 4096] {
    let start = <Hal as frame_core::FrameHal>::phys_to_virt(at);
    // SAFETY: the frame is owned by the structure under test, which is not borrowed.
    unsafe { &*start.as_mut_ptr().cast() }
}

fn word(at: PhysAddr, index: usize) -> u32 {
    u32::from_le_bytes(bytes(at)[4 * index..][..4].try_into().unwrap())
}

/// x86_vcpu's calls, as statements, with its types and names.
#[test]
fn code_of_the_seed_compiles_and_works() {
    fn seed() -> AxResult<()> {
        // SAFETY: overwritten before use.
        let mut region: VmxRegion<Hal> = unsafe { VmxRegion::uninit() };
        assert!(format!("{region:?}").contains("uninit"));
        region = VmxRegion::new(0x2b, false)?;
        assert_eq!(region.phys_addr().as_usize() % 4096, 0);

        let mut io: IOBitmap<Hal> = IOBitmap::passthrough_all()?;
        io.set_intercept(0x604, true)?;
        io.set_intercept_of_range(0x3f8, 8, true)?;
        let (a, b): (PhysAddr, PhysAddr) = io.phys_addr();
        assert_ne!(a, b);

        let mut msrs = MsrBitmap::<Hal>::passthrough_all()?;
        msrs.set_read_intercept(0x1b, true)?;
        msrs.set_write_intercept(0xc000_0080, true)?;
        let _: PhysAddr = msrs.phys_addr();

        let eptp = EPTPointer::from_table_phys(PhysAddr::from(0x1234_5000))?;
        assert_eq!(eptp.bits(), 0x1234_5000 | 6 | 3 << 3 | 1 << 6);
        Ok(())
    }
    Hal::scope(16, || seed().unwrap());
}

#[test]
#[should_panic(expected = "uninitialized PhysFrame")]
fn an_uninitialised_region_has_no_address() {
    // SAFETY: used only to see that it says so.
    unsafe { VmxRegion::<Hal>::uninit() }.phys_addr();
}

#[test]
fn a_region_is_zeroes_behind_the_revision() {
    Hal::scope(16, || {
        for (revision, shadow) in
            [(0, false), (0x2b, false), (0x7fff_ffff, false), (0, true), (0x7fff_ffff, true)]
        {
            let region = VmxRegion::<Hal>::new(revision, shadow).unwrap();
            assert_eq!(word(region.phys_addr(), 0), revision | u32::from(shadow) << 31);
            assert!(bytes(region.phys_addr())[4..].iter().all(|&byte| byte == 0));
        }
    });
}

#[test]
fn a_revision_with_bit_31_is_an_error() {
    Hal::scope(16, || {
        for shadow in [false, true] {
            for revision in [1 << 31, u32::MAX] {
                assert_eq!(VmxRegion::<Hal>::new(revision, shadow).unwrap_err(), AxError::InvalidInput);
            }
        }
        assert_eq!(Hal::allocs(), 0, "refused before a frame was taken");
    });
}

#[test]
fn a_vmxon_region_never_has_bit_31() {
    Hal::scope(16, || {
        // `VmxBasic` cannot hold the bit, and a VMXON region cannot be told to set it.
        let basic = VmxBasic::from_raw(0x00da_1000_ffff_ffff);
        let vmxon = VmxonRegion::<Hal>::new(basic).unwrap();
        assert_eq!(word(vmxon.phys_addr(), 0), 0x7fff_ffff);
        assert_eq!((vmxon.revision(), vmxon.size(), vmxon.memory_type()), (0x7fff_ffff, 4096, 6));
        let vmcs = VmcsRegion::<Hal>::new_shadow(basic).unwrap();
        assert_eq!(word(vmcs.phys_addr(), 0), 0xffff_ffff);
        assert!(vmcs.is_shadow() && vmcs.revision() == 0x7fff_ffff && vmcs.abort_indicator() == 0);
    });
}

#[test]
fn every_region_size_is_taken_that_a_processor_may_have() {
    Hal::scope(16, || {
        for size in 0..0x2000_u64 {
            let basic = VmxBasic::from_raw(6 << 50 | size << 32 | 0x2b);
            let (vmxon, vmcs) = (VmxonRegion::<Hal>::new(basic), VmcsRegion::<Hal>::new(basic));
            if (1..=4096).contains(&size) {
                assert_eq!(vmxon.unwrap().size(), size as usize);
                let mut vmcs = vmcs.unwrap();
                assert_eq!(vmcs.size(), size as usize);
                vmcs.set_shadow(true);
                assert_eq!(word(vmcs.phys_addr(), 0), 1 << 31 | 0x2b);
                vmcs.set_shadow(false);
                assert_eq!(word(vmcs.phys_addr(), 0), 0x2b);
            } else {
                assert_eq!(vmxon.unwrap_err(), RegionError::Size { size: size as usize });
                assert_eq!(vmcs.unwrap_err(), RegionError::Size { size: size as usize });
            }
        }
    });
}

#[test]
fn a_frame_above_4_gib_is_refused_where_the_processor_cannot_reach_it() {
    let range = frame_core::FrameRange::new(PhysAddr::from(1 << 32), 4).unwrap();
    Hal::scope_in::<frame_testkit::OracleBackend, _>(&[range], || {
        let basic = |limited: u64| VmxBasic::from_raw(6 << 50 | limited << 48 | 4096 << 32 | 0x2b);
        assert!(VmxonRegion::<Hal>::new(basic(0)).is_ok());
        let address = PhysAddr::from(1 << 32);
        assert_eq!(VmxonRegion::<Hal>::new(basic(1)).unwrap_err(), RegionError::Above32Bits { address });
    });
}

/// What a port's bit is, read from memory by the rule: A for 0 to 0x7fff, B above.
fn port_bit(io: &IoBitmap<Hal>, port: u32) -> bool {
    let (a, b) = io.phys_addr();
    let (half, bit) = if port < 0x8000 { (a, port) } else { (b, port - 0x8000) };
    bytes(half)[bit as usize / 8] >> (bit % 8) & 1 == 1
}

#[test]
fn every_port_can_be_set_and_cleared_alone() {
    Hal::scope(16, || {
        let mut io = IoBitmap::<Hal>::passthrough_all().unwrap();
        let mut others = IoBitmap::<Hal>::intercept_all().unwrap();
        for port in 0..0x1_0000 {
            io.set_intercept(port, true).unwrap();
            others.set_intercept(port, false).unwrap();
            assert!(port_bit(&io, port) && io.intercepts(port as u16), "{port:#x}");
            assert!(!port_bit(&others, port), "{port:#x}");
            // No other bit, by counting in the bytes around and in the iterator.
            assert!(io.intercepted().eq([port as u16..=port as u16]), "{port:#x}");
            io.set_intercept(port, false).unwrap();
            others.set_intercept(port, true).unwrap();
        }
        assert_eq!(io.intercepted().count(), 0);
        assert!(others.intercepted().eq([0..=0xffff]));
    });
}

#[test]
fn ports_out_of_range_are_an_error_and_change_nothing() {
    Hal::scope(16, || {
        let mut io = IoBitmap::<Hal>::passthrough_all().unwrap();
        for (base, count) in [
            (0x1_0000, 1),
            (0xffff, 2),
            (0, 0x1_0001),
            (0x7fff, 0x8002),
            (u32::MAX, 1),
            (u32::MAX, u32::MAX),
            (1, u32::MAX),
        ] {
            let error = io.set_intercept_of_range(base, count, true).unwrap_err();
            assert_eq!((error.base, error.count), (base, count));
            assert!(error.to_string().contains("0xffff"));
        }
        assert!(io.set_intercept(0x1_0000, true).is_err());
        assert_eq!(io.intercepted().count(), 0);
        // No ports is no error, and the last port is one.
        io.set_intercept_of_range(u32::MAX, 0, true).unwrap();
        io.set_intercept_of_range(0xffff, 1, true).unwrap();
        assert!(io.intercepted().eq([0xffff..=0xffff]));
    });
}

#[test]
fn ranges_cross_the_two_bitmaps() {
    Hal::scope(16, || {
        for (base, count) in [(0x7fff, 2), (0x7ff0, 0x20), (0, 0x1_0000), (0x2000, 0x6000), (0xa000, 0x6000)]
        {
            let mut io = IoBitmap::<Hal>::passthrough_all().unwrap();
            io.set_intercept_of_range(base, count, true).unwrap();
            assert!(io.intercepted().eq([base as u16..=(base + count - 1) as u16]));
            for port in 0..0x1_0000 {
                assert_eq!(port_bit(&io, port), (base..base + count).contains(&port), "{port:#x}");
            }
        }
    });
}

#[test]
fn every_access_width_at_every_port_exits_by_the_rule() {
    Hal::scope(16, || {
        let mut io = IoBitmap::<Hal>::passthrough_all().unwrap();
        let set = [0x0, 0x60, 0x64, 0x3ff, 0x7fff, 0x8000, 0xcf8, 0xcfc, 0xfffe];
        for port in set {
            io.set_intercept(port, true).unwrap();
        }
        for port in 0..0x1_0000_u32 {
            for width in IoWidth::ALL {
                let touched = port..port + u32::from(width.bytes());
                let expected = touched.end > 0x1_0000 || touched.into_iter().any(|port| set.contains(&port));
                assert_eq!(io.exits(port as u16, width), expected, "{port:#x} {width:?}");
            }
        }
        // Nothing is set, and a wrap exits all the same.
        let io = IoBitmap::<Hal>::passthrough_all().unwrap();
        let wraps = |port| IoWidth::ALL.map(|width| io.exits(port, width));
        assert_eq!(wraps(0xfffc), [false, false, false]);
        assert_eq!(wraps(0xfffd), [false, false, true]);
        assert_eq!(wraps(0xffff), [false, true, true]);
    });
}

#[test]
fn the_bitmaps_print_what_they_intercept() {
    Hal::scope(16, || {
        let mut io = IoBitmap::<Hal>::passthrough_all().unwrap();
        io.set_intercept_of_range(0x3f8, 8, true).unwrap();
        io.set_intercept(0x64, true).unwrap();
        assert!(format!("{io:?}").contains("intercepted: [0x64, 0x3f8..=0x3ff]"), "{io:?}");
        let mut msrs = MsrBitmap::<Hal>::passthrough_all().unwrap();
        msrs.set_write_intercept(0xc000_0080, true).unwrap();
        assert!(format!("{msrs:?}").contains("reads: [], writes: [0xc0000080]"), "{msrs:?}");
    });
}

/// Where the processor looks: the byte and the bit.
fn msr_bit(msrs: &MsrBitmap<Hal>, msr: u32, access: MsrAccess) -> Option<bool> {
    let quarter = match (msr, access) {
        (0..=0x1fff, MsrAccess::Read) => 0,
        (0xc000_0000..=0xc000_1fff, MsrAccess::Read) => 1024,
        (0..=0x1fff, MsrAccess::Write) => 2048,
        (0xc000_0000..=0xc000_1fff, MsrAccess::Write) => 3072,
        _ => return None,
    };
    let bit = msr as usize & 0x1fff;
    Some(bytes(msrs.phys_addr())[quarter + bit / 8] >> (bit % 8) & 1 == 1)
}

const BOTH: [MsrAccess; 2] = [MsrAccess::Read, MsrAccess::Write];

#[test]
fn every_msr_can_be_set_alone() {
    Hal::scope(16, || {
        let mut msrs = MsrBitmap::<Hal>::passthrough_all().unwrap();
        for msr in (0..0x2000).chain(0xc000_0000..0xc000_2000) {
            for access in BOTH {
                msrs.set_intercept(msr, access, true).unwrap();
                assert_eq!(msr_bit(&msrs, msr, access), Some(true), "{msr:#x} {access:?}");
                for other in BOTH {
                    assert_eq!(msrs.exits(msr, other), other == access);
                    assert_eq!(msrs.intercepted(other).count(), usize::from(other == access));
                }
                assert!(msrs.intercepted(access).eq([msr..=msr]));
                msrs.set_intercept(msr, access, false).unwrap();
            }
        }
    });
}

#[test]
fn msrs_outside_both_ranges_always_exit_and_cannot_be_set() {
    Hal::scope(16, || {
        let mut msrs = MsrBitmap::<Hal>::passthrough_all().unwrap();
        let outside = [0x2000, 0x2001, 0x4000_0000, 0xbfff_ffff, 0xc000_2000, 0xc001_0000, u32::MAX];
        for msr in outside {
            for access in BOTH {
                assert!(msrs.exits(msr, access), "{msr:#x}");
                for on in [false, true] {
                    assert_eq!(msrs.set_intercept(msr, access, on).unwrap_err().base, msr);
                }
            }
            assert!(
                msrs.set_read_intercept(msr, true).is_err() && msrs.set_write_intercept(msr, true).is_err()
            );
        }
        // A range that leaves its half, all or nothing.
        for (base, count) in
            [(0x1fff, 2), (0, 0x2001), (0xc000_1fff, 2), (0x1000, 0xc000_0000), (0, u32::MAX)]
        {
            assert!(msrs.set_intercept_of_range(base, count, MsrAccess::Read, true).is_err());
        }
        for access in BOTH {
            assert_eq!(msrs.intercepted(access).count(), 0);
        }
        msrs.set_intercept_of_range(0x800, 0x100, MsrAccess::Write, true).unwrap(); // x2APIC
        assert!(msrs.intercepted(MsrAccess::Write).eq([0x800..=0x8ff]));
        let all = MsrBitmap::<Hal>::intercept_all().unwrap();
        for msr in (0..0x2100).chain(0xbfff_ff00..0xc000_2100) {
            assert!(BOTH.iter().all(|&access| all.exits(msr, access)));
        }
        assert!(all.intercepted(MsrAccess::Read).eq([0..=0x1fff, 0xc000_0000..=0xc000_1fff]));
    });
}

#[test]
fn an_ept_pointer_is_not_rounded_and_keeps_no_reserved_bits() {
    for low in 1..4096 {
        let root = 0x1234_5000 + low;
        let error = EptPointer::from_table_phys(PhysAddr::from(root)).unwrap_err();
        assert_eq!(error, EptPointerError::Misaligned { root: root as u64 });
    }
    for bit in 52..64 {
        let root = 1_usize << bit;
        assert!(matches!(
            EptPointer::from_table_phys(PhysAddr::from(root)),
            Err(EptPointerError::TooWide { .. })
        ));
    }
    let top = (1 << 52) - 4096;
    assert_eq!(EptPointer::from_table_phys(PhysAddr::from(top)).unwrap().root().as_usize(), top);
}

#[test]
fn an_ept_pointer_is_checked_against_the_capabilities() {
    let all = EptVpidCap::all();
    let pointer = EptPointer::from_table_phys(PhysAddr::from(0x1000)).unwrap();
    assert_eq!(pointer.check(all, 40), Ok(()));
    let check = |missing| pointer.check(all.difference(missing), 40);
    assert_eq!(check(EptVpidCap::ACCESSED_DIRTY), Err(EptPointerError::AccessedDirty));
    assert_eq!(check(EptVpidCap::MEMORY_TYPE_WB), Err(EptPointerError::MemoryType { memory_type: 6 }));
    assert_eq!(check(EptVpidCap::WALK_4), Err(EptPointerError::Levels { levels: 4 }));
    // Every single bit, on a processor that has everything and 40 address bits.
    for bit in 0..64 {
        let verdict = EptPointer::from_bits(pointer.bits() ^ 1 << bit).check(all, 40);
        let fine = matches!(bit, 6 | 7 | 12..=39);
        assert_eq!(verdict.is_ok(), fine, "bit {bit}: {verdict:?}");
    }
    let no_shadow_stack = all.difference(EptVpidCap::SUPERVISOR_SHADOW_STACK);
    let shadow_stack = pointer.with_shadow_stack_control(true);
    assert_eq!(shadow_stack.check(no_shadow_stack, 40), Err(EptPointerError::ShadowStack));
}

#[test]
fn a_structure_that_cannot_be_made_leaks_nothing() {
    Hal::scope(16, || {
        let basic = VmxBasic::from_raw(0x00da_1000_0000_002b);
        assert_eq!(Hal::each_failure(|| drop(VmxRegion::<Hal>::new(1, false))), 1);
        assert_eq!(Hal::each_failure(|| drop(VmcsRegion::<Hal>::new(basic))), 1);
        assert_eq!(Hal::each_failure(|| drop(IoBitmap::<Hal>::passthrough_all())), 2);
        assert_eq!(Hal::each_failure(|| drop(IoBitmap::<Hal>::intercept_all())), 2);
        assert_eq!(Hal::each_failure(|| drop(MsrBitmap::<Hal>::intercept_all())), 1);
        Hal::fail_after(0);
        assert_eq!(IoBitmap::<Hal>::passthrough_all().unwrap_err(), AxError::NoMemory);
        assert_eq!(VmxRegion::<Hal>::new(1, false).unwrap_err(), AxError::NoMemory);
    });
}
