//! The table in the terminal, with what it was made from above and what it means below.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::{
    compare::Comparison,
    measure::Row,
    memory::{human_bytes, human_count},
    vm::{EPT_TABLES, GUEST_RAM, Vm},
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
    let rows = &comparison.measured.rows;
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let header = [
        "backend",
        "Mops/s",
        "ns/op",
        "failures",
        "free 2M\nend",
        "free 2M\nlowest",
        "fragmented\nend / worst",
        "metadata",
        "lost/\ndoubled",
    ];
    if rows.iter().any(|row| row.with_threads.is_some()) {
        table.set_header(header.iter().copied().chain(["Mops/s\nthreads"]));
    } else {
        table.set_header(header);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for row in rows {
        let mut cells = vec![
            Cell::new(row.backend),
            Cell::new(format!("{:.1}", row.ops_per_second / 1e6)),
            Cell::new(format!("{:.1}", row.ns_per_op.median)),
            Cell::new(human_count(row.failures)),
            Cell::new(human_count(row.free_2m_end as u64)),
            Cell::new(human_count(row.free_2m_lowest as u64)),
            Cell::new(format!(
                "{:.2} / {:.2} %",
                row.fragmentation_end * 100.0,
                row.fragmentation_worst * 100.0
            )),
            Cell::new(human_bytes(row.metadata_bytes as u64)),
            Cell::new(format!("{}/{}", row.lost_frames, row.doubled_frames + row.refused_frees)),
        ];
        if let Some(with) = row.with_threads {
            cells.push(Cell::new(format!("{:.1}", with.ops_per_second / 1e6)));
        }
        table.add_row(cells);
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
    if let Some(with) = measured.rows.first().and_then(|row| row.with_threads) {
        writeln!(
            out,
            "threads: the same calls by {} threads, one for each CPU of the recording, together and on the wall.",
            with.threads
        )?;
    }
    let most = comparison.trace.peak_live_frames.div_ceil(512);
    writeln!(
        out,
        "Linux had placed these frames in {} 2 MiB blocks at most, {} at the end, on a machine that held other memory,\n\
         too; {} blocks would hold the peak.",
        human_count(comparison.recorded.blocks_2m_most as u64),
        human_count(comparison.recorded.blocks_2m_end as u64),
        human_count(most),
    )?;
    virtual_machine(out, &measured.rows)?;
    if measured.complaints().is_empty() {
        let free = measured.rows.first().map_or(0, |row| row.free_frames_end);
        let end = match measured.rows.iter().all(|row| row.free_frames_end == free) {
            true => format!("every backend ends with {} free frames", human_count(free as u64)),
            // Where allocations failed, backends hold different things at the end.
            false => "every backend accounts for every frame".to_owned(),
        };
        writeln!(
            out,
            "Watched frame by frame in a pass of its own: no frame lost, none given twice; {end}\n\
             and has all {} back when everything is freed.",
            human_count(comparison.memory.frames as u64),
        )?;
    }
    if !comparison.machine.is_optimised() {
        writeln!(out, "This is a debug build: the times mean nothing. Run it with `cargo run --release`.")?;
    }
    Ok(())
}

/// What the VM that was built on each backend is, and whether it came off.
fn virtual_machine(out: &mut String, rows: &[Row]) -> std::fmt::Result {
    let mut told: Vec<&Vm> = Vec::new();
    for vm in rows.iter().map(|row| &row.vm) {
        if told.iter().any(|other| other.is_like(vm)) {
            continue;
        }
        told.push(vm);
        let alike: Vec<_> = rows.iter().filter(|row| row.vm.is_like(vm)).map(|row| row.backend).collect();
        let on = if alike.len() == rows.len() { "every backend".to_owned() } else { alike.join(", ") };
        if let Some(error) = &vm.error {
            writeln!(out, "A virtual machine on {on}: not built, {error}.")?;
            continue;
        }
        writeln!(
            out,
            "A virtual machine with 64 MiB ({}) was built beside the live memory on {on}: {} frames,\n\
             of which {} guest RAM ({} pages of 2 MiB, {} of 4 KiB), {} EPT tables, {} other; {} came back.",
            vm.cpu,
            human_count(vm.frames_taken as u64),
            human_count(vm.frames_of(GUEST_RAM) as u64),
            vm.pages_2m,
            vm.pages_4k,
            vm.frames_of(EPT_TABLES),
            vm.frames_taken - vm.frames_of(GUEST_RAM) - vm.frames_of(EPT_TABLES),
            if vm.is_sound() { "all".to_owned() } else { human_count(vm.frames_given_back as u64) },
        )?;
    }
    Ok(())
}
