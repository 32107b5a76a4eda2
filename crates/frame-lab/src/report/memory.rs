//! What became of memory: 2 MiB frames that are left, memory that was asked for, and the pictures.

use std::fmt::Write;

use super::{
    chart::{self, Series, Times},
    class, legend, pictures, swatch,
};
use crate::{
    compare::Comparison,
    memory::{human_bytes, human_count},
};

/// Where the samples lie on the axis, and its unit: seconds, or calls if the trace has no times.
fn times(comparison: &Comparison) -> Times {
    let program = &comparison.input.program;
    if program.duration() == 0 {
        return Times {
            values: program.samples.iter().map(|sample| sample.op as f64).collect(),
            unit: "calls",
        };
    }
    Times { values: program.samples.iter().map(|sample| sample.time as f64 / 1e9).collect(), unit: "s" }
}

pub(super) fn huge_frames(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    let (times, rows) = (times(comparison), &comparison.measured.rows);
    let program = &comparison.input.program;
    writeln!(
        out,
        "<h2>How many 2 MiB frames are left</h2><p>A 2 MiB page needs 512 free frames in a row, at a multiple of 2 MiB. An allocator that strews
small allocations over memory spoils many of them; one that packs keeps them. More is better; the dotted line is the most
that could be left with perfect packing. Linux itself had these frames in {} blocks of 2 MiB at most, on a machine
that held other memory besides; perfect packing needs {}.</p>",
        human_count(comparison.recorded.blocks_2m_most as u64),
        human_count(program.peak_frames.div_ceil(512)),
    )?;
    let total = comparison.memory.frames_2m as f64;
    let spare = (comparison.memory.frames - comparison.memory.frames_2m * 512) as u64;
    // Frames outside of whole blocks can hold some of it for nothing.
    let ideal: Vec<f64> = program
        .samples
        .iter()
        .map(|sample| total - sample.live_frames.saturating_sub(spare).div_ceil(512) as f64)
        .map(|left| left.max(0.0))
        .collect();
    let values: Vec<Vec<f64>> =
        rows.iter().map(|row| row.verdict.free_2m_series.iter().map(|&free| free as f64).collect()).collect();
    let classes: Vec<_> = rows.iter().map(|row| format!("series {}", class(row.backend))).collect();
    let mut series = vec![Series { class: "ideal", name: "perfect packing", values: &ideal }];
    for ((row, values), class) in rows.iter().zip(&values).zip(&classes) {
        series.push(Series { class, name: row.backend, values });
    }
    let chart = chart::lines(&times, &series, 320.0, false, "free 2 MiB frames");
    writeln!(out, r#"<div class="panel">{}{chart}</div>"#, legend(rows))
}

pub(super) fn live_memory(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    let live: Vec<f64> =
        comparison.input.program.samples.iter().map(|sample| sample.live_frames as f64 / 256.0).collect();
    writeln!(
        out,
        "<h2>What was asked for</h2><p>MiB that are allocated at a time, by allocations that the recording saw; {} at the peak.
It is the same for every allocator: the rest of this page is what they made of it.</p>",
        human_bytes(comparison.trace.peak_live_frames * 4096),
    )?;
    let series = [Series { class: "live", name: "allocated", values: &live }];
    writeln!(
        out,
        r#"<div class="panel">{}</div>"#,
        chart::lines(&times(comparison), &series, 200.0, true, "MiB")
    )
}

pub(super) fn over_time(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    let rows = &comparison.measured.rows;
    let most = rows.iter().map(|row| row.verdict.picture.touched.len()).max().unwrap_or(0);
    writeln!(
        out,
        "<h2>Memory over time</h2><p>Each row is a block of 2 MiB that was in use at some moment, the lowest address at the top; time runs from
left to right. All pictures have the same scale: a low one needed few blocks. Blue blocks are well used; orange ones
are spoiled for a 2 MiB page by a few small allocations.</p>{}<div class=\"pair\">",
        pictures::key(),
    )?;
    for row in rows {
        let picture = &row.verdict.picture;
        writeln!(
            out,
            r#"<figure class="panel"><h3>{}</h3><figcaption>{} blocks of 2 MiB were in use at some moment</figcaption>{}<div class="ends"><span>start</span><span>{}</span></div></figure>"#,
            swatch(row.backend),
            human_count(picture.touched.len() as u64),
            pictures::over_time(picture, most),
            if comparison.trace.seconds > 0.0 {
                format!("{:.1} s", comparison.trace.seconds)
            } else {
                "end".into()
            },
        )?;
    }
    writeln!(out, "</div>")
}

pub(super) fn at_the_end(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    writeln!(
        out,
        "<h2>All of memory, at the end</h2><p>Every block of 2 MiB of the machine, left to right and top to bottom by address, {} a row.</p>{}<div class=\"trio\">",
        human_bytes(pictures::row_bytes(comparison.memory.frames)),
        pictures::key(),
    )?;
    for row in &comparison.measured.rows {
        let picture = &row.verdict.picture;
        let (drawing, beyond) = pictures::at_the_end(picture, comparison.memory.frames);
        let (used, full) = picture.used_and_full();
        let beyond = match beyond {
            0 => String::new(),
            blocks => format!("; {} more lie above what is drawn", human_count(blocks as u64)),
        };
        writeln!(
            out,
            r#"<figure class="panel"><h3>{}</h3><figcaption>{} whole and free, {} partly used, {} full{beyond}</figcaption>{drawing}</figure>"#,
            swatch(row.backend),
            human_count(row.free_2m_end as u64),
            human_count((used - full) as u64),
            human_count(full as u64),
        )?;
    }
    writeln!(out, "</div>")
}
