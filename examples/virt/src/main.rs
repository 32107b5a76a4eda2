//! The allocators on machines that are no x86, with one CPU: frames of real memory, and the conformance suite.
//!
//! [`memory`] is the embedding. The heap and the suite are those of `examples/kernel`, file by file.
#![no_std]
#![no_main]

extern crate alloc;

#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(target_arch = "riscv64", path = "riscv64.rs")]
mod machine;
mod memory;

#[allow(dead_code)]
#[path = "../../kernel/src/heap.rs"]
mod heap;
#[path = "../../kernel/src/checks/suite.rs"]
mod suite;

/// One CPU and no interrupts: any lock will do.
mod irq_lock {
    pub type IrqLock = spin::Mutex<()>;
    pub type Mutex<T> = lock_api::Mutex<IrqLock, T>;
}

/// Counting checks. The number is the same in each run, so that the host can demand it.
mod report {
    use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    pub static PASSED: AtomicUsize = AtomicUsize::new(0);

    pub fn passed(checks: usize) {
        PASSED.fetch_add(checks, Relaxed);
    }
}

use core::{
    fmt::{self, Write},
    panic::PanicInfo,
    sync::atomic::Ordering::Relaxed,
};

use alloc::vec::Vec;
use frame_allocator::{FRAME_SIZE, FrameAllocator, FrameLayout, PhysFrame, PhysFrames};
use memory::{FRAMES, Kernel};
use suite::{Bare, Bitmaps, Buddies, Guarded, Trees, Trusted, suite};

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(machine::put);
        Ok(())
    }
}

macro_rules! println {
    ($($what:tt)*) => { _ = writeln!(Serial, $($what)*) };
}

/// A check: a fault is a panic, which ends the machine.
macro_rules! check {
    ($holds:expr, $($what:tt)*) => {{
        assert!($holds, $($what)*);
        report::passed(1);
    }};
}

extern "C" fn main() -> ! {
    let frames = memory::init();
    println!("{:?}", FRAMES.stats());
    check!(FRAMES.stats().total_frames == frames, "every frame of the map is there");
    raii();
    every_frame(frames);
    suite::<Bare<Trees>>();
    suite::<Bare<Bitmaps>>();
    suite::<Bare<Buddies>>();
    suite::<Trusted<Trees>>();
    suite::<Guarded<Trees>>();
    check!(FRAMES.stats().used_frames() == heap::frames(), "nothing but the heap has frames in the end");
    println!("virt: {} checks passed, 0 failed", report::PASSED.load(Relaxed));
    machine::exit(0)
}

/// Owned frames, zeroed, contiguous, and back when they are dropped.
fn raii() {
    let before = FRAMES.stats().used_frames();
    PhysFrames::<Kernel>::alloc(FrameLayout::HUGE_2M).expect("a huge frame").fill(0xee);
    let frame = PhysFrame::<Kernel>::alloc_zero().expect("a frame");
    check!(frame.as_bytes().iter().all(|&byte| byte == 0), "a zeroed frame");
    let run =
        PhysFrames::<Kernel>::alloc(FrameLayout::new(5, 8 * FRAME_SIZE).expect("a layout")).expect("a run");
    check!(run.start_paddr().as_usize() % (8 * FRAME_SIZE) == 0, "an aligned run");
    check!(FRAMES.stats().used_frames() == before + 6, "six frames in use");
    drop((frame, run));
    check!(FRAMES.stats().used_frames() == before, "six frames are back");
}

/// All memory at once: each frame is given once, keeps what is written to it, and comes back.
fn every_frame(frames: usize) {
    let mut taken = Vec::with_capacity(frames);
    let heap = heap::frames();
    while let Ok(frame) = PhysFrame::<Kernel>::alloc() {
        let number = frame.start_paddr().as_usize();
        // SAFETY: the frame is owned, and reached at its own address.
        unsafe { frame.as_mut_ptr().cast::<usize>().write(number) };
        taken.push(frame);
    }
    check!(taken.len() == frames - heap, "{} of {} frames were given", taken.len(), frames - heap);
    let marked = taken.iter().all(|frame| {
        // SAFETY: as above.
        let mark = unsafe { frame.as_mut_ptr().cast::<usize>().read() };
        mark == frame.start_paddr().as_usize()
    });
    check!(marked, "no frame was given twice");
    drop(taken);
    check!(FRAMES.stats().used_frames() == heap::frames(), "all frames are back");
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("PANIC: {info}");
    machine::exit(1)
}
