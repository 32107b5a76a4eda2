//! Who has which frame: the oracle beside the allocator under test.
//!
//! A byte for each frame of the machine, changed by compare-exchange, so that any number of CPUs, interrupt and NMI
//! handlers can keep it. Slow, simple, and without anything in common with an allocator: a frame that is handed out
//! twice, or was never given to the allocator, is found by the one who gets it.

use core::{
    alloc::Layout,
    ptr, slice,
    sync::atomic::{
        AtomicPtr, AtomicU8, AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

use frame_allocator::{FRAME_SIZE, FrameRange, PhysAddr};
use machine::println;

use crate::memory::{self, Map};

/// Not the allocator's.
const FOREIGN: u8 = 0;
/// With the allocator.
const FREE: u8 = 1;
/// With an owner: this and the owner's number.
const HELD: u8 = 2;

/// The states of all frames from 0 on.
static STATES: AtomicPtr<AtomicU8> = AtomicPtr::new(ptr::null_mut());
static FRAMES: AtomicUsize = AtomicUsize::new(0);

fn states() -> &'static [AtomicU8] {
    let frames = FRAMES.load(Acquire);
    if frames == 0 {
        return &[];
    }
    // SAFETY: `init` stored the pointer to that many initialised bytes, for ever, before the count.
    unsafe { slice::from_raw_parts(STATES.load(Relaxed), frames) }
}

/// Makes a ledger for the frames of the map, all foreign still. Its own memory is taken out of the map.
pub fn init(map: &mut Map) {
    let frames = map.frames().last().map_or(0, |last| last.end().as_usize() / FRAME_SIZE);
    let memory = memory::early(map, Layout::array::<AtomicU8>(frames).expect("a byte for each frame"));
    memory.iter_mut().for_each(|byte| _ = byte.write(FOREIGN));
    STATES.store(memory.as_mut_ptr().cast(), Relaxed);
    FRAMES.store(frames, Release);
}

/// These frames are going to be given to the allocator.
pub fn add(range: FrameRange) {
    for frame in range.frames() {
        state(frame).store(FREE, Relaxed);
    }
}

/// An owner got frames from the allocator. False, and a fault, if one of them was not free.
pub fn take(start: PhysAddr, count: usize, owner: usize) -> bool {
    change(start, count, FREE, HELD + owner as u8) || fault(Fault::NotFree, start)
}

/// An owner is about to give frames to the allocator. False, and a fault, if one of them is not its own.
pub fn give(start: PhysAddr, count: usize, owner: usize) -> bool {
    change(start, count, HELD + owner as u8, FREE) || fault(Fault::NotHeld, start)
}

fn change(start: PhysAddr, count: usize, from: u8, to: u8) -> bool {
    (0..count).fold(true, |right, i| {
        let state = state(start + i * FRAME_SIZE);
        right & state.compare_exchange(from, to, AcqRel, Relaxed).is_ok()
    })
}

fn state(frame: PhysAddr) -> &'static AtomicU8 {
    // Beyond the last frame of memory: a state that never fits.
    static NOWHERE: AtomicU8 = AtomicU8::new(FOREIGN);
    states().get(frame.as_usize() / FRAME_SIZE).unwrap_or(&NOWHERE)
}

/// The frames that an owner holds, lowest first.
pub fn held_by(owner: usize) -> impl Iterator<Item = PhysAddr> {
    in_state(HELD + owner as u8)
}

/// The frames that are with the allocator, lowest first.
pub fn free() -> impl Iterator<Item = PhysAddr> {
    in_state(FREE)
}

fn in_state(wanted: u8) -> impl Iterator<Item = PhysAddr> {
    let frames = states().iter().enumerate().filter(move |(_, state)| state.load(Relaxed) == wanted);
    frames.map(|(number, _)| PhysAddr::from(number * FRAME_SIZE))
}

/// What an allocator can do wrong under everybody's eyes.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Handed out a frame that was not free: twice, or never given to it.
    NotFree,
    /// A frame was freed that its owner did not hold: a fault of the checks themselves.
    NotHeld,
    /// Handed out a run that does not start at a multiple of its alignment.
    Misaligned,
    /// A frame's mark was written over while it was held.
    Overwritten,
    /// Refused a free that was right.
    Refused,
    /// Had no memory though there was enough.
    NoMemory,
}

const KINDS: [Fault; 6] =
    [Fault::NotFree, Fault::NotHeld, Fault::Misaligned, Fault::Overwritten, Fault::Refused, Fault::NoMemory];

/// For each kind: how many, and the last frame. Counted, not printed: an NMI handler cannot wait for the serial line.
static FAULTS: [(AtomicUsize, AtomicUsize); KINDS.len()] =
    [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; KINDS.len()];

/// Counts a fault. Always false.
pub fn fault(kind: Fault, frame: PhysAddr) -> bool {
    let (count, last) = &FAULTS[kind as usize];
    last.store(frame.as_usize(), Relaxed);
    count.fetch_add(1, Relaxed);
    false
}

/// Prints the faults since the last call. Returns how many there were.
pub fn report_faults() -> usize {
    KINDS.iter().zip(&FAULTS).fold(0, |sum, (kind, (count, last))| {
        let count = count.swap(0, Relaxed);
        if count > 0 {
            println!("{kind:?}: {count} times, the last at frame {:#x}", last.load(Relaxed));
        }
        sum + count
    })
}
