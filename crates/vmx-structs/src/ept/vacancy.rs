//! Whether a table maps nothing any more: it is given back then.
//!
//! Nobody counts the entries of a table in use: a count for each would need a place, and every change would have to keep
//! it. There are two ways around it.
//!
//! To know that a table is not empty, it is enough to know one entry that is in use, so [`Witnesses`] remembers where one
//! was seen last. That is a guess, looked at before it is believed: a wrong one costs a search, and changes that know
//! nothing of it do no harm.
//!
//! Who makes many changes can look later: [`Suspects`] notes the tables that pages were taken out of.

use frame_core::{FrameHal, TableRef};

use super::entry::{ENTRIES, LINE, index, shift};
use super::format::Format;
use super::lookup::number;

/// An entry that is in use, or was, for each of many tables. Tables that have a place in common share the guess.
pub(super) struct Witnesses {
    /// Its index.
    entries: [u16; PLACES],
}

const PLACES: usize = 256;

impl Witnesses {
    /// Guesses to begin with: not in the same line of every table, for such lines drive each other out of a processor's
    /// cache.
    pub(super) const fn new() -> Self {
        let mut entries = [0; PLACES];
        let mut place = 0;
        while place < PLACES {
            entries[place] = (place % LINE * LINE) as u16;
            place += 1;
        }
        Self { entries }
    }

    /// Whether the table of this level that an address lies in has an entry in use. `false` says nothing.
    #[inline(always)]
    pub(super) fn knows<H: FrameHal>(
        &self,
        format: &Format,
        table: TableRef<'_, H>,
        address: u64,
        level: u32,
    ) -> bool {
        format.is_present(table.word(usize::from(self.entries[place(address, level)])))
    }

    /// Takes note of an entry in use, of the table of this level that an address lies in.
    pub(super) fn remember(&mut self, address: u64, level: u32, i: usize) {
        self.entries[place(address, level)] = i as u16;
    }
}

/// The place of the table of this level that an address lies in.
#[inline(always)]
const fn place(address: u64, level: u32) -> usize {
    number(address, level) as usize % PLACES
}

/// Tables of one level that may be empty: some of those below one table. The entry of each is marked as
/// [`NOTED`](super::entry::NOTED).
pub(super) struct Suspects {
    /// Their level; 0 when there are none.
    level: u32,
    /// The number of the table above them.
    above: u64,
    /// A bit for each entry of that table.
    bits: [u64; WORDS],
    /// The number of the one of level 3 that was noted last; [`NOWHERE`] when there is none. Who unmaps a page of 1 GiB does
    /// not come by the entry above.
    region: u64,
}

const WORDS: usize = ENTRIES / u64::BITS as usize;
const NOWHERE: u64 = u64::MAX;

impl Suspects {
    pub(super) const NONE: Self = Self { level: 0, above: NOWHERE, bits: [0; WORDS], region: NOWHERE };

    pub(super) const fn is_empty(&self) -> bool {
        self.level == 0
    }

    /// Whether the table of level 3 that an address lies in was the last that was noted.
    #[inline(always)]
    pub(super) const fn has_region(&self, address: u64) -> bool {
        self.region == number(address, 3)
    }

    /// Notes the table of this level that an address lies in. Returns whether it did: it can do so if there are none, or if
    /// the table lies below the same table as those that there are.
    pub(super) fn note(&mut self, address: u64, level: u32) -> bool {
        let above = number(address, level + 1);
        if !self.is_empty() && (self.level, self.above) != (level, above) {
            return false;
        }
        (self.level, self.above) = (level, above);
        let i = index(address, level + 1);
        self.bits[i / 64] |= 1 << (i % 64);
        if level == 3 {
            self.region = number(address, 3);
        }
        true
    }

    /// Their level, and an address in each of them.
    pub(super) fn addresses(mut self) -> (u32, impl Iterator<Item = u64>) {
        let mut word = 0;
        let addresses = core::iter::from_fn(move || {
            while self.bits.get(word) == Some(&0) {
                word += 1;
            }
            let bits = self.bits.get_mut(word)?;
            let i = (word * u64::BITS as usize) as u64 + u64::from(bits.trailing_zeros());
            *bits &= *bits - 1;
            Some((self.above << shift(self.level + 2)) + (i << shift(self.level + 1)))
        });
        (self.level, addresses)
    }
}

/// Whether a table has vacant entries alone.
pub(super) fn is_empty<H: FrameHal>(format: &Format, table: TableRef<'_, H>) -> bool {
    const PART: usize = 4 * LINE;
    (0..ENTRIES / PART).all(|part| !is_used::<H>(format, table.gather(part * PART..(part + 1) * PART).1))
}

/// An entry in use of a table; `None` if it has vacant ones alone. `around` is where one was just cleared: its own line is
/// looked at first, then the others from the far end of the table, and the far end of a line, where entries stay longest
/// in use when they are cleared in order.
pub(super) fn used_entry<H: FrameHal>(
    format: &Format,
    table: TableRef<'_, H>,
    around: usize,
) -> Option<usize> {
    const LINES: usize = ENTRIES / LINE;
    let own = around % ENTRIES / LINE;
    let used_in = |line: usize, from_top: bool| {
        let mut entries = line * LINE..(line + 1) * LINE;
        if !is_used::<H>(format, table.gather(entries.clone()).1) {
            return None;
        }
        let is_used = |&i: &usize| is_used::<H>(format, table.word(i));
        if from_top { entries.rfind(is_used) } else { entries.find(is_used) }
    };
    let below = || (0..own).find_map(|line| used_in(line, false));
    let above = || (own + 1..LINES).rev().find_map(|line| used_in(line, true));
    used_in(own, around % LINE < LINE / 2)
        .or_else(|| if own < LINES / 2 { above().or_else(below) } else { below().or_else(above) })
}

/// Whether one of the words that were combined is in use. What owns a table or a run is present, unless it was edited.
#[inline(always)]
const fn is_used<H: FrameHal>(format: &Format, any: u64) -> bool {
    TableRef::<H>::is_owner(any) || format.is_present(any)
}
