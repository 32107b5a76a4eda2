//! Memory for a backend's books, outside of the frames that it manages.

use alloc::alloc::{alloc, dealloc, handle_alloc_error};
use core::{alloc::Layout, fmt, mem::MaybeUninit, ptr::NonNull, slice};

/// Bytes of the global heap with a given size and alignment, filled with 0xa5: a backend that takes fresh metadata
/// for zeroes is found.
///
/// Invariant: `ptr` holds `layout.size()` bytes of the heap, owned by this value; it dangles when the size is 0.
///
/// ```
/// use core::alloc::Layout;
/// use frame_testkit::Metadata;
///
/// let mut metadata = Metadata::new(Layout::from_size_align(1000, 64)?);
/// let bytes = metadata.bytes();
/// assert!(bytes.len() == 1000 && bytes.as_ptr() as usize % 64 == 0);
/// # Ok::<(), core::alloc::LayoutError>(())
/// ```
pub struct Metadata {
    ptr: NonNull<u8>,
    layout: Layout,
}

impl Metadata {
    /// Takes memory from the heap.
    pub fn new(layout: Layout) -> Self {
        if layout.size() == 0 {
            let aligned = core::ptr::without_provenance_mut(layout.align());
            return Self { ptr: NonNull::new(aligned).expect("an alignment is not 0"), layout };
        }
        // SAFETY: the size is not 0.
        let ptr = unsafe { alloc(layout) };
        let Some(ptr) = NonNull::new(ptr) else { handle_alloc_error(layout) };
        // SAFETY: the memory was just allocated with this size.
        unsafe { ptr.write_bytes(0xa5, layout.size()) };
        Self { ptr, layout }
    }

    /// Memory that is never given back: for an allocator that outlives the caller.
    pub fn leaked(layout: Layout) -> &'static mut [MaybeUninit<u8>] {
        let metadata = core::mem::ManuallyDrop::new(Self::new(layout));
        // SAFETY: the bytes are owned and initialised, and nobody frees them or refers to them.
        unsafe { slice::from_raw_parts_mut(metadata.ptr.as_ptr().cast(), layout.size()) }
    }

    /// The bytes.
    pub fn bytes(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: the bytes are owned and initialised; `&mut self` excludes other references.
        unsafe { slice::from_raw_parts_mut(self.ptr.as_ptr().cast(), self.layout.size()) }
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: allocated with this layout, and not freed before.
            unsafe { dealloc(self.ptr.as_ptr(), self.layout) }
        }
    }
}

// SAFETY: bytes of the heap belong to no thread.
unsafe impl Send for Metadata {}
// SAFETY: a shared reference gives no access to the bytes.
unsafe impl Sync for Metadata {}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata").field("layout", &self.layout).finish_non_exhaustive()
    }
}
