//! Which memory is used last: what few can replace.
//!
//! Old devices reach 16 MiB, many reach 4 GiB. Requests that do not say where they want their frames take those above
//! 4 GiB first, then those above 16 MiB, and the lowest only when nothing else is left, so that
//! [`alloc_in`](frame_core::FrameAllocator::alloc_in) finds something there. Inside a zone the order is that of
//! [`search`](crate::search).

use frame_core::{CacheWatermark, FRAME_SIZE};

use crate::geometry::{BLOCK_FRAMES, Frame, Frames};

/// 16 MiB, as a frame's number.
const OLD_DEVICES: usize = (16 << 20) / FRAME_SIZE;
/// 4 GiB, as a frame's number.
const DEVICES_32_BIT: usize = CacheWatermark::SPLIT;

/// The zones, in the order in which they are used.
const ZONES: [Frames; 3] = [
    Frames { lo: Frame(DEVICES_32_BIT), hi: Frames::ALL.hi },
    Frames { lo: Frame(OLD_DEVICES), hi: Frame(DEVICES_32_BIT) },
    Frames { lo: Frame(0), hi: Frame(OLD_DEVICES) },
];

/// The parts of `window` in the order in which they are used.
#[inline]
pub(crate) fn zones(window: Frames) -> impl Iterator<Item = Frames> {
    ZONES.into_iter().map(move |zone| zone.and(window)).filter(|zone| !zone.is_empty())
}

const _: () = assert!(OLD_DEVICES % BLOCK_FRAMES == 0 && DEVICES_32_BIT % BLOCK_FRAMES == 0);
