//! The reader of firmware maps: real text, ragged text, wrong text.

use frame_core::{FrameRange, MapError};
use frame_testkit::firmware::{self, ParseError, SPANS, parse};

fn ranges(text: &str) -> Vec<(usize, usize)> {
    parse(text)
        .unwrap()
        .map
        .frames()
        .map(|range: FrameRange| (range.start().as_usize(), range.end().as_usize()))
        .collect()
}

#[test]
fn the_built_in_maps_have_the_frames_that_linux_counted() {
    let counts = [4_181_773, 6_291_358, 4_194_172, 1_048_429];
    for (map, count) in firmware::maps().into_iter().zip(counts) {
        let parsed = parse(map.text).unwrap();
        assert_eq!((map.frames, map.map().frame_count()), (count, count), "{}", map.name);
        assert_eq!(parsed.ragged, [], "{}", map.name);
        let lines = map.text.lines().filter(|line| line.starts_with("0x")).count();
        assert_eq!(parsed.entries.len(), lines, "{}", map.name);
        assert_eq!(firmware::by_name(map.name), Some(map));
    }
    assert_eq!(firmware::by_name("nothing"), None);
}

#[test]
fn the_kernels_log_gives_the_same_map() {
    for map in firmware::maps() {
        let plain = parse(map.text).unwrap();
        // As `dmesg` prints it, and as a terminal on Windows or `journalctl` leaves it.
        for (prefix, end) in [
            ("[    0.000000] ", "\n"),
            ("<6>[    0.000000] ", "\n"),
            ("", "\n"),
            ("Nov 22 10:00:00 host kernel: ", "\r\n"),
        ] {
            let log: String = plain
                .entries
                .iter()
                .map(|e| {
                    let (first, last, kind) = (e.first, e.last, &e.kind);
                    format!("{prefix}BIOS-e820: [mem {first:#018x}-{last:#018x}] {kind}{end}")
                })
                .collect();
            let parsed = parse(&log).unwrap();
            assert_eq!(parsed.ragged, []);
            assert_eq!(parsed.map.frame_count(), map.frames, "{} {prefix:?}", map.name);
            let kinds = |parsed: &firmware::Parsed| -> Vec<(u64, u64, String)> {
                parsed.entries.iter().map(|e| (e.first, e.last, e.kind.clone())).collect()
            };
            assert_eq!(kinds(&parsed), kinds(&plain));
        }
    }
}

#[test]
fn old_kernels_print_exclusive_ends() {
    let text = " BIOS-e820: 0000000000000000 - 000000000009fc00 (usable)\n \
                BIOS-e820: 000000000009fc00 - 00000000000a0000 (reserved)\n \
                BIOS-e820: 0000000000100000 - 0000000001000000 (usable)\n";
    assert_eq!(ranges(text), [(0x1000, 0x9f000), (0x10_0000, 0x100_0000)]);
    let parsed = parse(text).unwrap();
    assert_eq!((parsed.entries[0].last, parsed.entries[1].kind.as_str()), (0x9_fbff, "reserved"));
}

#[test]
fn only_usable_is_usable_and_everything_else_wins() {
    let text = "0x0-0xffffff usable\n0x200000-0x2fffff ACPI data\n0x400000-0x4fffff type 12\n\
                0x600000-0x6fffff unusable\n0x800000-0x8fffff persistent (type 7)\n";
    let map = ranges(text);
    assert_eq!(
        map,
        [
            (0x1000, 0x20_0000),
            (0x30_0000, 0x40_0000),
            (0x50_0000, 0x60_0000),
            (0x70_0000, 0x80_0000),
            (0x90_0000, 0x100_0000)
        ]
    );
}

#[test]
fn ragged_lines_are_reported_with_their_number() {
    let text = "\
# a comment, and an empty line

0x100000-0x1fffff usable   # a comment behind it
[    0.000000] Linux version 6.1.0-18-amd64
0x1000 - 0x2000 usable
0x300000-0x2fffff usable
0xzz-0x1000 usable
0x400000-0x4fffff
400000-4fffff usable
0x10000000000000000-0x1ffffffffffffffff usable
0x+1000-0x2fff usable
[    0.000000] BIOS-e820: [mem 0x0000000000500000-0x00000000005fffff] usable
[    0.000000] BIOS-e820: [mem 0x0000000000500000-0x0000000000
[    0.000000] BIOS-e820: 
\u{fffd}\u{fffd}\u{0}";
    let parsed = parse(text).unwrap();
    let lines: Vec<usize> = parsed.ragged.iter().map(|ragged| ragged.line).collect();
    assert_eq!(lines, [4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15]);
    assert_eq!(parsed.map.frame_count(), 512);
    assert_eq!(parsed.entries.iter().map(|entry| entry.line).collect::<Vec<_>>(), [3, 12]);
    assert_eq!(
        parsed.ragged[0].to_string(),
        "line 4: not a memory-map entry: `[    0.000000] Linux version 6.1.0-18-amd64`"
    );
    assert_eq!(parsed.ragged[2].why, "the entry ends at 0x2fffff, before it starts at 0x300000");
    assert!(parsed.ragged[4].why.contains("does not say what it is"), "{}", parsed.ragged[4]);
    // A long line does not flood the report, nor is it cut inside a character.
    let long = format!("0x100000-0x1fffff usable\n{}", "äöü".repeat(1000));
    let ragged = parse(&long).unwrap().ragged;
    assert!(ragged[0].why.chars().count() < 120, "{}", ragged[0]);
}

#[test]
fn text_without_a_map_is_an_error_that_says_what_to_do() {
    for text in ["", "\n\n", "# only a comment\n"] {
        assert_eq!(parse(text).unwrap_err(), ParseError::NoEntries(None));
    }
    let error = parse("hello\nworld\n").unwrap_err();
    assert!(matches!(&error, ParseError::NoEntries(Some(first)) if first.line == 1));
    let message = error.to_string();
    assert!(
        message.contains("BIOS-e820") && message.contains("line 1") && message.contains("hello"),
        "{message}"
    );
    for text in
        ["0x1000-0x1fff reserved\n", "0x0-0xfff usable\n", "0x1000-0x1fff usable\n0x1800-0x1800 reserved\n"]
    {
        assert_eq!(parse(text).unwrap_err(), ParseError::NoUsable, "{text}");
    }
}

#[test]
fn more_spans_than_there_is_room_for_is_an_error_with_the_line() {
    let entry = |i: usize| format!("{:#x}-{:#x} usable\n", i << 20, (i << 20) + 0xfff);
    let full: String = (1..=SPANS).map(entry).collect();
    assert_eq!(parse(&full).unwrap().map.frame_count(), SPANS);
    let more = full + &entry(SPANS + 1);
    let error = parse(&more).unwrap_err();
    assert_eq!(error, ParseError::Map { line: SPANS + 1, error: MapError::TooManyEntries { limit: SPANS } });
    assert!(error.to_string().starts_with("line 65: "), "{error}");
    // Entries that touch make one span: a map of many lines is no problem in itself.
    let touching: String =
        (1..=1000).map(|i: usize| format!("{:#x}-{:#x} usable\n", i << 12, (i << 12) + 0xfff)).collect();
    assert_eq!(ranges(&touching), [(0x1000, 0x3e9000)]);
}

#[test]
fn the_last_address_is_an_address() {
    let text = "0x0-0xffffffffffffffff usable\n0x100000-0xffffffffffffffff reserved\n";
    assert_eq!(ranges(text), [(0x1000, 0x10_0000)]);
    assert_eq!(
        ranges("0xfffffffffff00000-0xffffffffffffffff usable"),
        [(0xffff_ffff_fff0_0000, 0xffff_ffff_ffff_f000)]
    );
}
