//! The memory of a replay: a firmware map by name or from a file, cut to a size if asked.

use std::{fmt, fs, io, path::Path};

use frame_core::{FRAME_SIZE, FrameRange, MemoryMap};
use frame_testkit::firmware::{self, Parsed, SPANS};

/// The map that is used when none is named: that of the kind of machine on which the embedded trace was recorded.
pub(crate) const DEFAULT_MAP: &str = "cloud-vm";

/// A firmware map.
#[derive(Debug)]
pub(crate) struct Memory {
    /// A built-in name, or the file's path.
    pub(crate) name: String,
    pub(crate) parsed: Parsed,
    /// Frames that Linux counted on this machine, where that is known.
    pub(crate) linux_frames: Option<usize>,
}

impl Memory {
    /// The map of that name, or in that file.
    pub(crate) fn load(name: &str) -> Result<Self, MemoryError> {
        let failed = |error| MemoryError::Parse { name: name.to_owned(), error };
        if let Some(built_in) = firmware::by_name(name) {
            let parsed = firmware::parse(built_in.text).map_err(failed)?;
            return Ok(Self { name: name.to_owned(), parsed, linux_frames: Some(built_in.frames) });
        }
        let text =
            fs::read(Path::new(name)).map_err(|error| MemoryError::Io { name: name.to_owned(), error })?;
        let parsed = firmware::parse(&String::from_utf8_lossy(&text)).map_err(failed)?;
        Ok(Self { name: name.to_owned(), parsed, linux_frames: None })
    }

    pub(crate) fn map(&self) -> &MemoryMap<SPANS> {
        &self.parsed.map
    }

    /// The ranges of frames, or, with a limit, its lowest `limit` frames.
    pub(crate) fn regions(&self, limit: Option<usize>) -> Vec<FrameRange> {
        let mut left = limit.unwrap_or(usize::MAX);
        let mut regions = Vec::new();
        for range in self.map().frames() {
            let count = range.count().min(left);
            left -= count;
            if let Ok(cut) = FrameRange::new(range.start(), count) {
                regions.push(cut);
            }
        }
        regions
    }
}

/// Why there is no map.
#[derive(Debug)]
pub(crate) enum MemoryError {
    Io { name: String, error: io::Error },
    Parse { name: String, error: firmware::ParseError },
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parse { name, error } => write!(f, "{name}: {error}"),
            Self::Io { name, error } => {
                write!(f, "{name}: {error}; give a file, or one of the built-in maps:")?;
                firmware::maps().iter().try_for_each(|map| write!(f, " {}", map.name))
            }
        }
    }
}

impl std::error::Error for MemoryError {}

/// A size in frames, from `4096`, `256M`, `1.5G`: bytes, or a unit of 1024.
pub(crate) fn frames_from_size(text: &str) -> Result<usize, String> {
    let bad = || format!("`{text}` is not a size: give bytes, or a number with K, M, G or T (256M)");
    let trimmed = text.trim().trim_end_matches("iB").trim_end_matches('B');
    let digits = trimmed.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match trimmed[digits.len()..].to_ascii_uppercase().as_str() {
        "" => 1.0,
        "K" => 1024.0,
        "M" => 1_048_576.0,
        "G" => 1_073_741_824.0,
        "T" => 1_099_511_627_776.0,
        _ => return Err(bad()),
    };
    let value: f64 = digits.trim().parse().map_err(|_| bad())?;
    let frames = value * unit / FRAME_SIZE as f64;
    // Also refuses what is not a number.
    if (1.0..1e15).contains(&frames) { Ok(frames as usize) } else { Err(bad()) }
}

/// Bytes for people: `24.0 GiB`.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        _ if value.fract() == 0.0 => format!("{value} {}", UNITS[unit]),
        _ if value < 10.0 => format!("{value:.2} {}", UNITS[unit]),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

/// A count for people: `832,432`.
pub(crate) fn human_count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(frames_from_size("256M"), Ok(65_536));
        assert_eq!(frames_from_size("1.5GiB"), Ok(393_216));
        assert_eq!(frames_from_size("8192"), Ok(2));
        for bad in ["", "M", "12X", "-1G", "0", "4095", "nan", "1e30", "1e400T"] {
            assert!(frames_from_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            (human_count(0), human_count(999), human_count(1000)),
            ("0".into(), "999".into(), "1,000".into())
        );
        assert_eq!(human_count(832_432), "832,432");
        assert_eq!(human_bytes(512), "512 B");
        assert_eq!((human_bytes(4096), human_bytes(6_291_358 * 4096)), ("4 KiB".into(), "24.0 GiB".into()));
    }

    #[test]
    fn a_limit_keeps_the_lowest_frames() {
        let memory = Memory::load("cloud-vm").unwrap();
        let whole = memory.regions(None);
        assert_eq!(whole.iter().map(|r| r.count()).sum::<usize>(), 6_291_358);
        let cut = memory.regions(Some(1000));
        assert_eq!(cut.iter().map(|r| r.count()).sum::<usize>(), 1000);
        assert_eq!((cut.len(), cut[0]), (2, whole[0]));
        assert_eq!(memory.regions(Some(158)).len(), 1);
    }

    #[test]
    fn an_unknown_map_names_the_known_ones() {
        let error = Memory::load("/nonexistent").unwrap_err().to_string();
        assert!(error.contains("No such file") && error.contains("qemu-q35-seabios"), "{error}");
    }
}
