//! The regions: a fixed number of slots, linked in address order.
//!
//! A region is added at any time while others allocate and free. Its slot is claimed, filled and started before one
//! compare-exchange links it in; from then on it is never changed or unlinked. Whoever follows the links with acquire
//! sees a finished region. The compare-exchange fails if the neighbourhood changed since it was checked for overlap,
//! so two overlapping regions cannot both be linked.
//!
//! Invariants: a linked slot's cell is `Some` and not written any more; links go to higher addresses; linked regions
//! are disjoint.

use core::{cell::UnsafeCell, mem::MaybeUninit};

use frame_core::{FrameRange, RegionError};

use crate::{
    geometry::{Frame, Frames},
    region::Region,
    sync::{AcqRel, Acquire, AtomicBool, AtomicUsize, Relaxed, Release, const_unless_loom},
};

/// Index of a slot, counted from 1; 0 is the end of the list.
type Link = usize;

#[derive(Debug)]
struct Slot<'m> {
    /// Somebody fills the slot, or filled it.
    claimed: AtomicBool,
    /// The slot is in the list.
    linked: AtomicBool,
    next: AtomicUsize,
    region: UnsafeCell<Option<Region<'m>>>,
}

// SAFETY: the cell is written only by the thread that claimed the slot, before the slot is linked; it is read only by
// that thread, or after the slot was found linked, with acquire, which orders the write before. `Region` is `Sync`,
// and `Send` as the writer and the one who drops it may be different threads.
unsafe impl Sync for Slot<'_> {}

/// The regions of a tree.
#[derive(Debug)]
pub(crate) struct Registry<'m, const N: usize> {
    slots: [Slot<'m>; N],
    first: AtomicUsize,
    /// Hint: the largest region, where a frame is looked for first.
    largest: AtomicUsize,
}

/// Which slot a region lies in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SlotIndex(pub(crate) usize);

impl Slot<'_> {
    const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self {
                claimed: AtomicBool::new(false),
                linked: AtomicBool::new(false),
                next: AtomicUsize::new(0),
                region: UnsafeCell::new(None),
            }
        }
    }
}

impl<'m, const N: usize> Registry<'m, N> {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        const { assert!(N > 0 && N < 256, "1 to 255 regions") };
        Self { slots: [const { Slot::new() }; N], first: AtomicUsize::new(0), largest: AtomicUsize::new(0) }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            slots: core::array::from_fn(|_| Slot::new()),
            first: AtomicUsize::new(0),
            largest: AtomicUsize::new(0),
        }
    }

    /// Adds a region, all of its frames free.
    ///
    /// # Safety
    /// As [`Region::new`].
    pub(crate) unsafe fn add(
        &self,
        range: FrameRange,
        metadata: &'m mut [MaybeUninit<u8>],
        zeroed: bool,
    ) -> Result<(), RegionError> {
        self.place(range)?;
        let slot = self.slots.iter().position(|slot| !slot.claimed.swap(true, AcqRel));
        let slot = slot.ok_or(RegionError::TooManyRegions { limit: N })?;
        let cell = self.slots[slot].region.get();
        // SAFETY: this thread claimed the slot, and it is not linked: nobody else reaches the cell. The promise about
        // the metadata is the caller's.
        unsafe { *cell = Some(Region::new(range, metadata, zeroed)) };
        match self.link(range, slot + 1) {
            Ok(()) => Ok(()),
            Err(error) => {
                // SAFETY: as above; the slot was not linked.
                unsafe { *cell = None };
                self.slots[slot].claimed.store(false, Release);
                Err(error)
            }
        }
    }

    fn link(&self, range: FrameRange, link: Link) -> Result<(), RegionError> {
        loop {
            let (before, after) = self.place(range)?;
            self.slots[link - 1].next.store(after, Relaxed);
            if before.compare_exchange(after, link, AcqRel, Relaxed).is_ok() {
                break;
            }
            // Somebody else linked a region here: look again.
        }
        self.slots[link - 1].linked.store(true, Release);
        let count = |link: Link| self.region(link).map_or(0, |region| region.frames().count());
        if count(link) > count(self.largest.load(Acquire)) {
            self.largest.store(link, Release);
        }
        Ok(())
    }

    /// Where a region would be linked in: the link to change, and what it is now.
    fn place(&self, range: FrameRange) -> Result<(&AtomicUsize, Link), RegionError> {
        let frames = Frames::of(range);
        let mut before = &self.first;
        loop {
            let link = before.load(Acquire);
            let Some(region) = self.region(link) else { return Ok((before, 0)) };
            let there = region.frames();
            if frames.hi <= there.lo {
                return Ok((before, link));
            }
            if frames.lo < there.hi {
                let managed = there.to_range().unwrap_or(range);
                return Err(RegionError::Overlap { region: range, managed });
            }
            before = &self.slots[link - 1].next;
        }
    }

    /// The region behind a link that was loaded with acquire.
    #[inline(always)]
    fn region(&self, link: Link) -> Option<&Region<'m>> {
        let slot = self.slots.get(link.wrapping_sub(1))?;
        // SAFETY: links are private to this module and go to linked slots only: the cell is not written any more, and
        // the acquire with which the link was loaded orders the write before this read.
        unsafe { (*slot.region.get()).as_ref() }
    }

    /// The region in a slot.
    #[inline(always)]
    pub(crate) fn get(&self, slot: SlotIndex) -> Option<&Region<'m>> {
        let slot = self.slots.get(slot.0)?;
        if !slot.linked.load(Acquire) {
            return None;
        }
        // SAFETY: the slot is linked: the cell is not written any more, and `linked` was loaded with acquire and
        // stored with release after the write.
        unsafe { (*slot.region.get()).as_ref() }
    }

    /// The regions, lowest address first.
    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SlotIndex, &Region<'m>)> {
        let mut next = &self.first;
        core::iter::from_fn(move || {
            let link = next.load(Acquire);
            let region = self.region(link)?;
            next = &self.slots[link - 1].next;
            Some((SlotIndex(link - 1), region))
        })
    }

    /// The regions, highest address first.
    #[inline]
    pub(crate) fn iter_down(&self) -> impl Iterator<Item = &Region<'m>> {
        let (mut slots, mut count) = ([0u8; N], 0);
        for (slot, _) in self.iter().take(N) {
            slots[count] = slot.0 as u8;
            count += 1;
        }
        (0..count).rev().filter_map(move |i| self.region(usize::from(slots[i]) + 1))
    }

    /// The region that holds `frame`.
    #[inline(always)]
    pub(crate) fn find(&self, frame: Frame) -> Option<&Region<'m>> {
        match self.region(self.largest.load(Acquire)) {
            Some(region) if region.frames().contains(frame) => Some(region),
            _ => self.iter().map(|(_, region)| region).find(|region| region.frames().contains(frame)),
        }
    }
}
