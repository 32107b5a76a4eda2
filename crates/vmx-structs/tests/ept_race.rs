//! A processor sets accessed and dirty flags while software changes the same entry: none is lost.
//!
//! A thread stands for the processor. It writes by instructions that the compiler does not see, as a processor does: the
//! entry is written by bytes and by words.
#![cfg(target_arch = "x86_64")]

mod common;

use core::{
    arch::asm,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};
use std::time::{Duration, Instant};

use common::everything;
use frame_core::{FrameHal, PhysAddr};
use frame_testkit::{TestHal, test_hal};
use vmx_structs::*;

test_hal! { struct Hal }

const WRITE: u64 = 1 << 1;
const FLAGS: u64 = 3 << 8;
const DIRTY: u64 = 1 << 9;

/// Sets the flags of an entry as a write of the guest does, if it allows writes and is not dirty yet. Returns whether it
/// did.
fn guest_writes(entry: usize) -> bool {
    let (seen, before): (u64, u64);
    // SAFETY: the entry is 8 bytes, aligned, of a table that lives as long as the thread.
    unsafe { asm!("mov {}, [{}]", out(reg) seen, in(reg) entry, options(nostack, readonly)) };
    if seen & WRITE == 0 || seen & DIRTY != 0 {
        return false;
    }
    // SAFETY: as above.
    unsafe {
        asm!("lock cmpxchg [{}], {}", in(reg) entry, in(reg) seen | FLAGS, inout("rax") seen => before,
            options(nostack));
    }
    before == seen
}

#[test]
fn no_flag_is_lost_to_a_change_of_permissions_or_an_unmap() {
    Hal::scope(16, || {
        let page = GuestPhysAddr::new(0);
        let range = GuestRange::new(page, 1).unwrap();
        let mut ept = Ept::<Hal>::new(everything(EptLevels::Four)).unwrap();
        // A neighbour keeps the table in place while the page is away.
        for address in [0, 0x1000] {
            let guest = GuestPhysAddr::new(address);
            ept.map(guest, PhysAddr::from(0x20_0000), PageSize::Size4K, EptAttributes::RAM).unwrap();
        }
        let table = ept.entry(page, 2).unwrap() & 0x000f_ffff_ffff_f000;
        let entry = Hal::phys_to_virt(PhysAddr::from(table as usize)).as_usize();
        let (stop, set) = (AtomicBool::new(false), AtomicU64::new(0));
        let end = Instant::now() + Duration::from_secs(2);
        std::thread::scope(|scope| {
            let processor = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    set.fetch_add(u64::from(guest_writes(entry)), Ordering::Relaxed);
                }
            });
            // All of these lie in the low byte. A change of bits above the flags is an exchange and a late merge: the
            // processor may set a flag between the two a second time, so sets cannot be counted there.
            let kinds = [
                EptAttributes::RAM,
                EptAttributes::RAM.with_flags(EptFlags::RW | EptFlags::USER_EXECUTE),
                EptAttributes::RAM.with_memory_type(EptMemoryType::WriteThrough),
                EptAttributes::RAM.with_flags(EptFlags::READ | EptFlags::USER_EXECUTE),
            ];
            let mut seen = 0;
            let mut n = 0;
            while set.load(Ordering::Relaxed) < 20_000 && Instant::now() < end {
                n += 1;
                ept.protect(range, kinds[n % kinds.len()]).unwrap().waive();
                if n % 3 == 0 {
                    ept.take_dirty(range, |_| seen += 1).unwrap().waive();
                }
                if n % 16 == 0 {
                    let leaf = if n % 32 == 0 {
                        let mut session = ept.session();
                        let leaf = session.unmap(page).unwrap();
                        session.finish().waive();
                        leaf
                    } else {
                        let (leaf, invalidation) = ept.unmap(page).unwrap();
                        invalidation.waive();
                        leaf
                    };
                    seen += u64::from(leaf.dirty());
                    ept.map(page, PhysAddr::from(0x20_0000), PageSize::Size4K, EptAttributes::RAM).unwrap();
                }
            }
            stop.store(true, Ordering::Relaxed);
            processor.join().unwrap();
            seen += u64::from(ept.query(page).unwrap().dirty());
            let set = set.load(Ordering::Relaxed);
            assert!(set > 0, "the processor had no chance");
            assert_eq!(seen, set, "dirty flags seen, and set");
        });
    });
}
