//! Frames that free themselves: `PhysFrame`, `PhysFrames`, `FrameBox`.

use frame_allocator::{FRAME_SIZE, FrameAllocator, FrameBox, FrameLayout, PhysFrame, PhysFrames};

use crate::{backends::Subject, check, check_eq};

pub fn raii<S: Subject>() {
    let used = || S::allocator().stats().used_frames();
    let before = used();

    {
        // What the last owner left is there, whichever frame comes next.
        let run = FrameLayout::contiguous(64).expect("some frames");
        PhysFrames::<S>::alloc(run).expect("a run").fill(0xee);
        let mut frame = PhysFrame::<S>::alloc_zero().expect("a frame");
        check!(frame.as_bytes().iter().all(|&byte| byte == 0), "a frame of zeroes");
        frame.fill(0xa5);
        check!(frame.as_bytes() == &[0xa5; FRAME_SIZE], "a filled frame");
        let other = PhysFrame::<S>::alloc().expect("another frame");
        check!(frame.start_paddr() != other.start_paddr(), "two frames");
        check_eq!(used(), before + 2, "two frames live");
    }
    check_eq!(used(), before, "dropped");

    let run = PhysFrames::<S>::alloc(FrameLayout::contiguous(10).expect("ten frames")).expect("a run");
    let (head, tail) = run.split_at(4).expect("in two");
    check_eq!((head.count(), tail.count()), (4, 6), "a run in two parts");
    drop(head);
    check_eq!(used(), before + 6, "one part dropped");
    let (left, right) = tail.free_part(2..5).expect("a part of it");
    check_eq!((left.map(|run| run.count()), right.map(|run| run.count())), (Some(2), Some(1)), "the rest");
    check_eq!(used(), before, "all dropped");

    let mut table = FrameBox::<[u64; 512], S>::new_zeroed().expect("a table");
    table[511] = 0x1000 | 7;
    check_eq!((table[0], table[511]), (0, 0x1007), "a typed frame");
    let raw = table.into_frame().into_raw();
    check_eq!(used(), before + 1, "given up, not freed");
    // SAFETY: given up just now.
    drop(unsafe { PhysFrame::<S>::from_raw(raw) });
    check_eq!(used(), before, "taken back and dropped");
}
