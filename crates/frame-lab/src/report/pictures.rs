//! The pictures of memory: which 2 MiB blocks are free, partly used, full; over time, and at the end.
//!
//! Runs of the same fill become one stroke each, and all strokes of a fill one path: a picture of 160 moments
//! and some hundred blocks is a few tens of kilobytes, and the page's style sheet colours it.

use std::fmt::Write;

use crate::{
    ledger::BLOCK_FRAMES,
    picture::{Fill, Picture},
};

/// Each fill: class, and what it means.
pub(super) const FILLS: [(Fill, &str, &str); 5] = [
    (Fill::Free, "f-free", "free: a 2 MiB frame could be had"),
    (Fill::Sparse, "f-sparse", "less than a quarter used"),
    (Fill::Partly, "f-partly", "a quarter to three quarters used"),
    (Fill::Dense, "f-dense", "more than three quarters used"),
    (Fill::Full, "f-full", "full"),
];

fn class(fill: Fill) -> &'static str {
    FILLS[fill as usize].1
}

/// Height of a picture over time, in pixels, for the backend that touched the most blocks.
const HEIGHT: f64 = 340.0;
const WIDTH: f64 = 480.0;
/// Rows beyond this would be thinner than a pixel: neighbouring blocks share one.
const MOST_ROWS: usize = 340;

/// Memory over time: a row for each block that was ever in use, lowest address at the top. `most` is the number of such
/// blocks of the backend that touched the most: all pictures are drawn to its scale.
pub(super) fn over_time(picture: &Picture, most: usize) -> String {
    let together = most.div_ceil(MOST_ROWS).max(1);
    let columns = picture.columns.len().max(1);
    let row_height = (HEIGHT / most.div_ceil(together).max(1) as f64).min(8.0);
    let rows = picture.touched.len().div_ceil(together);
    let height = most.div_ceil(together) as f64 * row_height;
    let mut paths: [String; 5] = Default::default();
    // Of blocks that share a row, the emptiest that is in use is shown: it is the one that spoils a huge frame.
    for (y, group) in picture.rows().chunks(together).enumerate() {
        let mut fills = vec![Fill::Free; columns];
        for (range, fill) in group.iter().flatten().filter(|(_, fill)| *fill != Fill::Free) {
            for shown in &mut fills[range.clone()] {
                *shown = if *shown == Fill::Free { *fill } else { (*shown).min(*fill) };
            }
        }
        strokes(&mut paths, &fills, y);
    }
    let mut out = format!(
        r#"<svg class="memory" viewBox="0 0 {WIDTH} {height:.0}" preserveAspectRatio="none" role="img">"#
    );
    let (sx, sy) = (WIDTH / columns as f64, row_height);
    let _ = write!(
        out,
        r#"<g transform="scale({sx:.4} {sy:.4})"><rect class="f-free" width="{columns}" height="{rows}"/>"#
    );
    draw(&mut out, &paths);
    out.push_str("</g></svg>");
    out
}

/// Rows of the picture at the end, at most.
const MOST_CELL_ROWS: usize = 256;

/// Cells in a row of the picture at the end: about as many as make it twice as wide as high.
fn cells(blocks: usize) -> usize {
    match blocks {
        0..=512 => 32,
        513..=2048 => 64,
        _ => 128,
    }
}

/// Bytes that a row of the picture at the end stands for.
pub(super) fn row_bytes(frames: usize) -> u64 {
    (cells(frames / BLOCK_FRAMES) as u64) << 21
}

/// All of memory at the end, a cell for each block; and how many blocks lie beyond the picture.
pub(super) fn at_the_end(picture: &Picture, frames: usize) -> (String, usize) {
    let cells = cells(frames / BLOCK_FRAMES);
    let shown = picture.blocks.len().min(cells * MOST_CELL_ROWS);
    let mut paths: [String; 5] = Default::default();
    for (y, row) in picture.blocks[..shown].chunks(cells).enumerate() {
        let fills: Vec<_> = row.iter().map(Fill::of).collect();
        strokes(&mut paths, &fills, y);
    }
    let rows = shown.div_ceil(cells);
    let mut out = format!(r#"<svg class="memory" viewBox="0 0 {cells} {rows}" role="img">"#);
    let (whole, rest) = (shown / cells, shown % cells);
    let _ = write!(
        out,
        r#"<rect class="f-free" width="{cells}" height="{whole}"/><rect class="f-free" y="{whole}" width="{rest}" height="1"/>"#
    );
    draw(&mut out, &paths);
    out.push_str("</svg>");
    (out, picture.blocks.len() - shown)
}

/// Adds a row of fills to the path of each.
fn strokes(paths: &mut [String; 5], fills: &[Fill], y: usize) {
    let mut x = 0;
    for run in fills.chunk_by(|a, b| a == b) {
        if run[0] != Fill::Free {
            let _ = write!(paths[run[0] as usize], "M{x} {y}.5h{}", run.len());
        }
        x += run.len();
    }
}

fn draw(out: &mut String, paths: &[String; 5]) {
    for (fill, _, _) in &FILLS[1..] {
        let path = &paths[*fill as usize];
        if !path.is_empty() {
            let _ = write!(out, r#"<path class="{}" d="{path}"/>"#, class(*fill));
        }
    }
}

/// What the colours mean.
pub(super) fn key() -> String {
    let mut out = String::from(r#"<div class="key">"#);
    for (_, class, meaning) in FILLS {
        let _ = write!(out, r#"<span class="{class}"><i></i>{meaning}</span>"#);
    }
    out.push_str("</div>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_index_their_own_entry() {
        for (i, (fill, _, _)) in FILLS.iter().enumerate() {
            assert_eq!(*fill as usize, i);
        }
    }

    #[test]
    fn runs_become_strokes() {
        let mut paths: [String; 5] = Default::default();
        strokes(&mut paths, &[Fill::Free, Fill::Full, Fill::Full, Fill::Sparse], 7);
        assert_eq!(paths[Fill::Full as usize], "M1 7.5h2");
        assert_eq!(paths[Fill::Sparse as usize], "M3 7.5h1");
        assert!(paths[Fill::Free as usize].is_empty());
    }
}
