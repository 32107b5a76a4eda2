//! The tables in the terminal.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, Table, presets};
use frame_benches::{
    DISCIPLINES,
    disciplines::Group,
    fragmentation::{MOST, POINTS},
    race::{Figure, Spread},
    results::Results,
    start::SIZES,
    targets::{Verdict, scaling, targets},
};

use super::{books, machine_line, versions};
use crate::{machine::Machine, memory::human_bytes};

/// The whole output for a terminal.
pub(super) fn draw(results: &Results, machine: &Machine) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_all(&mut out, results, machine);
    out
}

fn write_all(out: &mut String, results: &Results, machine: &Machine) -> std::fmt::Result {
    writeln!(out, "machine  {}", machine_line(machine))?;
    writeln!(out, "peers    {}", versions(results).join(", "))?;
    writeln!(
        out,
        "Verified first, then interleaved; {} rounds of {} operations. Ratios to the floor (a per-thread array stack: pop,\n\
         push) of the same round: median (quartiles). `null` is the cost of the measuring loop itself, within every figure.",
        results.scale.rounds, results.scale.operations,
    )?;
    for (group, title) in [
        (Group::Pairs, "One thread, nothing held"),
        (Group::Held, "One thread, memory held"),
        (Group::Threads, "Two threads; x: the work of one thread, so many times"),
    ] {
        writeln!(out, "\n{title}\n{}", ratios(results, group))?;
        for discipline in DISCIPLINES.iter().filter(|discipline| discipline.group == group) {
            writeln!(out, "  {}: {}", discipline.name, discipline.explained)?;
        }
    }
    failures(out, results)?;
    for left in &results.figures.left_out {
        let name = results.roster[left.contender].name;
        writeln!(out, "LEFT OUT: {name} failed its verification and was not timed: {}", left.fault)?;
    }
    if !results.fragmentation.is_empty() {
        let table = fragmentation(results);
        writeln!(
            out,
            "\nFree 2 MiB frames, of {MOST} at most, half of 1 GiB held, after random churn\n{table}"
        )?;
    }
    writeln!(out, "\nMicroseconds to take memory over; what the books take\n{}", start(results))?;
    writeln!(out, "\nWhere we want to stand\n{}", verdicts(results))?;
    if !machine.is_optimised() {
        writeln!(out, "This is a debug build: the times mean nothing. Run it with `cargo run --release`.")?;
    }
    Ok(())
}

fn table(header: Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn ratios(results: &Results, group: Group) -> Table {
    let columns: Vec<usize> = (0..DISCIPLINES.len()).filter(|&i| DISCIPLINES[i].group == group).collect();
    let name = |&column: &usize| format!("{}\nx floor", DISCIPLINES[column].name);
    let mut header: Vec<String> = [String::new()].into_iter().chain(columns.iter().map(name)).collect();
    let scalings = [("1T pair", "2T pair"), ("1T churn", "2T churn"), ("1T bulk", "2T bulk")];
    if group == Group::Threads {
        header.extend(scalings.map(|(_, name)| format!("{}\nx one", &name[3..])));
    } else {
        header.insert(1, format!("{}\nns", DISCIPLINES[columns[0]].name));
    }
    let mut table = table(header);
    for (who, entry) in results.roster.iter().enumerate() {
        let cells: Vec<_> = columns.iter().map(|&column| results.figures.of(who, column)).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let mut row = vec![Cell::new(entry.name)];
        if group != Group::Threads {
            row.push(Cell::new(cells[0].map_or("-".into(), |f| format!("{:.1}", f.nanoseconds.median))));
        }
        row.extend(cells.iter().map(|figure| Cell::new(figure.map_or("-".into(), ratio))));
        if group == Group::Threads {
            row.extend(scalings.map(|(alone, together)| {
                let scaling = scaling(results, entry.name, alone, together);
                Cell::new(scaling.map_or("-".into(), |spread| format!("{:.2}", spread.median)))
            }));
        }
        table.add_row(row);
    }
    table
}

fn ratio(figure: &Figure) -> String {
    figure.to_floor.map_or("-".into(), spread)
}

fn spread(spread: Spread) -> String {
    let decimals = if spread.median < 20.0 { 2 } else { 0 };
    let Spread { median, low, high } = spread;
    format!("{median:.decimals$} ({low:.decimals$}-{high:.decimals$})")
}

fn failures(out: &mut String, results: &Results) -> std::fmt::Result {
    for figure in results.figures.timed.iter().filter(|figure| figure.failures > 0) {
        let share = 100.0 * figure.failures as f64 / figure.operations.max(1) as f64;
        let (name, work) = (results.roster[figure.contender].name, DISCIPLINES[figure.discipline].name);
        writeln!(out, "FAILED REQUESTS: {name} refused {share:.2} % of {work} with memory left")?;
    }
    Ok(())
}

fn fragmentation(results: &Results) -> Table {
    let point = |times: usize, burst: usize| match burst {
        1 => format!("{times} x"),
        _ => format!("{times} x,\nbursts of {burst}"),
    };
    let header = POINTS.iter().map(|p| point(p.times, p.burst));
    let mut table = table([String::new()].into_iter().chain(header).collect());
    for (who, counts) in &results.fragmentation {
        let counts = counts.iter().map(Cell::new);
        table.add_row([Cell::new(results.roster[*who].name)].into_iter().chain(counts));
    }
    table
}

fn start(results: &Results) -> Table {
    let header = SIZES.iter().map(|&size| human_bytes(size as u64));
    let header = [String::new()].into_iter().chain(header).chain(["metadata for 1 GiB".to_owned()]);
    let mut table = table(header.collect());
    for (who, entry) in results.roster.iter().enumerate() {
        let times = results.start.iter().find(|row| row.0 == who).map(|row| row.1);
        let books = books(entry);
        if times.is_none() && books.is_empty() {
            continue;
        }
        let times = times.unwrap_or_default();
        let times =
            times.map(|time| Cell::new(time.map_or("-".into(), |time| format!("{:.1}", time.median))));
        table.add_row([Cell::new(entry.name)].into_iter().chain(times).chain([Cell::new(books)]));
    }
    table
}

fn verdicts(results: &Results) -> Table {
    let mut table = table(["work", "wanted", "measured", ""].map(str::to_owned).into());
    for target in targets(results) {
        let verdict = match target.verdict {
            Verdict::Met => "met",
            Verdict::Missed => "MISSED",
            Verdict::NotMeasured => "-",
        };
        table.add_row([target.work, &target.wanted, &target.measured, verdict]);
    }
    table
}
