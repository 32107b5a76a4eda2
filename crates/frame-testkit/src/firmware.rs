//! Memory maps of real machines, and the reader of their text.
//!
//! Firmware tells the kernel what memory there is, and Linux prints it at boot (`dmesg | grep e820`). Four such maps
//! are built in, each with the number of frames that Linux itself counted. [`parse`] reads the text of any other.

use alloc::{format, string::String, vec::Vec};
use core::fmt;

use frame_core::{MapError, MemoryMap};

/// Room for spans in a parsed map: the longest firmware map seen had about 40.
pub const SPANS: usize = 64;

/// A built-in map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Firmware {
    /// The machine.
    pub name: &'static str,
    /// The map's text.
    pub text: &'static str,
    /// Frames that Linux counted, frame 0 left out.
    pub frames: usize,
}

impl Firmware {
    /// The map.
    pub fn map(&self) -> MemoryMap<SPANS> {
        parse(self.text).expect("the built-in maps are well-formed").map
    }
}

macro_rules! built_in {
    ($($name:literal: $frames:literal,)*) => {
        [$(Firmware {
            name: $name,
            text: include_str!(concat!("../data/memory-maps/", $name, ".txt")),
            frames: $frames,
        }),*]
    };
}

/// The built-in maps.
pub const fn maps() -> [Firmware; 4] {
    built_in! {
        "amd-desktop-uefi": 4_181_773,
        "cloud-vm": 6_291_358,
        "qemu-q35-seabios": 4_194_172,
        "vmware-bios": 1_048_429,
    }
}

/// The built-in map of that name.
pub fn by_name(name: &str) -> Option<Firmware> {
    maps().into_iter().find(|map| map.name == name)
}

/// One entry of a map's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The line, counted from 1.
    pub line: usize,
    /// The first byte.
    pub first: u64,
    /// The last byte, inclusive.
    pub last: u64,
    /// What the firmware says it is: `usable`, `reserved`, `ACPI data` ...
    pub kind: String,
}

impl Entry {
    /// Whether this is memory that a kernel may use.
    pub fn is_usable(&self) -> bool {
        self.kind == "usable"
    }
}

/// A line that was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ragged {
    /// The line, counted from 1.
    pub line: usize,
    /// Why.
    pub why: String,
}

impl fmt::Display for Ragged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

/// What [`parse`] made of a text.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The map: what is `usable`, less whatever stands there as anything else.
    pub map: MemoryMap<SPANS>,
    /// The entries, in the order of the text.
    pub entries: Vec<Entry>,
    /// The lines that were not understood; nothing of them is in the map.
    pub ragged: Vec<Ragged>,
}

/// Why a text gives no map.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseError {
    /// No line was understood. Holds the first that was not, if the text is not empty.
    NoEntries(Option<Ragged>),
    /// Entries, but no usable frame among them.
    NoUsable,
    /// An entry did not fit in the map.
    Map {
        /// Its line, counted from 1.
        line: usize,
        /// Why.
        error: MapError,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEntries(first) => {
                f.write_str("no memory-map entry found (expected lines like `0x100000-0x7ffddfff usable`, or those of `dmesg | grep BIOS-e820`)")?;
                first.as_ref().map_or(Ok(()), |ragged| write!(f, "; {ragged}"))
            }
            Self::NoUsable => f.write_str(
                "the map holds no usable frame: no line says `usable`, or other entries cover all",
            ),
            Self::Map { line, error } => write!(f, "line {line}: {error}"),
        }
    }
}

impl core::error::Error for ParseError {}

/// Reads a memory map from text, line by line:
/// - `0x0000000000100000-0x000000007ffddfff usable`, both ends inclusive;
/// - lines of the kernel log, `[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable`;
/// - those of old kernels, `BIOS-e820: 0000000000000000 - 000000000009fc00 (usable)`, end exclusive;
/// - empty lines and comments (`#`).
///
/// Other lines are reported with their number and otherwise ignored.
///
/// ```
/// let parsed = frame_testkit::firmware::parse("0x100000-0x1fffff usable\nhello\n").unwrap();
/// assert_eq!(parsed.map.frame_count(), 256);
/// assert_eq!(parsed.ragged[0].line, 2);
/// ```
///
/// # Errors
/// No line was understood, no frame is usable, or there are more entries than [`SPANS`].
pub fn parse(text: &str) -> Result<Parsed, ParseError> {
    let mut parsed = Parsed { map: MemoryMap::new(), entries: Vec::new(), ragged: Vec::new() };
    for (index, text) in text.lines().enumerate() {
        let line = index + 1;
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        match entry(line, text) {
            Ok(entry) => {
                // `last` may be the last address: the length is one less than would overflow.
                let len = entry.last - entry.first;
                let add = |base, len| {
                    if entry.is_usable() {
                        parsed.map.add_usable(base, len)
                    } else {
                        parsed.map.add_reserved(base, len)
                    }
                };
                let mut add = add;
                add(entry.first, len)
                    .and_then(|()| add(entry.last, 1))
                    .map_err(|error| ParseError::Map { line, error })?;
                parsed.entries.push(entry);
            }
            Err(why) => parsed.ragged.push(Ragged { line, why }),
        }
    }
    if parsed.entries.is_empty() {
        return Err(ParseError::NoEntries(parsed.ragged.into_iter().next()));
    }
    if parsed.map.frames().next().is_none() {
        return Err(ParseError::NoUsable);
    }
    Ok(parsed)
}

fn entry(line: usize, text: &str) -> Result<Entry, String> {
    let (first, last, kind) = match text.split_once("BIOS-e820:") {
        Some((_, text)) => log_line(text.trim()),
        None => plain_line(text),
    }
    .ok_or_else(|| format!("not a memory-map entry: `{}`", shortened(text)))?;
    if last < first {
        return Err(format!("the entry ends at {last:#x}, before it starts at {first:#x}"));
    }
    if kind.is_empty() {
        return Err(format!("the entry at {first:#x} does not say what it is (usable, reserved ...)"));
    }
    Ok(Entry { line, first, last, kind: kind.into() })
}

/// `0xSTART-0xEND kind`
fn plain_line(text: &str) -> Option<(u64, u64, &str)> {
    let (range, kind) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let (first, last) = range.split_once('-')?;
    Some((hex(first.strip_prefix("0x")?)?, hex(last.strip_prefix("0x")?)?, kind.trim()))
}

/// `[mem 0xSTART-0xEND] kind`, or the old `START - END (kind)`.
fn log_line(text: &str) -> Option<(u64, u64, &str)> {
    if let Some(text) = text.strip_prefix("[mem ") {
        let (range, kind) = text.split_once(']')?;
        let (first, last) = range.split_once('-')?;
        return Some((
            hex(first.trim().strip_prefix("0x")?)?,
            hex(last.trim().strip_prefix("0x")?)?,
            kind.trim(),
        ));
    }
    let (range, kind) = text.split_once('(')?;
    let (first, end) = range.split_once('-')?;
    let last = hex(end.trim())?.checked_sub(1)?;
    Some((hex(first.trim())?, last, kind.strip_suffix(')')?.trim()))
}

fn hex(digits: &str) -> Option<u64> {
    // `from_str_radix` would take a sign.
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(())?;
    u64::from_str_radix(digits, 16).ok()
}

fn shortened(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into(),
    }
}
