//! The virtual machine that was built, and where everything comes from: the input, the machine, the versions.

use std::fmt::Write;

use super::{escape, swatch};
use crate::{compare::Comparison, measure::Row, memory::human_count};

pub(super) fn virtual_machine(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
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

pub(super) fn origin(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
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
