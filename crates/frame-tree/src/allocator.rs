//! The tree as a [`FrameAllocator`].

use frame_core::{
    AllocError, CacheWatermark, DeallocError, DeallocErrorKind, FRAME_SIZE, FrameAllocator, FrameLayout,
    FrameRange, FrameStats, HeapFree, PhysAddr,
};

use crate::{
    Tree,
    geometry::{Frame, Frames, ROW_FRAMES, mask},
    hints::Raise,
    single::Sink,
    sync::Relaxed,
    tree::not_allocated,
};

fn is_aligned(addr: PhysAddr) -> bool {
    addr.as_usize() % FRAME_SIZE == 0
}

// SAFETY:
// - Exclusive: a frame's ownership moves by one atomic operation on one word (see `block`), so no two callers get it.
// - Real: only frames of the regions are handed out (see `region`), and a region with frame 0 is refused.
// - As asked: runs lie inside one word or are claimed exactly as they were computed; starts are multiples of the
//   alignment in absolute frame numbers.
// - Untouched: the tree never writes to a frame.
// - A refusal changes nothing: frees are checked before the first change; a claim that fails is given back.
unsafe impl<const REGIONS: usize> FrameAllocator for Tree<'_, REGIONS> {
    fn alloc(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        if layout.is_single() {
            return self.alloc_frame();
        }
        self.take(layout, Frames::ALL)
    }

    unsafe fn dealloc(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
        if start.as_usize() % layout.align() != 0 {
            return Err(DeallocError::new(start, DeallocErrorKind::Misaligned));
        }
        let frames = Frames::new(Frame::of(start), layout.count());
        if let Some(region) = self.regions.find(frames.lo).filter(|region| frames.hi <= region.frames().hi) {
            let row = frames.lo.row();
            if Frame(frames.hi.0 - 1).row() == row {
                // One word says all: it is checked and changed by one operation.
                let mask = mask(frames.lo.0 % ROW_FRAMES, frames.count());
                let freed = region.block(row.block()).give_row(row.in_block(), mask);
                return freed.map_err(|free| not_allocated(row.frame(free.trailing_zeros())));
            }
            let freed = match region.lowest_free(frames) {
                Some(free) => Err(free),
                None => region.give(frames),
            };
            return freed.map_err(not_allocated);
        }
        self.check_owned(frames)?;
        self.regions.give(frames).map_err(not_allocated)
    }

    fn stats(&self) -> FrameStats {
        let mut stats = FrameStats::default();
        for (_, region) in self.regions.iter() {
            stats.total_frames += region.frames().count();
            stats.metadata_bytes += region.metadata_bytes();
        }
        self.regions.walk_runs(Frames::ALL, &mut |run| stats.free_frames += run.count());
        stats.total_frames -= self.offline.load(Relaxed).min(stats.total_frames);
        stats.free_frames = stats.free_frames.min(stats.total_frames);
        stats
    }

    fn visit_free(&self, visit: &mut dyn FnMut(FrameRange)) {
        self.regions.walk_runs(Frames::ALL, &mut |run| {
            if let Some(range) = run.to_range() {
                visit(range);
            }
        });
    }

    #[inline]
    fn alloc_frame(&self) -> Result<PhysAddr, AllocError> {
        if let Some(frame) = self.regions.take_at_cursor(self.shards.mine()) {
            return Ok(frame.addr());
        }
        self.alloc_elsewhere()
    }

    #[inline]
    unsafe fn dealloc_frame(&self, frame: PhysAddr) -> Result<(), DeallocError> {
        if !is_aligned(frame) {
            return Err(DeallocError::new(frame, DeallocErrorKind::Misaligned));
        }
        let number = Frame::of(frame);
        let Some(block) = self.regions.find(number).and_then(|region| region.block_of(number)) else {
            return Err(DeallocError::new(frame, DeallocErrorKind::NotManaged));
        };
        block
            .give_one(number.row().in_block(), number.in_row(), Raise::Exactly)
            .map_err(|()| not_allocated(number))
    }

    fn alloc_bulk(&self, frames: &mut [PhysAddr]) -> usize {
        let mut sink = Sink::new(frames);
        self.fill(self.shards.mine(), &mut sink);
        sink.len()
    }

    fn alloc_bulk_for(&self, cpu: usize, frames: &mut [PhysAddr]) -> usize {
        let mut sink = Sink::new(frames);
        self.fill(self.shards.of_cpu(cpu), &mut sink);
        sink.len()
    }

    unsafe fn dealloc_bulk(&self, frames: &[PhysAddr]) -> Result<(), DeallocError> {
        let freed = self.regions.give_many(frames);
        self.tick(self.shards.mine());
        freed
    }

    fn alloc_at(&self, range: FrameRange) -> Result<(), AllocError> {
        self.regions.take_exactly(Frames::of(range)).map_err(|(error, _)| error)
    }

    fn alloc_in(&self, layout: FrameLayout, window: FrameRange) -> Result<PhysAddr, AllocError> {
        self.take(layout, Frames::of(window))
    }

    fn cache_watermark(&self) -> CacheWatermark {
        // Whoever polls has a cache that may need no bulk calls: then nobody else counts.
        self.tick(self.shards.mine());
        self.watermark.kept()
    }
}

// SAFETY: nothing here calls the heap: the metadata is the caller's.
unsafe impl<const REGIONS: usize> HeapFree for Tree<'_, REGIONS> {}

impl<const REGIONS: usize> Tree<'_, REGIONS> {
    /// Allocates one frame from another row than the shard is at.
    #[cold]
    #[inline(never)]
    fn alloc_elsewhere(&self) -> Result<PhysAddr, AllocError> {
        let mut frame = [PhysAddr::from_usize(0)];
        let mut sink = Sink::new(&mut frame);
        self.fill(self.shards.mine(), &mut sink);
        if sink.len() == 1 { Ok(frame[0]) } else { Err(AllocError::NoMemory) }
    }
}
