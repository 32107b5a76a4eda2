//! From a region of memory to frames that free themselves.
//!
//! `cargo run -p host-examples --example quick_start`

use frame_allocator::{
    AxResult, FrameAllocator, FrameLayout, GlobalFrames, PhysAddr, PhysFrame, PhysFrames, Tree, VirtAddr,
};

/// The allocator: empty until it is given memory, usable from every CPU.
static FRAMES: Tree = Tree::new();

/// The type that frames name: where they come from and how to reach them.
struct Host;

// SAFETY: `FRAMES` gets memory of this process that nothing else uses, and an address is a pointer here.
unsafe impl GlobalFrames for Host {
    type Allocator = Tree<'static>;

    fn allocator() -> &'static Tree<'static> {
        &FRAMES
    }

    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        VirtAddr::from(paddr.as_usize())
    }
}

fn main() -> AxResult<()> {
    let ram = host_examples::ram(2048); // 8 MiB
    let books = host_examples::metadata(<Tree>::metadata_layout(ram));
    // SAFETY: nobody else uses this memory.
    unsafe { FRAMES.add_region(ram, books) }?;

    let mut page = PhysFrame::<Host>::alloc_zero()?;
    page.as_bytes_mut()[..5].copy_from_slice(b"hello");
    println!("{page:?} says {:?}", str::from_utf8(&page.as_bytes()[..5]));

    let huge = PhysFrames::<Host>::alloc(FrameLayout::HUGE_2M)?;
    println!("{huge:?} is one 2 MiB page");
    assert_eq!(FRAMES.stats().used_frames(), 513);

    drop((page, huge)); // freed
    assert_eq!(FRAMES.stats().used_frames(), 0);
    println!("all {} frames are free again", FRAMES.stats().total_frames);
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
