//! `PhysFrame` against the documentation of the seed's: every method, every failure, what it frees and what it logs.

use std::{
    cell::RefCell,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Once,
    thread,
};

use frame_core::{
    AllocError, AxError, DeallocError, DeallocErrorKind, FRAME_SIZE, FrameHal, FrameLayout, PhysAddr,
    PhysFrame, PhysFrames, VirtAddr,
};
use frame_testkit::{TestHal, test_hal};
use log::{Level, LevelFilter, Log, Metadata, Record};

/// The message of the panic that `code` ends with.
#[track_caller]
fn panic_of<R>(code: impl FnOnce() -> R) -> String {
    let payload = catch_unwind(AssertUnwindSafe(code)).err().expect("no panic");
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast_ref::<&str>().map_or_else(String::new, ToString::to_string),
    }
}

#[test]
fn alloc_gives_frames_until_there_are_none() {
    test_hal! { struct Hal }
    Hal::scope(2, || {
        let first = PhysFrame::<Hal>::alloc().unwrap();
        let second = PhysFrame::<Hal>::alloc().unwrap();
        assert_ne!(first.start_paddr(), second.start_paddr());
        for frame in [&first, &second] {
            assert_eq!(frame.start_paddr().as_usize() % FRAME_SIZE, 0);
        }
        assert_eq!(PhysFrame::<Hal>::alloc().unwrap_err(), AxError::NoMemory);
        assert_eq!(PhysFrame::<Hal>::alloc_zero().unwrap_err(), AxError::NoMemory);
        assert_eq!(PhysFrame::<Hal>::try_alloc().unwrap_err(), AllocError::NoMemory);
        let freed = first.start_paddr();
        drop(first);
        assert_eq!(PhysFrame::<Hal>::alloc().unwrap().start_paddr(), freed);
    });
}

#[test]
fn alloc_zero_zeroes_every_byte_and_alloc_none() {
    test_hal! { struct Hal }
    Hal::scope(3, || {
        assert!(PhysFrame::<Hal>::alloc().unwrap().as_bytes().iter().all(|&byte| byte == 0xa5));
        let frame = PhysFrame::<Hal>::alloc_zero().unwrap();
        assert_eq!(frame.as_bytes(), &[0; FRAME_SIZE]);
    });
}

#[test]
fn fill_sets_exactly_4096_bytes() {
    test_hal! { struct Hal }
    // The frames before and behind it are owned by nobody: the scope sees a byte written there.
    Hal::scope(3, || {
        let [low, mut frame, high] = [(); 3].map(|()| PhysFrame::<Hal>::alloc().unwrap());
        drop((low, high));
        for byte in [0, 0x5a, 0xff] {
            frame.fill(byte);
            assert_eq!(frame.as_bytes(), &[byte; FRAME_SIZE]);
        }
    });
}

#[test]
fn the_pointer_is_that_of_the_hal_and_the_bytes_lie_there() {
    test_hal! { struct Hal }
    Hal::scope(2, || {
        let mut frame = PhysFrame::<Hal>::alloc_zero().unwrap();
        assert_eq!(frame.as_mut_ptr(), Hal::phys_to_virt(frame.start_paddr()).as_mut_ptr());
        frame.as_bytes_mut()[FRAME_SIZE - 1] = 7;
        assert_eq!(frame.as_bytes()[FRAME_SIZE - 1], 7);
        // SAFETY: the frame is owned and no reference into it lives.
        unsafe {
            assert_eq!(frame.as_mut_ptr().add(FRAME_SIZE - 1).read(), 7);
            frame.as_mut_ptr().write(9);
        }
        assert_eq!(frame.as_bytes()[0], 9);
    });
}

#[test]
fn an_uninitialized_frame_panics_when_used_and_frees_nothing() {
    test_hal! { struct Hal }
    // In a constant, as a static structure has it.
    // SAFETY: never used but to see it refuse.
    const NONE: PhysFrame<Hal> = unsafe { PhysFrame::uninit() };
    let none = || NONE;
    const MESSAGE: &str = "uninitialized PhysFrame";
    Hal::scope(1, || {
        assert_eq!(panic_of(|| NONE.start_paddr()), MESSAGE);
        assert_eq!(panic_of(|| NONE.as_mut_ptr()), MESSAGE);
        assert_eq!(panic_of(|| none().fill(0)), MESSAGE);
        assert_eq!(panic_of(|| NONE.as_bytes()[0]), MESSAGE);
        assert_eq!(panic_of(|| none().as_bytes_mut()[0]), MESSAGE);
        assert_eq!(panic_of(|| NONE.into_raw()), MESSAGE);
        assert_eq!(panic_of(|| PhysFrames::from(NONE).count()), MESSAGE);
        drop(NONE);
        // Overwritten later, as structures built in two steps do.
        let mut frame = NONE;
        assert_eq!(Hal::allocs(), 0);
        frame = PhysFrame::alloc().unwrap_or(frame);
        assert_eq!((frame.start_paddr().as_usize(), Hal::owned()), (0x100_0000, 1));
    });
}

#[test]
fn address_0_is_never_a_frame() {
    struct ZeroHal;
    // SAFETY: gives no frame at all.
    unsafe impl FrameHal for ZeroHal {
        fn alloc_frame() -> Option<PhysAddr> {
            Some(PhysAddr::from(0))
        }
        unsafe fn dealloc_frame(paddr: PhysAddr) {
            panic!("{paddr:#x} is freed");
        }
        fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
            panic!("{paddr:#x} is reached");
        }
    }
    assert_eq!(PhysFrame::<ZeroHal>::alloc().unwrap_err(), AxError::NoMemory);
    assert_eq!(PhysFrame::<ZeroHal>::alloc_zero().unwrap_err(), AxError::NoMemory);
    assert_eq!(PhysFrames::<ZeroHal>::alloc(FrameLayout::SINGLE).unwrap_err(), AxError::NoMemory);
    // SAFETY: must panic.
    let message = panic_of(|| unsafe { PhysFrame::<ZeroHal>::from_raw(PhysAddr::from(0)) });
    assert!(message.contains("no frame at"), "{message}");
    // SAFETY: must panic.
    let message = panic_of(|| unsafe { PhysFrame::<ZeroHal>::from_raw(PhysAddr::from(0x1008)) });
    assert!(message.contains("no frame at") && message.contains("0x1008"), "{message}");
}

#[test]
fn a_raw_frame_is_freed_only_when_it_is_taken_back() {
    test_hal! { struct Hal }
    Hal::scope(4, || {
        let mut frame = PhysFrame::<Hal>::alloc().unwrap();
        frame.fill(3);
        let raw = frame.into_raw();
        assert_eq!(Hal::owned(), 1, "a raw frame is not freed");
        // SAFETY: from `into_raw`.
        let frame = unsafe { PhysFrame::<Hal>::from_raw(raw) };
        assert_eq!((frame.start_paddr(), frame.as_bytes()[7]), (raw, 3));
        drop(frame);
        assert_eq!(Hal::owned(), 0);
    });
}

#[test]
fn a_frame_is_one_word_and_so_is_an_option_of_it() {
    test_hal! { struct Hal }
    assert_eq!(size_of::<PhysFrame<Hal>>(), size_of::<usize>());
    assert_eq!(size_of::<Option<PhysFrame<Hal>>>(), size_of::<usize>());
    assert_eq!(size_of::<PhysFrames<Hal>>(), 2 * size_of::<usize>());
    // An uninitialized frame is a frame, not a `None`.
    // SAFETY: not used.
    let some = Some(unsafe { PhysFrame::<Hal>::uninit() });
    assert!(some.is_some());
}

/// A HAL that is neither `Debug` nor `Send`: frames are both all the same.
struct Plain(#[allow(dead_code)] Rc<()>);

// SAFETY: each frame is host memory of its own, initialised, handed out once. Two never adjoin: beside each lies the rest
// of the two frames that were allocated for it.
unsafe impl FrameHal for Plain {
    fn alloc_frame() -> Option<PhysAddr> {
        let memory = vec![[0_u8; FRAME_SIZE]; 2].leak().as_mut_ptr() as usize;
        Some(PhysAddr::from(memory.next_multiple_of(FRAME_SIZE)))
    }
    unsafe fn dealloc_frame(_: PhysAddr) {}
    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        VirtAddr::from(paddr.as_usize())
    }
}

#[test]
fn debug_and_send_need_nothing_of_the_hal() {
    fn everywhere<T: std::fmt::Debug + Send + Sync + Unpin>(_: &T) {}
    let frame = PhysFrame::<Plain>::alloc_zero().unwrap();
    everywhere(&frame);
    assert_eq!(format!("{frame:?}"), format!("PhysFrame({:#x})", frame.start_paddr().as_usize()));
    // SAFETY: only shown.
    let none = mem::ManuallyDrop::new(unsafe { PhysFrame::<Plain>::uninit() });
    assert_eq!(format!("{:?}", *none), "PhysFrame(uninit)");
    let run = PhysFrames::from(frame);
    everywhere(&run);
    assert!(format!("{run:?}").starts_with("PhysFrames("));
    thread::spawn(move || assert_eq!(run.as_bytes(), [0; FRAME_SIZE])).join().unwrap();
}

#[test]
fn a_hal_without_runs_gives_single_frames_as_runs_and_refuses_the_rest() {
    let two = FrameLayout::contiguous(2).unwrap();
    assert_eq!(PhysFrames::<Plain>::try_alloc(two).unwrap_err(), AllocError::Unsupported);
    assert_eq!(PhysFrames::<Plain>::alloc(two).unwrap_err(), AxError::Unsupported);
    assert_eq!(PhysFrames::<Plain>::try_alloc(FrameLayout::HUGE_2M).unwrap_err(), AllocError::Unsupported);
    assert_eq!(PhysFrames::<Plain>::alloc(FrameLayout::SINGLE).unwrap().count(), 1);
}

thread_local! {
    static LOGGED: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

/// Keeps what this thread logs.
fn logged(code: impl FnOnce()) -> Vec<(Level, String)> {
    struct Keep;
    impl Log for Keep {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &Record<'_>) {
            LOGGED.with_borrow_mut(|logged| logged.push((record.level(), record.args().to_string())));
        }
        fn flush(&self) {}
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Keep).unwrap();
        log::set_max_level(LevelFilter::Trace);
    });
    LOGGED.take();
    code();
    LOGGED.take()
}

#[test]
fn a_drop_is_logged_at_debug_level() {
    test_hal! { struct Hal }
    Hal::scope(4, || {
        let frame = PhysFrame::<Hal>::alloc().unwrap();
        let lines = logged(|| drop(frame));
        assert!(
            matches!(&lines[..], [(Level::Debug, line)] if line.contains("deallocated") && line.contains("0x1000000")),
            "{lines:?}"
        );
        let run = PhysFrames::<Hal>::alloc(FrameLayout::contiguous(3).unwrap()).unwrap();
        let lines = logged(|| drop(run));
        assert!(matches!(&lines[..], [(Level::Debug, line)] if line.contains("0x1000000")), "{lines:?}");
        // SAFETY: not used.
        let none = unsafe { PhysFrame::<Hal>::uninit() };
        assert_eq!(logged(|| drop(none)), [], "no frame, no line");
        let frame = PhysFrame::<Hal>::alloc().unwrap();
        assert_eq!(logged(|| _ = frame.into_raw()), [], "not freed, not logged");
        // SAFETY: from `into_raw` above.
        drop(unsafe { PhysFrame::<Hal>::from_raw(PhysAddr::from(0x100_0000)) });
    });
}

#[test]
fn a_refused_free_is_logged_as_an_error_and_does_not_panic() {
    struct Refusing;
    // SAFETY: as `Plain`.
    unsafe impl FrameHal for Refusing {
        fn alloc_frame() -> Option<PhysAddr> {
            Plain::alloc_frame()
        }
        unsafe fn dealloc_frame(_: PhysAddr) {
            panic!("runs are freed as runs");
        }
        fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
            Plain::phys_to_virt(paddr)
        }
        unsafe fn dealloc_frames(start: PhysAddr, _: FrameLayout) -> Result<(), DeallocError> {
            Err(DeallocError::new(start, DeallocErrorKind::NotAllocated))
        }
    }
    let run = PhysFrames::<Refusing>::alloc(FrameLayout::SINGLE).unwrap();
    let start = format!("{:#x}", run.start_paddr());
    let lines = logged(|| drop(run));
    let error = lines.iter().find(|(level, _)| *level == Level::Error).expect("an error is logged");
    assert!(error.1.contains(&start) && error.1.contains("leaked"), "{error:?}");
}

#[test]
fn frames_are_freed_when_code_unwinds() {
    test_hal! { struct Hal }
    Hal::scope(4, || {
        let message = panic_of(|| {
            let _frame = PhysFrame::<Hal>::alloc().unwrap();
            let _run = PhysFrames::<Hal>::alloc(FrameLayout::contiguous(2).unwrap()).unwrap();
            panic!("unwinding");
        });
        assert_eq!((message.as_str(), Hal::owned()), ("unwinding", 0));
    });
}
