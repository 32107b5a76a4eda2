//! Single frames in hand, without a heap.
//!
//! Work that must not fail half-way takes all its frames first; frames that a processor may still look at are kept
//! until it no longer does. A [`FrameStack`] holds any number of them in one value: each frame has the address of
//! the next in its first word.
//!
//! Invariant: the frames of the chain are owned by the stack, and there are `len` of them.

use core::{
    fmt, mem,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{AllocError, FRAME_SIZE, FrameHal, PhysAddr, PhysFrame};

/// Single frames, one on top of the other; those left are freed on drop.
///
/// Only the first word of a frame is used; its low 12 bits are not looked at, so a frame that was a page table may
/// still get accessed and dirty bits from a processor that has not been told.
pub struct FrameStack<H: FrameHal> {
    top: Option<PhysFrame<H>>,
    len: usize,
}

impl<H: FrameHal> FrameStack<H> {
    /// No frames.
    #[inline]
    pub const fn new() -> Self {
        Self { top: None, len: 0 }
    }

    /// Allocates `count` frames.
    ///
    /// # Errors
    /// [`AllocError::NoMemory`] when the HAL has not that many: all are given back.
    pub fn alloc(count: usize) -> Result<Self, AllocError> {
        let mut stack = Self::new();
        for _ in 0..count {
            stack.push(PhysFrame::try_alloc()?);
        }
        Ok(stack)
    }

    /// Frames.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a frame on top.
    ///
    /// # Panics
    /// "uninitialized PhysFrame" on a value from [`PhysFrame::uninit`]. The stack is as it was.
    #[inline]
    pub fn push(&mut self, frame: PhysFrame<H>) {
        let link = Self::next_of(&frame); // panics, if anything does: before a frame is out of the RAII types' hands
        let next = self.top.take().map_or(0, |next| next.into_raw().as_usize() as u64);
        link.store(next, Ordering::Relaxed);
        self.top = Some(frame);
        self.len += 1;
    }

    /// Takes the top frame. Its first word is 0, the others are as they were pushed.
    #[inline]
    pub fn pop(&mut self) -> Option<PhysFrame<H>> {
        let frame = self.top.take()?;
        let next = Self::next_of(&frame).swap(0, Ordering::Relaxed) & !(FRAME_SIZE as u64 - 1);
        if next != 0 {
            // SAFETY: the frame under the top was owned and given up by `push`.
            self.top = Some(unsafe { PhysFrame::from_raw(PhysAddr::from(next as usize)) });
        }
        self.len -= 1;
        Some(frame)
    }

    /// Puts all frames of `other` on top.
    pub fn append(&mut self, mut other: Self) {
        if self.len > other.len {
            while let Some(frame) = other.pop() {
                self.push(frame);
            }
        } else {
            while let Some(frame) = self.pop() {
                other.push(frame);
            }
            mem::swap(self, &mut other);
        }
    }

    fn next_of(frame: &PhysFrame<H>) -> &AtomicU64 {
        // SAFETY: the frame is owned, frame-aligned and initialised (promise of `FrameHal`); its bytes are reached by
        // atomics alone while it lies in a stack.
        unsafe { &*frame.as_mut_ptr().cast() }
    }
}

impl<H: FrameHal> Default for FrameStack<H> {
    fn default() -> Self {
        Self::new()
    }
}

impl<H: FrameHal> FrameStack<H> {
    /// Out of line: most stacks that are dropped are empty.
    #[cold]
    #[inline(never)]
    fn free(&mut self) {
        while self.pop().is_some() {}
    }
}

impl<H: FrameHal> Drop for FrameStack<H> {
    #[inline]
    fn drop(&mut self) {
        if self.top.is_some() {
            self.free();
        }
    }
}

impl<H: FrameHal> fmt::Debug for FrameStack<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameStack({} frames)", self.len)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::VirtAddr;

    /// 64 frames of host memory, handed out in order; counts what lives.
    struct Hal;

    #[repr(align(4096))]
    struct Memory(core::cell::UnsafeCell<[[u8; FRAME_SIZE]; 64]>);
    // SAFETY: the cells are reached through frames, each owned once.
    unsafe impl Sync for Memory {}
    static MEMORY: Memory = Memory(core::cell::UnsafeCell::new([[0xff; FRAME_SIZE]; 64]));
    static GIVEN: AtomicU64 = AtomicU64::new(0);
    static FREED: AtomicU64 = AtomicU64::new(0);

    // SAFETY: frame n lies at MEMORY[n - 1] and is handed out once.
    unsafe impl FrameHal for Hal {
        fn alloc_frame() -> Option<PhysAddr> {
            let n = GIVEN.fetch_add(1, Ordering::Relaxed);
            (n < 64).then(|| PhysAddr::from((n as usize + 1) * FRAME_SIZE))
        }
        unsafe fn dealloc_frame(paddr: PhysAddr) {
            FREED.fetch_add(1 << (paddr.as_usize() / FRAME_SIZE - 1), Ordering::Relaxed);
        }
        fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
            VirtAddr::from(MEMORY.0.get() as usize + paddr.as_usize() - FRAME_SIZE)
        }
    }

    #[test]
    fn every_frame_comes_back_once() {
        let mut stack = FrameStack::<Hal>::alloc(3).unwrap();
        let top = stack.pop().unwrap();
        assert_eq!((top.start_paddr().as_usize(), stack.len()), (0x3000, 2));
        stack.append(FrameStack::alloc(4).unwrap());
        assert_eq!(stack.len(), 6);
        stack.push(top);
        // A processor sets accessed and dirty bits in what it takes for an entry.
        FrameStack::next_of(stack.top.as_ref().unwrap()).fetch_or(0x300, Ordering::Relaxed);
        assert_eq!(stack.pop().unwrap().into_raw().as_usize(), 0x3000);
        assert_eq!(FREED.load(Ordering::Relaxed), 0);
        // A value that is no frame is refused, and takes nothing with it.
        // SAFETY: must panic.
        let none = unsafe { PhysFrame::uninit() };
        assert!(catch_unwind(AssertUnwindSafe(|| stack.push(none))).is_err());
        assert_eq!(stack.len(), 6);
        drop(stack);
        assert_eq!(FREED.load(Ordering::Relaxed), 0b111_1011);
        assert_eq!(FrameStack::<Hal>::alloc(58).unwrap_err(), AllocError::NoMemory);
        assert_eq!(FREED.load(Ordering::Relaxed), u64::MAX - 0b100, "what a failed alloc took is given back");
    }
}
