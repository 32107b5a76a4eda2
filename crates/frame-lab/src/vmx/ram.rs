//! Where a guest finds its memory: as in a PC.
//!
//! ```text
//! 0        640 KiB    1 MiB                     3 GiB        4 GiB
//! │ RAM    │ display  │ RAM                     │ devices    │ the rest of the RAM
//! ```
//!
//! The size that a person gives counts from 0, as in QEMU: what would lie in the first hole is not there, what would lie
//! behind 3 GiB lies behind 4 GiB.

use std::fmt;

use frame_core::FRAME_SIZE;
use vmx_structs::{GuestPhysAddr, GuestRange};

use crate::memory::human_bytes;

const LOW_END: u64 = 640 << 10;
const HIGH_START: u64 = 1 << 20;
const DEVICES: u64 = 3 << 30;
const DEVICES_END: u64 = 4 << 30;

/// The guest's first instruction, where a boot sector is.
pub(crate) const ENTRY: u64 = 0x7c00;
/// What the guest's page tables and its first instruction need, in frames.
const LEAST: usize = 16;

/// The ranges of memory of this many frames; `width` is that of a guest-physical address, in bits.
pub(crate) fn layout(frames: usize, width: u32) -> Result<Vec<GuestRange>, RamError> {
    if frames < LEAST {
        return Err(RamError::TooSmall { frames });
    }
    // `frames_from_size` gives less than 10^15.
    let size = (frames * FRAME_SIZE) as u64;
    let mut ranges = Vec::new();
    let mut add = |start: u64, end: u64| {
        if start < end {
            let range = GuestRange::new(GuestPhysAddr::new(start), (end - start) / FRAME_SIZE as u64);
            ranges.push(range.map_err(|_| RamError::TooLarge { frames, last: end - 1, width })?);
        }
        Ok(())
    };
    add(0, size.min(LOW_END))?;
    add(HIGH_START, size.min(DEVICES))?;
    add(DEVICES_END, (DEVICES_END + size).saturating_sub(DEVICES))?;
    match ranges.last().map(|range| range.last().as_u64()) {
        Some(last) if last >> width != 0 => Err(RamError::TooLarge { frames, last, width }),
        _ => Ok(ranges),
    }
}

/// A size that no such guest can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RamError {
    TooSmall { frames: usize },
    TooLarge { frames: usize, last: u64, width: u32 },
}

impl fmt::Display for RamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall { frames } => write!(
                f,
                "--memory {}: the guest's page tables and its first instruction, at {ENTRY:#x}, need 64K: give that or \
                 more",
                human_bytes((frames * FRAME_SIZE) as u64)
            ),
            Self::TooLarge { frames, last, width } => {
                let limit = 1_u64 << (*width).min(63);
                let most =
                    if limit > DEVICES_END { limit - (DEVICES_END - DEVICES) } else { limit.min(DEVICES) };
                write!(
                    f,
                    "--memory {}: its last byte would have the guest-physical address {last:#x}, and this processor \
                     has {width} bits for one: give at most {}G, or another --cpu",
                    human_bytes((frames * FRAME_SIZE) as u64),
                    most >> 30
                )
            }
        }
    }
}

impl std::error::Error for RamError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(frames: usize) -> Vec<(u64, u64)> {
        let layout = layout(frames, 40).unwrap();
        layout.into_iter().map(|range| (range.start().as_u64(), range.last().as_u64() + 1)).collect()
    }

    #[test]
    fn memory_lies_around_the_holes() {
        const MIB: usize = 256;
        assert_eq!(ranges(16), [(0, 0x1_0000)]);
        assert_eq!(ranges(MIB), [(0, LOW_END)]);
        assert_eq!(ranges(64 * MIB), [(0, LOW_END), (1 << 20, 64 << 20)]);
        assert_eq!(ranges(3072 * MIB), [(0, LOW_END), (1 << 20, 3 << 30)]);
        assert_eq!(ranges(3073 * MIB), [(0, LOW_END), (1 << 20, 3 << 30), (4 << 30, 4097 << 20)]);
    }

    #[test]
    fn a_size_that_is_just_too_large_is_refused_and_the_largest_is_not() {
        for (width, gib) in [(36, 63), (40, 1023), (52, (1 << 22) - 1)] {
            assert!(layout(gib << 18, width).is_ok());
            let error = layout((gib << 18) + 1, width).unwrap_err();
            assert!(error.to_string().contains(&format!("at most {gib}G")), "{error}");
        }
        assert_eq!(layout(15, 40), Err(RamError::TooSmall { frames: 15 }));
    }
}
