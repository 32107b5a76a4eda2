//! A hand on the allocator under test: every frame that it takes goes through the [ledger](crate::ledger) and carries
//! its owner's mark in its own first word.
//!
//! The ledger finds a frame that is handed out twice when it happens. The mark tests the machine as well: two addresses
//! that reach the same RAM, or an allocator that writes into frames which are not its own, destroy it.

use core::{marker::PhantomData, ptr};

use frame_allocator::{AllocError, DeallocError, FRAME_SIZE, FrameAllocator, FrameLayout, PhysAddr};

use crate::{
    backends::Subject,
    ledger::{self, Fault},
    memory,
};

/// The hand of a CPU, or of what interrupts one.
pub struct Hand<S> {
    owner: usize,
    _allocator: PhantomData<fn() -> S>,
}

impl<S: Subject> Hand<S> {
    /// `owner` names it in ledger and marks: a number below 200 that nobody else uses at the same time.
    pub fn new(owner: usize) -> Self {
        Self { owner, _allocator: PhantomData }
    }

    /// Allocates and marks.
    pub fn alloc(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        let start = S::allocator().alloc(layout)?;
        if start.as_usize() % layout.align() != 0 {
            ledger::fault(Fault::Misaligned, start);
        }
        self.took(start, layout.count());
        Ok(start)
    }

    /// Notes and marks frames that came by another way than [`alloc`](Self::alloc).
    pub fn took(&self, start: PhysAddr, count: usize) {
        if ledger::take(start, count, self.owner) {
            for frame in frames(start, count) {
                // SAFETY: the allocator handed the frame out, and the ledger agrees.
                unsafe { write_word(frame, self.mark(frame)) };
            }
        }
    }

    /// Looks at the marks and frees.
    pub fn free(&self, start: PhysAddr, layout: FrameLayout) {
        self.gives(start, layout.count());
        // SAFETY: the frames were taken by this hand, and nothing uses them.
        if let Err(refused) = unsafe { S::allocator().dealloc(start, layout) } {
            ledger::fault(Fault::Refused, refused.frame);
        }
    }

    /// Looks at the marks of frames that are about to be freed by another way than [`free`](Self::free).
    pub fn gives(&self, start: PhysAddr, count: usize) {
        for frame in frames(start, count) {
            // SAFETY: this hand's frame still.
            if unsafe { read_word(frame) } != self.mark(frame) {
                ledger::fault(Fault::Overwritten, frame);
            }
        }
        ledger::give(start, count, self.owner);
    }

    fn mark(&self, frame: PhysAddr) -> u64 {
        (frame.as_usize() | (self.owner + 1)) as u64
    }
}

/// A free that must be refused.
pub fn free_wrongly<S: Subject>(start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
    // SAFETY: by contract the allocator refuses to free what nobody owns, and this is called for nothing else.
    unsafe { S::allocator().dealloc(start, layout) }
}

fn frames(start: PhysAddr, count: usize) -> impl Iterator<Item = PhysAddr> {
    (0..count).map(move |i| start + i * FRAME_SIZE)
}

/// Writes a word to the start of a frame.
///
/// # Safety
/// The caller owns the frame.
pub unsafe fn write_word(frame: PhysAddr, word: u64) {
    // SAFETY: every frame is mapped RAM, aligned, and the caller's.
    unsafe { ptr::with_exposed_provenance_mut::<u64>(memory::linear(frame).as_usize()).write_volatile(word) }
}

/// Reads the word at the start of a frame.
///
/// # Safety
/// The caller owns the frame.
pub unsafe fn read_word(frame: PhysAddr) -> u64 {
    // SAFETY: as in `write_word`.
    unsafe { ptr::with_exposed_provenance::<u64>(memory::linear(frame).as_usize()).read_volatile() }
}
