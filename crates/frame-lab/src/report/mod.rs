//! The HTML report: one file with everything in it, for a browser, a mail or an archive. No script, no font and no
//! picture from elsewhere; light or dark as the reader's system is.

mod chart;
mod memory;
mod origin;
mod pictures;
mod speed;

use std::fmt::Write;

use crate::{
    compare::Comparison,
    measure::Row,
    memory::{human_bytes, human_count},
};

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
    let _ = speed::figures(&mut out, comparison);
    let _ = speed::speed(&mut out, comparison);
    let _ = memory::huge_frames(&mut out, comparison);
    let _ = memory::live_memory(&mut out, comparison);
    let _ = memory::over_time(&mut out, comparison);
    let _ = memory::at_the_end(&mut out, comparison);
    let _ = origin::virtual_machine(&mut out, comparison);
    let _ = origin::origin(&mut out, comparison);
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
