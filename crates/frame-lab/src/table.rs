//! The table in the terminal, with what it was made from above and what it means below.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::{
    compare::Comparison,
    memory::{human_bytes, human_count},
};

/// The whole output of `compare` for a terminal.
pub(crate) fn draw(comparison: &Comparison) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = head(&mut out, comparison);
    let _ = writeln!(out, "\n{}\n", table(comparison));
    let _ = notes(&mut out, comparison);
    out
}

fn head(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    let (trace, memory) = (&comparison.trace, &comparison.memory);
    writeln!(out, "trace   {}", trace.source)?;
    writeln!(
        out,
        "        {} events in {:.1} s on {} CPUs: {} allocations, {} frees",
        human_count(trace.events),
        trace.seconds,
        trace.cpus,
        human_count(trace.allocations),
        human_count(trace.frees),
    )?;
    let highest = trace.allocations_by_order.iter().rposition(|&count| count > 0).unwrap_or(0);
    let orders = trace.allocations_by_order[..=highest].iter().enumerate();
    let orders: Vec<_> = orders.map(|(order, &count)| format!("{order}: {}", human_count(count))).collect();
    writeln!(out, "        allocations by order  {}", orders.join("  "))?;
    writeln!(
        out,
        "        skipped {} frees of frames from before the recording; {} frames came again with no free seen",
        human_count(trace.skipped_frees),
        human_count(trace.reallocated),
    )?;
    writeln!(out, "        live at the peak: {}", human_bytes(trace.peak_live_frames * 4096))?;
    for (count, what) in [
        (trace.frees_of_another_order, "frees named another order than their allocation"),
        (trace.failed_when_recorded, "allocations had failed when they were recorded"),
        (
            trace.events_out_of_order,
            "events lie before the event in front of them: replayed in the order of the file",
        ),
        (trace.lines_not_understood, "lines were not understood"),
    ] {
        if count > 0 {
            writeln!(out, "        {} {what}", human_count(count))?;
        }
    }
    for line in &trace.first_lines_not_understood {
        writeln!(out, "          {line}")?;
    }
    writeln!(
        out,
        "memory  {}{}: {} frames in {} ranges ({}), {} whole 2 MiB frames",
        memory.map,
        if memory.cut { ", cut" } else { "" },
        human_count(memory.frames as u64),
        memory.regions,
        human_bytes(memory.frames as u64 * 4096),
        human_count(memory.frames_2m as u64),
    )?;
    let machine = &comparison.machine;
    writeln!(out, "machine {}, {} cores, {}, {}", machine.cpu, machine.cores, machine.system, machine.rustc)
}

fn table(comparison: &Comparison) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "backend",
        "Mops/s",
        "ns/op",
        "failures",
        "free 2M\nend",
        "free 2M\nlowest",
        "fragmented\nend",
        "fragmented\nworst",
        "metadata",
        "lost/\ndoubled",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let rows = &comparison.measured.rows;
    for row in rows {
        table.add_row([
            Cell::new(row.backend),
            Cell::new(format!("{:.1}", row.ops_per_second / 1e6)),
            Cell::new(format!("{:.1}", row.ns_per_op.median)),
            Cell::new(human_count(row.failures)),
            Cell::new(human_count(row.free_2m_end as u64)),
            Cell::new(human_count(row.free_2m_lowest as u64)),
            Cell::new(format!("{:.2} %", row.fragmentation_end * 100.0)),
            Cell::new(format!("{:.2} %", row.fragmentation_worst * 100.0)),
            Cell::new(human_bytes(row.metadata_bytes as u64)),
            Cell::new(format!("{}/{}", row.lost_frames, row.doubled_frames + row.refused_frees)),
        ]);
    }
    table
}

fn notes(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    let measured = &comparison.measured;
    writeln!(
        out,
        "Mops/s: million allocations and frees a second ({}), median of {} interleaved\n\
         passes of {} calls each; the replay loop itself takes {:.1} ns of each call. fragmented: share of the free\n\
         memory that lies outside of free 2 MiB frames.",
        crate::clock::KIND,
        measured.passes,
        human_count(measured.operations as u64),
        measured.harness_ns_per_op,
    )?;
    let most = comparison.trace.peak_live_frames.div_ceil(512);
    writeln!(
        out,
        "Linux had placed these frames in {} 2 MiB blocks at most, {} at the end, on a machine that held other memory,\n\
         too; {} blocks would hold the peak.",
        human_count(comparison.recorded.blocks_2m_most as u64),
        human_count(comparison.recorded.blocks_2m_end as u64),
        human_count(most),
    )?;
    if let Some(free) = measured.rows.first().map(|row| row.free_frames_end)
        && measured.complaints().is_empty()
        && measured.rows.iter().all(|row| row.free_frames_end == free)
    {
        writeln!(
            out,
            "Watched frame by frame in a pass of its own: no frame lost, none given twice; every backend ends with {}\n\
             free frames and has all {} back when everything is freed.",
            human_count(free as u64),
            human_count(comparison.memory.frames as u64),
        )?;
    }
    if !comparison.machine.is_optimised() {
        writeln!(out, "This is a debug build: the times mean nothing. Run it with `cargo run --release`.")?;
    }
    Ok(())
}
