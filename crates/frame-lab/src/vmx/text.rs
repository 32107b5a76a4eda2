//! The report as text.

use std::fmt::{self, Write as _};

use super::{
    controls::{Allowed, BitFacts, Reason, WordFacts},
    dump::Words,
    fields::{self, FieldFacts},
    report::Report,
    structures::Structure,
    translation::{MappedRun, MemoryRun},
};
use crate::memory::{human_bytes, human_count};

/// Lines of a kind that are shown; the rest is counted.
const SHOWN: usize = 12;
/// Where a structure's name starts.
const INDENT: usize = 41;

/// Everything, the verdict and the frames last: where a reader of a long text is in the end.
pub(crate) fn draw(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(report, &mut out);
    out
}

fn write(report: &Report, out: &mut String) -> fmt::Result {
    let cpu = &report.cpu;
    writeln!(
        out,
        "{} [{}]: physical addresses of {} bits, linear of {}",
        cpu.name, cpu.id, cpu.physical_width, cpu.linear_width
    )?;
    if !cpu.has.is_empty() {
        writeln!(out, "It has {}.", cpu.has.join(", "))?;
    }
    writeln!(
        out,
        "A guest of {} that starts in {}, on {} over {} of {}.",
        bytes(report.guest.memory_frames),
        report.guest.mode,
        report.backend,
        bytes(report.host.frames as u64),
        report.host.map
    )?;
    writeln!(out, "Sections are those of the Intel SDM, Vol. 3, with the VMCS in chapter 24.")?;

    writeln!(out, "\nSTRUCTURES")?;
    for structure in &report.structures {
        write_structure(structure, out)?;
    }
    write_translation(report, out)?;
    write_fields(report, out)?;
    write_changes(report, out)?;
    write_frames(report, out)?;
    write_verdict(report, out)
}

fn write_structure(structure: &Structure, out: &mut String) -> fmt::Result {
    let Structure { name, bytes, frames, section, purpose, .. } = structure;
    let address = structure.address.map_or(String::new(), |address| address.to_string());
    let section = if section.is_empty() { String::new() } else { format!(" ({section})") };
    let frames =
        if *frames == 1 { "1 frame".to_owned() } else { format!("{} frames", human_count(*frames as u64)) };
    writeln!(out, "{address:>13} {:>9} {frames:>15}  {name}{section}", human_bytes(*bytes))?;
    let indent = " ".repeat(INDENT);
    writeln!(out, "{indent}{purpose}")?;
    for detail in &structure.details {
        writeln!(out, "{indent}- {detail}")?;
    }
    for Words { offset, count, value } in structure.words.iter().take(SHOWN) {
        let many = if *count == 1 { String::new() } else { format!(", {count} times") };
        writeln!(out, "{indent}+{offset:#05x}: {value}{many}")?;
    }
    write_rest(structure.words.len(), "runs of words", INDENT, out)
}

fn write_rest(all: usize, what: &str, indent: usize, out: &mut String) -> fmt::Result {
    match all.checked_sub(SHOWN) {
        Some(more @ 1..) => {
            writeln!(out, "{:indent$}and {} more {what} (--json has them)", "", human_count(more as u64))
        }
        _ => Ok(()),
    }
}

fn write_translation(report: &Report, out: &mut String) -> fmt::Result {
    let translation = &report.translation;
    writeln!(out, "\nTRANSLATION: {} of {} levels", translation.kind, translation.levels)?;
    writeln!(out, "  pointer {}: {}", translation.pointer, translation.pointer_means)?;
    let counts =
        [(translation.pages_4k, "4 KiB"), (translation.pages_2m, "2 MiB"), (translation.pages_1g, "1 GiB")];
    let counts: Vec<_> =
        counts.iter().map(|(count, size)| format!("{} of {size}", human_count(*count))).collect();
    writeln!(
        out,
        "  {} table frames; pages: {}",
        human_count(translation.table_frames as u64),
        counts.join(", ")
    )?;
    writeln!(out, "\n{:>13} {:>14}  pages mapped", "guest", "host")?;
    let alike = |a: &MappedRun, b: &MappedRun| {
        let key = |run: &MappedRun| (run.page_bytes, run.access.clone(), run.memory_type);
        a.guest.0 + a.pages * a.page_bytes == b.guest.0 && key(a) == key(b)
    };
    let groups: Vec<_> = translation.mapped.chunk_by(alike).collect();
    for group in groups.iter().take(SHOWN) {
        let MappedRun { guest, host, page_bytes, access, memory_type, .. } = &group[0];
        let pages = group.iter().map(|run| run.pages).sum();
        let size = human_bytes(*page_bytes);
        let places = places(group.len());
        writeln!(
            out,
            "{guest:>13} {host:>14}  {} x {size}, {access}, {memory_type}{places}",
            human_count(pages)
        )?;
    }
    write_rest(groups.len(), "runs of pages", 2, out)?;
    writeln!(out, "\n{:>13} {:>14}  guest memory", "guest", "host")?;
    let groups: Vec<_> = report.guest.memory.chunk_by(|a, b| a.guest.0 + a.bytes() == b.guest.0).collect();
    for group in groups.iter().take(SHOWN) {
        let MemoryRun { guest, host, .. } = group[0];
        let frames: u64 = group.iter().map(|run| run.frames).sum();
        let (frames, size, places) = (human_count(frames), bytes(frames), places(group.len()));
        writeln!(out, "{guest:>13} {host:>14}  {frames} frames ({size}){places}")?;
    }
    write_rest(groups.len(), "ranges", 2, out)
}

/// Bytes of frames, for people.
fn bytes(frames: u64) -> String {
    human_bytes(frames * 4096)
}

/// In how many pieces something lies in the host.
fn places(count: usize) -> String {
    if count == 1 {
        String::new()
    } else {
        format!(", from there on in {} places", human_count(count as u64))
    }
}

fn write_fields(report: &Report, out: &mut String) -> fmt::Result {
    let (there, missing) = (report.vmcs.fields.len(), report.vmcs.missing.len());
    writeln!(
        out,
        "\nVMCS: {there} fields (Appendix B); {missing} more are known, which this processor lacks\n\
         \x20 control bits: `1!` must be 1, `0-` must be 0, `*` was asked for"
    )?;
    let mut section = "";
    for field in &report.vmcs.fields {
        if field.section != section {
            section = field.section;
            let encoding = vmx_structs::vmcs::FieldEncoding::from_raw(field.encoding.0 as u32);
            writeln!(out, "\n  {section} {}", fields::section(encoding).1)?;
        }
        write_field(field, out)?;
    }
    Ok(())
}

fn write_field(field: &FieldFacts, out: &mut String) -> fmt::Result {
    let FieldFacts { encoding, name, width, value, meaning, control, .. } = field;
    let width = if *width == "natural" { "nat" } else { width };
    let encoding = format!("{:#06x}", encoding.0);
    let line = format!("  {encoding}  {width:>3}  {name:<50} {value:>18}  {meaning}");
    writeln!(out, "{}", line.trim_end())?;
    let Some(WordFacts { capability_msr, capability_msr_number, must_be_one, may_be_one, bits }) = control
    else {
        return Ok(());
    };
    writeln!(
        out,
        "{:15}{capability_msr} [{capability_msr_number}]: must be 1 {must_be_one}, may be 1 {may_be_one}",
        ""
    )?;
    for BitFacts { bit, name, about, value, allowed, reason } in bits {
        let mark = match allowed {
            Allowed::OnlyOne => '!',
            Allowed::OnlyZero => '-',
            Allowed::Either => ' ',
        };
        let wanted = if *reason == Reason::Wanted { '*' } else { ' ' };
        let refused = if *reason == Reason::Refused { "  <- not allowed" } else { "" };
        let (name, about) = (name.unwrap_or("(reserved)"), about.unwrap_or(""));
        let line = format!("{bit:>17} {}{mark}{wanted} {name:<38} {about}{refused}", u8::from(*value));
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn write_changes(report: &Report, out: &mut String) -> fmt::Result {
    if report.vmcs.changes.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nCHANGED BY HAND")?;
    for change in &report.vmcs.changes {
        writeln!(
            out,
            "  {} [{:#06x}]: {} -> {}",
            change.name, change.encoding.0, change.before, change.after
        )?;
    }
    Ok(())
}

fn write_frames(report: &Report, out: &mut String) -> fmt::Result {
    writeln!(out, "\nFRAMES")?;
    for Structure { name, frames, .. } in &report.structures {
        writeln!(out, "  {:>11}  {name}", human_count(*frames as u64))?;
    }
    let frames = &report.frames;
    let came_back = if frames.is_sound() {
        "all came back when the VM was dropped".to_owned()
    } else {
        format!("{} came back, {} are missing", human_count(frames.given_back as u64), frames.missing)
    };
    writeln!(
        out,
        "  {:>11}  in all, {} of them beside the guest's memory; {came_back}",
        human_count(frames.taken as u64),
        human_count(frames.overhead as u64)
    )
}

fn write_verdict(report: &Report, out: &mut String) -> fmt::Result {
    let verdict = &report.verdict;
    writeln!(out, "\nVM ENTRY")?;
    writeln!(out, "  {}", verdict.text)?;
    if let Some(failure) = &verdict.msr_load_failure {
        writeln!(out, "  {}", failure.text)?;
    }
    if verdict.violations.is_empty() {
        return writeln!(out, "  None of {} rules is broken (26.2, 26.3).", verdict.rules_checked);
    }
    for (index, broken) in verdict.violations.iter().enumerate() {
        writeln!(
            out,
            "  {}. {} ({}): {} [{:#06x}] is {}, but {}",
            index + 1,
            broken.section,
            broken.stage,
            broken.field,
            broken.encoding.0,
            broken.value,
            broken.text
        )?;
    }
    writeln!(
        out,
        "  The processor looks at controls, host state and guest state in this order, stops at the first that fails, and \
         names no rule."
    )
}
