//! The caller's bytes, cut into what a region keeps in them.
//!
//! In order: the summary (80 bytes for each GiB), the chunks (16 MiB each), and a byte of state for each
//! chunk. Each part is aligned less than the one before, so nothing lies between them.

use core::{alloc::Layout, mem::MaybeUninit};

use frame_core::RegionError;

use crate::{chunk::Chunk, chunks::State, summary::Summary};

/// Bytes that may hold anything.
type Bytes = [MaybeUninit<u8>];

/// The parts of a region's metadata, not initialised.
pub(crate) struct Parts<'m> {
    pub(crate) summary: &'m mut [MaybeUninit<u64>],
    pub(crate) slots: &'m mut [MaybeUninit<Chunk>],
    pub(crate) states: &'m mut [MaybeUninit<State>],
}

/// Bytes for a region of so many chunks.
pub(crate) const fn size(chunks: usize) -> usize {
    // The address space has 2^40 chunks at most: no overflow.
    Summary::words(chunks) * size_of::<u64>() + chunks * (size_of::<Chunk>() + size_of::<State>())
}

/// Alignment of a region's metadata.
pub(crate) const ALIGN: usize = align_of::<u64>();

/// Size and alignment of the metadata of a region of so many chunks.
pub(crate) const fn layout(chunks: usize) -> Layout {
    match Layout::from_size_align(size(chunks), ALIGN) {
        Ok(layout) => layout,
        // A power of two, and a size of less than 2^50: no error.
        Err(_) => unreachable!(),
    }
}

/// Cuts the metadata of a region of so many chunks.
///
/// # Errors
/// It is too small or misaligned.
pub(crate) fn cut(bytes: &mut Bytes, chunks: usize) -> Result<Parts<'_>, RegionError> {
    let (needed, given) = (size(chunks), bytes.len());
    if given < needed {
        return Err(RegionError::MetadataTooSmall { needed, given });
    }
    let misaligned = RegionError::MetadataMisaligned { align: ALIGN };
    let (summary, rest) = split_off(bytes, Summary::words(chunks)).ok_or(misaligned)?;
    let (slots, rest) = split_off(rest, chunks).ok_or(misaligned)?;
    let (states, _) = split_off(rest, chunks).ok_or(misaligned)?;
    Ok(Parts { summary, slots, states })
}

/// The first bytes as `len` slots for a `T`, and the bytes behind them. `None` when they are too few or
/// misaligned.
fn split_off<T>(bytes: &mut Bytes, len: usize) -> Option<(&mut [MaybeUninit<T>], &mut Bytes)> {
    let (slots, rest) = bytes.split_at_mut_checked(len.checked_mul(size_of::<T>())?)?;
    let slots: *mut MaybeUninit<T> = slots.as_mut_ptr().cast();
    if !slots.is_aligned() {
        return None;
    }
    // SAFETY: the bytes are `len` times the size of a `T`, aligned for it (checked above), and borrowed
    // mutably for as long as the slots; a `MaybeUninit` may hold any bytes, and so may the bytes that it came
    // from.
    Some((unsafe { core::slice::from_raw_parts_mut(slots, len) }, rest))
}

/// Fills every slot.
pub(crate) fn fill<T>(slots: &mut [MaybeUninit<T>], mut make: impl FnMut() -> T) -> &mut [T] {
    for slot in &mut *slots {
        slot.write(make());
    }
    let len = slots.len();
    // SAFETY: the same memory for as long; every slot was written by the loop, and a `MaybeUninit<T>` has the
    // size and the alignment of a `T`.
    unsafe { core::slice::from_raw_parts_mut(slots.as_mut_ptr().cast(), len) }
}

// What the order of the parts relies on.
const _: () = {
    assert!(ALIGN % align_of::<Chunk>() == 0 && size_of::<u64>() % align_of::<Chunk>() == 0);
    assert!(align_of::<State>() == 1 && size_of::<State>() == 1);
};
