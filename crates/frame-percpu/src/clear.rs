//! Clearing a frame past the caches.
//!
//! A frame that is cleared now and used later need not displace what the CPU's caches hold. Non-temporal stores write
//! whole lines to memory without reading them first or keeping them. A frame that is used at once is better cleared the
//! ordinary way: `PhysFrame::fill`.

use frame_core::FRAME_SIZE;

/// Sets a frame's bytes to zero, past the caches where the architecture can (x86_64: MOVNTI). What was written is
/// visible to whoever sees a later release store of this CPU.
///
/// # Safety
/// `frame` is aligned to [`FRAME_SIZE`] and valid for writes of that many bytes.
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn clear_past_caches(frame: *mut u8) {
    // MOVNTI stores a general register and so works where kernels may not touch vector registers; it is part of SSE2,
    // which every x86_64 has. Eight stores fill a line and leave as one write (SDM volume 1, 10.4.6.2). Non-temporal
    // stores are weakly ordered: SFENCE puts them before everything that follows.
    // SAFETY: the loop writes `FRAME_SIZE` bytes from `frame` on, which is a multiple of the 64 it writes at a time; the
    // caller owns them. No stack, and flags are clobbered as declared by default.
    unsafe {
        core::arch::asm!(
            "2:",
            "movnti [{at}], {zero}",
            "movnti [{at} + 8], {zero}",
            "movnti [{at} + 16], {zero}",
            "movnti [{at} + 24], {zero}",
            "movnti [{at} + 32], {zero}",
            "movnti [{at} + 40], {zero}",
            "movnti [{at} + 48], {zero}",
            "movnti [{at} + 56], {zero}",
            "add {at}, 64",
            "cmp {at}, {end}",
            "jne 2b",
            "sfence",
            at = inout(reg) frame => _,
            end = in(reg) frame.wrapping_add(FRAME_SIZE),
            zero = in(reg) 0u64,
            options(nostack),
        );
    }
}

/// Sets a frame's bytes to zero.
///
/// # Safety
/// `frame` is valid for writes of [`FRAME_SIZE`] bytes.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) unsafe fn clear_past_caches(frame: *mut u8) {
    // SAFETY: promised by the caller.
    unsafe { core::ptr::write_bytes(frame, 0, FRAME_SIZE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_cleared_and_nothing_beside_it() {
        #[repr(align(4096))]
        struct Frames([u8; 3 * FRAME_SIZE]);
        let mut frames = Frames([0xa5; 3 * FRAME_SIZE]);
        // SAFETY: the middle one of three frames.
        unsafe { clear_past_caches(frames.0.as_mut_ptr().add(FRAME_SIZE)) };
        let (before, rest) = frames.0.split_at(FRAME_SIZE);
        let (cleared, after) = rest.split_at(FRAME_SIZE);
        assert!(cleared.iter().all(|&byte| byte == 0));
        assert!(before.iter().chain(after).all(|&byte| byte == 0xa5));
    }
}
