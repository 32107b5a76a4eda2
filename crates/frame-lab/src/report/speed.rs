//! The figures of the table, and how fast each backend is.

use std::fmt::Write;

use super::{
    chart::{self, Bar},
    class, escape, swatch,
};
use crate::{
    compare::Comparison,
    measure::Measured,
    memory::{human_bytes, human_count},
};

pub(super) fn figures(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    let rows = &comparison.measured.rows;
    writeln!(
        out,
        r#"<div class="panel"><table><thead><tr><th>backend</th><th>million<br>calls/s</th><th>ns a call</th><th>failed<br>allocations</th>
<th>free 2 MiB<br>at the end</th><th>free 2 MiB<br>at the lowest</th><th>fragmented<br>at the end</th><th>fragmented<br>at the worst</th><th>metadata</th><th>lost /<br>doubled</th></tr></thead><tbody>"#
    )?;
    let best_speed = rows.iter().map(|row| row.ops_per_second).fold(0.0, f64::max);
    let best_lowest = rows.iter().map(|row| row.free_2m_lowest).max();
    let best_end = rows.iter().map(|row| row.free_2m_end).max();
    let best_metadata = rows.iter().map(|row| row.metadata_bytes).min();
    let best = |is: bool| if is && rows.len() > 1 { r#" class="best""# } else { "" };
    for row in rows {
        writeln!(
            out,
            "<tr><td title=\"{}\">{}</td><td{}>{:.1}</td><td>{:.1}</td><td>{}</td><td{}>{}</td><td{}>{}</td><td>{:.2} %</td><td>{:.2} %</td><td{}>{}</td><td>{} / {}</td></tr>",
            escape(row.about),
            swatch(row.backend),
            best(row.ops_per_second == best_speed),
            row.ops_per_second / 1e6,
            row.ns_per_op.median,
            human_count(row.failures),
            best(Some(row.free_2m_end) == best_end),
            human_count(row.free_2m_end as u64),
            best(Some(row.free_2m_lowest) == best_lowest),
            human_count(row.free_2m_lowest as u64),
            row.fragmentation_end * 100.0,
            row.fragmentation_worst * 100.0,
            best(Some(row.metadata_bytes) == best_metadata),
            human_bytes(row.metadata_bytes as u64),
            row.lost_frames,
            row.doubled_frames + row.refused_frees,
        )?;
    }
    writeln!(
        out,
        "</tbody></table></div><p class=\"soft\">The best of a column is bold. <i>Fragmented</i> is the share of free memory that lies outside of free
2 MiB frames. <i>Metadata</i> is what the allocator keeps beside the memory, wherever it lies.</p>"
    )
}

pub(super) fn speed(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    let measured = &comparison.measured;
    writeln!(
        out,
        "<h2>How fast</h2><p>Million calls a second, more is better. A call is one allocation or one free, of any size that Linux asked for.
The bar is the median of {} passes, taken in turns; the thin line runs from the slowest pass to the fastest. The loop that
makes the calls takes {:.1} ns of each and is part of every bar.</p>",
        measured.passes, measured.harness_ns_per_op,
    )?;
    let classes: Vec<_> = measured.rows.iter().map(|row| class(row.backend)).collect();
    let slowest = measured.rows.iter().map(|row| row.ops_per_second).fold(f64::MAX, f64::min);
    let bars: Vec<_> = measured
        .rows
        .iter()
        .zip(&classes)
        .map(|(row, class)| Bar {
            class,
            name: row.backend,
            value: row.ops_per_second / 1e6,
            low: 1e3 / row.ns_per_op.highest,
            high: 1e3 / row.ns_per_op.lowest,
        })
        .collect();
    let note = |bar: &Bar<'_>| {
        let times = bar.value * 1e6 / slowest;
        let ratio = if times > 1.005 { format!("  ({times:.1} ×)") } else { String::new() };
        format!("{:.1} M/s, {:.1} ns{ratio}", bar.value, 1e3 / bar.value)
    };
    writeln!(out, r#"<div class="panel">{}</div>"#, chart::bars(&bars, note))?;
    speed_with_threads(out, measured, &classes)
}

fn speed_with_threads(out: &mut String, measured: &Measured, classes: &[String]) -> std::fmt::Result {
    let bars: Vec<_> = measured
        .rows
        .iter()
        .zip(classes)
        .filter_map(|(row, class)| {
            let with = row.with_threads?;
            Some(Bar {
                class,
                name: row.backend,
                value: with.ops_per_second / 1e6,
                low: 1e3 / with.ns_per_op.highest,
                high: 1e3 / with.ns_per_op.lowest,
            })
        })
        .collect();
    let Some(with) = measured.rows.first().and_then(|row| row.with_threads) else { return Ok(()) };
    writeln!(
        out,
        "<p>The same calls by {} threads at once, one for each CPU of the recording: million calls a second of all together, on
the wall, so that whatever else the machine does counts, too. Behind a lock the threads wait for each other.</p>",
        with.threads
    )?;
    let note = |bar: &Bar<'_>| format!("{:.1} M/s", bar.value);
    writeln!(out, r#"<div class="panel">{}</div>"#, chart::bars(&bars, note))
}
