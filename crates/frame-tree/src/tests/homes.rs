//! CPUs that allocate and free at the same time come to take their frames from blocks of their own.

use std::{collections::BTreeSet, vec::Vec};

use frame_core::{FrameAllocator, PhysAddr};

use super::{invariants, support::*};
use crate::{Tree, geometry::Frame};

const BATCH: usize = 64;
/// What a CPU holds before it frees all of it.
const MOST: usize = 40 * BATCH;

/// A CPU that allocates in batches until it holds [`MOST`] frames, and then frees them in batches, in random order.
#[derive(Default)]
struct Cpu {
    number: usize,
    held: Vec<PhysAddr>,
    frees: bool,
}

impl Cpu {
    fn step<const N: usize>(&mut self, tree: &Tree<'_, N>, random: &mut Random) {
        if self.frees {
            let batch: Vec<_> =
                (0..BATCH).map(|_| self.held.swap_remove(random.below(self.held.len()))).collect();
            // SAFETY: allocated below.
            unsafe { tree.dealloc_bulk(&batch) }.unwrap();
        } else {
            let mut batch = [PhysAddr::from_usize(0); BATCH];
            assert_eq!(tree.alloc_bulk_for(self.number, &mut batch), BATCH);
            self.held.extend(batch);
        }
        self.frees = if self.frees { !self.held.is_empty() } else { self.held.len() == MOST };
    }

    fn rows(&self) -> BTreeSet<usize> {
        self.held.iter().map(|frame| Frame::of(*frame).row().0).collect()
    }
}

#[test]
fn cpus_come_to_use_blocks_of_their_own() {
    for cpus in [2, 3, 8] {
        with_tree(&[(1 << 18, 1 << 16)], |tree| {
            let mut random = Random(cpus as u64);
            let mut all: Vec<_> = (0..cpus).map(|number| Cpu { number, ..Cpu::default() }).collect();
            for _ in 0..128 * cpus * MOST / BATCH {
                all[random.below(cpus)].step(tree, &mut random);
            }
            for cpu in &mut all {
                while cpu.held.len() < MOST {
                    cpu.step(tree, &mut random);
                }
            }
            let rows: Vec<_> = all.iter().map(Cpu::rows).collect();
            let distinct: BTreeSet<_> = rows.iter().flatten().collect();
            let shared = rows.iter().map(BTreeSet::len).sum::<usize>() - distinct.len();
            assert!(shared <= distinct.len() / 4, "{cpus} CPUs meet in {shared} of {} rows", distinct.len());
            invariants::check(tree);
        });
    }
}
