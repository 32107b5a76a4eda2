//! Where each CPU allocates: cursors that keep CPUs out of each other's cache lines.
//!
//! A caller that knows its CPU, such as a cache, names it, and gets the shard of that number. Otherwise the tree takes the
//! address of the stack: each CPU (each thread) runs on a stack of its own, so the page of the stack pointer, hashed, names
//! one of a few shards. Two CPUs that meet in a shard share its cursors, which costs time, not correctness: a cursor is a
//! hint.
//!
//! A cursor is the row from which its shard took last. Single frames come from a *reserved* block: its bit in the group's
//! `reserved` word keeps the searches of others away while better blocks are there. The shard's number, written into the
//! group's `home` words, stays with the block when it is left: the shard looks there first when it needs a block again.
//!
//! Invariant: none. Every value of a cursor is harmless, even one that names a region that is not there.

use crate::{
    geometry::Row,
    registry::SlotIndex,
    storage::{GroupWords, HOME_BITS},
    sync::{AcqRel, AtomicU64, Relaxed},
};

/// How many shards there are.
const SHARDS: usize = if cfg!(loom) { 1 } else { 32 };
/// One cursor for single frames, and one for each order from 1 to 8.
const CURSORS: usize = 9;
/// Bits of a row's number: 52 bits of address, less 18.
const ROW_BITS: u32 = 40;

/// A place in a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) slot: SlotIndex,
    pub(crate) row: Row,
}

/// A [`Place`] in one word; 0 is none.
#[derive(Debug)]
pub(crate) struct Cursor(AtomicU64);

/// The cursors of the CPUs that meet here.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Shard {
    cursors: [Cursor; CURSORS],
    /// How often frames came or went in bulk. Counted without care: it paces the recounting of used frames.
    ticks: AtomicU64,
    home: Home,
}

/// The number of a shard, as groups note it: never 0, which is nobody's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Home(usize);

const _: () = assert!(SHARDS < 1 << HOME_BITS);

impl GroupWords {
    /// The blocks where `home` served single frames last, or nobody did.
    #[inline]
    pub(crate) fn blocks_at(&self, home: Home) -> u64 {
        let (mut mine, mut somebodys) = (!0, 0);
        for (i, word) in self.home.iter().enumerate() {
            let word = word.load(Relaxed);
            mine &= if home.0 >> i & 1 == 1 { word } else { !word };
            somebodys |= word;
        }
        mine | !somebodys
    }

    /// Forgets the homes of blocks that nobody has picked since the last call: a shard that went quiet leaves its blocks to
    /// the others.
    pub(crate) fn forget_homes(&self) {
        let picked = self.picked.swap(0, Relaxed);
        for word in &self.home {
            if word.load(Relaxed) & !picked != 0 {
                word.fetch_and(picked, Relaxed);
            }
        }
    }

    /// Notes where the block of `bit` is served from. Two shards that do so at a time may leave a number that is neither's,
    /// until it is forgotten.
    pub(crate) fn set_home(&self, bit: u64, home: Home) {
        if self.picked.load(Relaxed) & bit == 0 {
            self.picked.fetch_or(bit, Relaxed);
        }
        for (i, word) in self.home.iter().enumerate() {
            match (home.0 >> i & 1 == 1, word.load(Relaxed) & bit != 0) {
                (true, false) => _ = word.fetch_or(bit, Relaxed),
                (false, true) => _ = word.fetch_and(!bit, Relaxed),
                _ => {}
            }
        }
    }
}

/// All shards of a tree.
#[derive(Debug)]
pub(crate) struct Shards([Shard; SHARDS]);

impl Place {
    #[inline(always)]
    fn pack(self) -> u64 {
        (self.slot.0 as u64 + 1) << ROW_BITS | self.row.0 as u64
    }

    #[inline(always)]
    fn unpack(word: u64) -> Option<Self> {
        let slot = (word >> ROW_BITS).checked_sub(1)?;
        let row = word & ((1 << ROW_BITS) - 1);
        Some(Self { slot: SlotIndex(slot as usize), row: Row(row as usize) })
    }
}

impl Cursor {
    #[inline(always)]
    pub(crate) fn load(&self) -> Option<Place> {
        Place::unpack(self.0.load(Relaxed))
    }

    #[inline(always)]
    pub(crate) fn store(&self, place: Place) {
        self.0.store(place.pack(), Relaxed);
    }

    /// Takes the cursor away, and says where it was.
    pub(crate) fn clear(&self) -> Option<Place> {
        Place::unpack(self.0.swap(0, AcqRel))
    }

    /// Moves the cursor, and says where it was: exactly one caller hears of each place.
    pub(crate) fn swap(&self, place: Place) -> Option<Place> {
        Place::unpack(self.0.swap(place.pack(), AcqRel))
    }
}

impl Shard {
    /// The cursor of runs of `order` (0 to 8).
    #[inline(always)]
    pub(crate) fn cursor(&self, order: usize) -> &Cursor {
        &self.cursors[order]
    }

    /// What groups note of blocks that are served from here.
    #[inline]
    pub(crate) fn home(&self) -> Home {
        self.home
    }

    /// Counts a call. Whether it is one of those that pay for housekeeping.
    #[inline]
    pub(crate) fn tick(&self) -> bool {
        const EVERY: u64 = 128;
        let ticks = self.ticks.load(Relaxed).wrapping_add(1);
        self.ticks.store(ticks, Relaxed);
        ticks % EVERY == 0
    }
}

impl Shards {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        const fn shard(home: usize) -> Shard {
            Shard {
                cursors: [const { Cursor(AtomicU64::new(0)) }; CURSORS],
                ticks: AtomicU64::new(0),
                home: Home(home),
            }
        }
        let mut shards = [const { shard(0) }; SHARDS];
        let mut index = 0;
        while index < SHARDS {
            shards[index].home = Home(index + 1);
            index += 1;
        }
        Self(shards)
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        let cursor = |_| Cursor(AtomicU64::new(0));
        Self(core::array::from_fn(|index| Shard {
            cursors: core::array::from_fn(cursor),
            ticks: AtomicU64::new(0),
            home: Home(index + 1),
        }))
    }

    /// The shard of the stack that this runs on.
    #[cfg(not(loom))]
    #[inline(always)]
    pub(crate) fn mine(&self) -> &Shard {
        /// A page of stack to a shard: more than a call chain uses, less than a kernel's stack.
        const PAGE: u32 = 13;
        let here = 0u8;
        let page = (&raw const here) as u64 >> PAGE;
        let hash = page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SHARDS.ilog2());
        &self.0[hash as usize]
    }

    /// The shard of a CPU whose number the caller knows.
    pub(crate) fn of_cpu(&self, cpu: usize) -> &Shard {
        &self.0[cpu % SHARDS]
    }

    /// Where the cursors of single frames are.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        self.0.iter().filter_map(|shard| shard.cursor(0).load())
    }

    /// The model checker wants runs that repeat: all threads meet in one shard.
    #[cfg(loom)]
    pub(crate) fn mine(&self) -> &Shard {
        &self.0[0]
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn places_survive_packing() {
        for (slot, row) in [(0, 0), (0, 1), (254, (1 << 34) - 1), (31, 12345)] {
            let place = Place { slot: SlotIndex(slot), row: Row(row) };
            assert_eq!(Place::unpack(place.pack()), Some(place));
        }
        assert_eq!(Place::unpack(0), None);
    }

    #[test]
    fn threads_spread_over_shards() {
        let shards: &'static Shards = std::boxed::Box::leak(std::boxed::Box::new(Shards::new()));
        let mine = || shards.mine() as *const Shard as usize;
        let threads: std::vec::Vec<_> = (0..8).map(|_| std::thread::spawn(mine)).collect();
        let used: std::collections::BTreeSet<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        assert!(!used.is_empty());
    }
}
