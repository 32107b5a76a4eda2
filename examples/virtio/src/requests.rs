//! Reading and writing sectors through buffers that are runs of frames, each allocated for its request: contiguous, and
//! as long as the request.

use core::{array, hint, ops::Range};

use frame_allocator::{
    FRAME_SIZE, FrameLayout, PhysFrames,
    adapters::virtio_drivers::{DmaMap, VirtioHal},
};
use virtio_drivers::{
    Result,
    device::blk::{BlkReq, BlkResp, SECTOR_SIZE, VirtIOBlk},
    transport::pci::PciTransport,
};

use crate::contents::{self, Age};

/// A disk whose queue, and whose buffers, are frames of `F`.
pub type Disk<F> = VirtIOBlk<VirtioHal<F>, PciTransport>;

/// Sizes of requests, in sectors: less than a frame, just below and above whole frames, and a mebibyte.
const SIZES: [usize; 9] = [1, 3, 7, 8, 9, 64, 255, 2048, 17];

/// A buffer for so many sectors, with something in it that is not on the disk.
pub fn buffer<F: DmaMap>(sectors: usize) -> PhysFrames<F> {
    let frames = (sectors * SECTOR_SIZE).div_ceil(FRAME_SIZE);
    let layout = FrameLayout::contiguous(frames).expect("a few sectors");
    let mut buffer = PhysFrames::alloc(layout).expect("a machine with memory");
    buffer.fill(0xee);
    buffer
}

/// Reads the whole disk in requests of all sizes. Returns whether all of it is what it must be.
///
/// # Errors
/// A request failed.
pub fn read_all<F: DmaMap>(disk: &mut Disk<F>, age: impl Fn(usize) -> Age) -> Result<bool> {
    let end = disk.capacity() as usize;
    let (mut first, mut right) = (0, true);
    for size in SIZES.iter().cycle() {
        let size = (*size).min(end - first);
        if size == 0 {
            break;
        }
        let mut buffer = buffer::<F>(size);
        let sectors = &mut buffer.as_bytes_mut()[..size * SECTOR_SIZE];
        disk.read_blocks(first, sectors)?;
        right &= contents::right(first, sectors, &age);
        first += size;
    }
    Ok(right)
}

/// Writes one range and waits.
///
/// # Errors
/// The request failed.
pub fn write<F: DmaMap>(disk: &mut Disk<F>, range: Range<usize>) -> Result {
    let mut buffer = buffer::<F>(range.len());
    let sectors = &mut buffer.as_bytes_mut()[..range.len() * SECTOR_SIZE];
    contents::fill(range.start, sectors);
    disk.write_blocks(range.start, sectors)
}

/// Hands several ranges to the disk at once and waits until all are written, in whatever order that happens. Returns how
/// many were.
///
/// # Errors
/// A request was not taken, or failed.
pub fn write_together<F: DmaMap, const N: usize>(
    disk: &mut Disk<F>,
    ranges: [Range<usize>; N],
) -> Result<usize> {
    struct Request<F: DmaMap> {
        buffer: PhysFrames<F>,
        bytes: usize,
        question: BlkReq,
        answer: BlkResp,
        token: Option<u16>,
    }
    // All of it stays where it is until the disk has answered.
    let mut requests: [Request<F>; N] = array::from_fn(|i| {
        let range = ranges[i].clone();
        let mut buffer = buffer::<F>(range.len());
        let bytes = range.len() * SECTOR_SIZE;
        contents::fill(range.start, &mut buffer.as_bytes_mut()[..bytes]);
        Request { buffer, bytes, question: BlkReq::default(), answer: BlkResp::default(), token: None }
    });
    for (request, range) in requests.iter_mut().zip(&ranges) {
        let Request { buffer, bytes, question, answer, token } = request;
        // SAFETY: nothing touches the request again before `complete_write_blocks`, which is reached for every token: the
        // queue has room for all, so that no request is refused before the loop below.
        *token = Some(unsafe {
            disk.write_blocks_nb(range.start, question, &buffer.as_bytes()[..*bytes], answer)?
        });
    }
    // To the end, whatever one of them says: as long as one is under way, the disk reads its buffer and writes its answer.
    let (mut done, mut result) = (0, Ok(()));
    while done < N {
        let Some(token) = disk.peek_used() else {
            hint::spin_loop();
            continue;
        };
        let answered = requests.iter_mut().find(|request| request.token == Some(token));
        let request = answered.expect("the disk answers what it was asked");
        let sectors = &request.buffer.as_bytes()[..request.bytes];
        // SAFETY: these are the parts that went with this token.
        let one =
            unsafe { disk.complete_write_blocks(token, &request.question, sectors, &mut request.answer) };
        result = result.and(one);
        done += 1;
    }
    result.map(|()| done)
}
