//! One frame that frees itself.
//!
//! A [`PhysFrame<H>`] owns one frame of the HAL `H`: nobody else uses it until the value is dropped. It is one
//! machine word, and so is an `Option` of it.
//!
//! Invariant of `PhysFrame::start`: it is either [`UNINIT`], or the frame-aligned, non-zero address of a frame that
//! came from `H` and is owned by this value.

use core::{fmt, marker::PhantomData, mem, num::NonZeroUsize, ptr};

use log::{Level, debug};

use crate::{AllocError, AxResult, FRAME_SIZE, FrameHal, PhysAddr};

/// Marks a frame that was never initialised: no frame has an odd address.
const UNINIT: NonZeroUsize = NonZeroUsize::MIN;

/// A physical frame of 4 KiB, given back to `H` when it is dropped.
///
/// Reading and writing through the frame is safe: the HAL promised that the memory behind it is RAM which this
/// value alone owns (see [`FrameHal`]). A frame can go to another thread.
pub struct PhysFrame<H: FrameHal> {
    start: NonZeroUsize,
    /// `fn() -> H`: frees through `H`, holds none; `Send` and `Sync` whatever `H` is.
    _hal: PhantomData<fn() -> H>,
}

impl<H: FrameHal> PhysFrame<H> {
    /// Allocates a frame. Its contents are whatever the last owner left.
    ///
    /// # Errors
    /// [`AxError::NoMemory`](crate::AxError::NoMemory) when the HAL has no frame. [`try_alloc`](Self::try_alloc)
    /// gives the typed error.
    #[inline]
    pub fn alloc() -> AxResult<Self> {
        Ok(Self::try_alloc()?)
    }

    /// Allocates a frame and fills it with zeroes.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    #[inline]
    pub fn alloc_zero() -> AxResult<Self> {
        let mut frame = Self::alloc()?;
        frame.fill(0);
        Ok(frame)
    }

    /// Allocates a frame, with the allocator's own error.
    ///
    /// # Errors
    /// [`AllocError::NoMemory`] when the HAL has no frame.
    #[inline]
    pub fn try_alloc() -> Result<Self, AllocError> {
        // A HAL that answers 0 has no frame: the seed treats both the same.
        match H::alloc_frame().and_then(|paddr| NonZeroUsize::new(paddr.as_usize())) {
            Some(start) => Ok(Self { start, _hal: PhantomData }),
            None => Err(AllocError::NoMemory),
        }
    }

    /// A value that owns no frame, to be overwritten later.
    ///
    /// # Safety
    /// It must be overwritten before it is used: [`start_paddr`](Self::start_paddr) and all that needs it panic
    /// until then. (Nothing worse happens; the function is unsafe because the seed's is.)
    pub const unsafe fn uninit() -> Self {
        Self { start: UNINIT, _hal: PhantomData }
    }

    /// The physical address of the frame: a multiple of [`FRAME_SIZE`], never 0.
    ///
    /// # Panics
    /// "uninitialized PhysFrame" on a value from [`uninit`](Self::uninit).
    #[inline]
    pub fn start_paddr(&self) -> PhysAddr {
        if self.start == UNINIT {
            uninitialized();
        }
        PhysAddr::from(self.start.get())
    }

    /// A pointer to the frame's [`FRAME_SIZE`] bytes. It is valid as long as the frame is owned; writing through
    /// it while a reference from [`as_bytes`](Self::as_bytes) lives is the writer's fault.
    ///
    /// # Panics
    /// As [`start_paddr`](Self::start_paddr).
    #[inline]
    pub fn as_mut_ptr(&self) -> *mut u8 {
        H::phys_to_virt(self.start_paddr()).as_mut_ptr()
    }

    /// Sets every byte of the frame.
    ///
    /// # Panics
    /// As [`start_paddr`](Self::start_paddr).
    #[inline]
    pub fn fill(&mut self, byte: u8) {
        // SAFETY: the pointer is valid for writes of a frame (promise of `FrameHal`), and `&mut self` excludes every
        // reference into it.
        unsafe { ptr::write_bytes(self.as_mut_ptr(), byte, FRAME_SIZE) }
    }

    /// The contents.
    ///
    /// # Panics
    /// As [`start_paddr`](Self::start_paddr).
    #[inline]
    pub fn as_bytes(&self) -> &[u8; FRAME_SIZE] {
        // SAFETY: the pointer is valid for reads of a frame of initialised bytes (promise of `FrameHal`), an array of
        // bytes has no alignment, the frame is owned by this value alone, and `&self` excludes safe writers.
        unsafe { &*self.as_mut_ptr().cast() }
    }

    /// The contents, to be written.
    ///
    /// # Panics
    /// As [`start_paddr`](Self::start_paddr).
    #[inline]
    pub fn as_bytes_mut(&mut self) -> &mut [u8; FRAME_SIZE] {
        // SAFETY: as in `as_bytes`; `&mut self` excludes every other reference into the frame.
        unsafe { &mut *self.as_mut_ptr().cast() }
    }

    /// Gives up ownership: the frame is not freed. [`from_raw`](Self::from_raw) takes it back.
    ///
    /// # Panics
    /// As [`start_paddr`](Self::start_paddr).
    #[must_use = "the frame leaks unless its address is kept"]
    #[inline]
    pub fn into_raw(self) -> PhysAddr {
        let start = self.start_paddr();
        mem::forget(self);
        start
    }

    /// Takes ownership of a frame: it is freed through `H` on drop.
    ///
    /// # Panics
    /// `start` is 0 or not aligned to [`FRAME_SIZE`]: no frame.
    ///
    /// # Safety
    /// `start` came from [`into_raw`](Self::into_raw), or from `H`'s `alloc_frame` or `alloc_frames`, and nobody
    /// else owns it.
    #[inline]
    pub unsafe fn from_raw(start: PhysAddr) -> Self {
        match NonZeroUsize::new(start.as_usize()) {
            Some(start) if start.get() % FRAME_SIZE == 0 => Self { start, _hal: PhantomData },
            _ => panic!("no frame at {start:#x}"),
        }
    }
}

/// Out of line, so that the check costs a compare and a branch never taken.
#[cold]
#[inline(never)]
fn uninitialized() -> ! {
    panic!("uninitialized PhysFrame")
}

/// Out of line, so that a log that nobody reads costs a load and a branch never taken.
#[cold]
#[inline(never)]
fn note_deallocated(start: PhysAddr) {
    debug!("[PhysFrame] deallocated PhysFrame({start:#x})");
}

impl<H: FrameHal> Drop for PhysFrame<H> {
    #[inline]
    fn drop(&mut self) {
        if self.start == UNINIT {
            return;
        }
        let start = PhysAddr::from(self.start.get());
        if Level::Debug <= log::STATIC_MAX_LEVEL && Level::Debug <= log::max_level() {
            note_deallocated(start);
        }
        // SAFETY: this value owned the frame (invariant of `start`), and it is gone after this.
        unsafe { H::dealloc_frame(start) }
    }
}

impl<H: FrameHal> fmt::Debug for PhysFrame<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.start == UNINIT {
            return f.write_str("PhysFrame(uninit)");
        }
        write!(f, "PhysFrame({:#x})", self.start)
    }
}
