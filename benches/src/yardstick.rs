//! The limits: what the harness costs, and what nothing that hands out frames one by one can beat.

use std::cell::UnsafeCell;

use crate::contender::Contender;

/// Allocates nothing: the cost of the harness itself.
#[derive(Debug)]
pub struct Null;

impl Contender for Null {
    #[inline]
    fn alloc(&self, _: u32) -> Option<usize> {
        Some(std::hint::black_box(4096))
    }

    #[inline]
    fn free(&self, address: usize, _: u32) {
        std::hint::black_box(address);
    }

    fn is_real(&self) -> bool {
        false
    }
}

/// Frames that a stack has room for: twice what it starts with, so that a thread which only frees does push.
const ROOM: usize = 1 << 19;

struct Stack {
    len: usize,
    frames: [usize; ROOM],
}

thread_local! {
    static STACK: UnsafeCell<Stack> = const { UnsafeCell::new(Stack { len: 0, frames: [0; ROOM] }) };
}

/// A stack of frame addresses for each thread: pop and push. It starts full of the arena's frames on each thread, so it
/// shares nothing, and pays no attention to orders: no allocator, but the least that handing out addresses one by one
/// costs.
#[derive(Debug)]
pub struct Floor {
    base: usize,
    frames: usize,
}

impl Floor {
    /// A floor over `frames` frames from `base` on.
    pub fn new(base: usize, frames: usize) -> Self {
        Self { base, frames: frames.min(ROOM / 2) }
    }

    #[cold]
    fn fill(&self, stack: &mut Stack) {
        for (i, frame) in stack.frames[..self.frames].iter_mut().rev().enumerate() {
            *frame = self.base + i * 4096;
        }
        stack.len = self.frames;
    }
}

impl Contender for Floor {
    #[inline]
    fn alloc(&self, _: u32) -> Option<usize> {
        STACK.with(|stack| {
            // SAFETY: the stack is this thread's alone, and no call below leads back here.
            let stack = unsafe { &mut *stack.get() };
            if stack.len == 0 {
                self.fill(stack);
            }
            stack.len -= 1;
            stack.frames.get(stack.len).copied()
        })
    }

    #[inline]
    fn free(&self, address: usize, _: u32) {
        STACK.with(|stack| {
            // SAFETY: as in `alloc`.
            let stack = unsafe { &mut *stack.get() };
            if let Some(slot) = stack.frames.get_mut(stack.len) {
                *slot = address;
                stack.len += 1;
            }
        });
    }

    fn is_real(&self) -> bool {
        false
    }
}
