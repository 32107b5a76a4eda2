//! One scope: its memory, its allocator, and what is checked at every allocation and free.
//!
//! A frame is noted as freed, and poisoned, before the allocator is told: from then on another thread may own it.

use std::{
    backtrace::Backtrace,
    collections::BTreeMap,
    env, fmt, format,
    string::String,
    sync::{
        Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    vec::Vec,
};

use frame_core::{AllocError, FRAME_SIZE, FrameAllocator, FrameLayout, FrameRange, PhysAddr};

use super::{
    ledger::{Frame, Ledger},
    state::ignore_poison,
};
use crate::SimMemory;

/// What a frame holds when it is handed out.
const NEW: u8 = 0xa5;
/// What a frame holds after it was freed.
const DEAD: u8 = 0xde;
/// Longer runs are not poisoned: that would touch each frame of a simulated gibibyte.
const POISON_LIMIT: usize = 4096;
/// Scopes of up to so many frames are searched in the end for writes to frames that were never handed out.
const SEARCH_LIMIT: usize = 1 << 14;

pub(super) struct Scope {
    pub(super) memory: SimMemory,
    /// Lives as long as the scope is installed: see `HalState::scope`, which promises it.
    allocator: &'static dyn FrameAllocator,
    ledger: Ledger,
    pub(super) owned: AtomicUsize,
    serial: AtomicU32,
    /// With `FRAME_TRACE`: where each allocation was.
    traces: Option<Mutex<BTreeMap<u32, Backtrace>>>,
}

impl Scope {
    pub(super) fn new(
        memory: SimMemory,
        allocator: &'static dyn FrameAllocator,
        ranges: &[FrameRange],
    ) -> Self {
        Self {
            memory,
            allocator,
            ledger: Ledger::new(ranges),
            owned: AtomicUsize::new(0),
            serial: AtomicU32::new(0),
            traces: env::var_os("FRAME_TRACE").map(|_| Mutex::new(BTreeMap::new())),
        }
    }

    /// Asks the allocator.
    pub(super) fn ask(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        if layout.is_single() { self.allocator.alloc_frame() } else { self.allocator.alloc(layout) }
    }

    /// The pointer to a byte of an owned frame.
    ///
    /// # Errors
    /// What is known about the frame, which nobody owns.
    pub(super) fn reach(&self, paddr: PhysAddr) -> Result<*mut u8, String> {
        match self.ledger.get(paddr) {
            Some(Frame::Owned { .. }) => Ok(self.memory.ptr(paddr)),
            frame => Err(described(frame)),
        }
    }

    /// Checks what the allocator gave, notes it and poisons it.
    pub(super) fn given(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("the allocator gave {start:#x} for {layout:?}: {what}"));
        if start.as_usize() % layout.align() != 0 {
            return wrong("misaligned");
        }
        let Ok(run) = FrameRange::new(start, layout.count()) else { return wrong("no such frames") };
        let serial = self.serial.fetch_add(1, SeqCst) + 1;
        for frame in run.frames() {
            match self.ledger.get(frame) {
                None => return wrong("outside of its regions"),
                Some(Frame::Owned { serial }) => {
                    return Err(format!(
                        "the allocator gave frame {frame:#x}, which allocation {serial} owns"
                    ));
                }
                Some(state) if run.count() <= POISON_LIMIT => self.untouched(frame, state)?,
                Some(_) => {}
            }
        }
        for frame in run.frames() {
            if let Frame::Owned { serial } = self.ledger.set(frame, Frame::Owned { serial }) {
                return Err(format!("the allocator gave frame {frame:#x} twice, to allocation {serial} too"));
            }
        }
        self.fill(run, NEW);
        self.owned.fetch_add(run.count(), SeqCst);
        if let Some(traces) = &self.traces {
            ignore_poison(traces.lock()).insert(serial, Backtrace::force_capture());
        }
        Ok(())
    }

    /// Checks a free, notes it, poisons the frames and gives them to the allocator.
    pub(super) fn taken_back(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), String> {
        let run = FrameRange::new(start, layout.count()).map_err(|error| format!("a bad free: {error}"))?;
        for frame in run.frames() {
            match self.ledger.get(frame) {
                Some(Frame::Owned { .. }) => {}
                Some(Frame::Freed { serial, .. }) => {
                    return Err(format!("frame {frame:#x} is freed twice (allocation {serial} gave it)"));
                }
                Some(Frame::Fresh) => {
                    return Err(format!("frame {frame:#x} is freed, but was never allocated"));
                }
                None => return Err(format!("frame {frame:#x} is freed, which is no memory of this HAL")),
            }
        }
        let poisoned = run.count() <= POISON_LIMIT;
        self.fill(run, DEAD);
        for frame in run.frames() {
            let serial = match self.ledger.get(frame) {
                Some(Frame::Owned { serial } | Frame::Freed { serial, .. }) => serial,
                _ => 0,
            };
            if let Frame::Freed { .. } = self.ledger.set(frame, Frame::Freed { serial, poisoned }) {
                return Err(format!(
                    "frame {frame:#x} is freed by two threads at once (allocation {serial} gave it)"
                ));
            }
        }
        self.owned.fetch_sub(run.count(), SeqCst);
        // SAFETY: the ledger says that the frames were owned, and the caller gives them up.
        let answer = unsafe {
            if layout.is_single() {
                self.allocator.dealloc_frame(start)
            } else {
                self.allocator.dealloc(start, layout)
            }
        };
        answer.map_err(|refused| format!("the allocator refuses frames that are owned: {refused}"))
    }

    /// That a frame which nobody owned holds what it must.
    fn untouched(&self, frame: PhysAddr, state: Frame) -> Result<(), String> {
        let (byte, what) = match state {
            Frame::Freed { poisoned: true, .. } => (DEAD, "after it was freed"),
            Frame::Fresh => (0, "though it was never allocated"),
            _ => return Ok(()),
        };
        let start = self.memory.ptr(frame);
        // SAFETY: the frame is mapped memory of this scope, initialised, and owned by nobody. A writer that breaks
        // the rules is what this looks for; the test is lost then.
        let bytes = unsafe { &*start.cast::<[u8; FRAME_SIZE]>() };
        // Compared whole first: every allocation comes here.
        if bytes == &[byte; FRAME_SIZE] {
            return Ok(());
        }
        match bytes.iter().position(|&b| b != byte) {
            Some(offset) => Err(format!(
                "frame {frame:#x} was written to {what}, at offset {offset:#x} ({})",
                described(Some(state))
            )),
            None => Ok(()),
        }
    }

    fn fill(&self, run: FrameRange, byte: u8) {
        if run.count() <= POISON_LIMIT {
            // SAFETY: the run is mapped, adjacent on the host (it lies in one range of the memory, or in ranges that
            // adjoin), and in the hands of this call.
            unsafe { self.memory.ptr(run.start()).write_bytes(byte, run.size()) };
        }
    }

    /// What is wrong in the end.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut leaks = BTreeMap::<u32, Vec<PhysAddr>>::new();
        let search = self.memory.ranges().map(FrameRange::count).sum::<usize>() <= SEARCH_LIMIT;
        for (frame, state) in self.ledger.frames() {
            match state {
                Frame::Owned { serial } => leaks.entry(serial).or_default().push(frame),
                Frame::Fresh if !search => {}
                _ => faults.extend(self.untouched(frame, state).err()),
            }
        }
        let frames: usize = leaks.values().map(Vec::len).sum();
        if frames > 0 {
            const SHOWN: usize = 20;
            let mut message = format!("{frames} frames leaked:");
            for (serial, frames) in leaks.iter().take(SHOWN) {
                let (first, more) = (frames[0], frames.len() - 1);
                message += &format!("\n  {first:#x}");
                if more > 0 {
                    message += &format!(" and {more} more");
                }
                message += &format!(", from allocation {serial}");
                if let Some(traces) = &self.traces {
                    if let Some(trace) = ignore_poison(traces.lock()).get(serial) {
                        message += &format!(":\n{trace}");
                    }
                }
            }
            if leaks.len() > SHOWN {
                message += &format!("\n  ... and of {} more allocations", leaks.len() - SHOWN);
            }
            if self.traces.is_none() {
                message += "\n  (FRAME_TRACE=1 in the environment shows where)";
            }
            faults.push(message);
        }
        faults
    }
}

/// What is known about a frame, for a message.
fn described(frame: Option<Frame>) -> String {
    match frame {
        None => "no memory of this HAL".into(),
        Some(Frame::Fresh) => "never allocated".into(),
        Some(Frame::Owned { serial }) => format!("owned by allocation {serial}"),
        Some(Frame::Freed { serial, .. }) => format!("freed; allocation {serial} gave it"),
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("memory", &self.memory)
            .field("owned", &self.owned)
            .finish_non_exhaustive()
    }
}
