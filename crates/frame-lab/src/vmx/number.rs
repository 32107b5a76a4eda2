//! Numbers as people type them and as programs read them.

use std::fmt;

use serde::{Serialize, Serializer};

/// Decimal, or hexadecimal after `0x`; underscores between digits are skipped.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        // `from_str_radix` takes a sign.
        Some(hex) if hex.starts_with(|c: char| c.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16).ok(),
        None if digits.starts_with(|c: char| c.is_ascii_digit()) => digits.parse().ok(),
        _ => None,
    }
}

/// A number that is shown, and written into JSON, in hexadecimal: JSON readers lose the low bits of large numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hex(pub(crate) u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:#x}", self.0))
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn numbers() {
        for (text, number) in
            [("0", 0), ("0x3F8", 0x3f8), ("64", 64), ("0xc000_0080", 0xc000_0080), (" 7 ", 7)]
        {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        assert_eq!(parse("0xffffffffffffffff"), Some(u64::MAX));
        for bad in ["", "x", "0x", "-1", "+1", "0x-1", "0x+1", "1.5", "12ab", "0x10000000000000000", "_"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
