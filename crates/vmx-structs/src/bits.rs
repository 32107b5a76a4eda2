//! Bitmaps as hardware reads them: bit `i` is bit `i % 8` of byte `i / 8`.
//!
//! Indices are the callers' business: these functions expect bits that exist and treat others as absent.

use core::{fmt, ops::RangeInclusive};

/// Whether bit `i` is 1.
#[inline]
pub(crate) fn get(bits: &[u8], i: usize) -> bool {
    bits.get(i / 8).is_some_and(|byte| byte >> (i % 8) & 1 == 1)
}

/// Sets the bits `first..=last` to `value`.
pub(crate) fn set_range(bits: &mut [u8], first: usize, last: usize, value: bool) {
    let mut put = |i: usize, mask: u8| {
        if let Some(byte) = bits.get_mut(i) {
            *byte = if value { *byte | mask } else { *byte & !mask };
        }
    };
    let (head, tail) = (u8::MAX << (first % 8), u8::MAX >> (7 - last % 8));
    if first / 8 == last / 8 {
        put(first / 8, head & tail);
        return;
    }
    put(first / 8, head);
    put(last / 8, tail);
    if let Some(whole) = bits.get_mut(first / 8 + 1..last / 8) {
        whole.fill(if value { u8::MAX } else { 0 });
    }
}

/// The first bit at or behind `from` that is `value`.
fn find(bits: &[u8], from: usize, value: bool) -> Option<usize> {
    // Ones in `wanted` are what is looked for.
    let wanted = |byte: u8| if value { byte } else { !byte };
    let first = wanted(*bits.get(from / 8)?) & u8::MAX << (from % 8);
    if first != 0 {
        return Some(from / 8 * 8 + first.trailing_zeros() as usize);
    }
    let rest = bits.get(from / 8 + 1..)?;
    let skipped = rest.iter().position(|&byte| wanted(byte) != 0)?;
    Some((from / 8 + 1 + skipped) * 8 + wanted(rest[skipped]).trailing_zeros() as usize)
}

/// The runs of ones in a bitmap, lowest first: inclusive, so that the last bit needs no special case.
#[derive(Clone)]
pub(crate) struct Runs<'a> {
    bits: &'a [u8],
    from: usize,
}

pub(crate) fn runs(bits: &[u8]) -> Runs<'_> {
    Runs { bits, from: 0 }
}

impl Iterator for Runs<'_> {
    type Item = RangeInclusive<usize>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = find(self.bits, self.from, true)?;
        let end = find(self.bits, first, false).unwrap_or(self.bits.len() * 8);
        self.from = end;
        Some(first..=end - 1)
    }
}

/// Prints runs of numbers as a person writes them: `0x60, 0x64, 0xcf8..=0xcff`.
pub(crate) struct HexRuns<I>(pub(crate) I);

impl<I: Iterator<Item = RangeInclusive<u32>> + Clone> fmt::Debug for HexRuns<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, run) in self.0.clone().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{:#x}", run.start())?;
            if run.start() != run.end() {
                write!(f, "..={:#x}", run.end())?;
            }
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_runs_agree_with_single_bits() {
        // Every range of a 5-byte map, against bits set one by one.
        for first in 0..40 {
            for last in first..40 {
                for background in [0, u8::MAX] {
                    let mut bits = [background; 5];
                    set_range(&mut bits, first, last, background == 0);
                    for i in 0..40 {
                        let inside = (first..=last).contains(&i);
                        assert_eq!(get(&bits, i), inside == (background == 0), "{first}..={last} at {i}");
                    }
                    let mut seen = [0; 5];
                    for run in runs(&bits) {
                        set_range(&mut seen, *run.start(), *run.end(), true);
                    }
                    assert_eq!(seen, bits);
                }
            }
        }
        assert!(!get(&[0xff], 8));
        let found = runs(&[0xff, 0x01, 0x80]);
        assert!(found.eq([0..=8, 23..=23]));
    }
}
