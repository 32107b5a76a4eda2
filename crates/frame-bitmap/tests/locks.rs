//! Many threads, and locks of the embedder's own.

use std::{
    mem::MaybeUninit,
    sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    thread,
};

use frame_bitmap::Bitmap;
use frame_core::{AllocError, FRAME_SIZE, FrameAllocator, FrameLayout, FrameRange, PhysAddr};

const FRAMES: usize = 6000;
const FIRST: usize = 3777;

/// A lock that counts: what an embedder might write who masks interrupts.
struct Counting(AtomicBool);

static LOCKED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the flag is taken by an exchange from false to true, so by one thread at a time; acquire and
// release order what the lock guards.
unsafe impl lock_api::RawMutex for Counting {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = lock_api::GuardSend;

    fn lock(&self) {
        while !self.try_lock() {
            thread::yield_now();
        }
    }

    fn try_lock(&self) -> bool {
        let taken = self.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        LOCKED.fetch_add(usize::from(taken), Ordering::Relaxed);
        taken
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}

fn metadata(region: FrameRange) -> &'static mut [MaybeUninit<u8>] {
    vec![MaybeUninit::uninit(); <Bitmap>::metadata_layout(region).size()].leak()
}

#[test]
fn the_lock_is_the_embedders_choice_and_bulk_calls_take_it_once() {
    static BITMAP: Bitmap<'static, Counting, 1> = Bitmap::new();
    let region = FrameRange::new(PhysAddr::from(0x1000), 200).unwrap();
    // SAFETY: the frames are numbers; nothing touches memory there.
    unsafe { BITMAP.add_region(region, metadata(region)) }.unwrap();
    let before = LOCKED.load(Ordering::Relaxed);
    let mut frames = [PhysAddr::from(0); 150];
    assert_eq!(BITMAP.alloc_bulk(&mut frames), 150);
    // SAFETY: the frames are owned and nothing is behind them.
    unsafe { BITMAP.dealloc_bulk(&frames) }.unwrap();
    assert_eq!(LOCKED.load(Ordering::Relaxed) - before, 2);
}

#[test]
fn threads_never_own_the_same_frame() {
    static BITMAP: Bitmap = Bitmap::new();
    static OWNER: [AtomicU8; FRAMES] = [const { AtomicU8::new(0) }; FRAMES];
    let region = FrameRange::new(PhysAddr::from(FIRST * FRAME_SIZE), FRAMES).unwrap();
    // SAFETY: the frames are numbers; nothing touches memory there.
    unsafe { BITMAP.add_region(region, metadata(region)) }.unwrap();
    let slots = |start: PhysAddr, count| &OWNER[start.as_usize() / FRAME_SIZE - FIRST..][..count];

    let work = |me: u8| {
        let mut owned: Vec<(PhysAddr, usize)> = Vec::new();
        let mut seed = u64::from(me) * 0x9e37_79b9;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let dice = (seed >> 33) as usize;
            if dice % 16 == 0 {
                let mut frames = [PhysAddr::from(0); 20];
                let got = BITMAP.alloc_bulk(&mut frames);
                owned.extend(frames[..got].iter().map(|&frame| (frame, 1)));
                for &frame in &frames[..got] {
                    assert_eq!(slots(frame, 1)[0].swap(me, Ordering::Relaxed), 0, "{frame:#x} twice");
                }
            } else if dice % 2 == 0 || owned.is_empty() {
                let count = 1 + dice / 16 % 9;
                match BITMAP.alloc(FrameLayout::contiguous(count).unwrap()) {
                    Ok(start) => {
                        for slot in slots(start, count) {
                            assert_eq!(slot.swap(me, Ordering::Relaxed), 0, "{start:#x}+{count} twice");
                        }
                        owned.push((start, count));
                    }
                    Err(error) => assert_eq!(error, AllocError::NoMemory),
                }
            } else {
                for _ in 0..3 {
                    if owned.is_empty() {
                        break;
                    }
                    let (start, count) = owned.swap_remove(dice % owned.len());
                    for slot in slots(start, count) {
                        assert_eq!(slot.swap(0, Ordering::Relaxed), me);
                    }
                    // SAFETY: this thread owns the run and nothing is behind it.
                    unsafe { BITMAP.dealloc(start, FrameLayout::contiguous(count).unwrap()) }.unwrap();
                }
            }
        }
        for (start, count) in owned {
            for slot in slots(start, count) {
                assert_eq!(slot.swap(0, Ordering::Relaxed), me);
            }
            // SAFETY: this thread owns the run and nothing is behind it.
            unsafe { BITMAP.dealloc(start, FrameLayout::contiguous(count).unwrap()) }.unwrap();
        }
    };
    thread::scope(|scope| {
        for me in 1..=4 {
            scope.spawn(move || work(me));
        }
    });
    assert_eq!(BITMAP.stats().free_frames, FRAMES);
    assert_eq!(BITMAP.alloc(FrameLayout::contiguous(FRAMES).unwrap()), Ok(region.start()));
}
