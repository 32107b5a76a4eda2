//! A disk driver of another project, `virtio-drivers`, on frames of this one: reads a disk whose contents are known,
//! writes to it, and gives every frame back.
//!
//! [`dma`] is the embedding; [`pci`] finds the disk; [`requests`] moves sectors through runs of frames; [`contents`] says
//! what must be on the disk. The command line chooses: `backend=bitmap` (default `percpu-tree`), `sectors=16389` is the
//! size that the disk must have, `writes=1:8,20:256` is what to write, `together=300:8,...` four more ranges, handed to
//! the disk at once.
#![no_std]
#![no_main]

mod contents;
mod dma;
mod pci;
mod requests;

use core::array;

use contents::Age;
use dma::{Cached, Locked, Plain};
use frame_allocator::{
    FRAME_SIZE, FrameAllocator, FrameLayout, GlobalFrames, PhysFrame, PhysFrames,
    adapters::virtio_drivers::{DmaMap, VirtioHal},
};
use kernel_example::{check, check_eq, memory, report};
use machine::{multiboot::BootInfo, println};
use requests::Disk;
use virtio_drivers::{BufferDirection, Error, Hal, device::blk::VirtIOBlk};

machine::entry!(main);

fn main(boot: &'static BootInfo) {
    match boot.argument("backend").unwrap_or("percpu-tree") {
        "percpu-tree" => {
            memory::init(boot, 1);
            run::<Cached>(boot);
        }
        "bitmap" => {
            let map = memory::map(boot).expect("a firmware map with few enough holes");
            memory::give_all(map, Locked::metadata_layout, |region, metadata| {
                // SAFETY: what is used was taken out of the map, and all that is left goes here.
                unsafe { Plain::allocator().add_region(region, metadata) }
            });
            run::<Plain>(boot);
        }
        other => panic!("no backend is called {other}"),
    }
    report::finish("virtio")
}

fn run<F: DmaMap + GlobalFrames>(boot: &BootInfo) {
    let used = || F::allocator().stats().used_frames();
    let before = used();
    println!("frames: {:?}", F::allocator().stats());
    {
        let _holes = holes::<F>();
        let with_holes = used();
        report::case("DMA memory", dma_memory::<F>);
        report::case("disk", || disk::<F>(boot));
        check_eq!(used(), with_holes, "frames in use when the driver is gone");
    }
    check_eq!(used(), before, "frames in use in the end");
}

/// Takes frames and gives every second one back, so that free memory has holes and runs must be searched for.
fn holes<F: DmaMap>() -> [Option<PhysFrame<F>>; 512] {
    let mut frames = array::from_fn(|_| Some(PhysFrame::alloc().expect("a machine with memory")));
    frames.iter_mut().step_by(2).for_each(|frame| *frame = None);
    frames
}

/// What drivers get from `dma_alloc` is zeroed and adjacent, whatever was in the frames, and goes back.
fn dma_memory<F: DmaMap>() {
    for pages in [1, 2, 5, 64, 700] {
        let layout = FrameLayout::contiguous(pages).expect("a few frames");
        PhysFrames::<F>::alloc(layout).expect("a machine with memory").fill(0xee);
        let (paddr, pointer) = VirtioHal::<F>::dma_alloc(pages, BufferDirection::Both);
        check!(paddr != 0 && paddr as usize % FRAME_SIZE == 0, "{pages} pages of DMA memory: {paddr:#x}");
        // SAFETY: `dma_alloc` gave so many bytes, and nobody else uses them.
        let bytes = unsafe { core::slice::from_raw_parts_mut(pointer.as_ptr(), pages * FRAME_SIZE) };
        check!(bytes.iter().all(|&byte| byte == 0), "{pages} pages are zeroed");
        bytes.fill(0xdd);
        // SAFETY: allocated above, and not used any more.
        let freed = unsafe { VirtioHal::<F>::dma_dealloc(paddr, pointer, pages) };
        check_eq!(freed, 0, "{pages} pages are taken back");
    }
    let too_much = VirtioHal::<F>::dma_alloc(1 << 40, BufferDirection::Both).0;
    check_eq!(too_much, 0, "no memory, said as the driver expects it");
}

fn disk<F: DmaMap + GlobalFrames>(boot: &BootInfo) {
    let argument = |key| boot.argument(key).unwrap_or_default();
    let writes = contents::ranges(argument("writes"));
    let together = contents::ranges(argument("together"));
    let used_before = F::allocator().stats().used_frames();

    let mut disk = open::<F>();
    println!("a disk of {} sectors", disk.capacity());
    check_eq!(disk.capacity() as usize, argument("sectors").parse().unwrap_or(0), "sectors");
    check!(!disk.readonly(), "it may be written");
    check!(F::allocator().stats().used_frames() > used_before, "the driver's queue lies in our frames");
    check_eq!(requests::read_all(&mut disk, |_| Age::Old), Ok(true), "all is as the host made it");

    for range in writes.clone() {
        check_eq!(requests::write(&mut disk, range.clone()), Ok(()), "sectors {range:?} are written");
    }
    let mut four = together.clone();
    let four = array::from_fn::<_, 4, _>(|_| four.next().expect("four ranges"));
    check_eq!(requests::write_together(&mut disk, four), Ok(4), "four writes at once");
    check_eq!(disk.flush(), Ok(()), "the disk has stored it all");

    let mut buffer = requests::buffer::<F>(8);
    let beyond = disk.read_blocks(disk.capacity() as usize, buffer.as_bytes_mut());
    check_eq!(beyond, Err(Error::IoError), "sectors behind the end are refused");
    drop((disk, buffer));

    // A second driver, whose queue lies in frames that were in use for something else meanwhile.
    let mut disk = open::<F>();
    let age = |sector| match writes.clone().chain(together.clone()).any(|range| range.contains(&sector)) {
        true => Age::New,
        false => Age::Old,
    };
    check_eq!(requests::read_all(&mut disk, age), Ok(true), "all is as it was left");
}

fn open<F: DmaMap>() -> Disk<F> {
    let transport = pci::find_disk::<VirtioHal<F>>().expect("a virtio disk on PCI bus 0");
    VirtIOBlk::new(transport).expect("a disk that answers")
}
