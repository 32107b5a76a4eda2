//! The memory that contenders manage: reserved, never touched by the work, so that a gigabyte costs nothing.

use std::{io, ops::Range, ptr};

/// Address space that stands for physical memory, aligned to 1 GiB, lent for the life of the process.
///
/// Peers that keep their books inside the memory they manage write to it; pages come into being as they do.
///
/// # Errors
/// The operating system has no address space left.
pub fn arena(bytes: usize) -> io::Result<Range<usize>> {
    const GIB: usize = 1 << 30;
    // SAFETY: a new private mapping at an address that the kernel chooses touches no memory of this process.
    let base = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes + GIB,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let start = base.expose_provenance().next_multiple_of(GIB);
    Ok(start..start + bytes)
}

/// Lets go of what was written into an [`arena`]: it reads as zeroes again, and its pages cost nothing.
///
/// # Safety
/// Whoever managed the arena, or kept books in it, is not used any more.
pub(crate) unsafe fn forget(arena: Range<usize>) {
    let start = ptr::with_exposed_provenance_mut(arena.start);
    // SAFETY: an arena is a private mapping of its own, and the caller promises that nothing looks into it.
    let result = unsafe { libc::madvise(start, arena.len(), libc::MADV_DONTNEED) };
    debug_assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Bytes of zeroes, aligned to a page, lent for the life of the process: a backend's metadata.
///
/// # Panics
/// There is no memory.
pub fn zeroed(layout: std::alloc::Layout) -> &'static mut [std::mem::MaybeUninit<u8>] {
    // SAFETY: every layout asked for here has a size.
    let start = unsafe { std::alloc::alloc_zeroed(layout) };
    assert!(!start.is_null(), "no memory for {layout:?}");
    // SAFETY: just allocated with this size, and never freed.
    unsafe { std::slice::from_raw_parts_mut(start.cast(), layout.size()) }
}
