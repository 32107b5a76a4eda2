//! The software walk against a second reading of the rules (SDM 28.3.2, 28.3.3), bit by bit: every permission, every low
//! bit, at every level, for every access, on several processors.

mod common;

use common::{configs, everything, newest};
use frame_core::PhysAddr;
use frame_testkit::{TestHal, test_hal};
use vmx_structs::*;

test_hal! { struct Hal }

/// What becomes of an access, in the terms of the manual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Address, level of the leaf, memory type, and the AND of the permissions.
    Goes {
        host: u64,
        level: u32,
        memory_type: u64,
        allowed: u64,
    },
    Violation {
        qualification: u64,
        convertible: bool,
    },
    Misconfiguration {
        level: u32,
    },
}

fn bit(word: u64, n: u32) -> bool {
    word >> n & 1 == 1
}

/// The rules, read on their own: `path[l - 1]` is the entry of level `l`.
fn oracle(config: &EptConfig, path: &[u64], guest: u64, access: EptAccess) -> Outcome {
    let mbx = config.mode_based_execute();
    let levels = path.len() as u32;
    let (mut readable, mut writable, mut executable, mut user_executable) = (true, true, true, true);
    let reads = access.read || access.paging_structure && config.accessed_dirty();
    let writes = access.write || access.paging_structure && config.accessed_dirty();
    let mut qualification = 0_u64;
    qualification |= u64::from(reads);
    qualification |= u64::from(writes) << 1;
    qualification |= u64::from(access.fetch) << 2;
    if let Some(linear) = access.linear {
        qualification |= 1 << 7;
        if !access.paging_structure {
            qualification |= 1 << 8;
            if config.advanced_exit_info() {
                qualification |= u64::from(linear.user) << 9;
                qualification |= u64::from(linear.writable) << 10;
                qualification |= u64::from(linear.execute_disable) << 11;
            }
        }
    }
    qualification |= u64::from(access.nmi_unblocking) << 12;

    for level in (1..=levels).rev() {
        let entry = path[level as usize - 1];
        let present = bit(entry, 0) || bit(entry, 1) || bit(entry, 2) || mbx && bit(entry, 10);
        if !present {
            return Outcome::Violation { qualification, convertible: !bit(entry, 63) };
        }
        let misconfiguration = Outcome::Misconfiguration { level };
        if !bit(entry, 0) && bit(entry, 1) {
            return misconfiguration;
        }
        if !bit(entry, 0) && !config.execute_only() && (bit(entry, 2) || mbx && bit(entry, 10)) {
            return misconfiguration;
        }
        for high in u32::from(config.physical_width())..52 {
            if bit(entry, high) {
                return misconfiguration;
            }
        }
        let leaf = match level {
            1 => true,
            2 if bit(entry, 7) && !config.supports(PageSize::Size2M) => return misconfiguration,
            3 if bit(entry, 7) && !config.supports(PageSize::Size1G) => return misconfiguration,
            2 | 3 => bit(entry, 7),
            _ if bit(entry, 7) => return misconfiguration,
            _ => false,
        };
        if leaf {
            if matches!(entry >> 3 & 7, 2 | 3 | 7) {
                return misconfiguration;
            }
            let low_bits = match level {
                2 => 12..21,
                3 => 12..30,
                _ => 0..0,
            };
            if low_bits.into_iter().any(|low| bit(entry, low)) {
                return misconfiguration;
            }
        } else if (3..=6).any(|reserved| bit(entry, reserved)) {
            return misconfiguration;
        }
        readable &= bit(entry, 0);
        writable &= bit(entry, 1);
        executable &= bit(entry, 2);
        user_executable &= bit(entry, 10);
        if leaf {
            let user = mbx && access.linear.is_some_and(|linear| linear.user);
            let may_fetch = if user { user_executable } else { executable };
            if reads && !readable && !access.paging_structure
                || access.read && !readable
                || writes && !writable
                || access.fetch && !may_fetch
            {
                qualification |= u64::from(readable) << 3;
                qualification |= u64::from(writable) << 4;
                qualification |= u64::from(executable) << 5;
                qualification |= u64::from(mbx && user_executable) << 6;
                return Outcome::Violation { qualification, convertible: !bit(entry, 63) };
            }
            let offset_bits = 12 + 9 * (level - 1);
            let mask = (1 << offset_bits) - 1;
            let allowed = u64::from(readable)
                | u64::from(writable) << 1
                | u64::from(executable) << 2
                | u64::from(mbx && user_executable) << 10;
            let host = entry & 0x000f_ffff_ffff_f000 & !mask | guest & mask;
            return Outcome::Goes { host, level, memory_type: entry >> 3 & 7, allowed };
        }
    }
    unreachable!("level 1 is always a leaf")
}

/// The walk, over tables that hold the path and nothing else.
fn walked(config: &EptConfig, path: &[u64], guest: u64, access: EptAccess) -> Outcome {
    let levels = path.len() as u32;
    let mut level = levels;
    let result = walk_ept(config, PhysAddr::from(0x1000), GuestPhysAddr::new(guest), access, |_, i| {
        assert_eq!(i as u64, guest >> (12 + 9 * (level - 1)) & 511, "index of level {level}");
        level -= 1;
        Some(path[level as usize])
    });
    match result {
        Ok(seen) => Outcome::Goes {
            host: seen.host.as_usize() as u64,
            level: seen.size.level(),
            memory_type: seen.memory_type as u64,
            allowed: seen.flags.bits() & 0x407,
        },
        Err(EptFault::Violation(violation)) => {
            assert_eq!(violation.guest.as_u64(), guest);
            Outcome::Violation {
                qualification: violation.qualification.bits(),
                convertible: violation.convertible,
            }
        }
        Err(EptFault::Misconfiguration(found)) => {
            assert_eq!((found.guest.as_u64(), found.word), (guest, path[found.level as usize - 1]));
            Outcome::Misconfiguration { level: found.level }
        }
        Err(other) => panic!("{other}"),
    }
}

fn accesses() -> Vec<EptAccess> {
    let user = GuestPaging::USER;
    let odd = GuestPaging { user: true, writable: false, execute_disable: true };
    vec![
        EptAccess::READ,
        EptAccess::WRITE,
        EptAccess::FETCH,
        EptAccess { read: true, ..EptAccess::WRITE },
        EptAccess::FETCH.at(user),
        EptAccess::READ.at(odd),
        EptAccess::READ.of_paging_structure(),
        EptAccess::WRITE.at(user).of_paging_structure(),
        EptAccess::WRITE.without_linear_address(),
        EptAccess { nmi_unblocking: true, ..EptAccess::WRITE },
    ]
}

/// A path on which every access goes through, to a 4 KiB page.
fn open_path(levels: u32) -> Vec<u64> {
    (1..=u64::from(levels)).map(|level| (level << 20) | 0x407 | if level == 1 { 0x30 } else { 0 }).collect()
}

fn compare(config: &EptConfig, path: &[u64], guest: u64, access: EptAccess) {
    let (expected, got) = (oracle(config, path, guest, access), walked(config, path, guest, access));
    assert_eq!(got, expected, "{path:#x?} {guest:#x} {access:?} {config:?}");
}

#[test]
fn every_entry_at_every_level_for_every_access() {
    // All of bits 7:0 and 10, times address bits and the ignored bits 8, 9, 11, 52 and 63.
    let high = [
        0,
        1 << 32,
        1 << 12,
        1 << 20,
        1 << 21,
        1 << 29,
        1 << 30,
        1 << 39,
        1 << 40,
        1 << 51,
        1 << 52 | 1 << 11 | 1 << 9 | 1 << 8,
        1 << 63,
        1 << 63 | 1 << 40,
    ];
    let mut seen = [0_usize; 3];
    for config in configs() {
        let levels = config.levels().count();
        for level in 1..=levels {
            for low in 0..512_u64 {
                let word = low & 0xff | (low >> 8) << 10;
                for high in high {
                    let mut path = open_path(levels);
                    path[level as usize - 1] = word | high;
                    for access in accesses() {
                        let guest = 0x1234_5678_9abc & ((1 << config.guest_width()) - 1);
                        compare(&config, &path, guest, access);
                        match oracle(&config, &path, guest, access) {
                            Outcome::Goes { .. } => seen[0] += 1,
                            Outcome::Violation { .. } => seen[1] += 1,
                            Outcome::Misconfiguration { .. } => seen[2] += 1,
                        }
                    }
                }
            }
        }
    }
    assert!(seen.iter().all(|&count| count > 10_000), "all three outcomes were met: {seen:?}");
}

#[test]
fn permissions_of_all_levels_together() {
    // Bits 0, 1, 2 and 10 of three entries of the path, all combinations.
    let bits = |n: u64| n & 7 | (n >> 3 & 1) << 10;
    for config in [EptConfig::new(&newest()).unwrap(), everything(EptLevels::Four), configs()[7]] {
        let levels = config.levels().count();
        for n in 0..16 * 16 * 16_u64 {
            let mut path = open_path(levels);
            for (level, n) in [(1, n), (2, n >> 4), (4, n >> 8)] {
                path[level as usize - 1] = path[level as usize - 1] & !0x407 | bits(n);
            }
            for access in accesses() {
                compare(&config, &path, 0x7fff_ffff_ffff & ((1 << config.guest_width()) - 1), access);
            }
        }
    }
}

#[test]
fn large_pages_keep_the_low_bits_of_the_address() {
    let config = EptConfig::new(&newest()).unwrap();
    for (level, host) in [(1, 0x1234_5000_u64), (2, 0x1240_0000), (3, 0x4000_0000)] {
        let mut path = open_path(4);
        path[level as usize - 1] = host | 0x37 | if level > 1 { 0x80 } else { 0 };
        for guest in [0, 1, 0xfff, 0x1000, 0x1f_ffff, 0x20_0000, 0x3fff_ffff, 0x4000_0000, 0xffff_ffff_ffff] {
            compare(&config, &path, guest, EptAccess::READ);
            let mask = (1 << (12 + 9 * (level - 1))) - 1;
            let Outcome::Goes { host: got, .. } = walked(&config, &path, guest, EptAccess::READ) else {
                panic!()
            };
            assert_eq!(got, host | guest & mask);
        }
    }
}

#[test]
fn an_address_too_wide_is_a_violation_without_permissions() {
    for config in configs() {
        let path = open_path(config.levels().count());
        for bit in config.guest_width()..64 {
            let guest = GuestPhysAddr::new(1 << bit | 0x5000);
            let seen =
                walk_ept(&config, PhysAddr::from(0x1000), guest, EptAccess::READ, |_, _| Some(path[0]));
            let Err(EptFault::Violation(violation)) = seen else { panic!("bit {bit}: {seen:?}") };
            assert_eq!(
                violation.qualification.bits(),
                0x181 | if config.advanced_exit_info() { 0x400 } else { 0 }
            );
        }
    }
}

#[test]
fn a_table_that_cannot_be_read_gives_no_verdict() {
    let config = EptConfig::new(&newest()).unwrap();
    let seen =
        walk_ept(&config, PhysAddr::from(0x1000), GuestPhysAddr::new(0), EptAccess::READ, |table, _| {
            (table.as_usize() == 0x1000).then_some(0x5000 | 7)
        });
    assert_eq!(seen, Err(EptFault::Unreadable { table: PhysAddr::from(0x5000) }));
}

/// The entries on the way to an address, as the processor reads them: `path[l - 1]` is that of level `l`.
fn path_of(ept: &Ept<Hal>, guest: u64) -> Vec<u64> {
    let levels = ept.config().levels().count();
    let guest = GuestPhysAddr::new(guest);
    (1..=levels).map(|level| ept.entry(guest, level).unwrap_or(0)).collect()
}

/// What the tables' own walk makes of an access, which has a way of its own for what is common.
fn translated(ept: &Ept<Hal>, guest: u64, access: EptAccess) -> Outcome {
    match ept.translate(GuestPhysAddr::new(guest), access) {
        Ok(seen) => Outcome::Goes {
            host: seen.host.as_usize() as u64,
            level: seen.size.level(),
            memory_type: seen.memory_type as u64,
            allowed: seen.flags.bits() & 0x407,
        },
        Err(EptFault::Violation(violation)) => Outcome::Violation {
            qualification: violation.qualification.bits(),
            convertible: violation.convertible,
        },
        Err(EptFault::Misconfiguration(found)) => Outcome::Misconfiguration { level: found.level },
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn tables_are_walked_as_their_entries_say() {
    // Every entry of a path to each size of page, edited: permissions, reserved bits, memory types, large-page bit.
    Hal::scope(16, || {
        for config in configs() {
            let mut ept = Ept::<Hal>::new(config).unwrap();
            for (guest, size) in
                [(0x1000, PageSize::Size4K), (2 << 30, PageSize::Size2M), (5 << 30, PageSize::Size1G)]
            {
                if !config.supports(size) {
                    continue;
                }
                ept.map(GuestPhysAddr::new(guest), PhysAddr::from(1 << 30), size, EptAttributes::RAM)
                    .unwrap();
                let probe = guest + 0xabc;
                for level in size.level()..=config.levels().count() {
                    let before = ept.entry(GuestPhysAddr::new(guest), level).unwrap();
                    for low in 0..512_u64 {
                        let word = low & 0xff | (low >> 8) << 10;
                        for high in [0, 1 << 51, 1 << 20, 1 << 63] {
                            let word = word | high | if level == size.level() { 1 << 30 } else { 0 };
                            let edited = ept.edit_entry(GuestPhysAddr::new(guest), level, |_| word);
                            // A leaf that would become a pointer to nobody's table.
                            let Ok(invalidation) = edited else { continue };
                            invalidation.waive();
                            let path = path_of(&ept, probe);
                            for access in accesses() {
                                let expected = oracle(&config, &path, probe, access);
                                assert_eq!(
                                    translated(&ept, probe, access),
                                    expected,
                                    "{path:#x?} {access:?} {config:?}"
                                );
                            }
                        }
                    }
                    ept.edit_entry(GuestPhysAddr::new(guest), level, |_| before).unwrap().waive();
                    assert_eq!(ept.entry(GuestPhysAddr::new(guest), level), Some(before));
                }
            }
        }
    });
}
