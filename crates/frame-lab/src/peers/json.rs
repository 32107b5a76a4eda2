//! All figures for tools.

use frame_benches::{
    DISCIPLINES, Kind,
    fragmentation::{MOST, POINTS},
    race::{Figure, Spread},
    results::Results,
    start::SIZES,
    targets::{Target, Verdict, targets},
    versions::version_of,
};
use serde_json::{Value, json};

use crate::machine::Machine;

/// Everything, as one value.
pub(super) fn figures(results: &Results, machine: &Machine) -> Value {
    json!({
        "machine": machine,
        "scale": {
            "rounds": results.scale.rounds,
            "operations": results.scale.operations,
            "memory_bytes": results.scale.memory,
        },
        "disciplines": DISCIPLINES.map(|discipline| json!({
            "name": discipline.name,
            "explained": discipline.explained,
        })),
        "contenders": (0..results.roster.len()).map(|who| contender(results, who)).collect::<Vec<_>>(),
        "targets": targets(results).iter().map(target).collect::<Vec<_>>(),
    })
}

fn contender(results: &Results, who: usize) -> Value {
    let entry = &results.roster[who];
    let fault = results.figures.left_out.iter().find(|left| left.contender == who);
    let timed = results.figures.timed.iter().filter(|figure| figure.contender == who);
    let huge = results.fragmentation.iter().find(|row| row.0 == who).map(|row| {
        let counts = POINTS.iter().zip(row.1);
        let counts = counts.map(|(p, count)| json!({"times": p.times, "burst": p.burst, "free_2m": count}));
        json!({"most": MOST, "points": counts.collect::<Vec<_>>()})
    });
    let start = results.start.iter().find(|row| row.0 == who).map(|row| {
        let sizes = SIZES.iter().zip(row.1);
        let sizes = sizes.map(|(bytes, time)| json!({"bytes": bytes, "microseconds": time.map(spread)}));
        sizes.collect::<Vec<_>>()
    });
    let books = (entry.books)();
    json!({
        "name": entry.name,
        "kind": match entry.kind {
            Kind::Ours => "ours",
            Kind::Peer => "peer",
            Kind::Yardstick => "yardstick",
        },
        "package": entry.package,
        "version": version_of(entry.package),
        "fault": fault.map(|left| left.fault.to_string()),
        "times": timed.map(figure).collect::<Vec<_>>(),
        "fragmentation": huge,
        "start": start,
        "metadata_bytes_for_1_gib": books.bytes,
        "metadata_note": books.note,
    })
}

fn figure(figure: &Figure) -> Value {
    json!({
        "discipline": DISCIPLINES[figure.discipline].name,
        "nanoseconds": spread(figure.nanoseconds),
        "to_floor": figure.to_floor.map(spread),
        "operations": figure.operations,
        "failures": figure.failures,
        "rounds": figure.rounds,
    })
}

fn spread(spread: Spread) -> Value {
    json!({"median": spread.median, "quartiles": [spread.low, spread.high]})
}

fn target(target: &Target) -> Value {
    json!({
        "work": target.work,
        "wanted": target.wanted,
        "measured": target.measured,
        "met": match target.verdict {
            Verdict::Met => Some(true),
            Verdict::Missed => Some(false),
            Verdict::NotMeasured => None,
        },
    })
}
