//! Many single frames in one call: partial results, and frees with a bad frame among good ones.

use alloc::{vec, vec::Vec};

use frame_core::{DeallocErrorKind, PhysAddr};

use super::{frame, ragged};
use crate::{Backend, Judge, Rng};

/// Batches of all sizes until memory is empty: the last is partial, and then there is none.
pub fn bulk_until_empty<B: Backend>() {
    let mut rng = Rng::new(Rng::seed_or(6));
    for batch in [1, 2, 7, 63, 64, 65, 500, 5000, 20_000] {
        Judge::run::<B, _>("ragged ranges", &ragged(), |judge| {
            let all = judge.managed().count();
            let mut frames: Vec<PhysAddr> = Vec::new();
            let mut slots = vec![PhysAddr::from(0); batch];
            loop {
                let given = judge.alloc_bulk(&mut slots);
                frames.extend(&slots[..given]);
                if given < batch {
                    break;
                }
            }
            assert_eq!(frames.len(), all, "{}: every frame is handed out", judge.label());
            judge.check();
            assert_eq!(judge.alloc_bulk(&mut []), 0);
            judge.free_bulk(&[]);
            rng.shuffle(&mut frames);
            for batch in frames.chunks(batch) {
                judge.free_bulk(batch);
            }
            judge.check();
        });
    }
}

/// One bad frame in a bulk free (free already, foreign, the same twice): it is named, and all others are freed.
pub fn bulk_frees_go_on_behind_a_bad_frame<B: Backend>() {
    if !B::REFUSES_BAD_FREES {
        return;
    }
    Judge::run::<B, _>("ragged ranges", &ragged(), |judge| {
        for bad_at in [0, 1, 50, 99] {
            for kind in [DeallocErrorKind::NotAllocated, DeallocErrorKind::NotManaged] {
                let mut frames = vec![PhysAddr::from(0); 100];
                assert_eq!(judge.alloc_bulk(&mut frames), 100);
                let bad = match kind {
                    DeallocErrorKind::NotManaged => frame(159),
                    _ => {
                        judge.free_frame(frames[bad_at]);
                        frames[bad_at]
                    }
                };
                frames[bad_at] = bad;
                judge.free_bulk_but(&frames, bad_at, kind);
                judge.check();
            }
        }
        let mut frames = vec![PhysAddr::from(0); 100];
        assert_eq!(judge.alloc_bulk(&mut frames), 100);
        frames.push(frames[40]);
        judge.free_bulk_but(&frames, 100, DeallocErrorKind::NotAllocated);
        judge.check();
    });
}
