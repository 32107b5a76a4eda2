//! Every frame of a memory map is there, and no other.

use alloc::{format, vec::Vec};

use crate::{Backend, Judge, Rng, firmware, random_map};

/// On each built-in firmware map the allocator has exactly the frames that Linux counted, free to the last.
pub fn firmware_frame_counts<B: Backend>() {
    for firmware in firmware::maps() {
        let ranges: Vec<_> = firmware.map().frames().collect();
        // The judge compares `visit_free` with the ranges, frame for frame.
        Judge::run::<B, _>(firmware.name, &ranges, |judge| {
            let stats = judge.allocator().stats();
            assert_eq!(stats.total_frames, firmware.frames, "{}: what Linux counted", judge.label());
            assert_eq!((stats.free_frames, stats.used_frames()), (firmware.frames, 0), "{}", judge.label());
        });
    }
}

/// The same on random maps: a single frame, a few, many.
pub fn random_map_frame_counts<B: Backend>() {
    let seed = Rng::seed_or(1);
    for (i, frames) in [1, 2, 63, 64, 65, 511, 512, 513, 5000, 5000, 5000, 100_000].into_iter().enumerate() {
        let seed = seed.wrapping_add(i as u64);
        let ranges: Vec<_> = random_map(seed, frames).frames().collect();
        Judge::run::<B, _>(&format!("random map {seed} of {frames}"), &ranges, |judge| {
            let one = judge.alloc_frame().expect("a frame is free");
            judge.check();
            judge.free(one);
        });
    }
}
