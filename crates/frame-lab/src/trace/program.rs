//! From events to a program that any allocator can replay.
//!
//! Events name frames by where *Linux* put them; a replay puts them elsewhere. So each live allocation gets a slot, a
//! small number, and the program says "allocate into slot 7" and "free what is in slot 7". Two rules settle what the
//! recording did not see:
//! - a frame that is freed without having been allocated **before the recording** cannot be freed here: the event is
//!   skipped and counted;
//! - a frame that is allocated **again** with no free seen (it went back as part of a larger block, or in bulk) was
//!   freed in between: the old allocation is freed first, and counted.
//!
//! An allocation is freed whole, by the first free that names its first frame; should that free name another order,
//! it is counted.
//!
//! Invariant: between an `Alloc` and the `Free` of the same slot, no other operation names that slot; a `Free` always has its
//! `Alloc` before it.

use std::collections::HashMap;

use super::{
    ORDERS,
    parse::{Event, EventKind},
};

/// One operation: 8 bytes, so that reading the program costs a replay next to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) slot: u32,
    /// An index into [`Program::cpus`].
    pub(crate) cpu: u16,
    pub(crate) order: u8,
    pub(crate) action: Action,
}

/// What an operation does with its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Alloc,
    Free,
}

const _: () = assert!(size_of::<Op>() == 8);

/// The state of the recorded machine behind an operation: the points at which a replay is looked at, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Operations done.
    pub(crate) op: usize,
    /// Nanoseconds since the first event; 0 where the trace has no times.
    pub(crate) time: u64,
    /// Frames that the program holds.
    pub(crate) live_frames: u64,
    /// 2 MiB blocks in which Linux had placed those frames.
    pub(crate) recorded_blocks: usize,
}

/// A trace, ready for replay.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub(crate) ops: Vec<Op>,
    /// Slots that the operations name: 0 to this, exclusive.
    pub(crate) slots: usize,
    /// The recorded number of each CPU, in order of appearance.
    pub(crate) cpus: Vec<u32>,
    /// In order of time; the last is behind the last operation.
    pub(crate) samples: Vec<Sample>,
    /// Allocations by order.
    pub(crate) allocs: [u64; ORDERS],
    /// Free events.
    pub(crate) frees: u64,
    /// Of those, frees of what was allocated before the recording.
    pub(crate) skipped_frees: u64,
    /// Allocations of a frame that was live: the old one is freed first.
    pub(crate) reallocated: u64,
    /// Frees that named another order than their allocation.
    pub(crate) other_order: u64,
    /// Most frames live at a time.
    pub(crate) peak_frames: u64,
    /// Most 2 MiB blocks in which Linux had placed live frames at a time, and how many at the end.
    pub(crate) recorded_blocks: (usize, usize),
    /// Events whose time lies before that of the event in front of them.
    pub(crate) out_of_order: u64,
}

impl Program {
    /// Allocations.
    pub(crate) fn alloc_count(&self) -> u64 {
        self.allocs.iter().sum()
    }

    /// Events: allocations and frees, skipped ones included.
    pub(crate) fn event_count(&self) -> u64 {
        self.alloc_count() + self.frees
    }

    /// Nanoseconds from the first event to the last.
    pub(crate) fn duration(&self) -> u64 {
        self.samples.last().map_or(0, |sample| sample.time)
    }
}

/// Samples kept: between half of this and this, however long the trace is.
const SAMPLES: usize = 512;

/// Builds a [`Program`], event by event.
#[derive(Default)]
pub(super) struct Builder {
    program: Program,
    /// By frame number of the first frame: the live allocations.
    live: HashMap<u64, Live, FrameHash>,
    free_slots: Vec<u32>,
    cpus: HashMap<u32, u16>,
    blocks: Blocks,
    live_frames: u64,
    start: Option<u64>,
    now: u64,
    /// Operations between two samples: doubles when there are too many.
    stride: usize,
}

#[derive(Clone, Copy)]
struct Live {
    slot: u32,
    order: u8,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self { stride: 64, ..Self::default() }
    }

    /// Adds an event. Refused when the trace has more CPUs or live allocations than a program can number.
    pub(super) fn push(&mut self, event: Event) -> Result<(), &'static str> {
        let Some(cpu) = self.cpu(event.cpu) else { return Err("the trace names more than 65,536 CPUs") };
        if let Some(time) = event.time {
            let time = time.saturating_sub(*self.start.get_or_insert(time));
            self.program.out_of_order += u64::from(time < self.now);
            self.now = self.now.max(time);
        }
        let live = self.live.remove(&event.pfn);
        match event.kind {
            EventKind::Free => {
                self.program.frees += 1;
                match live {
                    None => self.program.skipped_frees += 1,
                    Some(live) => {
                        self.program.other_order += u64::from(live.order != event.order);
                        self.free(event.pfn, live, cpu);
                    }
                }
            }
            EventKind::Alloc => {
                if let Some(old) = live {
                    self.program.reallocated += 1;
                    self.free(event.pfn, old, cpu);
                }
                self.alloc(event, cpu)?;
            }
        }
        Ok(())
    }

    /// The program, with a last sample behind its last operation.
    pub(super) fn finish(mut self) -> Program {
        self.program.recorded_blocks.1 = self.blocks.occupied;
        if self.program.samples.last().is_none_or(|last| last.op != self.program.ops.len()) {
            self.sample();
        }
        self.program
    }

    fn alloc(&mut self, event: Event, cpu: u16) -> Result<(), &'static str> {
        let slot = match self.free_slots.pop() {
            Some(slot) => slot,
            None => {
                let slot =
                    u32::try_from(self.program.slots).map_err(|_| "more than 2^32 live allocations")?;
                self.program.slots += 1;
                slot
            }
        };
        let order = event.order;
        self.live.insert(event.pfn, Live { slot, order });
        self.program.allocs[usize::from(order)] += 1;
        self.blocks.change(event.pfn, order, 1);
        self.program.recorded_blocks.0 = self.program.recorded_blocks.0.max(self.blocks.occupied);
        self.live_frames += 1 << order;
        self.program.peak_frames = self.program.peak_frames.max(self.live_frames);
        self.emit(Op { slot, cpu, order, action: Action::Alloc });
        Ok(())
    }

    fn free(&mut self, pfn: u64, live: Live, cpu: u16) {
        self.free_slots.push(live.slot);
        self.blocks.change(pfn, live.order, -1);
        self.live_frames -= 1 << live.order;
        self.emit(Op { slot: live.slot, cpu, order: live.order, action: Action::Free });
    }

    fn emit(&mut self, op: Op) {
        self.program.ops.push(op);
        if self.program.ops.len().is_multiple_of(self.stride) {
            self.sample();
            if self.program.samples.len() > SAMPLES {
                self.stride *= 2;
                let stride = self.stride;
                self.program.samples.retain(|sample| sample.op.is_multiple_of(stride));
            }
        }
    }

    fn sample(&mut self) {
        self.program.samples.push(Sample {
            op: self.program.ops.len(),
            time: self.now,
            live_frames: self.live_frames,
            recorded_blocks: self.blocks.occupied,
        });
    }

    fn cpu(&mut self, number: u32) -> Option<u16> {
        if let Some(&index) = self.cpus.get(&number) {
            return Some(index);
        }
        let index = u16::try_from(self.program.cpus.len()).ok()?;
        self.program.cpus.push(number);
        self.cpus.insert(number, index);
        Some(index)
    }
}

/// How many recorded frames lie in each 2 MiB block, where Linux put them.
#[derive(Default)]
struct Blocks {
    frames: HashMap<u64, u64, FrameHash>,
    occupied: usize,
}

impl Blocks {
    const ORDER: u8 = 9;

    fn change(&mut self, pfn: u64, order: u8, sign: i64) {
        // A run is aligned to its order, so it lies in one block, or covers whole ones.
        let (blocks, each) = match order.checked_sub(Self::ORDER) {
            Some(more) => (1u64 << more, 1i64 << Self::ORDER),
            None => (1, 1 << order),
        };
        for block in (pfn >> Self::ORDER)..(pfn >> Self::ORDER) + blocks {
            let frames = self.frames.entry(block).or_default();
            let before = *frames;
            *frames = before.wrapping_add_signed(sign * each);
            self.occupied += usize::from(before == 0);
            self.occupied -= usize::from(*frames == 0);
        }
    }
}

/// Frame numbers are spread well by one multiplication; the default hash would be most of the parsing time.
type FrameHash = std::hash::BuildHasherDefault<FrameHasher>;

#[derive(Default)]
struct FrameHasher(u64);

impl std::hash::Hasher for FrameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(events: &[(EventKind, u32, u64, u8)]) -> Program {
        let mut builder = Builder::new();
        for (i, &(kind, cpu, pfn, order)) in events.iter().enumerate() {
            builder.push(Event { kind, cpu, time: Some(1000 + i as u64), pfn, order }).unwrap();
        }
        builder.finish()
    }

    use Action::{Alloc, Free};
    use EventKind as E;

    fn ops(program: &Program) -> Vec<(Action, u32, u16, u8)> {
        program.ops.iter().map(|op| (op.action, op.slot, op.cpu, op.order)).collect()
    }

    #[test]
    fn the_two_rules() {
        let program = build(&[
            (E::Free, 5, 100, 0),  // allocated before the recording: skipped
            (E::Alloc, 5, 100, 0), // slot 0
            (E::Alloc, 2, 200, 3), // slot 1
            (E::Alloc, 2, 100, 1), // no free seen: slot 0 is freed, then used again
            (E::Free, 5, 100, 0),  // another order: freed whole
        ]);
        assert_eq!(
            ops(&program),
            [(Alloc, 0, 0, 0), (Alloc, 1, 1, 3), (Free, 0, 1, 0), (Alloc, 0, 1, 1), (Free, 0, 0, 1)]
        );
        assert_eq!((program.skipped_frees, program.reallocated, program.other_order), (1, 1, 1));
        assert_eq!((program.event_count(), program.slots, program.cpus.as_slice()), (5, 2, &[5, 2][..]));
        assert_eq!((program.peak_frames, program.samples.last().unwrap().live_frames), (10, 8));
    }

    #[test]
    fn blocks_are_counted_where_linux_placed_them() {
        let program = build(&[
            (E::Alloc, 0, 512, 0),
            (E::Alloc, 0, 1023, 0),  // the same block
            (E::Alloc, 0, 2048, 11), // four whole blocks
            (E::Free, 0, 512, 0),
            (E::Free, 0, 2048, 11),
        ]);
        assert_eq!(program.recorded_blocks, (5, 1));
    }

    #[test]
    fn samples_are_bounded_and_evenly_spaced() {
        let mut builder = Builder::new();
        for i in 0..100_000u64 {
            let kind = if i % 2 == 0 { E::Alloc } else { E::Free };
            builder.push(Event { kind, cpu: 0, time: Some(i), pfn: 7, order: 0 }).unwrap();
        }
        let program = builder.finish();
        assert!((SAMPLES / 2..=SAMPLES + 1).contains(&program.samples.len()), "{}", program.samples.len());
        let gaps: Vec<_> = program.samples.windows(2).map(|pair| pair[1].op - pair[0].op).collect();
        assert!(gaps[..gaps.len() - 1].iter().all(|&gap| gap == gaps[0]), "{gaps:?}");
        let last = program.samples.last().unwrap();
        assert_eq!((last.op, last.time, program.duration()), (100_000, 99_999, 99_999));
    }
}
