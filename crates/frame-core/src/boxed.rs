//! A typed value that lives in a frame of its own.
//!
//! Hardware reads page tables, control structures and rings at physical addresses. A [`FrameBox<T, H>`] is a `T` at
//! the start of a frame: reached like a `Box`, with a physical address, freed on drop. `T` must be plain bytes
//! (`zerocopy`), so that whatever lies in a frame is a `T`.
//!
//! Invariant: the frame is initialised, and `T` fits in it and needs no more than its alignment.

use core::{fmt, marker::PhantomData, ops};

use zerocopy::{FromBytes, IntoBytes};

use crate::{AxResult, FRAME_SIZE, FrameHal, PhysAddr, PhysFrame};

/// A `T` in a frame of its own.
///
/// ```
/// # use frame_core::{AxResult, FrameBox, FrameHal};
/// fn table<H: FrameHal>() -> AxResult<FrameBox<[u64; 512], H>> {
///     let mut table = FrameBox::<[u64; 512], H>::new_zeroed()?;
///     table[511] = 0x1000 | 7;
///     Ok(table) // table.start_paddr() goes into the parent entry
/// }
/// ```
///
/// A type that does not fit is refused when it is compiled:
/// ```compile_fail
/// # use frame_core::{AxResult, FrameBox, FrameHal};
/// fn too_large<H: FrameHal>() -> AxResult<FrameBox<[u64; 513], H>> {
///     FrameBox::new_zeroed()
/// }
/// # struct Hal;
/// # unsafe impl FrameHal for Hal {
/// #     fn alloc_frame() -> Option<frame_core::PhysAddr> { None }
/// #     unsafe fn dealloc_frame(_: frame_core::PhysAddr) {}
/// #     fn phys_to_virt(p: frame_core::PhysAddr) -> frame_core::VirtAddr { p.as_usize().into() }
/// # }
/// # let _ = too_large::<Hal>();
/// ```
pub struct FrameBox<T: FromBytes + IntoBytes, H: FrameHal> {
    frame: PhysFrame<H>,
    _value: PhantomData<T>,
}

impl<T: FromBytes + IntoBytes, H: FrameHal> FrameBox<T, H> {
    const FITS: () = assert!(
        size_of::<T>() <= FRAME_SIZE && align_of::<T>() <= FRAME_SIZE,
        "a FrameBox holds a type of at most one frame"
    );

    /// Allocates a frame of zeroes.
    ///
    /// # Errors
    /// As [`PhysFrame::alloc`].
    pub fn new_zeroed() -> AxResult<Self> {
        const { Self::FITS };
        Ok(Self { frame: PhysFrame::alloc_zero()?, _value: PhantomData })
    }

    /// Reads the contents of a frame as a `T`.
    ///
    /// # Panics
    /// "uninitialized PhysFrame" on a value from [`PhysFrame::uninit`].
    pub fn from_frame(frame: PhysFrame<H>) -> Self {
        const { Self::FITS };
        frame.start_paddr();
        Self { frame, _value: PhantomData }
    }

    /// The frame, contents and all.
    pub fn into_frame(self) -> PhysFrame<H> {
        self.frame
    }

    /// The physical address of the value: a multiple of [`FRAME_SIZE`].
    pub fn start_paddr(&self) -> PhysAddr {
        self.frame.start_paddr()
    }

    /// A pointer to the value, valid as long as the box is owned: for memory that hardware writes too.
    pub fn as_mut_ptr(&self) -> *mut T {
        self.frame.as_mut_ptr().cast()
    }
}

impl<T: FromBytes + IntoBytes, H: FrameHal> ops::Deref for FrameBox<T, H> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `T` fits in the frame and in its alignment (`FITS`), every bit pattern is a `T` (`FromBytes`), the
        // bytes are initialised (promise of `FrameHal`), and `&self` excludes safe writers.
        unsafe { &*self.as_mut_ptr() }
    }
}

impl<T: FromBytes + IntoBytes, H: FrameHal> ops::DerefMut for FrameBox<T, H> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; `&mut self` excludes every other reference; `IntoBytes` leaves no padding that a
        // write could uninitialise.
        unsafe { &mut *self.as_mut_ptr() }
    }
}

impl<T: FromBytes + IntoBytes + fmt::Debug, H: FrameHal> fmt::Debug for FrameBox<T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameBox").field("frame", &self.frame).field("value", &**self).finish()
    }
}
