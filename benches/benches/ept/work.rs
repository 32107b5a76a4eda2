//! What both are put to.

use std::hint::black_box;

use vmx_structs::PageSize;

use crate::tables::{Page, Tables};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Pages one by one.
    Map,
    Unmap,
    Protect,
    Query,
    Translate,
    /// All of them as one range.
    MapRange,
    UnmapRange,
    ProtectRange,
}

/// The order of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Ascending,
    Random,
}

/// One row of the comparison.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) work: Work,
    pub(crate) order: Order,
    pub(crate) size: PageSize,
    /// Bytes of guest memory.
    pub(crate) span: u64,
    /// Whether the processor sets accessed and dirty flags.
    pub(crate) flags: bool,
}

impl Row {
    /// Pages: operations, or what a range holds.
    pub(crate) fn operations(&self) -> u64 {
        self.span / self.size.bytes()
    }

    pub(crate) fn pages(&self) -> Pages {
        let host = host_of(self.size);
        let mut pages: Vec<Page> =
            (0..self.operations()).map(|i| i * self.size.bytes()).map(|at| (at, host + at)).collect();
        if self.order == Order::Random {
            let mut state = 1u64;
            for i in (1..pages.len()).rev() {
                // Knuth's generator is random enough to shuffle.
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                pages.swap(i, (state >> 33) as usize % (i + 1));
            }
        }
        if matches!(self.work, Work::Query | Work::Translate) {
            for (i, page) in pages.iter_mut().enumerate() {
                page.0 += i as u64 * 8 % 4096;
            }
        }
        Pages(pages)
    }
}

/// Host memory that is not aligned to the next larger page, so that ranges are mapped by pages of this size.
fn host_of(size: PageSize) -> u64 {
    (1 << 41) + size.bytes()
}

pub(crate) struct Pages(Vec<Page>);

/// Tables in the state from which a row starts.
pub(crate) fn prepared<T: Tables>(row: &Row) -> T {
    let mut tables = T::new(row.flags, row.span);
    if !matches!(row.work, Work::Map | Work::MapRange) {
        tables.map_range(0, host_of(row.size), row.span);
    }
    tables
}

/// What is timed.
#[inline(never)]
pub(crate) fn run<T: Tables>(row: &Row, Pages(pages): &Pages, tables: &mut T) {
    match row.work {
        Work::Map => tables.map(pages, row.size),
        Work::Unmap => tables.unmap(pages),
        Work::Protect => tables.protect(pages),
        Work::Query => _ = black_box(tables.query(pages)),
        Work::Translate => _ = black_box(tables.translate(pages)),
        Work::MapRange => tables.map_range(0, host_of(row.size), row.span),
        Work::UnmapRange => tables.unmap_range(0, row.span),
        Work::ProtectRange => tables.protect_range(0, row.span),
    }
}

/// Runs every row that is not large on both, and demands the same translations after it, page by page.
///
/// # Panics
/// They differ.
pub(crate) fn verify<A: Tables, B: Tables>() {
    for row in ROWS.iter().filter(|row| row.operations() <= 1 << 16) {
        let pages = row.pages();
        let (mut a, mut b) = (prepared::<A>(row), prepared::<B>(row));
        run(row, &pages, &mut a);
        run(row, &pages, &mut b);
        let mut mapped = 0;
        for &(guest, _) in &pages.0 {
            let seen = a.look(guest);
            assert_eq!(seen, b.look(guest), "{}: {guest:#x}", row.name);
            mapped += u64::from(seen.is_some_and(|(_, size, _)| size == row.size.bytes()));
        }
        if matches!(row.work, Work::Unmap | Work::UnmapRange) {
            assert_eq!(mapped, 0, "{}", row.name);
        } else {
            assert_eq!(mapped, row.operations(), "{}", row.name);
            assert_eq!(a.query(&pages.0), b.query(&pages.0), "{}", row.name);
            assert_eq!(a.translate(&pages.0), b.translate(&pages.0), "{}", row.name);
        }
    }
}

const M: u64 = 1 << 20;
const G: u64 = 1 << 30;
const T: u64 = 1 << 40;

macro_rules! rows {
    ($($name:literal: $work:ident $order:ident $size:ident $span:expr, $flags:literal;)*) => {
        &[$(Row {
            name: $name,
            work: Work::$work,
            order: Order::$order,
            size: PageSize::$size,
            span: $span,
            flags: $flags,
        }),*]
    };
}

/// All of them.
pub(crate) const ROWS: &[Row] = rows! {
    "4K map":              Map Ascending Size4K 256 * M, true;
    "4K map, random":      Map Random Size4K 256 * M, true;
    "4K unmap":            Unmap Ascending Size4K 256 * M, true;
    "4K unmap, random":    Unmap Random Size4K 256 * M, true;
    "4K unmap, no flags":   Unmap Ascending Size4K 256 * M, false;
    "4K unmap, random, no flags": Unmap Random Size4K 256 * M, false;
    "4K protect":          Protect Ascending Size4K 256 * M, true;
    "4K protect, random":  Protect Random Size4K 256 * M, true;
    "4K query":            Query Ascending Size4K 256 * M, true;
    "4K query, random":    Query Random Size4K 256 * M, true;
    "4K translate":        Translate Ascending Size4K 256 * M, true;
    "4K translate, random": Translate Random Size4K 256 * M, true;
    "2M map":              Map Ascending Size2M 64 * G, true;
    "2M map, random":      Map Random Size2M 64 * G, true;
    "2M unmap":            Unmap Ascending Size2M 64 * G, true;
    "2M unmap, random":    Unmap Random Size2M 64 * G, true;
    "2M unmap, no flags":   Unmap Ascending Size2M 64 * G, false;
    "2M unmap, random, no flags": Unmap Random Size2M 64 * G, false;
    "2M query, random":    Query Random Size2M 64 * G, true;
    "2M translate, random": Translate Random Size2M 64 * G, true;
    "1G map":              Map Ascending Size1G T, true;
    "1G unmap":            Unmap Ascending Size1G T, true;
    "1G unmap, no flags":   Unmap Ascending Size1G T, false;
    "1G query, random":    Query Random Size1G T, true;
    "1G translate, random": Translate Random Size1G T, true;
    "256 MiB by 4K, map range":     MapRange Ascending Size4K 256 * M, true;
    "256 MiB by 4K, unmap range":   UnmapRange Ascending Size4K 256 * M, true;
    "256 MiB by 4K, protect range": ProtectRange Ascending Size4K 256 * M, true;
    "1 TiB by 2M, map range":       MapRange Ascending Size2M T, true;
    "1 TiB by 2M, unmap range":     UnmapRange Ascending Size2M T, true;
    "1 TiB by 2M, protect range":   ProtectRange Ascending Size2M T, true;
    "1 TiB by 1G, map range":       MapRange Ascending Size1G T, true;
    "1 TiB by 1G, unmap range":     UnmapRange Ascending Size1G T, true;
    "1 TiB by 1G, protect range":   ProtectRange Ascending Size1G T, true;
};

/// A terabyte of small pages: 2 GiB of tables, a second a run. In the table of ratios only.
pub(crate) const LARGE_ROWS: &[Row] = rows! {
    "1 TiB by 4K, map range":       MapRange Ascending Size4K T, true;
    "1 TiB by 4K, protect range":   ProtectRange Ascending Size4K T, true;
    "1 TiB by 4K, unmap range":     UnmapRange Ascending Size4K T, true;
};
