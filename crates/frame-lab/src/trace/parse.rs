//! One line of a trace to one event.
//!
//! The event's name is the anchor: what stands before it (command, process, CPU, flags, time, period) differs between
//! perf, trace-cmd and the kernel's own `trace` file and between their options, what stands behind it are fields
//! `name=value` in any order:
//!
//! ```text
//! [000]   677.296613: kmem:mm_page_alloc: page=0x12841f pfn=0x12841f order=0 migratetype=1 gfp_flags=GFP_KERNEL
//! cc1 8123 [001] 1.25:     1   kmem:mm_page_free: page=0xffffea0004a107c0 pfn=1212447 order=0
//! cc1-8123    [001] d..1.  12.345678: mm_page_free: page=ffffea0004a107c0 pfn=0x12801f order=0
//! ```
//!
//! Only `pfn` and `order` are needed. A missing CPU is CPU 0, a missing time is no time.
//!
//! Kernels print `pfn` in hexadecimal with `0x`, older ones (before 5.12) in decimal without; some tools drop the `0x`. A frame
//! number without `0x` cannot tell which it is, so [`Radix::guess`] looks at many before the first is read.

use super::ORDERS;

/// What one line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// An allocation or a free.
    Event(Event),
    /// An allocation that failed when it was recorded: there is no frame.
    Failed,
    /// A line that is well formed and not for us: empty, a comment, or an event of another kind.
    Other,
    /// A line that is not understood, and why.
    Unknown(&'static str),
}

/// An allocation or a free of `2^order` frames from frame number `pfn` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) kind: EventKind,
    /// As recorded; numbers may have gaps.
    pub(super) cpu: u32,
    /// Nanoseconds, from a start that only the machine knows.
    pub(super) time: Option<u64>,
    pub(super) pfn: u64,
    pub(super) order: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventKind {
    Alloc,
    Free,
}

/// How a frame number without `0x` is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Radix {
    #[default]
    Decimal,
    Hex,
}

impl Radix {
    /// Hexadecimal, if a frame number without `0x` on this line has a letter.
    pub(super) fn guess(line: &[u8]) -> Option<Self> {
        let pfn = Anchor::find(line).and_then(|anchor| field(anchor.fields, b"pfn="))?;
        let letters = !pfn.starts_with(b"0x") && pfn.iter().any(u8::is_ascii_alphabetic);
        letters.then_some(Self::Hex)
    }
}

/// What `line` says.
pub(super) fn parse(line: &[u8], radix: Radix) -> Line {
    let trimmed = line.trim_ascii_start();
    if trimmed.is_empty() || trimmed[0] == b'#' {
        return Line::Other;
    }
    let Some(anchor) = Anchor::find(line) else {
        // An event of another kind still looks like one: `kmem:kmalloc:`, `mm_page_pcpu_drain:`.
        let mut words = line.split(u8::is_ascii_whitespace);
        let other = words.any(|w| {
            (w.starts_with(b"kmem:") || w.starts_with(b"mm_page_")) && w.ends_with(b":") && w != b"kmem:"
        });
        return if other { Line::Other } else { Line::Unknown("no page allocation or free on this line") };
    };
    let Some(pfn) = field(anchor.fields, b"pfn=") else { return Line::Unknown("the event has no pfn") };
    let Some(order) = field(anchor.fields, b"order=") else { return Line::Unknown("the event has no order") };
    let Some(pfn) = frame_number(pfn, radix) else { return Line::Unknown("the pfn is not a frame number") };
    let order = match number(order, 10) {
        Some(order) if order < ORDERS as u64 => order as u8,
        Some(_) => return Line::Unknown("the order is above 18 (1 GiB)"),
        None => return Line::Unknown("the order is not a number"),
    };
    if pfn == 0 && anchor.kind == EventKind::Alloc {
        return Line::Failed;
    }
    // The highest frame number that an address of 64 bits can hold, less the largest run.
    if pfn > u64::MAX >> 13 {
        return Line::Unknown("the pfn is beyond the address space");
    }
    let (cpu, time) = cpu_and_time(anchor.before);
    Line::Event(Event { kind: anchor.kind, cpu: cpu.unwrap_or(0), time, pfn, order })
}

/// Where the event's name stands on a line.
struct Anchor<'l> {
    kind: EventKind,
    before: &'l [u8],
    fields: &'l [u8],
}

impl<'l> Anchor<'l> {
    fn find(line: &'l [u8]) -> Option<Self> {
        const NAMES: [(&[u8], EventKind); 2] =
            [(b"mm_page_alloc:", EventKind::Alloc), (b"mm_page_free:", EventKind::Free)];
        NAMES.into_iter().find_map(|(name, kind)| {
            let at = find(line, name)?;
            let before = line[..at].strip_suffix(b"kmem:").unwrap_or(&line[..at]);
            // The name starts a word: `x_mm_page_free:` is another event.
            let starts = before.last().is_none_or(u8::is_ascii_whitespace);
            starts.then_some(Self { kind, before, fields: &line[at + name.len()..] })
        })
    }
}

/// CPU and time from what stands before the event's name, read from its end: a command may hold anything.
fn cpu_and_time(before: &[u8]) -> (Option<u32>, Option<u64>) {
    let (mut cpu, mut time) = (None, None);
    for word in before.rsplit(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        if time.is_none() && cpu.is_none() {
            time = word.strip_suffix(b":").and_then(seconds);
            if time.is_some() {
                continue;
            }
        }
        cpu = word.strip_prefix(b"[").and_then(|w| w.strip_suffix(b"]")).and_then(|w| number(w, 10));
        if cpu.is_some() {
            break;
        }
    }
    (cpu.and_then(|cpu| u32::try_from(cpu).ok()), time)
}

/// `677.296613` as nanoseconds; digits beyond nine are dropped.
fn seconds(word: &[u8]) -> Option<u64> {
    let point = word.iter().position(|&byte| byte == b'.')?;
    let (whole, fraction) = (number(&word[..point], 10)?, &word[point + 1..]);
    let mut nanos = number(&fraction[..fraction.len().min(9)], 10)?;
    for _ in fraction.len()..9 {
        nanos *= 10;
    }
    whole.checked_mul(1_000_000_000)?.checked_add(nanos)
}

fn frame_number(word: &[u8], radix: Radix) -> Option<u64> {
    match (word.strip_prefix(b"0x"), radix) {
        (Some(digits), _) => number(digits, 16),
        (None, Radix::Hex) => number(word, 16),
        (None, Radix::Decimal) => number(word, 10),
    }
}

/// Digits, and nothing else, as a number.
fn number(word: &[u8], radix: u32) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0u64, |value, &byte| {
        let digit = char::from(byte).to_digit(radix)?;
        value.checked_mul(u64::from(radix))?.checked_add(u64::from(digit))
    })
}

/// The value of the field that starts with `name` (with its `=`), up to white space or a comma.
fn field<'l>(fields: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let mut words = fields.split(|byte| byte.is_ascii_whitespace() || *byte == b',');
    words.find_map(|word| word.strip_prefix(name))
}

fn find(line: &[u8], name: &[u8]) -> Option<usize> {
    line.windows(name.len()).position(|window| window == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(line: &str) -> Event {
        match parse(line.as_bytes(), Radix::Decimal) {
            Line::Event(event) => event,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_layouts_that_tools_print() {
        let alloc =
            Event { kind: EventKind::Alloc, cpu: 1, time: Some(677_296_613_000), pfn: 0x12841f, order: 3 };
        for line in [
            "[001]   677.296613: kmem:mm_page_alloc: page=0x12841f pfn=0x12841f order=3 migratetype=1 gfp_flags=GFP_KERNEL|__GFP_COMP",
            "cc1plus  8123 [001]   677.296613:          kmem:mm_page_alloc: page=0xffffea0004a107c0 pfn=0x12841f order=3 migratetype=1 gfp_flags=GFP_KERNEL",
            "cc1plus  8123/8123  [001] 677.296613:     1 kmem:mm_page_alloc: page=0xffffea0004a107c0 pfn=1213471 order=3",
            "Web Content [2]:  8123 [001] 677.296613000: kmem:mm_page_alloc: order=3 pfn=0x12841F extra=7",
            "kworker/1:2-evts-99 [001] d..1.   677.296613: mm_page_alloc: page=0x12841f pfn=0x12841f order=3 migratetype=1",
            "\t[001] 677.296613: kmem:mm_page_alloc: page=0x12841f, pfn=0x12841f, order=3",
        ] {
            assert_eq!(event(line), alloc, "{line}");
        }
    }

    #[test]
    fn what_is_missing_has_a_default() {
        let free = Event { kind: EventKind::Free, cpu: 0, time: None, pfn: 16, order: 0 };
        assert_eq!(event("kmem:mm_page_free: pfn=0x10 order=0"), free);
        assert_eq!(
            event("  12.5: kmem:mm_page_free: pfn=0x10 order=0"),
            Event { time: Some(12_500_000_000), ..free }
        );
        assert_eq!(event("cc1 77 [003] mm_page_free: pfn=0x10 order=0"), Event { cpu: 3, ..free });
    }

    #[test]
    fn a_number_without_0x_is_read_as_the_file_prints_them() {
        let line = b"kmem:mm_page_free: page=ffffea00 pfn=12841f order=0";
        assert_eq!(Radix::guess(line), Some(Radix::Hex));
        assert_eq!(Radix::guess(b"kmem:mm_page_free: pfn=1212447 order=0"), None);
        assert_eq!(Radix::guess(b"kmem:mm_page_free: pfn=0xabc order=0"), None);
        assert!(matches!(parse(line, Radix::Hex), Line::Event(Event { pfn: 0x12841f, .. })));
        assert!(matches!(parse(line, Radix::Decimal), Line::Unknown(_)));
    }

    #[test]
    fn lines_for_others_and_lines_for_nobody() {
        for other in [
            "",
            "   ",
            "# captured on: Sun",
            "[000] 1.0: kmem:kmalloc: call_site=x ptr=0 bytes_req=8",
            "cc1-1 [000] .... 1.0: mm_page_pcpu_drain: page=0x1 pfn=0x1 order=0",
            "[000] 1.0: kmem:mm_page_free_batched: page=0x1 pfn=0x1 order=0",
        ] {
            assert_eq!(parse(other.as_bytes(), Radix::Decimal), Line::Other, "{other}");
        }
        for unknown in [
            "hello",
            "[000] 1.0: kmem:mm_page_al",
            "[000] 1.0: kmem:",
            "kmem:mm_page_alloc: order=0",
            "kmem:mm_page_alloc: pfn=0x10",
            "kmem:mm_page_alloc: pfn=0x10 order=",
            "kmem:mm_page_alloc: pfn=0x10 order=-1",
            "kmem:mm_page_alloc: pfn=0x10 order=19",
            "kmem:mm_page_alloc: pfn=0xfg order=0",
            "kmem:mm_page_alloc: pfn=0xffffffffffffffff order=0",
            "kmem:mm_page_alloc: pfn=0x1ffffffffffffffff order=0",
            "kmem:mm_page_alloc: page=0x10 pfn=0x10 ord",
        ] {
            assert!(matches!(parse(unknown.as_bytes(), Radix::Decimal), Line::Unknown(_)), "{unknown}");
        }
        assert!(matches!(parse(b"\xff\x00\xfe", Radix::Decimal), Line::Unknown(_)));
        assert_eq!(parse(b"kmem:mm_page_alloc: page=(nil) pfn=0x0 order=9", Radix::Decimal), Line::Failed);
    }

    #[test]
    fn damaged_lines_are_lines() {
        let line = b"cc1 77 [001] 677.296613:  1 kmem:mm_page_alloc: page=0x12841f pfn=0x12841f order=3 migratetype=1";
        let (mut events, mut unknown) = (0, 0);
        let mut random = 1u64;
        for _ in 0..50_000 {
            let mut damaged = line.to_vec();
            for _ in 0..3 {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                let at = (random >> 33) as usize % damaged.len();
                match random >> 62 {
                    0 => damaged[at] = (random >> 20) as u8,
                    1 => drop(damaged.remove(at)),
                    2 => damaged.insert(at, b"0123456789abcdefx[]: =."[(random >> 20) as usize % 23]),
                    _ if at > 60 => damaged.truncate(at),
                    _ => {}
                }
            }
            match parse(&damaged, Radix::Decimal) {
                Line::Event(event) => {
                    assert!(usize::from(event.order) < ORDERS && event.pfn <= u64::MAX >> 13);
                    events += 1;
                }
                Line::Unknown(_) => unknown += 1,
                Line::Failed | Line::Other => {}
            }
        }
        assert!(events > 10_000 && unknown > 10_000, "{events} {unknown}");
    }
}
