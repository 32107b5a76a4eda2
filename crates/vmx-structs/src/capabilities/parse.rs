//! Capabilities as text: one `key = value` a line, `#` starts a comment.
//!
//! ```text
//! name = Some CPU
//! physical-width = 40            # MAXPHYADDR, bits
//! linear-width = 48              # bits
//! features = long-mode syscall   # execute-disable, rtm, sgx
//! debugctl = 0x5fc3              # bits that are not reserved; so perf-global-ctrl, rtit-ctl, lbr-ctl
//! msr 0x480 = 0x00da0400_0000002b
//! ```
//!
//! Every MSR that the others say the processor has must be there (see [`VmxCapabilities::read`]).

use core::fmt;

use super::{CpuFacts, CpuFeatures, VmxCapabilities};

impl VmxCapabilities {
    /// Reads the text form; the `name` line is skipped.
    ///
    /// # Errors
    /// The first line that is not understood, or the MSR that is missing.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut cpu = CpuFacts { features: CpuFeatures::empty(), ..CpuFacts::new(0, 0) };
        for (line, entry) in entries(text) {
            let fail = |kind| ParseError { line, kind };
            let (key, value) = entry.ok_or(fail(ParseErrorKind::NoEquals))?;
            let number = || number(value).ok_or(fail(ParseErrorKind::BadNumber));
            let width = || match number()? {
                bits @ 1..=64 => Ok(bits as u8),
                _ => Err(fail(ParseErrorKind::BadNumber)),
            };
            match key {
                "name" => {}
                "physical-width" => cpu.physical_width = width()?,
                "linear-width" => cpu.linear_width = width()?,
                "features" => {
                    for word in value.split_whitespace() {
                        cpu.features |= feature(word).ok_or(fail(ParseErrorKind::UnknownFeature))?;
                    }
                }
                "debugctl" => cpu.debugctl = number()?,
                "perf-global-ctrl" => cpu.perf_global_ctrl = number()?,
                "rtit-ctl" => cpu.rtit_ctl = number()?,
                "lbr-ctl" => cpu.lbr_ctl = number()?,
                _ => {
                    msr_number(key).ok_or(fail(ParseErrorKind::UnknownKey))?;
                    number()?;
                }
            }
        }
        if cpu.physical_width == 0 || cpu.linear_width == 0 {
            return Err(ParseError { line: 0, kind: ParseErrorKind::NoWidths });
        }
        let mut missing = None;
        let caps = Self::read(cpu, |msr| {
            let value = entries(text).find_map(|(_, entry)| match entry {
                Some((key, value)) if msr_number(key) == Some(msr) => number(value),
                _ => None,
            });
            value.unwrap_or_else(|| {
                missing.get_or_insert(msr);
                0
            })
        });
        match missing {
            Some(msr) => Err(ParseError { line: 0, kind: ParseErrorKind::MissingMsr { msr } }),
            None => Ok(caps),
        }
    }
}

/// The lines that hold something: their number, and key and value (`None` without an equals sign).
fn entries(text: &str) -> impl Iterator<Item = (usize, Option<(&str, &str)>)> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let line = line.split('#').next().unwrap_or("").trim();
        let entry = line.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
        (!line.is_empty()).then_some((index + 1, entry))
    })
}

/// The value of a `name` line, for [`CpuModel`](super::CpuModel).
pub(super) fn name(text: &str) -> Option<&str> {
    entries(text).find_map(|(_, entry)| entry.filter(|(key, _)| *key == "name").map(|(_, value)| value))
}

fn msr_number(key: &str) -> Option<u32> {
    number(key.strip_prefix("msr ")?.trim()).and_then(|number| u32::try_from(number).ok())
}

fn feature(word: &str) -> Option<CpuFeatures> {
    Some(match word {
        "long-mode" => CpuFeatures::LONG_MODE,
        "execute-disable" => CpuFeatures::EXECUTE_DISABLE,
        "rtm" => CpuFeatures::RTM,
        "sgx" => CpuFeatures::SGX,
        "syscall" => CpuFeatures::SYSCALL,
        _ => return None,
    })
}

/// Decimal, or hexadecimal after `0x`; underscores between digits are skipped.
fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None => (text, 10),
    };
    let mut value = None;
    for digit in digits.chars().filter(|c| *c != '_') {
        let digit = u64::from(digit.to_digit(radix)?);
        value = Some(value.unwrap_or(0_u64).checked_mul(u64::from(radix))?.checked_add(digit)?);
    }
    value
}

/// Why a text is no set of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line, counted from 1; 0 when something is missing from the whole.
    pub line: usize,
    /// What is wrong.
    pub kind: ParseErrorKind,
}

/// What is wrong with a text of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// The line has no equals sign.
    NoEquals,
    /// The key is none of those known.
    UnknownKey,
    /// The value is no number, or is out of range.
    BadNumber,
    /// A feature is none of those known.
    UnknownFeature,
    /// `physical-width` or `linear-width` is missing.
    NoWidths,
    /// An MSR that the processor must have is missing.
    MissingMsr {
        /// Its number.
        msr: u32,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line != 0 {
            write!(f, "line {}: ", self.line)?;
        }
        match self.kind {
            ParseErrorKind::NoEquals => f.write_str("no `key = value`"),
            ParseErrorKind::UnknownKey => f.write_str(
                "unknown key: name, features, a width, the mask of an MSR, or `msr NUMBER` is expected",
            ),
            ParseErrorKind::BadNumber => f.write_str("no number, or one out of range (0x… or decimal)"),
            ParseErrorKind::UnknownFeature => f.write_str("unknown feature"),
            ParseErrorKind::NoWidths => f.write_str("physical-width and linear-width are needed"),
            ParseErrorKind::MissingMsr { msr } => {
                write!(
                    f,
                    "the processor has MSR {msr:#x}, but the text does not give it: add `msr {msr:#x} = …`"
                )
            }
        }
    }
}

impl core::error::Error for ParseError {}
