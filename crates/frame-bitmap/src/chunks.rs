//! The chunks of a region, built when they are first needed.
//!
//! A chunk that is wholly free, or that was taken as a whole, needs no bits: its state says so. Its bits are
//! built when a part of it is taken or given back. So starting with a terabyte writes one byte for each 16
//! MiB, and a run of 1 GiB is taken by writing 64 of them.
//!
//! Invariant: a slot whose state is [`Bits`](State::Bits) holds a chunk. The others may hold anything, and
//! are not read.

use core::mem::MaybeUninit;

use crate::{chunk::Chunk, metadata};

/// What is known of a chunk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Every frame is free; there are no bits.
    Free,
    /// Every frame is used; there are no bits.
    Used,
    /// The bits in the slot say.
    Bits,
}

/// A look at a chunk.
pub(crate) enum View<'c> {
    /// Every frame is free.
    Free,
    /// Every frame is used.
    Used,
    /// The bits say.
    Bits(&'c Chunk),
}

/// The chunks of a region.
pub(crate) struct Chunks<'m> {
    states: &'m mut [State],
    slots: &'m mut [MaybeUninit<Chunk>],
}

impl<'m> Chunks<'m> {
    /// No chunks.
    pub(crate) const fn empty() -> Self {
        Self { states: &mut [], slots: &mut [] }
    }

    /// Wholly free chunks, as many as there are states and slots.
    pub(crate) fn free(states: &'m mut [MaybeUninit<State>], slots: &'m mut [MaybeUninit<Chunk>]) -> Self {
        Self { states: metadata::fill(states, || State::Free), slots }
    }

    /// How many there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.states.len()
    }

    /// Chunk `index` for a look.
    #[inline]
    pub(crate) fn view(&self, index: usize) -> View<'_> {
        match self.states[index] {
            State::Free => View::Free,
            State::Used => View::Used,
            // SAFETY: the slot holds a chunk (the invariant).
            State::Bits => View::Bits(unsafe { self.slots[index].assume_init_ref() }),
        }
    }

    /// Chunk `index` for a change of a part of it: its bits are built if there are none.
    #[inline]
    pub(crate) fn bits(&mut self, index: usize) -> &mut Chunk {
        let slot = &mut self.slots[index];
        match core::mem::replace(&mut self.states[index], State::Bits) {
            State::Free => slot.write(Chunk::free()),
            State::Used => slot.write(Chunk::used()),
            // SAFETY: the slot holds a chunk (the invariant).
            State::Bits => unsafe { slot.assume_init_mut() },
        }
    }

    /// Makes all of chunk `index` free.
    pub(crate) fn set_free(&mut self, index: usize) {
        self.states[index] = State::Free;
    }

    /// Makes all of chunk `index` used.
    pub(crate) fn set_used(&mut self, index: usize) {
        self.states[index] = State::Used;
    }
}
