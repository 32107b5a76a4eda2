//! `PhysFrames` and `FrameBox`: whatever is cut, joined and given back, every frame is freed once.

use std::sync::atomic::{AtomicUsize, Ordering};

use frame_core::{
    AllocError, AxError, FRAME_SIZE, FrameBox, FrameHal, FrameLayout, FrameRange, PhysAddr, PhysFrame,
    PhysFrames, VirtAddr,
};
use frame_testkit::{Rng, TestHal, test_hal};

test_hal! { struct Hal }

const START: usize = 0x100_0000;

type Run = PhysFrames<Hal>;

fn layout(count: usize) -> FrameLayout {
    FrameLayout::contiguous(count).unwrap()
}

fn range(start: usize, count: usize) -> FrameRange {
    FrameRange::new(PhysAddr::from(START + start * FRAME_SIZE), count).unwrap()
}

#[test]
fn a_run_is_as_long_and_as_aligned_as_asked() {
    Hal::scope(2048, || {
        let one = PhysFrame::<Hal>::alloc().unwrap();
        let run = Run::alloc(FrameLayout::new(5, 16 * FRAME_SIZE).unwrap()).unwrap();
        assert_eq!(run.range(), range(16, 5));
        assert_eq!((run.count(), run.size(), run.start_paddr()), (5, 5 * FRAME_SIZE, range(16, 1).start()));
        assert_eq!(Hal::owned(), 6);
        let huge = Run::alloc(FrameLayout::HUGE_2M).unwrap();
        assert_eq!((huge.start_paddr().as_usize() % (2 << 20), huge.count()), (0, 512));
        assert_eq!(Run::try_alloc(layout(2048)).unwrap_err(), AllocError::NoMemory);
        assert_eq!(Run::alloc(layout(2048)).unwrap_err(), AxError::NoMemory);
        drop(one);
    });
}

#[test]
fn contents_are_adjacent_and_survive_a_split() {
    Hal::scope(8, || {
        let mut run = Run::alloc_zero(layout(4)).unwrap();
        assert!(run.as_bytes().iter().all(|&byte| byte == 0));
        for (i, frame) in run.as_bytes_mut().chunks_mut(FRAME_SIZE).enumerate() {
            frame.fill(i as u8 + 1);
        }
        let (mut head, tail) = run.split_at(1).unwrap();
        assert_eq!(head.as_bytes(), [1; FRAME_SIZE]);
        assert_eq!((tail.as_bytes()[0], tail.as_bytes()[3 * FRAME_SIZE - 1]), (2, 4));
        head.fill(9);
        let run = head.merge(tail).unwrap();
        assert_eq!((run.as_bytes()[FRAME_SIZE - 1], run.as_bytes()[FRAME_SIZE]), (9, 2));
    });
}

#[test]
fn split_refuses_empty_parts_and_keeps_the_run() {
    Hal::scope(8, || {
        let mut run = Run::alloc(layout(3)).unwrap();
        for bad in [0, 3, 4, usize::MAX] {
            run = run.split_at(bad).unwrap_err();
            assert_eq!((run.range(), Hal::owned()), (range(0, 3), 3));
        }
        let (head, tail) = run.split_at(2).unwrap();
        assert_eq!((head.range(), tail.range()), (range(0, 2), range(2, 1)));
        drop(head);
        assert_eq!(Hal::owned(), 1);
        let tail = tail.split_at(1).unwrap_err();
        assert_eq!(tail.count(), 1);
    });
}

#[test]
fn merge_joins_neighbours_only_and_in_order() {
    Hal::scope(8, || {
        let [a, b, c] = [(); 3].map(|()| Run::alloc(layout(1)).unwrap());
        let error = a.merge(c).unwrap_err();
        assert_eq!((error.first.range(), error.second.range()), (range(0, 1), range(2, 1)));
        assert!(error.to_string().contains("does not end where"), "{error}");
        assert_eq!(Hal::owned(), 3);
        let error = b.merge(error.first).unwrap_err(); // the other way round
        let (a, b) = (error.second, error.first);
        let ab = a.merge(b).unwrap();
        assert_eq!((ab.range(), Hal::owned()), (range(0, 2), 3), "c lies in the first error");
    });
}

/// Frames that adjoin in physical memory, each mapped in a place of its own: what no HAL may do.
#[test]
fn a_hal_that_maps_neighbours_apart_is_found_out_by_a_merge() {
    struct Apart;
    // SAFETY: wrong, which is what is tested: frame n lies at page 2n. Nothing is read or written.
    unsafe impl FrameHal for Apart {
        fn alloc_frame() -> Option<PhysAddr> {
            static NEXT: AtomicUsize = AtomicUsize::new(1);
            Some(PhysAddr::from(NEXT.fetch_add(1, Ordering::Relaxed) * FRAME_SIZE))
        }
        unsafe fn dealloc_frame(_: PhysAddr) {}
        fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
            VirtAddr::from(2 * paddr.as_usize())
        }
    }
    let [a, b] = [(); 2].map(|()| PhysFrames::from(PhysFrame::<Apart>::alloc().unwrap()));
    let error = a.merge(b).unwrap_err();
    assert_eq!((error.first.count(), error.second.count()), (1, 1));
    assert!(error.to_string().contains("phys_to_virt"), "{error}");
}

#[test]
fn a_part_is_freed_and_the_rest_kept() {
    Hal::scope(16, || {
        let run = || Run::alloc(layout(10)).unwrap();
        let cases = [
            (0..1, None, Some(range(1, 9))),
            (0..10, None, None),
            (9..10, Some(range(0, 9)), None),
            (3..7, Some(range(0, 3)), Some(range(7, 3))),
        ];
        for (part, head, tail) in cases {
            let freed = part.len();
            let kept = run().free_part(part).unwrap();
            assert_eq!(Hal::owned(), 10 - freed);
            assert_eq!((kept.0.as_ref().map(Run::range), kept.1.as_ref().map(Run::range)), (head, tail));
        }
        #[allow(clippy::reversed_empty_ranges)]
        for bad in [0..0, 4..4, 7..3, 0..11, 10..11, 5..usize::MAX] {
            let whole = run().free_part(bad).unwrap_err();
            assert_eq!((whole.count(), Hal::owned()), (10, 10));
        }
    });
}

#[test]
fn an_iterator_gives_each_frame_and_frees_those_not_taken() {
    Hal::scope(8, || {
        let mut frames = Run::alloc(layout(5)).unwrap().into_iter();
        assert_eq!(frames.len(), 5);
        let first = frames.next().unwrap();
        let second = frames.next().unwrap();
        assert_eq!((first.start_paddr(), second.start_paddr()), (range(0, 1).start(), range(1, 1).start()));
        assert_eq!((frames.len(), Hal::owned()), (3, 5));
        drop(frames);
        assert_eq!(Hal::owned(), 2);
        drop((first, second));
        let frames: Vec<PhysFrame<Hal>> = Run::alloc(layout(8)).unwrap().into_iter().collect();
        assert_eq!((frames.len(), Hal::owned()), (8, 8));
        let mut frames = Run::alloc(layout(1)).err().map_or(frames, |_| Vec::new()).into_iter();
        assert!(frames.next().is_none());
    });
}

#[test]
fn frames_turn_into_runs_and_back() {
    Hal::scope(8, || {
        let run: Run = PhysFrame::<Hal>::alloc().unwrap().into();
        assert_eq!((run.range(), Hal::owned()), (range(0, 1), 1));
        let raw = run.into_raw();
        assert_eq!(Hal::owned(), 1);
        // SAFETY: from `into_raw`.
        let run = unsafe { Run::from_raw(raw) };
        let frame = run.into_iter().next().unwrap();
        assert_eq!((frame.start_paddr(), Hal::owned()), (raw.start(), 1));
    });
}

/// Runs are allocated, cut, joined, freed in part and turned into frames at random; a list of owned frames says what
/// must be owned.
#[test]
fn random_cuts_and_joins_neither_lose_nor_double_a_frame() {
    for seed in 0..20 {
        let mut rng = Rng::new(Rng::seed_or(1000) + seed);
        Hal::scope(400, || {
            let mut runs: Vec<Run> = Vec::new();
            for _ in 0..400 {
                match rng.below(7) {
                    0 | 1 => runs.extend(Run::alloc(layout(rng.between(1, 40))).ok()),
                    2 => {
                        if let Some(run) = rng.take(&mut runs) {
                            match run.split_at(rng.below(50)) {
                                Ok((head, tail)) => runs.extend([head, tail]),
                                Err(whole) => runs.push(whole),
                            }
                        }
                    }
                    3 => {
                        runs.sort_by_key(Run::start_paddr);
                        if runs.len() > 1 {
                            let at = rng.below(runs.len() - 1);
                            let (first, second) = (runs.remove(at), runs.remove(at));
                            let adjoin = first.range().end() == second.start_paddr();
                            match first.merge(second) {
                                Ok(both) => {
                                    assert!(adjoin, "seed {seed}");
                                    runs.push(both);
                                }
                                Err(error) => {
                                    assert!(!adjoin, "seed {seed}");
                                    runs.extend([error.first, error.second]);
                                }
                            }
                        }
                    }
                    4 => {
                        if let Some(run) = rng.take(&mut runs) {
                            let from = rng.below(run.count());
                            let to = rng.between(from + 1, run.count());
                            let (head, tail) = run.free_part(from..to).unwrap();
                            runs.extend(head.into_iter().chain(tail));
                        }
                    }
                    5 => {
                        if let Some(run) = rng.take(&mut runs) {
                            let taken = rng.below(4);
                            runs.extend(run.into_iter().take(taken).map(Run::from));
                        }
                    }
                    _ => drop(rng.take(&mut runs)),
                }
                let owned: usize = runs.iter().map(Run::count).sum();
                assert_eq!(Hal::owned(), owned, "seed {seed}");
                // Each owned frame can be written to: the HAL panics if it is not owned.
                for run in &mut runs {
                    run.fill(1);
                }
            }
        });
    }
}

#[test]
fn a_box_is_a_value_in_a_frame() {
    Hal::scope(2, || {
        let mut table = FrameBox::<[u64; 512], Hal>::new_zeroed().unwrap();
        assert!(table.iter().all(|&entry| entry == 0));
        table[511] = 0x1122_3344_5566_7788;
        assert_eq!(
            (table[511], table.start_paddr().as_usize(), Hal::owned()),
            (0x1122_3344_5566_7788, START, 1)
        );
        // SAFETY: the box is owned, and no reference into it lives.
        assert_eq!(unsafe { (*table.as_mut_ptr())[511] }, 0x1122_3344_5566_7788);
        assert!(format!("{table:?}").starts_with("FrameBox { frame: PhysFrame(0x1000000), value: [0, 0"));
        let frame = table.into_frame();
        assert_eq!(frame.as_bytes()[4088..], [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
        let table = FrameBox::<[u16; 3], Hal>::from_frame(frame);
        assert_eq!((*table, Hal::owned()), ([0; 3], 1));
        let other = FrameBox::<u8, Hal>::new_zeroed().unwrap();
        assert_eq!(FrameBox::<u8, Hal>::new_zeroed().unwrap_err(), AxError::NoMemory);
        drop(other);
        drop(table);
        assert_eq!(Hal::owned(), 0);
    });
}

#[test]
#[should_panic(expected = "uninitialized PhysFrame")]
fn a_box_of_no_frame_is_refused() {
    // SAFETY: must panic.
    let none = unsafe { PhysFrame::<Hal>::uninit() };
    let _ = FrameBox::<u64, Hal>::from_frame(none);
}
