//! What simulated physical memory holds.

use frame_core::{FRAME_SIZE, PhysAddr};
use frame_testkit::SimMemory;
use serde::Serialize;

use super::number::Hex;

const PAGE: u64 = FRAME_SIZE as u64;

/// Words that follow each other and are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Words {
    /// In bytes from the start of the structure.
    pub(crate) offset: usize,
    pub(crate) count: usize,
    pub(crate) value: Hex,
}

/// What the first frame of a structure holds, word by word.
pub(crate) fn words(memory: &SimMemory, start: u64, bytes: u64) -> Vec<Words> {
    let mut runs: Vec<Words> = Vec::new();
    for offset in (0..bytes.min(PAGE)).step_by(8) {
        let value = match word(memory, start + offset) {
            Some(value) if value != 0 => Hex(value),
            _ => continue,
        };
        let offset = offset as usize;
        match runs.last_mut() {
            Some(run) if run.value == value && run.offset + run.count * 8 == offset => run.count += 1,
            _ => runs.push(Words { offset, count: 1, value }),
        }
    }
    runs
}

/// 8 bytes of simulated physical memory; `None` where there is none.
pub(crate) fn word(memory: &SimMemory, address: u64) -> Option<u64> {
    let address = usize::try_from(address).ok().filter(|address| address % 8 == 0)?;
    let word = memory.try_ptr(PhysAddr::from(address))?.cast::<u64>();
    // SAFETY: the memory is mapped in whole frames, so all 8 bytes are there; it is aligned, as frames are on the host;
    // it is initialised (zero, or what was written). It belongs to one thread, which holds structures in it behind
    // shared references at most while it is here.
    Some(u64::from_le(unsafe { word.read() }))
}
