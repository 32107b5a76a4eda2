//! The invariants that the modules state, checked from outside when nothing else runs.

use std::vec::Vec;

use crate::{
    Tree, bits,
    geometry::{BLOCK_FRAMES, Block, Frame, bits as ones},
    region::Region,
    storage::{CLASSES, WHOLE},
    sync::Relaxed,
};

/// Panics if the tree is not as its modules promise.
pub(super) fn check<const N: usize>(tree: &Tree<'_, N>) {
    let mut last = Frame(0);
    for (_, region) in tree.regions.iter() {
        assert!(region.frames().lo >= last, "regions are sorted and disjoint");
        last = region.frames().hi;
        check_region(region);
    }
    check_reservations(tree);
}

fn check_region(region: &Region<'_>) {
    for group in region.blocks().groups() {
        let words = region.group(group);
        let taken = words.taken.load(Relaxed);
        let whole = region.frames().whole_blocks().group_mask(group);
        assert_eq!(taken | whole, !0, "a block that is not whole is taken for ever");
        if !taken != 0 {
            let full = region.storage.full(group.span()).load(Relaxed) & group.bit();
            assert_eq!(full, 0, "{group:?} has a wholly free block and the summary denies it");
        }
        for block in ones(region.blocks().group_mask(group)).map(|bit| group.block(bit)) {
            check_block(region, block);
        }
    }
}

fn check_block(region: &Region<'_>, block: Block) {
    let handle = region.block(block);
    let Some(rows) = handle.rows() else {
        assert!(handle.is_untouched(), "{block:?} is taken and its rows are not live");
        return;
    };
    let rows: Vec<u64> = rows.iter().map(|row| row.load(Relaxed)).collect();
    if handle.is_untouched() {
        assert!(rows.iter().all(|row| *row == 0), "{block:?} is untouched and has rows");
        return;
    }
    for (row, free) in rows.iter().enumerate() {
        let outside = free & !region.frames().row_mask(block.row(row));
        assert_eq!(outside, 0, "{block:?}: frames outside of the region are free");
    }
    let full: Vec<bool> = rows.iter().map(|row| *row == !0).collect();
    let has = |class: &usize| match class {
        7..=WHOLE => full.chunks(1 << (class - 6)).any(|run| run.iter().all(|full| *full)),
        order => rows.iter().any(|row| bits::runs(*row, *order) != 0),
    };
    let class = (0..CLASSES).rev().find(has);
    assert_eq!(handle.class(), class, "{block:?}");
    let hinted = |class: usize| handle.group.has[class].load(Relaxed) & handle.bit != 0;
    if let Some(class) = class {
        for k in 0..=class {
            assert!(hinted(k), "{block:?} is of class {class} and not hinted at in {k}");
        }
    }
    if let Some(top) = (0..CLASSES).rev().find(|k| hinted(*k)) {
        let group = block.group();
        let summary = region.storage.summary(top, group.span()).load(Relaxed);
        assert_ne!(summary & group.bit(), 0, "{block:?} is hinted at as {top}, not so in the summary");
    }
}

fn check_reservations<const N: usize>(tree: &Tree<'_, N>) {
    let places: Vec<_> = tree.shards.places().collect();
    for (slot, region) in tree.regions.iter() {
        for group in region.blocks().groups() {
            for bit in ones(region.group(group).reserved.load(Relaxed)) {
                let block = group.block(bit);
                let held = places.iter().any(|place| place.slot == slot && place.row.block() == block);
                assert!(held, "{block:?} is reserved by nobody");
            }
        }
    }
}

/// The frames that the authority says are free, one by one.
pub(super) fn free_frames<const N: usize>(tree: &Tree<'_, N>) -> Vec<usize> {
    let mut free = Vec::new();
    for (_, region) in tree.regions.iter() {
        for block in region.blocks().iter().map(|block| region.block(block)) {
            let first = block.block.first_frame().0;
            if block.is_untouched() {
                free.extend(first..first + BLOCK_FRAMES);
            } else if let Some(rows) = block.rows() {
                for (row, word) in rows.iter().enumerate() {
                    free.extend(ones(word.load(Relaxed)).map(|bit| first + row * 64 + bit as usize));
                }
            }
        }
    }
    free
}
