//! Where this project wants to stand, and whether it does.
//!
//! Ratios within one run: to the floor, or to the best peer that took part. LLFree is in no registry, so that what is
//! wanted of it stands here as ratios to the floor, from one run of all peers on an Intel Xeon at 2.1 GHz with 2 cores;
//! its counts of frames and bytes do not depend on the machine.

use crate::{
    disciplines::{DISCIPLINES, discipline},
    fragmentation::{MOST, POINTS},
    race::{Figures, Spread},
    results::Results,
    roster::{Books, Start},
};

/// What LLFree did beside the same floor.
mod llfree {
    /// 2 MiB pair, over the floor of the 4K pair.
    pub(super) const PAIR_2M: f64 = 37.0 / 2.4;
    /// A frame passed on, over the floor of the 4K pair.
    pub(super) const PASS_ON: f64 = 150.0 / 2.4;
    /// Free 2 MiB frames after 4 and 16 times the memory, and after 16 times in bursts.
    pub(super) const FREE_HUGE: [(usize, usize, usize); 3] = [(4, 1, 0), (16, 1, 228), (16, 64, 192)];
    /// Metadata for 1 GiB.
    pub(super) const METADATA: usize = 41 << 10;
}

/// Whether a target is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Met,
    /// It is not.
    Missed,
    /// Somebody whom it needs did not take part.
    NotMeasured,
}

/// A target and what was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The work.
    pub work: &'static str,
    /// What is wanted.
    pub wanted: String,
    /// What there is.
    pub measured: String,
    /// How they compare.
    pub verdict: Verdict,
}

impl Target {
    fn new(work: &'static str, wanted: impl Into<String>, measured: Option<(String, bool)>) -> Self {
        let (measured, verdict) = match measured {
            None => ("not measured".to_owned(), Verdict::NotMeasured),
            Some((measured, true)) => (measured, Verdict::Met),
            Some((measured, false)) => (measured, Verdict::Missed),
        };
        Self { work, wanted: wanted.into(), measured, verdict }
    }

    /// A value that may be this much at most.
    fn at_most(work: &'static str, of: &str, limit: f64, value: Option<f64>) -> Self {
        let measured = value.map(|value| (format!("{value:.2}"), value <= limit));
        Self::new(work, format!("<= {limit:.2} x {of}"), measured)
    }
}

/// The cache over the tree, trusting: what the targets are for.
const CHAMPION: &str = "percpu-tree";

/// All targets that a comparison decides.
pub fn targets(results: &Results) -> Vec<Target> {
    let to_floor = |contender: &str, name: &str| {
        let figure = results.figures.of(results.contender(contender)?, discipline(name))?;
        figure.to_floor.map(|spread| spread.median)
    };
    let mut targets = vec![
        Target::at_most("4K pair", "floor", 1.5, to_floor(CHAMPION, "4K pair")),
        faster("4K pair", 5.0, results),
        Target::at_most("4K pair, PhysFrame", "floor", 2.0, to_floor("percpu-tree PhysFrame", "4K pair")),
        Target::at_most("4K pair, checked", "floor", 4.0, to_floor("percpu-tree checked", "4K pair")),
        Target::at_most("churn 50 %", "floor", 3.0, to_floor(CHAMPION, "churn 50 %")),
        faster("churn 50 %", 3.0, results),
        Target::at_most("churn 90 %", "floor", 3.0, to_floor(CHAMPION, "churn 90 %")),
        faster("churn 90 %", 3.0, results),
        faster("bulk alloc", 1.0, results),
        faster("random free", 1.0, results),
        faster("orders 0-9", 1.0, results),
        no_failures(results),
        huge_pairs(results),
    ];
    targets.extend([("1T pair", "2T pair"), ("1T churn", "2T churn"), ("1T bulk", "2T bulk")].map(
        |(alone, together)| {
            let scaling = scaling(results, CHAMPION, alone, together);
            let measured = scaling.map(|ours| {
                let Spread { median, low, high } = ours;
                let floor = scaling_of_floor(results, alone, together);
                (format!("{median:.2} ({low:.2}-{high:.2}){floor}"), median >= 1.9)
            });
            Target::new(together, ">= 1.90 x one thread", measured)
        },
    ));
    targets.push(pass_on(results));
    targets.extend(fragmentation(results));
    targets.extend(metadata(results));
    targets.extend(start(results));
    targets
}

fn own(results: &Results, name: &str) -> Option<crate::race::Figure> {
    results.figures.of(results.contender(CHAMPION)?, discipline(name)).cloned()
}

/// So many times faster than the best peer.
fn faster(work: &'static str, times: f64, results: &Results) -> Target {
    let measured = || {
        let ours = own(results, work)?;
        let best = results.figures.best_peer(&results.roster, discipline(work))?;
        let ratio = Figures::by_round(best, &ours, |best, ours| best / ours)?.median;
        let name = results.roster[best.contender].name;
        // More than the floor can nobody be ahead.
        let most = best.to_floor.map(|floor| floor.median).filter(|most| *most < times);
        let most = most.map(|most| format!("; the floor {most:.2}")).unwrap_or_default();
        Some((format!("{ratio:.2} ({name}{most})"), ratio >= times))
    };
    Target::new(work, format!(">= {times:.2} x faster than the best peer"), measured())
}

fn no_failures(results: &Results) -> Target {
    let champion = results.contender(CHAMPION);
    let figures = results.figures.timed.iter().filter(|figure| Some(figure.contender) == champion);
    let failures: Vec<_> =
        figures.map(|figure| (figure.failures, DISCIPLINES[figure.discipline].name)).collect();
    let failed: usize = failures.iter().map(|(failures, _)| failures).sum();
    let measured = (!failures.is_empty()).then(|| (failed.to_string(), failed == 0));
    Target::new("all of these", "no failure where memory is there", measured)
}

fn huge_pairs(results: &Results) -> Target {
    let measured = || {
        let floor = results.figures.of(results.contender("floor")?, discipline("4K pair"))?;
        let ratio = own(results, "2M pair")?.nanoseconds.median / floor.nanoseconds.median;
        Some((format!("{ratio:.2}"), ratio <= llfree::PAIR_2M / 2.0))
    };
    let wanted = format!("<= {:.2} x the 4K pair's floor: half of LLFree's", llfree::PAIR_2M / 2.0);
    Target::new("2M pair", wanted, measured())
}

fn pass_on(results: &Results) -> Target {
    let measured = || {
        let floor = results.figures.of(results.contender("floor")?, discipline("4K pair"))?;
        let ratio = own(results, "pass on")?.nanoseconds.median / floor.nanoseconds.median;
        Some((format!("{ratio:.2}"), ratio <= llfree::PASS_ON))
    };
    let wanted = format!("<= {:.1} x the 4K pair's floor: LLFree's", llfree::PASS_ON);
    Target::new("pass on", wanted, measured())
}

/// How many times the work of one thread two threads do.
pub fn scaling(results: &Results, contender: &str, alone: &str, together: &str) -> Option<Spread> {
    let who = results.contender(contender)?;
    let alone = results.figures.of(who, discipline(alone))?;
    let together = results.figures.of(who, discipline(together))?;
    Figures::by_round(alone, together, |alone, together| 2.0 * alone / together)
}

/// The same for the floor, which shares nothing: what the machine gives.
fn scaling_of_floor(results: &Results, alone: &str, together: &str) -> String {
    let floor = scaling(results, "floor", alone, together);
    floor.map(|floor| format!("; the floor {:.2}", floor.median)).unwrap_or_default()
}

fn fragmentation(results: &Results) -> Vec<Target> {
    let row = results.fragmentation.iter().find(|row| Some(row.0) == results.contender(CHAMPION));
    let at = |times: usize, burst: usize| {
        let point = POINTS.iter().position(|point| point.times == times && point.burst == burst)?;
        row.map(|row| row.1[point])
    };
    let shown = |count: usize, least: usize| (format!("{count} of {MOST}"), count >= least);
    let most = MOST * 95 / 100 + 1;
    let mut targets = vec![Target::new(
        "free 2M after 16 x",
        format!(">= {most}: 95 % of the most there can be"),
        at(16, 1).map(|count| shown(count, most)),
    )];
    for (times, burst, least) in llfree::FREE_HUGE {
        let work = if burst == 1 { "free 2M after churn" } else { "free 2M after bursts" };
        let wanted = format!("after {times} x: >= {least}, LLFree's");
        targets.push(Target::new(work, wanted, at(times, burst).map(|count| shown(count, least))));
    }
    targets
}

fn metadata(results: &Results) -> [Target; 2] {
    let tree = results.contender("tree").map(|who| (results.roster[who].books)());
    let bytes = match tree {
        Some(Books { bytes: Some(bytes), .. }) => Some(bytes),
        _ => None,
    };
    let shown =
        |limit: usize| bytes.map(|bytes| (format!("{:.1} KiB", bytes as f64 / 1024.0), bytes <= limit));
    [
        Target::new("metadata for 1 GiB", "<= 64 KiB", shown(64 << 10)),
        Target::new("metadata for 1 GiB", "<= 41 KiB: LLFree's", shown(llfree::METADATA)),
    ]
}

fn start(results: &Results) -> [Target; 2] {
    let row = results.start.iter().find(|row| matches!(results.roster[row.0].start, Start::Alone(_)));
    let ends = || {
        let row = row?.1;
        Some((row[0]?.median, row[row.len() - 1]?.median))
    };
    [
        Target::new(
            "start with 1 TiB",
            "<= 2.00 x that with 1 GiB",
            ends().map(|(gib, tib)| (format!("{:.2}", tib / gib), tib / gib <= 2.0)),
        ),
        Target::new(
            "start with either",
            "< 1 ms",
            ends().map(|(gib, tib)| (format!("{gib:.0} us, {tib:.0} us"), gib.max(tib) < 1000.0)),
        ),
    ]
}
