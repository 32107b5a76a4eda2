//! The HTML report: one file with everything in it, for a browser, a mail or an archive. No script, no font and no
//! picture from elsewhere; light or dark as the reader's system is.

mod chart;
mod pictures;

use std::fmt::Write;

use crate::{
    compare::Comparison,
    measure::{Measured, Row},
    memory::{human_bytes, human_count},
};
use chart::{Bar, Series, Times};

/// The report.
pub(crate) fn html(comparison: &Comparison) -> String {
    let mut out = String::from(concat!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">",
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">",
        "<title>frame-lab: frame allocators on a real trace</title><style>\n",
        include_str!("style.css"),
        "</style></head><body><main>\n"
    ));
    // Writing to a string does not fail.
    let _ = lead(&mut out, comparison);
    let _ = figures(&mut out, comparison);
    let _ = speed(&mut out, comparison);
    let _ = huge_frames(&mut out, comparison);
    let _ = live_memory(&mut out, comparison);
    let _ = memory_over_time(&mut out, comparison);
    let _ = memory_at_the_end(&mut out, comparison);
    let _ = virtual_machine(&mut out, comparison);
    let _ = origin(&mut out, comparison);
    out.push_str("</main></body></html>\n");
    out
}

/// Style class of a backend: its store's colour; `plain` without a cache.
fn class(backend: &str) -> String {
    let store = backend.rsplit('-').next().unwrap_or(backend);
    let colour = if ["buddy", "bitmap", "tree"].contains(&store) { store } else { "other" };
    let plain = if backend.starts_with("percpu-") { "" } else { " plain" };
    format!("{colour}{plain}")
}

fn swatch(backend: &str) -> String {
    format!(r#"<span class="swatch {}"></span>{}"#, class(backend), escape(backend))
}

fn legend(rows: &[Row]) -> String {
    let keys = rows.iter().map(|row| format!("<span>{}</span>", swatch(row.backend)));
    format!(r#"<div class="key">{}</div>"#, keys.collect::<String>())
}

fn lead(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    let (trace, memory, measured) = (&comparison.trace, &comparison.memory, &comparison.measured);
    let count = match measured.rows.len() {
        1 => "One frame allocator".to_owned(),
        n => format!("{n} frame allocators"),
    };
    writeln!(out, "<h1>{count}, one real machine's requests</h1>")?;
    writeln!(
        out,
        r#"<p class="lead">A Linux kernel was recorded for {:.1} seconds while it handed out and took back physical
memory: {} allocations and {} frees on {} CPUs. Here the same requests, in the same order, went to each allocator, on
{} of memory laid out as the firmware map <code>{}</code> says.</p>"#,
        trace.seconds,
        human_count(trace.allocations),
        human_count(trace.frees),
        trace.cpus,
        human_bytes(memory.frames as u64 * 4096),
        escape(&memory.map),
    )?;
    let rows = &measured.rows;
    let fastest = rows.iter().max_by(|a, b| a.ops_per_second.total_cmp(&b.ops_per_second));
    let slowest = rows.iter().min_by(|a, b| a.ops_per_second.total_cmp(&b.ops_per_second));
    if let (Some(fastest), Some(slowest), true) = (fastest, slowest, rows.len() > 1) {
        writeln!(
            out,
            r#"<p class="lead"><b>{}</b> was the fastest, with {:.1} million calls a second: {:.1} times as many as {}."#,
            fastest.backend,
            fastest.ops_per_second / 1e6,
            fastest.ops_per_second / slowest.ops_per_second,
            slowest.backend,
        )?;
        let best = rows.iter().map(|row| row.free_2m_lowest).max().unwrap_or(0);
        let worst = rows.iter().map(|row| row.free_2m_lowest).min().unwrap_or(0);
        let with = |free: usize| {
            let names = rows.iter().filter(|row| row.free_2m_lowest == free).map(|row| row.backend);
            names.collect::<Vec<_>>().join(", ")
        };
        if best > worst {
            writeln!(
                out,
                "At the worst moment <b>{}</b> had the most whole 2 MiB frames left ({} of {}), {} the fewest ({}).</p>",
                with(best),
                human_count(best as u64),
                human_count(memory.frames_2m as u64),
                with(worst),
                human_count(worst as u64),
            )?;
        } else {
            writeln!(out, "All left the same number of whole 2 MiB frames at the worst moment.</p>")?;
        }
    }
    let complaints = measured.complaints();
    if complaints.is_empty() {
        writeln!(
            out,
            "<p>Every frame was watched in a pass of its own: none was lost, none given to two owners, and when
everything was freed every allocator had all {} frames back.</p>",
            human_count(memory.frames as u64),
        )?;
    }
    for complaint in complaints {
        writeln!(out, r#"<p class="panel bad">{}</p>"#, escape(&complaint))?;
    }
    if !comparison.machine.is_optimised() {
        writeln!(out, r#"<p class="panel bad">This was a debug build: the times mean nothing.</p>"#)?;
    }
    Ok(())
}

fn figures(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
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

fn speed(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
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
the wall. Behind a lock the threads wait for each other.</p>",
        with.threads
    )?;
    let note = |bar: &Bar<'_>| {
        let alone =
            measured.rows.iter().find(|row| row.backend == bar.name).map_or(0.0, |row| row.ops_per_second);
        format!("{:.1} M/s, {:.2} × one thread", bar.value, bar.value * 1e6 / alone)
    };
    writeln!(out, r#"<div class="panel">{}</div>"#, chart::bars(&bars, note))
}

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

fn huge_frames(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
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

fn live_memory(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
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

fn memory_over_time(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
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

fn memory_at_the_end(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
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

fn virtual_machine(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    let rows = &comparison.measured.rows;
    let Some(built) = rows.iter().map(|row| &row.vm).max_by_key(|vm| vm.structures.len()) else {
        return Ok(());
    };
    writeln!(
        out,
        "<h2>A virtual machine of these frames</h2><p>A hypervisor asks otherwise than a kernel: single zeroed frames for what the processor reads, the
largest runs there are for the guest's memory. Beside the live memory at the end, each allocator gave the frames for a
virtual machine with 64 MiB on a processor like <code>{}</code>; what was written into the guest was found again through its page
tables, and everything was given back.</p><div class=\"panel\"><table><thead><tr><th>backend</th>",
        built.cpu,
    )?;
    for part in &built.structures {
        writeln!(out, "<th>{}</th>", part.name)?;
    }
    writeln!(
        out,
        "<th>2 MiB pages</th><th>4 KiB pages</th><th>frames<br>taken</th><th>frames<br>back</th></tr></thead><tbody>"
    )?;
    for Row { backend, vm, .. } in rows {
        write!(out, "<tr><td>{}</td>", swatch(backend))?;
        for part in &built.structures {
            write!(out, "<td>{}</td>", human_count(vm.frames_of(part.name) as u64))?;
        }
        writeln!(
            out,
            "<td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            human_count(vm.pages_2m),
            human_count(vm.pages_4k),
            human_count(vm.frames_taken as u64),
            human_count(vm.frames_given_back as u64),
        )?;
    }
    writeln!(out, "</tbody></table></div>")?;
    for row in rows {
        if let Some(error) = &row.vm.error {
            writeln!(out, "<p class=\"soft\">{}: not built, {}</p>", swatch(row.backend), escape(error))?;
        }
    }
    Ok(())
}

fn origin(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    let Comparison { trace, memory, machine, measured, .. } = comparison;
    let highest = trace.allocations_by_order.iter().rposition(|&count| count > 0).unwrap_or(0);
    let orders: Vec<_> = trace.allocations_by_order[..=highest]
        .iter()
        .enumerate()
        .map(|(order, &count)| format!("order {order}: {}", human_count(count)))
        .collect();
    let cut = if memory.cut { " (cut to its lowest part)" } else { "" };
    writeln!(out, "<h2>Where this comes from</h2><div class=\"panel\"><dl>")?;
    for (name, value) in [
        ("Trace", trace.source.clone()),
        (
            "Lines",
            format!(
                "{}, of which {} passed over (comments, other events) and {} not understood",
                human_count(trace.lines),
                human_count(trace.lines_passed_over),
                human_count(trace.lines_not_understood)
            ),
        ),
        ("Events", format!("{} on {} CPUs in {:.3} s", human_count(trace.events), trace.cpus, trace.seconds)),
        ("Allocations", format!("{} ({})", human_count(trace.allocations), orders.join(", "))),
        (
            "Frees",
            format!(
                "{}, of which {} skipped: they free what was allocated before the recording",
                human_count(trace.frees),
                human_count(trace.skipped_frees)
            ),
        ),
        (
            "Allocated again",
            format!("{} frames with no free seen in between: freed first", human_count(trace.reallocated)),
        ),
        (
            "Memory",
            format!(
                "{}{cut}: {} frames in {} ranges, {} whole 2 MiB frames",
                memory.map,
                human_count(memory.frames as u64),
                memory.regions,
                human_count(memory.frames_2m as u64)
            ),
        ),
        (
            "Method",
            format!(
                "one watched pass, then {} timed passes of {} calls, the backends in turns, each on a new allocator; one thread that acts as each CPU in the order of the recording; {}",
                measured.passes,
                human_count(measured.operations as u64),
                crate::clock::KIND
            ),
        ),
        ("Machine", format!("{}, {} cores, {}", machine.cpu, machine.cores, machine.system)),
        (
            "Versions",
            format!(
                "frame-lab {} ({}), {}; {}",
                machine.version, machine.profile, machine.rustc, machine.packages
            ),
        ),
    ] {
        writeln!(out, "<dt>{name}</dt><dd>{}</dd>", escape(&value))?;
    }
    for line in &trace.first_lines_not_understood {
        writeln!(out, "<dt>Not understood</dt><dd><code>{}</code></dd>", escape(line))?;
    }
    writeln!(
        out,
        "</dl></div><p class=\"soft\">Compare ratios, not bare times: a shared machine is noisy. Record your own machine with <code>frame-lab record</code>.</p>"
    )
}

/// Text for HTML, whatever it holds.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_files_cannot_become_markup() {
        assert_eq!(escape(r#"<b a="&">"#), "&lt;b a=&quot;&amp;&quot;&gt;");
    }

    #[test]
    fn a_backend_has_the_colour_of_its_store() {
        assert_eq!(
            (class("percpu-tree"), class("tree"), class("x")),
            ("tree".into(), "tree plain".into(), "other plain".into())
        );
    }
}
