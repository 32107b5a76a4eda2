//! A guest's memory on a processor without EPT.
//!
//! There the guest's CR3 points to page tables of the hypervisor, which send linear addresses to host-physical ones.
//! A hypervisor builds these *shadow* tables from the guest's own as the guest touches memory. Here they say that the
//! guest's linear addresses are its physical ones: what a guest sees before it has page tables.
//!
//! 64-bit processors walk 4 levels, with pages of 2 MiB where a run of memory is one; the first 32-bit processors 2
//! levels, and no linear address beyond 4 GiB.

use std::collections::BTreeMap;

use frame_core::{AllocError, FRAME_SIZE, FrameLayout, PhysFrame, PhysFrames};
use vmx_structs::GuestRange;

use crate::hal::LabHal;

/// Present, writable, for user mode too.
const TABLE: u64 = 0b111;
/// A page of 2 MiB.
const LARGE: u64 = 1 << 7;
const HUGE: u64 = 2 << 20;

/// How the processor walks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    pub(crate) levels: u32,
    /// Bits of an address that one level looks up.
    bits: u32,
    entry_bytes: usize,
}

impl Walk {
    pub(crate) const LONG: Self = Self { levels: 4, bits: 9, entry_bytes: 8 };
    pub(crate) const LEGACY: Self = Self { levels: 2, bits: 10, entry_bytes: 4 };

    const fn shift(self, level: u32) -> u32 {
        12 + self.bits * (level - 1)
    }
}

/// A run of guest memory.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) guest: u64,
    pub(crate) host: PhysFrames<LabHal>,
}

/// Guest memory and the tables that lead to it.
#[derive(Debug)]
pub(crate) struct Shadow {
    pub(crate) walk: Walk,
    /// By level, and by the address bits above the table's reach.
    tables: BTreeMap<(u32, u64), PhysFrame<LabHal>>,
    pub(crate) runs: Vec<Run>,
    /// What is mapped, in the order in which it was.
    pub(crate) pages: Vec<Page>,
}

/// A page that the tables map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    pub(crate) guest: u64,
    pub(crate) host: u64,
    pub(crate) bytes: u64,
}

impl Shadow {
    /// Backs the ranges with frames, in runs of 2 MiB where the allocator has them.
    pub(crate) fn ram(ram: &[GuestRange]) -> Result<Vec<Run>, AllocError> {
        let mut runs = Vec::new();
        let mut huge_is_there = true;
        for range in ram {
            let (mut guest, end) = (range.start().as_u64(), range.last().as_u64() + 1);
            while guest < end {
                let fits = guest % HUGE == 0 && end - guest >= HUGE;
                let huge = (huge_is_there && fits).then(|| PhysFrames::try_alloc(FrameLayout::HUGE_2M));
                let host = match huge {
                    Some(Ok(run)) => run,
                    refused => {
                        huge_is_there &= refused.is_none();
                        PhysFrames::try_alloc(FrameLayout::SINGLE)?
                    }
                };
                let bytes = host.as_bytes().len() as u64;
                runs.push(Run { guest, host });
                guest += bytes;
            }
        }
        Ok(runs)
    }

    /// Tables over these runs.
    pub(crate) fn new(walk: Walk, runs: Vec<Run>) -> Result<Self, AllocError> {
        let mut shadow = Self { walk, tables: BTreeMap::new(), runs: Vec::new(), pages: Vec::new() };
        shadow.table(walk.levels, 0)?;
        for run in &runs {
            let (host, bytes) = (run.host.start_paddr().as_usize() as u64, run.host.as_bytes().len() as u64);
            if walk.levels == 4 && bytes == HUGE {
                shadow.map(run.guest, host, 2)?;
                continue;
            }
            for offset in (0..bytes).step_by(FRAME_SIZE) {
                shadow.map_page(run.guest + offset, host + offset)?;
            }
        }
        shadow.runs = runs;
        Ok(shadow)
    }

    /// Maps one page of 4 KiB, if the processor has such a linear address.
    pub(crate) fn map_page(&mut self, guest: u64, host: u64) -> Result<(), AllocError> {
        if guest >> self.walk.shift(self.walk.levels + 1) == 0 {
            self.map(guest, host, 1)?;
        }
        Ok(())
    }

    /// Frames of tables.
    pub(crate) fn table_frames(&self) -> usize {
        self.tables.len()
    }

    /// The highest table: what the guest's CR3 holds.
    pub(crate) fn root(&self) -> u64 {
        self.tables.last_key_value().map_or(0, |(_, frame)| frame.start_paddr().as_usize() as u64)
    }

    /// Writes bytes that lie in the first page of the guest's memory.
    pub(crate) fn write_low(&mut self, guest: u64, bytes: &[u8]) {
        let holds =
            |run: &&mut Run| run.guest <= guest && guest < run.guest + run.host.as_bytes().len() as u64;
        if let Some(run) = self.runs.iter_mut().find(holds) {
            let at = (guest - run.guest) as usize;
            if let Some(place) = run.host.as_bytes_mut().get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        }
    }

    fn map(&mut self, guest: u64, host: u64, level: u32) -> Result<(), AllocError> {
        let (large, bytes) = if level == 1 { (0, FRAME_SIZE as u64) } else { (LARGE, HUGE) };
        self.set(guest, level, host | TABLE | large)?;
        self.pages.push(Page { guest, host, bytes });
        Ok(())
    }

    /// Sets the entry of this level; makes the table, and the way to it, if there is none.
    fn set(&mut self, guest: u64, level: u32, entry: u64) -> Result<(), AllocError> {
        let (bits, size) = (self.walk.bits, self.walk.entry_bytes);
        let index = (guest >> self.walk.shift(level)) as usize & ((1 << bits) - 1);
        let table = self.table(level, guest)?;
        let bytes = entry.to_le_bytes();
        if let Some(place) = table.as_bytes_mut().get_mut(index * size..(index + 1) * size) {
            place.copy_from_slice(&bytes[..size]);
        }
        Ok(())
    }

    fn table(&mut self, level: u32, guest: u64) -> Result<&mut PhysFrame<LabHal>, AllocError> {
        let key = (level, guest >> self.walk.shift(level + 1));
        let is_new = !self.tables.contains_key(&key);
        if is_new {
            self.add_table(key, guest)?;
        }
        Ok(self.tables.get_mut(&key).expect("it was put there"))
    }

    /// Adds an empty table, and the entry that points to it.
    fn add_table(&mut self, key: (u32, u64), guest: u64) -> Result<(), AllocError> {
        let mut frame = PhysFrame::try_alloc()?;
        frame.fill(0);
        let start = frame.start_paddr().as_usize() as u64;
        self.tables.insert(key, frame);
        let level = key.0;
        if level < self.walk.levels { self.set(guest, level + 1, start | TABLE) } else { Ok(()) }
    }
}
