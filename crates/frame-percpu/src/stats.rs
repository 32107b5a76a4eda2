//! Counters of one CPU's slot.

/// What one CPU's slot has done. Its CPU counts with plain loads and stores and anyone may read meanwhile, so the
/// figures of a CPU that is at work may be apart by an operation. They wrap around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Frames in the slot now, those waiting to be handed back included.
    pub cached_frames: usize,
    /// Allocations that were served from the slot, of a frame or a run.
    pub hits: usize,
    /// Allocations of a single frame that found the slot empty and went to the backend for a refill.
    pub misses: usize,
    /// Refills that brought at least one frame.
    pub refills: usize,
    /// Frames that refills brought.
    pub refilled_frames: usize,
    /// Batches handed to the backend.
    pub spills: usize,
    /// Frames in these batches.
    pub spilled_frames: usize,
    /// Operations that found the slot busy, because they interrupted another one, and went straight to the backend.
    pub bypasses: usize,
    /// Batches in which the backend refused a frame: somebody freed a frame twice, or one that was never managed.
    pub refusals: usize,
}
