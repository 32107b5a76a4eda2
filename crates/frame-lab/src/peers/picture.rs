//! The picture: a dot for each contender in each discipline, by its ratio to the floor on a logarithmic scale.
//!
//! One SVG for light and dark: it brings its own background, and colours for both.

use std::fmt::Write;

use frame_benches::{DISCIPLINES, Kind, disciplines::Group, race::Figure, results::Results};

use super::{machine_line, versions};
use crate::machine::Machine;

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 40.0;
const TOP: f64 = 96.0;
const ROW: f64 = 46.0;

const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-size:17px;font-weight:600}.soft{fill:#59636e;font-size:12px}
.back{fill:#fff;stroke:#d1d9e0}.grid{stroke:#d1d9e0}.floor{stroke:#59636e}.row{stroke:#eff2f5}
.champion{fill:#0969da}.raii{fill:none;stroke:#0969da;stroke-width:2}.peer{fill:#9a6700;fill-opacity:.75}.num{fill:#0969da;font-weight:600}
.best{fill:#9a6700}.spread{stroke-width:2;stroke-opacity:.5}.champion-line{stroke:#0969da}.peer-line{stroke:#9a6700}
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.soft{fill:#9198a1}.back{fill:#0d1117;stroke:#3d444d}.grid{stroke:#3d444d}
.floor{stroke:#9198a1}.row{stroke:#212830}.champion,.num{fill:#4493f8}.raii,.champion-line{stroke:#4493f8}.peer,.best{fill:#d29922}.peer-line{stroke:#d29922}}";

/// The picture.
pub(super) fn svg(results: &Results, machine: &Machine) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = draw(&mut out, results, machine);
    out
}

/// A logarithmic scale from ratios to places.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn at(&self, ratio: f64) -> f64 {
        let share = (ratio.clamp(self.low, self.high) / self.low).ln() / (self.high / self.low).ln();
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let (low, high) = (self.low, self.high);
        (-1..6)
            .flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(power)))
            .filter(move |&tick| tick >= low && tick <= high)
    }
}

fn draw(out: &mut String, results: &Results, machine: &Machine) -> std::fmt::Result {
    let rows: Vec<usize> = (0..DISCIPLINES.len()).filter(|&i| DISCIPLINES[i].group != Group::Alone).collect();
    let shown =
        |figure: &&Figure| rows.contains(&figure.discipline) && role(results, figure.contender).is_some();
    let ratios = results.figures.timed.iter().filter(shown).filter_map(|f| f.to_floor).map(|s| s.median);
    let scale = Scale { low: 0.8, high: ratios.fold(10.0, f64::max) * 1.15 };
    let bottom = TOP + ROW * rows.len() as f64;
    let notes = notes(results, machine);
    let height = bottom + 46.0 + 17.0 * notes.len() as f64;
    write!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Frame allocators: time of an operation over that of a bare array stack"><style>{STYLE}</style><rect class="back" x=".5" y=".5" width="{}" height="{}" rx="6"/>"#,
        WIDTH - 1.0,
        height - 1.0,
    )?;
    write!(
        out,
        r#"<text class="title" x="24" y="32">Frames from percpu-tree and from its peers: time over that of a bare array stack</text>"#
    )?;
    legend(out)?;
    for tick in scale.ticks() {
        let (x, class) = (scale.at(tick), if tick == 1.0 { "floor" } else { "grid" });
        write!(
            out,
            r#"<line class="{class}" x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{bottom}"/><text class="soft" x="{x:.1}" y="{}" text-anchor="middle">{tick}&#215;</text>"#,
            bottom + 18.0,
        )?;
    }
    for (i, &discipline) in rows.iter().enumerate() {
        row(out, results, discipline, TOP + ROW * (i as f64 + 0.5), &scale)?;
    }
    for (i, note) in notes.iter().enumerate() {
        let y = bottom + 46.0 + 17.0 * i as f64;
        write!(out, r#"<text class="soft" x="24" y="{y}">{}</text>"#, escape(note))?;
    }
    out.push_str("</svg>\n");
    Ok(())
}

/// Whether a contender has a dot, and of which class.
fn role(results: &Results, who: usize) -> Option<&'static str> {
    match (results.roster[who].kind, results.roster[who].name) {
        (Kind::Ours, "percpu-tree") => Some("champion"),
        (Kind::Ours, "percpu-tree PhysFrame") => Some("raii"),
        (Kind::Peer, _) => Some("peer"),
        _ => None,
    }
}

fn legend(out: &mut String) -> std::fmt::Result {
    for (x, class, text) in [
        (32.0, "champion", "percpu-tree"),
        (150.0, "raii", "the same through PhysFrame"),
        (376.0, "peer", "peers (the best is named; point at a dot for the others)"),
    ] {
        write!(
            out,
            r#"<circle class="{class}" cx="{x}" cy="56" r="5.5"/><text x="{}" y="60.5">{text}</text>"#,
            x + 12.0
        )?;
    }
    write!(
        out,
        r#"<text class="soft" x="24" y="82">logarithmic; further left is faster; lines: quartiles</text>"#
    )
}

fn row(out: &mut String, results: &Results, discipline: usize, y: f64, scale: &Scale) -> std::fmt::Result {
    write!(
        out,
        r#"<line class="row" x1="24" x2="{}" y1="{:.1}" y2="{:.1}"/><text x="24" y="{:.1}"><title>{}</title>{}</text>"#,
        WIDTH - 24.0,
        y + ROW / 2.0,
        y + ROW / 2.0,
        y + 4.5,
        escape(DISCIPLINES[discipline].explained),
        escape(DISCIPLINES[discipline].name),
    )?;
    let best = results.figures.best_peer(&results.roster, discipline).map(|figure| figure.contender);
    // Ours last, so that they lie on top.
    let mut figures: Vec<_> = results.figures.timed.iter().filter(|f| f.discipline == discipline).collect();
    figures.sort_by_key(|figure| results.roster[figure.contender].kind == Kind::Ours);
    for figure in figures {
        let (Some(class), Some(ratio)) = (role(results, figure.contender), figure.to_floor) else { continue };
        let name = results.roster[figure.contender].name;
        let x = scale.at(ratio.median);
        write!(
            out,
            r#"<line class="spread {}" x1="{:.1}" x2="{:.1}" y1="{y}" y2="{y}"/><circle class="{class}" cx="{x:.1}" cy="{y}" r="5.5"><title>{}: {:.2} times the floor, {:.1} ns</title></circle>"#,
            if class == "peer" { "peer-line" } else { "champion-line" },
            scale.at(ratio.low),
            scale.at(ratio.high),
            escape(name),
            ratio.median,
            figure.nanoseconds.median,
        )?;
        if class == "champion" {
            write!(
                out,
                r#"<text class="num" x="{x:.1}" y="{:.1}" text-anchor="middle">{:.1}</text>"#,
                y - 9.0,
                ratio.median
            )?;
        } else if best == Some(figure.contender) {
            write!(
                out,
                r#"<text class="best soft" x="{:.1}" y="{:.1}">{} {:.1}</text>"#,
                x - 5.0,
                y + 17.0,
                escape(name),
                ratio.median
            )?;
        }
    }
    Ok(())
}

/// What stands under the picture.
fn notes(results: &Results, machine: &Machine) -> Vec<String> {
    let mut notes = vec![format!(
        "All in one process, verified first, interleaved; medians of {} rounds; 1 GiB. {}.",
        results.scale.rounds,
        machine_line(machine)
    )];
    notes.push(versions(results).join(", "));
    notes.iter().flat_map(|note| wrapped(note, 150)).collect()
}

/// Lines of at most about this many characters, broken between words.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one");
        if line.len() + word.len() > width && !line.is_empty() {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_is_logarithmic_and_its_ticks_lie_on_it() {
        let scale = Scale { low: 1.0, high: 100.0 };
        assert_eq!(scale.at(1.0), LEFT);
        assert!((scale.at(10.0) - (LEFT + (WIDTH - LEFT - RIGHT) / 2.0)).abs() < 1e-6);
        assert_eq!(scale.at(0.01), LEFT, "nothing is drawn outside");
        assert_eq!(scale.ticks().collect::<Vec<_>>(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
    }

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrapped("one two three", 8), ["one two", "three"]);
        assert_eq!(wrapped("", 8), [""]);
    }
}
