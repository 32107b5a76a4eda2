//! The timed pass: nothing but the calls.

use std::time::Duration;

use frame_core::{FRAME_SIZE, FrameAllocator, PhysAddr};

use super::{EMPTY, call_alloc, call_dealloc};
use crate::{
    backends::{Job, on_cpu},
    clock,
    trace::{Action, Program},
};

/// A replay that measures.
pub(crate) struct Timed<'r> {
    pub(crate) program: &'r Program,
}

impl Job for Timed<'_> {
    /// For all operations of the program.
    type Out = Duration;

    fn run<A: FrameAllocator>(self, allocator: &A, _drain: &dyn Fn()) -> Duration {
        time(self.program, Calls(allocator))
    }
}

/// What the replay loop costs without an allocator: reading the program, naming the CPU, keeping the slots.
pub(crate) fn time_of_harness(program: &Program) -> Duration {
    time(program, Nothing)
}

trait Target {
    fn alloc(&self, order: u8) -> Option<PhysAddr>;
    fn dealloc(&self, start: PhysAddr, order: u8);
}

struct Calls<'a, A>(&'a A);

impl<A: FrameAllocator> Target for Calls<'_, A> {
    #[inline]
    fn alloc(&self, order: u8) -> Option<PhysAddr> {
        call_alloc(self.0, order)
    }
    #[inline]
    fn dealloc(&self, start: PhysAddr, order: u8) {
        // A refusal was counted by the watched pass.
        call_dealloc(self.0, start, order);
    }
}

struct Nothing;

impl Target for Nothing {
    #[inline]
    fn alloc(&self, order: u8) -> Option<PhysAddr> {
        std::hint::black_box(Some(PhysAddr::from(FRAME_SIZE << order)))
    }
    #[inline]
    fn dealloc(&self, start: PhysAddr, order: u8) {
        std::hint::black_box((start, order));
    }
}

fn time<T: Target>(program: &Program, target: T) -> Duration {
    let mut slots = vec![EMPTY; program.slots];
    let start = clock::now();
    for op in &program.ops {
        on_cpu(usize::from(op.cpu));
        let slot = &mut slots[op.slot as usize];
        match op.action {
            Action::Alloc => *slot = target.alloc(op.order).unwrap_or(EMPTY),
            Action::Free if *slot == EMPTY => {}
            Action::Free => target.dealloc(*slot, op.order),
        }
    }
    clock::now() - start
}
