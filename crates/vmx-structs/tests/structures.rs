//! The structures beside regions, bitmaps and EPT: their bytes as the processor reads them, and their rules.

mod common;

use core::sync::atomic::{AtomicUsize, Ordering};

use common::newest;
use frame_core::{FrameHal, PhysAddr};
use frame_testkit::{TestHal, test_hal};
use vmx_structs::*;

test_hal! { struct Hal }

/// The contents of a frame, as the processor finds them.
fn bytes(at: PhysAddr, len: usize) -> Vec<u8> {
    let start = Hal::phys_to_virt(at);
    // SAFETY: the frame is owned by the structure under test, and nothing writes to it now.
    unsafe { core::slice::from_raw_parts(start.as_mut_ptr(), len) }.to_vec()
}

/// Writes to a frame as the processor does.
fn poke(at: PhysAddr, offset: usize, data: &[u8]) {
    let start = Hal::phys_to_virt(at);
    // SAFETY: the frame is owned by the structure under test, which is not borrowed for writing.
    unsafe { start.as_mut_ptr().add(offset).copy_from(data.as_ptr(), data.len()) };
}

fn word(at: PhysAddr, index: usize) -> u64 {
    u64::from_le_bytes(bytes(at, 4096)[8 * index..][..8].try_into().unwrap())
}

fn gpa(address: u64) -> GuestPhysAddr {
    GuestPhysAddr::new(address)
}

fn range(start: u64, bytes: u64) -> GuestRange {
    GuestRange::new(gpa(start), bytes / 4096).unwrap()
}

#[test]
fn msr_areas_hold_16_byte_entries() {
    Hal::scope(64, || {
        let misc = VmxMisc::from_raw(0); // 512 entries
        let mut area = MsrArea::<Hal>::with_capacity(512, misc).unwrap();
        assert!(area.is_empty() && area.phys_addr().as_usize() % 16 == 0);
        area.set(0xc000_0082, 0x1122_3344_5566_7788).unwrap();
        area.set(0x10, 7).unwrap();
        let expected = [
            0x82, 0, 0, 0xc0, 0, 0, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, //
            0x10, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(bytes(area.phys_addr(), 32), expected);
        area.set(0x10, 8).unwrap(); // in place
        assert_eq!((area.len(), area.get(0x10), area.get(0x11)), (2, Some(8), None));
        // The processor stores on VM exit.
        poke(area.phys_addr(), 24, &0xabcd_u64.to_le_bytes());
        assert_eq!(area.get(0x10), Some(0xabcd));
        // The qualification of a failed VM entry counts from 1.
        assert_eq!(area.failed_entry(2), Some(MsrEntry { msr: 0x10, value: 0xabcd }));
        for outside in [0, 3, u64::MAX] {
            assert_eq!(area.failed_entry(outside), None);
        }
        assert_eq!(area.remove(0xc000_0082), Some(0x1122_3344_5566_7788));
        assert_eq!(area.remove(0xc000_0082), None);
        assert_eq!(area.entries().map(|entry| entry.msr).collect::<Vec<_>>(), [0x10]);
        // To the last entry, over both frames, and not one more.
        for msr in 0x1000..0x1000 + 511 {
            area.set(msr, u64::from(msr)).unwrap();
        }
        assert_eq!(area.set(0x2000, 0), Err(MsrAreaError::Full { capacity: 512 }));
        assert_eq!(area.get(0x1000 + 510), Some(0x11fe));
        for msr in [0xc000_0100, 0xc000_0101, 0x800, 0x8ff, 0x79, 0x9b] {
            assert_eq!(area.set(msr, 0), Err(MsrAreaError::NotLoadable { msr }));
        }
    });
}

#[test]
fn msr_areas_keep_to_the_recommended_maximum() {
    Hal::scope(64, || {
        for n in 0..8_u64 {
            let misc = VmxMisc::from_raw(n << 25);
            let limit = 512 * (n as usize + 1);
            assert_eq!(MsrArea::<Hal>::with_capacity(limit, misc).unwrap().capacity(), limit);
            let refused = MsrArea::<Hal>::with_capacity(limit + 1, misc).unwrap_err();
            assert_eq!(refused, MsrAreaError::TooMany { asked: limit + 1, limit });
        }
        assert!(MsrArea::<Hal>::with_capacity(usize::MAX, VmxMisc::from_raw(0)).is_err());
        let mut none = MsrArea::<Hal>::with_capacity(0, VmxMisc::from_raw(0)).unwrap();
        assert!(none.set(0x10, 0).is_err());
        Hal::fail_after(0);
        assert!(matches!(
            MsrArea::<Hal>::with_capacity(1, VmxMisc::from_raw(0)),
            Err(MsrAreaError::Alloc(_))
        ));
    });
}

#[test]
fn the_virtual_apic_page_has_registers_at_their_offsets() {
    Hal::scope(4, || {
        let page = VirtualApicPage::<Hal>::new().unwrap();
        assert!(bytes(page.phys_addr(), 4096).iter().all(|&byte| byte == 0));
        page.write(ApicRegister::TPR, 0x30);
        assert_eq!(bytes(page.phys_addr(), 4096)[0x80..0x84], [0x30, 0, 0, 0]);
        poke(page.phys_addr(), 0xa0, &[0x20]);
        assert_eq!(page.read(ApicRegister::PPR), 0x20);
        assert_eq!(ApicRegister::at(0x80), Some(ApicRegister::TPR));
        for bad in [0x81, 0x88, 0x1000, 0xfff0] {
            assert_eq!(ApicRegister::at(bad), None);
        }
        assert_eq!((page.highest_request(), page.highest_in_service()), (None, None));
        for vector in 0..=255_u8 {
            assert!(page.request(vector) && !page.request(vector));
            let at = 0x200 + usize::from(vector / 32) * 16;
            let bits = u32::from_le_bytes(bytes(page.phys_addr(), 4096)[at..at + 4].try_into().unwrap());
            assert_eq!(bits >> (vector % 32), 1);
            assert_eq!(page.highest_request(), Some(vector));
        }
        poke(page.phys_addr(), 0x170, &[0, 0, 0, 0x40]);
        assert_eq!(page.highest_in_service(), Some(224 + 30));
        assert_ne!(ApicAccessPage::<Hal>::new().unwrap().phys_addr(), page.phys_addr());
    });
}

#[test]
fn posted_interrupt_descriptors_have_the_layout_of_the_manual() {
    Hal::scope(4, || {
        let page = PostedInterruptPage::<Hal>::new().unwrap();
        let pi = page.get(3).unwrap();
        let at = page.phys_addr(3).unwrap();
        assert_eq!(at.as_usize() % 64, 0);
        assert!(
            page.get(64).is_none() && page.phys_addr(64).is_none() && page.phys_addr(usize::MAX).is_none()
        );
        pi.set_notification(0xf2, 0x0102_0304);
        assert_eq!((pi.notification_vector(), pi.notification_destination()), (0xf2, 0x0102_0304));
        assert_eq!(bytes(at, 64)[32..40], [0, 0, 0xf2, 0, 4, 3, 2, 1]);
        for vector in 0..=255_u8 {
            let first = vector == 0;
            assert_eq!(pi.post(vector), first, "one notification for all");
            assert!(bytes(at, 64)[usize::from(vector) / 8] >> (vector % 8) & 1 == 1 && pi.is_posted(vector));
        }
        assert_eq!(bytes(at, 64)[32], 1, "ON");
        assert!(pi.is_outstanding());
        pi.set_notification(0xf3, 1); // keeps ON
        assert!(pi.is_outstanding() && pi.notification_vector() == 0xf3);
        assert_eq!(pi.take(), [u64::MAX; 4]);
        assert!(!pi.is_outstanding() && pi.take() == [0; 4]);
        // Suppressed: nobody is notified; unsuppress tells.
        pi.suppress();
        assert_eq!(bytes(at, 64)[32], 2, "SN");
        assert!(!pi.post(65) && !pi.is_outstanding() && pi.is_suppressed());
        assert!(pi.unsuppress() && !pi.is_suppressed());
        assert_eq!(pi.take(), [0, 2, 0, 0]);
        assert!(!pi.unsuppress());
        assert!(format!("{pi:?}").contains("vector: 243"), "{pi:?}");
    });
}

#[test]
fn no_posted_interrupt_is_lost_between_threads() {
    static DESCRIPTOR: PostedInterruptDescriptor = PostedInterruptDescriptor::new();
    static NOTIFIED: AtomicUsize = AtomicUsize::new(0);
    let mut taken = [0_usize; 256];
    let mut takes = 0;
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            scope.spawn(move || {
                for i in 0..64 {
                    if DESCRIPTOR.post(thread * 64 + i) {
                        NOTIFIED.fetch_add(1, Ordering::SeqCst);
                    }
                    std::thread::yield_now();
                }
            });
        }
        // The one that is notified: it takes once for each notification, and nothing is left afterwards.
        while taken.iter().sum::<usize>() < 256 {
            if NOTIFIED.load(Ordering::SeqCst) == takes {
                std::thread::yield_now();
                continue;
            }
            takes += 1;
            for (i, word) in DESCRIPTOR.take().into_iter().enumerate() {
                for bit in (0..64).filter(|bit| word >> bit & 1 == 1) {
                    taken[i * 64 + bit] += 1;
                }
            }
        }
    });
    assert!(taken.iter().all(|&times| times == 1));
}

#[test]
fn the_pml_index_counts_down_and_wraps() {
    Hal::scope(4, || {
        let log = PmlBuffer::<Hal>::new().unwrap();
        let mut index = PmlBuffer::<Hal>::START;
        assert_eq!((index, log.logged(index).len()), (511, 0));
        for i in 0..512_u64 {
            assert!(!PmlBuffer::<Hal>::is_full(index));
            index = log.log(index, gpa(i << 12 | 0xabc)).unwrap();
            assert_eq!(word(log.phys_addr(), 511 - i as usize), i << 12, "written downwards, page-aligned");
            assert_eq!(log.logged(index).len(), i as usize + 1);
        }
        assert_eq!(index, 0xffff);
        assert!(PmlBuffer::<Hal>::is_full(index));
        assert_eq!(log.log(index, gpa(0)), Err(PmlFull));
        assert!(log.logged(index).eq((0..512).map(|i| gpa(i << 12))), "in the order of the writes");
        assert!(log.logged(509).eq([gpa(0), gpa(1 << 12)]));
        for other in 512..=u16::MAX {
            assert_eq!(PmlBuffer::<Hal>::count(other), 512);
        }
    });
}

#[test]
fn the_eptp_list_gives_only_pointers_that_the_processor_takes() {
    Hal::scope(16, || {
        let mut list = EptpList::<Hal>::new().unwrap();
        let config = EptConfig::new(&newest()).unwrap();
        let (one, other) = (Ept::<Hal>::new(config).unwrap(), Ept::<Hal>::new(config).unwrap());
        list.set(0, Some(one.pointer())).unwrap();
        list.set(511, Some(other.pointer())).unwrap();
        assert_eq!(list.set(512, None), Err(EptpListError::Index { index: 512 }));
        assert_eq!(
            (word(list.phys_addr(), 0), word(list.phys_addr(), 511)),
            (one.pointer().bits(), other.pointer().bits())
        );
        let choose = |ecx| list.choose(ecx, EptVpidCap::all(), 52);
        assert_eq!(choose(0), Ok(one.pointer()));
        assert_eq!(choose(511), Ok(other.pointer()));
        assert!(matches!(choose(1), Err(EptpListError::Pointer { index: 1, .. })));
        assert_eq!(choose(512), Err(EptpListError::Index { index: 512 }));
        assert!(choose(u32::MAX).is_err());
        assert!(list.choose(0, EptVpidCap::all() - EptVpidCap::ACCESSED_DIRTY, 52).is_err());
        assert_eq!(list.iter().map(|(index, _)| index).collect::<Vec<_>>(), [0, 511]);
        list.set(0, None).unwrap();
        assert_eq!((list.get(0), word(list.phys_addr(), 0)), (None, 0));
    });
}

#[test]
fn field_bitmaps_have_a_bit_for_each_15_bit_encoding() {
    Hal::scope(4, || {
        let mut reads = VmreadBitmap::<Hal>::passthrough_all().unwrap();
        for encoding in 0..0x8000_u32 {
            reads.set_intercept(encoding, true).unwrap();
            let frame = bytes(reads.phys_addr() + (encoding / 8) as usize, 1);
            assert_eq!(frame[0], 1 << (encoding % 8), "{encoding:#x}");
            assert!(reads.exits(u64::from(encoding)) && !reads.exits(u64::from(encoding ^ 1)));
            reads.set_intercept(encoding, false).unwrap();
        }
        for above in [0x8000, 0x1_0000, 1 << 31] {
            assert_eq!(reads.set_intercept(above, false).unwrap_err().encoding, above);
            assert!(reads.exits(u64::from(above)) && reads.exits(u64::from(above) << 32));
        }
        let writes = VmwriteBitmap::<Hal>::intercept_all().unwrap();
        assert!((0..0x1_0000).all(|operand| writes.exits(operand)));
        assert!(writes.intercepted().eq([0..=0x7fff]));
    });
}

#[test]
fn the_ve_area_is_busy_until_it_is_handled() {
    Hal::scope(16, || {
        let area = VeArea::<Hal>::new().unwrap();
        assert!(!area.is_busy() && area.take().is_none());
        let config = EptConfig::new(&newest()).unwrap().with_ve(true).unwrap();
        let mut ept = Ept::<Hal>::new(config).unwrap();
        // Nothing mapped: suppressed, for entries that map nothing have the bit.
        let Err(EptFault::Violation(exits)) = ept.translate(gpa(0x5000), EptAccess::READ) else { panic!() };
        assert!(!exits.convertible && !area.raise(&exits, 0, 0));
        ept.map(
            gpa(0x5000),
            PhysAddr::from(0),
            PageSize::Size4K,
            EptAttributes::RAM.with_flags(EptFlags::READ),
        )
        .unwrap();
        let Err(EptFault::Violation(violation)) = ept.translate(gpa(0x5678), EptAccess::WRITE) else {
            panic!()
        };
        assert!(area.raise(&violation, 0xdead_beef, 5));
        let raw = bytes(area.phys_addr(), 40);
        assert_eq!(raw[..8], [48, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(raw[8..16], violation.qualification.bits().to_le_bytes());
        assert_eq!(raw[16..24], 0xdead_beef_u64.to_le_bytes());
        assert_eq!(raw[24..32], 0x5678_u64.to_le_bytes());
        assert_eq!(raw[32..34], [5, 0]);
        assert!(!area.raise(&violation, 1, 1), "busy: a VM exit");
        let info = area.take().unwrap();
        assert_eq!(
            (info.reason, info.linear, info.guest, info.eptp_index),
            (48, 0xdead_beef, gpa(0x5678), 5)
        );
        assert_eq!(info.qualification, violation.qualification);
        assert!(!area.is_busy() && area.take().is_none());
    });
}

#[test]
fn descriptors_are_128_bits() {
    let pointer = EptPointer::from_bits(0x1234_5678_9abc_def0);
    assert_eq!(InveptDescriptor::new(pointer).words(), [0x1234_5678_9abc_def0, 0]);
    assert_eq!(InvvpidDescriptor::for_address(0xffff, 0x8000_0000_0000).words(), [0xffff, 0x8000_0000_0000]);
    assert_eq!(InvvpidDescriptor::new(7).words(), [7, 0]);
    assert_eq!([InveptType::SingleContext as u64, InveptType::AllContexts as u64], [1, 2]);
    let kinds = [
        InvvpidType::IndividualAddress,
        InvvpidType::SingleContext,
        InvvpidType::AllContexts,
        InvvpidType::SingleContextRetainingGlobals,
    ];
    assert_eq!(kinds.map(|kind| kind as u64), [0, 1, 2, 3]);
    assert_eq!(align_of::<InveptDescriptor>(), 16);
}

#[test]
fn vpids_are_given_once_and_rest_until_invvpid() {
    let vpids = VpidAllocator::<2>::new();
    let all: Vec<_> = (1..=127).map(|_| vpids.alloc().unwrap()).collect();
    assert!(all.iter().map(Vpid::get).eq(1..=127));
    assert!(vpids.alloc().unwrap_err().to_string().contains("in use"));
    let mut all = all.into_iter();
    let (first, second, third) = (all.next().unwrap(), all.next().unwrap(), all.next().unwrap());
    // An INVVPID that fails is still owed.
    let (retired, ()) = first.retire().complete(EptVpidCap::all(), |_, _| Err(())).unwrap_err();
    assert!(vpids.alloc().is_err());
    retired
        .complete(EptVpidCap::all(), |kind, descriptor| {
            assert_eq!((kind, descriptor.vpid()), (InvvpidType::SingleContext, 1));
            Ok::<(), ()>(())
        })
        .unwrap();
    let again = vpids.alloc().unwrap();
    assert_eq!(again.get(), 1);
    second
        .retire()
        .complete(EptVpidCap::INVVPID_ALL, |kind, _| {
            assert_eq!(kind, InvvpidType::AllContexts);
            Ok::<(), ()>(())
        })
        .unwrap();
    assert_eq!(vpids.count(), 126);
    drop(third); // lost: never given again
    let last = vpids.alloc().unwrap();
    assert_eq!((last.get(), vpids.alloc().is_err()), (2, true));
    for vpid in all.chain([again, last]) {
        vpid.retire().waive();
    }
    assert_eq!(vpids.count(), 1);
    let whole = VpidAllocator::<1024>::new();
    let mut seen = std::collections::BTreeSet::new();
    while let Ok(vpid) = whole.alloc() {
        assert!(seen.insert(vpid.get()));
        std::mem::forget(vpid);
    }
    assert_eq!((seen.len(), whole.capacity()), (65535, 65535));
}

#[test]
fn vpids_are_given_once_to_several_threads() {
    static VPIDS: VpidAllocator<4> = VpidAllocator::new();
    let taken = |_| {
        std::thread::spawn(|| {
            let mut mine = Vec::new();
            for round in 0..2000 {
                match VPIDS.alloc() {
                    Ok(vpid) if round % 3 == 0 => mine.push(vpid),
                    Ok(vpid) => vpid.retire().waive(),
                    Err(_) => break,
                }
            }
            mine
        })
    };
    let threads: Vec<_> = (0..4).map(taken).collect();
    let all: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let mut numbers: Vec<_> = all.iter().map(Vpid::get).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), all.len());
    assert_eq!(VPIDS.count(), all.len());
    all.into_iter().for_each(|vpid| vpid.retire().waive());
}

#[test]
fn spp_tables_have_write_bits_at_even_places() {
    Hal::scope(64, || {
        let ept = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
        let mut spp = SppTable::<Hal>::new().unwrap();
        let page = gpa(0x7f_ffff_f000);
        assert_eq!((spp.get(page), spp.check(page, 1)), (None, SppVerdict::Miss));
        let fresh = Hal::owned();
        assert_eq!(spp.table_frames() + 1, fresh);
        let invalidation = spp.set(page, 0x8000_0001, &ept).unwrap();
        assert!(!invalidation.is_needed(), "more than before");
        // Walk as the processor does: only address and valid bit in the upper levels.
        let mut table = spp.phys_addr();
        for level in [4, 3, 2] {
            let index = (page.as_u64() >> (12 + 9 * (level - 1))) as usize % 512;
            let entry = word(table, index);
            assert_eq!(entry & !0x000f_ffff_ffff_f000, 1);
            assert!((0..512).all(|i| i == index || word(table, i) == 0));
            table = PhysAddr::from((entry & !0xfff) as usize);
        }
        assert_eq!(word(table, 511), 1 << 62 | 1);
        assert_eq!(spp.get(page), Some(0x8000_0001));
        // Every byte of the page, in every width.
        for offset in 0..4096_u64 {
            for width in [1, 2, 4, 8, 64] {
                let pieces = offset / 128..=(offset + width - 1).min(4095) / 128;
                let expected = if pieces.clone().all(|piece| piece == 0 || piece == 31) {
                    SppVerdict::Allowed
                } else {
                    SppVerdict::Refused
                };
                assert_eq!(spp.check(gpa(page.as_u64() + offset), width), expected);
            }
        }
        assert!(!spp.set(page, u32::MAX, &ept).unwrap().is_needed());
        let less = spp.set(page, 0x7fff_ffff, &ept).unwrap();
        assert!(less.is_needed());
        less.waive();
        // A neighbour in the same table, one in the next.
        spp.set(gpa(0x7f_ffff_e000), 0, &ept).unwrap().waive();
        spp.set(gpa(0), 5, &ept).unwrap().waive();
        assert_eq!(
            (spp.get(gpa(0)), spp.get(gpa(0x1000)), spp.get(gpa(0x20_0000))),
            (Some(5), Some(0), None)
        );
        // Reserved bits.
        poke(table, 511 * 8, &[2]);
        assert_eq!(spp.check(page, 1), SppVerdict::Misconfigured);
        poke(spp.phys_addr(), 0, &[3]);
        assert_eq!(spp.check(gpa(0), 1), SppVerdict::Misconfigured);
        poke(spp.phys_addr(), 0, &[1]);
        // Tables come back after the INVEPT.
        for bad in [gpa(1), gpa(1 << 48), gpa(u64::MAX)] {
            assert_eq!(spp.set(bad, 0, &ept).unwrap_err(), SppError::Address { page: bad });
            assert!(spp.get(bad).is_none() || bad == gpa(1));
        }
        for address in [page, gpa(0x1234)] {
            let owned = Hal::owned();
            let retired = spp.remove(address, &ept).unwrap();
            assert_eq!(retired.retired_tables(), if address == page { 2 } else { 3 });
            assert!(Hal::owned() < owned, "the books shrink at once");
            retired.waive();
            assert_eq!(spp.check(address, 1), SppVerdict::Miss);
        }
        assert_eq!(spp.remove(page, &ept).unwrap_err(), SppError::Absent { page });
        assert_eq!((spp.table_frames() + 1, Hal::owned()), (fresh, fresh));
    });
}

#[test]
fn spp_tables_that_cannot_be_made_leave_the_others() {
    Hal::scope(64, || {
        let ept = Ept::<Hal>::new(EptConfig::new(&newest()).unwrap()).unwrap();
        assert!(Hal::each_failure(|| drop(SppTable::<Hal>::new())) > 1);
        let mut spp = SppTable::<Hal>::new().unwrap();
        spp.set(gpa(0), 1, &ept).unwrap().waive();
        let before = (spp.table_frames(), word(spp.phys_addr(), 0), word(spp.phys_addr(), 1));
        let mut tries = 0;
        Hal::each_failure(|| {
            tries += 1;
            match spp.set(gpa(1 << 39), 1, &ept) {
                Ok(done) => done.waive(),
                Err(error) => {
                    assert!(matches!(error, SppError::Alloc(_)));
                    assert_eq!(
                        (spp.table_frames(), word(spp.phys_addr(), 0), word(spp.phys_addr(), 1)),
                        before
                    );
                    assert_eq!((spp.get(gpa(0)), spp.get(gpa(1 << 39))), (Some(1), None));
                }
            }
        });
        assert!(tries > 4);
        assert_eq!(spp.get(gpa(1 << 39)), Some(1));
    });
}

#[test]
fn guest_memory_is_backed_mapped_and_given_back() {
    Hal::scope(8192, || {
        let config = EptConfig::new(&newest()).unwrap();
        let mut memory = GuestMemory::<Hal>::new(&config).unwrap();
        memory.add(range(0, 0xa_0000), Contents::Zeroed).unwrap();
        memory.add(range(0x10_0000, 0x70_0000), Contents::Zeroed).unwrap();
        assert_eq!(memory.frames(), 0xa0 + 0x700);
        // 1 MiB to 2 MiB in small runs, then 3 large ones.
        let sizes: Vec<_> =
            memory.runs().filter(|run| run.guest.count() > 1).map(|run| run.guest.count()).collect();
        assert_eq!(sizes, [512; 3]);
        assert!(
            matches!(memory.add(range(0x9_f000, 0x2000), Contents::Zeroed), Err(GuestMemoryError::Backed { guest }) if guest == gpa(0x9_f000))
        );
        assert!(matches!(
            memory.add(range(1 << 48, 4096), Contents::Zeroed),
            Err(GuestMemoryError::TooWide { .. })
        ));
        // Bytes, over the edges of words and of runs.
        let text: Vec<u8> = (0..10_000).map(|i| (i % 251) as u8).collect();
        for at in [0x10_0000, 0x10_0003, 0x1f_fff9, 0x3f_f001] {
            memory.write(gpa(at), &text).unwrap();
            let mut back = vec![0; text.len()];
            memory.read(gpa(at), &mut back).unwrap();
            assert_eq!(back, text, "{at:#x}");
            let mut around = [0xff; 2];
            memory.read(gpa(at + text.len() as u64), &mut around).unwrap();
            assert_ne!(around, [0xff; 2], "nothing behind it was written");
            let host = memory.translate(gpa(at)).unwrap();
            assert_eq!(bytes(host, 7), text[..7]);
            memory.write(gpa(at), &vec![0; text.len()]).unwrap();
        }
        let refused = memory.write(gpa(0x9_ffff), &[1, 2]);
        assert_eq!(refused, Err(GuestMemoryError::NotBacked { guest: gpa(0xa_0000) }));
        let mut byte = [7];
        memory.read(gpa(0x9_ffff), &mut byte).unwrap();
        assert_eq!(byte, [0], "all or nothing");
        assert!(memory.read(gpa(u64::MAX), &mut [0; 4]).is_err());
        memory.read(gpa(u64::MAX), &mut []).unwrap();

        let mut ept = Ept::<Hal>::new(config).unwrap();
        ept.map_memory(&memory, EptAttributes::RAM).unwrap();
        for run in memory.runs() {
            let leaf = ept.query(run.guest.start()).unwrap();
            assert_eq!((leaf.host(), leaf.size().frames()), (run.host.start(), run.guest.count()));
        }
        assert_eq!(ept.leaves().map(|leaf| leaf.size().frames()).sum::<u64>(), memory.frames());
        let mut view = Ept::<Hal>::new(config).unwrap();
        view.map_memory_in(&memory, range(0x1f_f000, 0x2000), EptAttributes::RAM.with_flags(EptFlags::READ))
            .unwrap();
        assert_eq!(view.leaves().count(), 2);
        assert_eq!(view.query(gpa(0x20_0000)).unwrap().host(), memory.translate(gpa(0x20_0000)).unwrap());

        // Away with it: unmap, INVEPT, remove.
        ept.unmap_range(range(0, 1 << 30)).unwrap().waive();
        // A part of a large run: its rest stays, with what it holds.
        memory.write(gpa(0x3f_fff0), &text[..16]).unwrap();
        let books = memory.table_frames();
        let mut failures = 0;
        Hal::each_failure(|| match memory.remove(range(0x20_1000, 0x2000)) {
            Ok(2) => {}
            Ok(other) => panic!("{other} frames"),
            Err(_) => {
                failures += 1;
                assert_eq!((memory.frames(), memory.table_frames()), (0xa0 + 0x700, books));
            }
        });
        assert_eq!((failures, memory.table_frames(), memory.frames()), (1, books + 1, 0xa0 + 0x700 - 2));
        assert_eq!((memory.translate(gpa(0x20_1000)), memory.translate(gpa(0x20_2fff))), (None, None));
        let (before, behind) =
            (memory.translate(gpa(0x20_0fff)).unwrap(), memory.translate(gpa(0x20_3000)).unwrap());
        assert_eq!(behind - before.as_usize(), PhysAddr::from(0x2001), "not moved");
        let mut back = [0; 16];
        memory.read(gpa(0x3f_fff0), &mut back).unwrap();
        assert_eq!(back, text[..16]);
        memory.add(range(0x20_1000, 0x2000), Contents::Zeroed).unwrap();
        assert_eq!(memory.remove(range(0x10_0000, 0x30_0000)), Ok(0x300));
        assert_eq!(memory.translate(gpa(0x20_0000)), None);
        assert_eq!(memory.remove(range(0, 1 << 30)), Ok(0xa0 + 0x400));
        assert_eq!((memory.frames(), memory.table_frames()), (0, 1));
        drop((ept, view));
        assert_eq!(Hal::owned(), 1);
    });
}

#[test]
fn guest_memory_takes_what_there_is_or_nothing() {
    // 600 frames from 16 MiB on: one run of 2 MiB, then single ones.
    Hal::scope(600, || {
        let config = EptConfig::new(&newest()).unwrap();
        let mut memory = GuestMemory::<Hal>::new(&config).unwrap();
        let refused = memory.add(range(0, 4 << 20), Contents::Leftover).unwrap_err();
        assert!(matches!(refused, GuestMemoryError::Alloc(_)));
        assert_eq!((memory.frames(), memory.table_frames(), Hal::owned()), (0, 1, 1));
        memory.add(range(0, (2 << 20) + 16 * 4096), Contents::Zeroed).unwrap();
        assert_eq!(memory.frames(), 528);
        drop(memory);
        assert_eq!(Hal::owned(), 0);
        // Any allocation may fail.
        let tries = Hal::each_failure(|| {
            let mut memory =
                GuestMemory::<Hal>::new(&config).unwrap_or_else(|_| GuestMemory::new(&config).unwrap());
            let before = (memory.frames(), memory.table_frames());
            // A large run that is refused is made of small ones.
            if memory.add(range(0x1f_e000, 0x5000), Contents::Zeroed).is_err() {
                assert_eq!((memory.frames(), memory.table_frames()), before);
            } else {
                assert_eq!(memory.frames(), 5);
            }
        });
        assert!(tries > 8, "{tries}");
    });
}
