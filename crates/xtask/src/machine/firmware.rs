//! What the kernel must have made of the firmware's map, worked out in the slowest way: frame by frame.

use std::ops::Range;

use crate::command::Failure;

const FRAME: u64 = 4096;

/// A line of text `start-end usable`, of bytes; the end is exclusive. Any other word, or none, is reserved.
fn parse(line: &str) -> Option<(Range<u64>, bool)> {
    let (range, kind) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    let (start, end) = range.split_once('-')?;
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    Some((number(start)?..number(end)?, kind.trim() == "usable"))
}

/// The frames that are left of what the kernel printed (`firmware:` and `in use:` lines) and of a map in a module,
/// whose ends are inclusive.
pub(super) fn frames(serial: &str, module: Option<&str>) -> Result<usize, Failure> {
    let lines = |prefix| serial.lines().filter_map(move |line| line.strip_prefix(prefix)).filter_map(parse);
    let firmware: Vec<_> = lines("firmware: ").collect();
    let in_use: Vec<_> = lines("in use: ").collect();
    if firmware.is_empty() || in_use.is_empty() {
        return Err("the kernel printed no memory map".into());
    }
    let module: Vec<_> = module.unwrap_or_default().lines().filter(|line| !line.starts_with('#')).collect();
    let module: Vec<_> = module
        .into_iter()
        .filter_map(parse)
        .map(|(range, usable)| (range.start..range.end + 1, usable))
        .collect();

    let top = firmware.iter().filter(|entry| entry.1).map(|entry| entry.0.end).max().unwrap_or(0);
    let count = (1..top.div_ceil(FRAME)).filter(|&number| {
        let frame = number * FRAME..(number + 1) * FRAME;
        whole(&firmware, &frame)
            && (module.is_empty() || whole(&module, &frame))
            && !in_use.iter().any(|(range, _)| overlap(range, &frame))
    });
    Ok(count.count())
}

/// Whether every byte of the frame is usable and none is reserved.
fn whole(map: &[(Range<u64>, bool)], frame: &Range<u64>) -> bool {
    if map.iter().any(|(range, usable)| !usable && overlap(range, frame)) {
        return false;
    }
    // From its first byte on, as far as some usable range reaches, until the end or a gap.
    let mut covered = frame.start;
    while covered < frame.end {
        match map.iter().find(|(range, usable)| *usable && range.contains(&covered)) {
            Some((range, _)) => covered = range.end,
            None => return false,
        }
    }
    true
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// A map of a machine with a gibibyte that nobody would build: about two hundred entries, unsorted, cut at any byte,
/// some of them overlapping, with reservations inside of usable memory.
pub(super) fn fragmented() -> String {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |limit: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % limit
    };
    let mut lines = vec!["# a fragmented machine".to_string()];
    let mut add = |start: u64, end: u64, kind| lines.push(format!("{start:#018x}-{:#018x} {kind}", end - 1));
    // Some whole memory for the kernel itself, low and high; the rest is dust from 64 MiB on.
    add(0x1000, 0x9_f800, "usable");
    add(0x10_0000, 0x0300_0000, "usable");
    add(0x3c00_0000, 0x3f00_0000, "usable");
    let mut places: Vec<u64> = (0..100).collect();
    for i in (1..places.len()).rev() {
        places.swap(i, below(i as u64 + 1) as usize);
    }
    for place in places {
        let start = 0x0400_0000 + place * 0x80_0000 + below(0x10_0000);
        let end = start + 0x8000 + below(0x40_0000);
        add(start, end, "usable");
        match place % 3 {
            0 => add(start + (end - start) / 2, start + (end - start) / 2 + 1 + below(0x3000), "reserved"),
            1 => add(start + (end - start) / 3, end + below(0x1_0000), "usable"), // overlaps
            _ => add(end, end + 100 + below(0x1000), "usable"),                   // adjoins, at any byte
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_frames_do_not_count() {
        let serial = "firmware: 0x0-0x3800 usable\nfirmware: 0x3800-0x6001 usable\nfirmware: 0x4fff-0x5000 reserved\n\
                      in use: 0x1000-0x1001\n";
        // Of frames 0 to 6: 0 never counts, 1 is in use, 2 and 3 (from two entries) are whole, 4 has a reserved byte,
        // 5 is whole, 6 has one byte.
        assert_eq!(frames(serial, None), Ok(3));
        assert_eq!(frames(serial, Some("# other\n0x2000-0x3ffe usable\n0x5000-0x5fff usable\n")), Ok(2));
        assert!(frames("nothing", None).is_err());
    }

    #[test]
    fn the_fragmented_map_has_many_ranges() {
        let map = fragmented();
        assert!(map.lines().count() > 200);
        assert!(map.lines().skip(1).all(|line| parse(line).is_some_and(|(range, _)| !range.is_empty())));
    }
}
