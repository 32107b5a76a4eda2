//! Random work on odd regions, compared after every operation with a `bool` for each frame.

use std::mem::MaybeUninit;

use frame_bitmap::Bitmap;
use frame_core::{
    AllocError, DeallocError, DeallocErrorKind, FRAME_SIZE, FrameAllocator, FrameLayout, FrameRange, PhysAddr,
};

fn range(start: usize, count: usize) -> FrameRange {
    FrameRange::new(PhysAddr::from(start * FRAME_SIZE), count).unwrap()
}

/// One slot for each frame number: `None` is not managed, `Some(true)` is free.
struct Model(Vec<Option<bool>>);

impl Model {
    fn add(&mut self, start: usize, count: usize) {
        self.0.resize(self.0.len().max(start + count), None);
        self.0[start..start + count].fill(Some(true));
    }

    fn is_free(&self, start: usize, count: usize) -> bool {
        (start..start + count).all(|frame| self.0.get(frame) == Some(&Some(true)))
    }

    /// The lowest run that fits, by trying every frame.
    fn lowest(&self, count: usize, align: usize, low: usize, high: usize) -> Option<usize> {
        (low..high.min(self.0.len())).find(|&s| s % align == 0 && s + count <= high && self.is_free(s, count))
    }

    fn set(&mut self, start: usize, count: usize, free: bool) {
        assert!(self.0[start..start + count].iter().all(|&was| was == Some(!free)), "frames {start}+{count}");
        self.0[start..start + count].fill(Some(free));
    }

    /// What a free must answer.
    fn freed(&self, start: usize, count: usize) -> Result<(), DeallocError> {
        for frame in start..start + count {
            let kind = match self.0.get(frame).copied().flatten() {
                None => DeallocErrorKind::NotManaged,
                Some(true) => DeallocErrorKind::NotAllocated,
                Some(false) => continue,
            };
            return Err(DeallocError::new(PhysAddr::from(frame * FRAME_SIZE), kind));
        }
        Ok(())
    }

    fn check(&self, allocator: &dyn FrameAllocator) {
        let stats = allocator.stats();
        assert_eq!(stats.total_frames, self.0.iter().flatten().count());
        assert_eq!(stats.free_frames, self.0.iter().filter(|&&f| f == Some(true)).count());
        let mut free = vec![false; self.0.len()];
        let mut last = PhysAddr::from(0);
        allocator.visit_free(&mut |run| {
            assert!(run.start() >= last, "runs are sorted and disjoint");
            last = run.end();
            let start = run.start().as_usize() / FRAME_SIZE;
            free[start..start + run.count()].fill(true);
        });
        assert!(free.iter().zip(&self.0).all(|(&free, &slot)| free == (slot == Some(true))));
    }
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }
}

/// Regions with ragged ends, single frames, seams (inside a row, inside a block, inside a chunk), over the
/// edges of chunks, and one that is a whole chunk.
const REGIONS: [(usize, usize); 11] = [
    (1, 62),
    (63, 3),
    (66, 130),
    (300, 1),
    (511, 2),
    (3400, 800),
    (4200, 600),
    (6000, 1),
    (8192, 4096),
    (12_288, 512),
    (12_800, 3),
];

fn add(allocator: &Bitmap<'_>, start: usize, count: usize) {
    let layout = <Bitmap>::metadata_layout(range(start, count));
    // What lies in the metadata must not matter.
    let metadata = vec![MaybeUninit::new(0x5a_u8); layout.size()].leak();
    // SAFETY: the frames are numbers; nothing touches memory there.
    unsafe { allocator.add_region(range(start, count), metadata) }.unwrap();
}

fn random_work(seed: u64, steps: usize, late_regions: usize) {
    let allocator = Bitmap::new();
    let mut model = Model(Vec::new());
    let mut rng = Rng(seed | 1);
    let mut order = REGIONS;
    for last in (1..order.len()).rev() {
        order.swap(last, rng.below(last + 1));
    }
    let mut waiting = order.to_vec();
    while waiting.len() > late_regions {
        let (start, count) = waiting.pop().unwrap();
        add(&allocator, start, count);
        model.add(start, count);
    }
    let mut owned: Vec<(usize, usize)> = Vec::new();
    for step in 0..steps {
        // Half of the time fill, half of the time empty: the whole span of occupation is seen.
        let filling = step / 100 % 2 == 0;
        match rng.below(20) {
            0 if step > steps / 4 => {
                if let Some((start, count)) = waiting.pop() {
                    add(&allocator, start, count);
                    model.add(start, count);
                }
            }
            0..=2 => {
                let (start, count) = (rng.below(13_000), 1 + rng.below(if filling { 90 } else { 6 }));
                if start == 0 {
                    continue;
                }
                let managed = (start..start + count).all(|f| model.0.get(f).copied().flatten().is_some());
                let expected = match (managed, model.is_free(start, count)) {
                    (false, _) => Err(AllocError::NotManaged),
                    (true, false) => Err(AllocError::InUse),
                    (true, true) => Ok(()),
                };
                assert_eq!(allocator.alloc_at(range(start, count)), expected, "{start}+{count}");
                if expected.is_ok() {
                    model.set(start, count, false);
                    owned.push((start, count));
                }
            }
            3 => {
                let mut frames = vec![PhysAddr::from(0); 1 + rng.below(50)];
                let free = model.0.iter().filter(|&&f| f == Some(true)).count();
                let done = allocator.alloc_bulk(&mut frames);
                assert_eq!(done, frames.len().min(free));
                for frame in &frames[..done] {
                    assert_eq!(model.lowest(1, 1, 1, usize::MAX), Some(frame.as_usize() / FRAME_SIZE));
                    model.set(frame.as_usize() / FRAME_SIZE, 1, false);
                    owned.push((frame.as_usize() / FRAME_SIZE, 1));
                }
            }
            4 => {
                // A bulk free with bad frames among the good ones: the good ones are freed, the first bad one
                // named.
                let mut frames = Vec::new();
                let mut expected = Ok(());
                for _ in 0..rng.below(20) {
                    let frame = rng.below(13_000);
                    let freed = model.freed(frame, 1);
                    frames.push(PhysAddr::from(frame * FRAME_SIZE));
                    expected = expected.and(freed);
                    if freed.is_ok() {
                        model.set(frame, 1, true);
                        let (start, count) = owned.swap_remove(
                            owned.iter().position(|&(s, c)| (s..s + c).contains(&frame)).unwrap(),
                        );
                        owned.extend([(start, frame - start), (frame + 1, start + count - frame - 1)]);
                        owned.retain(|&(_, count)| count > 0);
                    }
                }
                // SAFETY: good frames are owned; bad ones must be refused; nothing is behind either.
                assert_eq!(unsafe { allocator.dealloc_bulk(&frames) }, expected);
            }
            5 => {
                // A free of anything anywhere, mostly wrong.
                let (start, count) = (rng.below(13_000), 1 + rng.below(9));
                let expected = model.freed(start, count);
                if expected.is_err() {
                    let layout = FrameLayout::contiguous(count).unwrap();
                    // SAFETY: must be refused; nothing is behind the frames.
                    let freed = unsafe { allocator.dealloc(PhysAddr::from(start * FRAME_SIZE), layout) };
                    assert_eq!(freed, expected, "{start}+{count}");
                }
            }
            6..=12 if filling => {
                let count = match rng.below(4) {
                    0 => 1,
                    1 => 1 << rng.below(13),
                    2 => 1 + rng.below(40),
                    _ => 1 + rng.below(if step % 5 == 0 { 5000 } else { 700 }),
                };
                let align = if rng.below(2) == 0 { 1 } else { 1 << rng.below(14) };
                let layout = FrameLayout::new(count, align * FRAME_SIZE).unwrap();
                let windowed = rng.below(3) == 0;
                let (got, low, high) = if windowed {
                    let low = rng.below(12_000);
                    let high = low + 1 + rng.below(4000);
                    (allocator.alloc_in(layout, range(low, high - low)), low, high)
                } else {
                    (allocator.alloc(layout), 0, usize::MAX / FRAME_SIZE)
                };
                let lowest = model.lowest(count, align, low, high);
                match got {
                    Ok(start) => {
                        let start = start.as_usize() / FRAME_SIZE;
                        assert!(start % align == 0 && low <= start && start + count <= high);
                        // In a window the lowest run. Else the lowest aligned power of two of one region that
                        // holds the run, if there is one, and then the lowest run.
                        let block = count.next_power_of_two().max(align);
                        let whole = (0..13_000).step_by(block).find(|&s| {
                            model.is_free(s, block)
                                && REGIONS.iter().any(|&(first, n)| first <= s && s + block <= first + n)
                        });
                        let expected = if windowed || block > 512 { lowest } else { whole.or(lowest) };
                        assert_eq!(Some(start), expected, "{count} at {align}");
                        model.set(start, count, false);
                        owned.push((start, count));
                    }
                    Err(error) => {
                        assert_eq!(error, AllocError::NoMemory);
                        assert_eq!(lowest, None, "NoMemory for {count} at {align} though a run is free");
                    }
                }
            }
            _ if owned.is_empty() => {}
            _ => {
                // A free of a whole allocation, or of any part of one.
                let (start, count) = owned.swap_remove(rng.below(owned.len()));
                let from = if rng.below(2) == 0 { 0 } else { rng.below(count) };
                let len = if rng.below(2) == 0 { count - from } else { 1 + rng.below(count - from) };
                owned.extend([(start, from), (start + from + len, count - from - len)]);
                owned.retain(|&(_, count)| count > 0);
                let layout = FrameLayout::contiguous(len).unwrap();
                // SAFETY: the frames are owned and nothing is behind them.
                unsafe { allocator.dealloc(PhysAddr::from((start + from) * FRAME_SIZE), layout) }.unwrap();
                model.set(start + from, len, true);
            }
        }
        model.check(&allocator);
    }
    // Everything back, joined over the seams of allocations: the largest run is there again.
    for (start, _) in owned.iter().flat_map(|&(start, count)| (start..start + count).map(|f| (f, 1))) {
        // SAFETY: the frame is owned and nothing is behind it.
        unsafe { allocator.dealloc_frame(PhysAddr::from(start * FRAME_SIZE)) }.unwrap();
        model.set(start, 1, true);
    }
    model.check(&allocator);
    if waiting.is_empty() {
        let whole = FrameLayout::contiguous(4611).unwrap();
        assert_eq!(allocator.alloc(whole), Ok(PhysAddr::from(8192 * FRAME_SIZE)), "over the seams");
    }
}

#[test]
fn random_work_agrees_with_the_model() {
    for seed in 1..=5 {
        random_work(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed), 1500, 0);
    }
}

#[test]
fn random_work_with_regions_that_come_later() {
    for seed in 1..=4 {
        random_work(0xd134_2543_de82_ef95u64.wrapping_mul(seed), 1500, 6);
    }
}
