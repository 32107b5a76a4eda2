//! `frame-lab peers`: this project's allocators beside everybody else's, in one run; tables, JSON, a picture.

mod json;
mod picture;
mod table;

use std::{
    fs,
    io::{self, Write},
};

use frame_benches::{
    Entry, Kind, Scale,
    results::{Results, measure},
    roster,
    versions::version_of,
    work::{Step, Trace},
};

use crate::{
    Outcome,
    cli::PeersArgs,
    machine::Machine,
    memory::human_bytes,
    progress::Bar,
    trace::{self, Action, Source, TraceError},
};

/// Steps of the bar.
const STEPS: f64 = 1000.0;

/// Runs the command: status 1 if one of this project's allocators does not do its work.
pub(crate) fn run(args: &PeersArgs) -> Outcome {
    let scale = if args.quick { Scale::QUICK } else { Scale::FULL };
    let rounds = args.rounds.map_or(scale.rounds, usize::from);
    let scale = Scale { rounds, trace: Some(recording()?), ..scale };
    let roster = chosen(args.only.as_deref())?;
    let bar = Bar::replaying(STEPS as u64);
    let results = measure(roster, scale, |share, what| {
        bar.at((share * STEPS) as u64);
        bar.says(what);
    })?;
    bar.finish();
    let machine = Machine::this();
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &json::figures(&results, &machine))?;
        writeln!(out)?;
    } else {
        write!(out, "{}", table::draw(&results, &machine))?;
    }
    if let Some(path) = args.picture_path() {
        fs::write(&path, picture::svg(&results, &machine))
            .map_err(|error| format!("{}: cannot write the picture: {error}", path.display()))?;
        if !args.json {
            writeln!(out, "picture: {}", path.display())?;
        }
    }
    Ok(results.faults_of_ours().collect())
}

/// The embedded trace, as the benchmarks take it.
fn recording() -> Result<&'static Trace, TraceError> {
    let program = trace::read(Source::Embedded, |_| ())?.program;
    // Runs of up to 2 MiB: what every contender can give.
    let ops = program.ops.iter().filter(|op| op.order <= 9);
    let steps = ops.map(|op| Step { slot: op.slot, order: op.order, alloc: op.action == Action::Alloc });
    Ok(Box::leak(Box::new(Trace { steps: steps.collect(), slots: program.slots })))
}

/// The roster, or those of it whose names contain one of these words; the yardsticks are always there.
fn chosen(only: Option<&str>) -> Result<Vec<Entry>, String> {
    let mut roster = roster();
    if let Some(only) = only {
        for word in only.split(',') {
            if !roster.iter().any(|entry| entry.name.contains(word.trim())) {
                let names: Vec<_> = roster.iter().map(|entry| entry.name).collect();
                return Err(format!("nobody's name contains {word:?}; there are: {}", names.join(", ")));
            }
        }
        let named = |entry: &Entry| only.split(',').any(|word| entry.name.contains(word.trim()));
        roster.retain(|entry| ["null", "floor"].contains(&entry.name) || named(entry));
    }
    Ok(roster)
}

/// `package version` of everybody from a registry who took part.
fn versions(results: &Results) -> Vec<String> {
    let mut versions: Vec<String> = Vec::new();
    for entry in results.roster.iter().filter(|entry| entry.kind != Kind::Ours) {
        if let Some(version) = version_of(entry.package) {
            let text = format!("{} {version}", entry.package);
            if !versions.contains(&text) {
                versions.push(text);
            }
        }
    }
    versions
}

/// The machine and the build, in a line.
fn machine_line(machine: &Machine) -> String {
    format!(
        "{}, {} cores, {}; {}, {} build, frame-allocator {}",
        machine.cpu, machine.cores, machine.system, machine.rustc, machine.profile, machine.version
    )
}

/// What an entry needs beside the memory that it hands out, for a person.
fn books(entry: &Entry) -> String {
    let books = (entry.books)();
    match (books.bytes, books.note) {
        (None, note) => note.to_owned(),
        (Some(bytes), "") => human_bytes(bytes as u64),
        (Some(bytes), note) => format!("{} ({note})", human_bytes(bytes as u64)),
    }
}
