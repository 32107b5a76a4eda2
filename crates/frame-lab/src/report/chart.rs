//! Charts as SVG: a scale, a line chart, bars.
//!
//! Colours come from the page's style sheet by class (`buddy`, `bitmap`, `tree`; `plain` without a cache), so that one
//! picture serves light and dark. Every mark has a `<title>`, which browsers show under the pointer.

use std::fmt::Write;

use super::escape;

/// Room around the plot, in the units of the drawing (about pixels).
const LEFT: f64 = 76.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 30.0;
const WIDTH: f64 = 1000.0;

/// A scale from values to places, with round ticks.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    values: (f64, f64),
    places: (f64, f64),
    step: f64,
}

impl Scale {
    /// Covers `low..=high` with about `ticks` round steps; widened to whole steps where `widen`.
    pub(super) fn new((low, high): (f64, f64), places: (f64, f64), ticks: usize, widen: bool) -> Self {
        let span = if high > low { high - low } else { high.abs().max(1.0) };
        let raw = span / ticks.max(1) as f64;
        let magnitude = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * magnitude).find(|&s| s >= raw * 0.999);
        let step = step.unwrap_or(10.0 * magnitude);
        let values = if widen {
            ((low / step).floor() * step, ((low + span) / step).ceil() * step)
        } else {
            (low, low + span)
        };
        Self { values, places, step }
    }

    pub(super) fn at(&self, value: f64) -> f64 {
        let share = (value - self.values.0) / (self.values.1 - self.values.0);
        self.places.0 + share * (self.places.1 - self.places.0)
    }

    pub(super) fn ticks(&self) -> impl Iterator<Item = f64> {
        let first = (self.values.0 / self.step - 1e-9).ceil() as i64;
        let last = (self.values.1 / self.step + 1e-9).floor() as i64;
        let step = self.step;
        (first..=last).map(move |i| i as f64 * step)
    }

    /// Decimals that tell two ticks apart.
    pub(super) fn decimals(&self) -> usize {
        (-self.step.log10().floor()).max(0.0) as usize
    }
}

/// The horizontal axis: when the values were taken, and in which unit.
pub(super) struct Times {
    pub(super) values: Vec<f64>,
    pub(super) unit: &'static str,
}

/// A line of a chart.
pub(super) struct Series<'a> {
    pub(super) class: &'a str,
    pub(super) name: &'a str,
    pub(super) values: &'a [f64],
}

/// Lines over a common axis. `unit` stands behind the values under the pointer.
pub(super) fn lines(axis: &Times, series: &[Series<'_>], height: f64, from_zero: bool, unit: &str) -> String {
    let times = &axis.values;
    let all = series.iter().flat_map(|series| series.values).copied();
    // No value at all leaves both at infinity; a scale is of numbers.
    let (low, high) =
        all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let low = if from_zero { 0.0 } else { low };
    let x = Scale::new((0.0, times.last().copied().unwrap_or(0.0)), (LEFT, WIDTH - RIGHT), 10, false);
    let y = Scale::new((low, high), (height - BOTTOM, TOP), 5, true);
    let mut out = open(height);
    axes(&mut out, &x, &y, height, axis.unit);
    for Series { class, name, values } in series {
        let mut path = String::new();
        let mut last = None;
        for (&time, &value) in times.iter().zip(*values) {
            let place = (x.at(time), y.at(value));
            let command = if last.is_none() { 'M' } else { 'L' };
            let _ = write!(path, "{command}{:.1} {:.1}", place.0, place.1);
            last = Some(value);
        }
        if class.starts_with("live") {
            let (from, to, floor) = (x.at(0.0), x.at(times.last().copied().unwrap_or(0.0)), y.at(0.0));
            let _ = write!(path, "L{to:.1} {floor:.1}L{from:.1} {floor:.1}Z");
        }
        let end = last.map_or(String::new(), |last| format!(": {last:.*} {unit} at the end", y.decimals()));
        let _ =
            write!(out, r#"<path class="{class}" d="{path}"><title>{}{end}</title></path>"#, escape(name));
    }
    out.push_str("</svg>");
    out
}

fn open(height: f64) -> String {
    format!(r#"<svg viewBox="0 0 {WIDTH} {height}" role="img">"#)
}

fn axes(out: &mut String, x: &Scale, y: &Scale, height: f64, time_unit: &str) {
    for tick in y.ticks() {
        let place = y.at(tick);
        let _ = write!(
            out,
            r#"<line class="grid" x1="{LEFT}" x2="{}" y1="{place:.1}" y2="{place:.1}"/><text class="soft" x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
            WIDTH - RIGHT,
            LEFT - 8.0,
            place + 4.0,
            number(tick, y.decimals()),
        );
    }
    let floor = height - BOTTOM;
    let _ =
        write!(out, r#"<line class="axis" x1="{LEFT}" x2="{}" y1="{floor}" y2="{floor}"/>"#, WIDTH - RIGHT);
    for tick in x.ticks() {
        let _ = write!(
            out,
            r#"<text class="soft" x="{:.1}" y="{}" text-anchor="middle">{} {time_unit}</text>"#,
            x.at(tick),
            floor + 18.0,
            number(tick, x.decimals()),
        );
    }
}

/// A bar with the spread of what it is the median of.
pub(super) struct Bar<'a> {
    pub(super) class: &'a str,
    pub(super) name: &'a str,
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// Horizontal bars from zero, each with its value at its end. `note` says what follows the value.
pub(super) fn bars(bars: &[Bar<'_>], note: impl Fn(&Bar<'_>) -> String) -> String {
    const ROW: f64 = 34.0;
    const NAMES: f64 = 130.0;
    const NOTES: f64 = 250.0;
    let height = TOP + ROW * bars.len() as f64 + BOTTOM;
    let highest = bars.iter().map(|bar| bar.high.max(bar.value)).fold(0.0, f64::max);
    let x = Scale::new((0.0, highest), (NAMES, WIDTH - NOTES), 6, true);
    let mut out = open(height);
    for tick in x.ticks() {
        let place = x.at(tick);
        let _ = write!(
            out,
            r#"<line class="grid" x1="{place:.1}" x2="{place:.1}" y1="{TOP}" y2="{}"/><text class="soft" x="{place:.1}" y="{}" text-anchor="middle">{}</text>"#,
            height - BOTTOM,
            height - BOTTOM + 18.0,
            number(tick, x.decimals()),
        );
    }
    for (i, bar) in bars.iter().enumerate() {
        let top = TOP + ROW * i as f64;
        let middle = top + ROW / 2.0;
        let end = x.at(bar.value);
        let _ = write!(
            out,
            r#"<g class="{}"><text x="{}" y="{:.1}" text-anchor="end">{}</text><rect class="bar {}" x="{NAMES}" y="{:.1}" width="{:.1}" height="{}" rx="2"/><line class="whisker" x1="{:.1}" x2="{:.1}" y1="{middle}" y2="{middle}"/><text x="{:.1}" y="{:.1}">{}</text></g>"#,
            bar.class,
            NAMES - 12.0,
            middle + 4.0,
            escape(bar.name),
            if bar.class.contains("plain") { "plain" } else { "" },
            top + 6.0,
            end - NAMES,
            ROW - 12.0,
            x.at(bar.low),
            x.at(bar.high),
            end.max(x.at(bar.high)) + 10.0,
            middle + 4.0,
            escape(&note(bar)),
        );
    }
    out.push_str("</svg>");
    out
}

/// A tick's label, with thousands apart.
fn number(value: f64, decimals: usize) -> String {
    if decimals > 0 {
        return format!("{value:.decimals$}");
    }
    let sign = if value < 0.0 { "-" } else { "" };
    format!("{sign}{}", crate::memory::human_count(value.abs().round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let scale = Scale::new((0.0, 39.2), (0.0, 392.0), 10, false);
        assert_eq!(scale.ticks().collect::<Vec<_>>(), [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0]);
        assert!((scale.at(19.6) - 196.0).abs() < 1e-9);
        let scale = Scale::new((12_161.0, 12_287.0), (100.0, 0.0), 5, true);
        assert_eq!(scale.ticks().collect::<Vec<_>>(), [12_150.0, 12_200.0, 12_250.0, 12_300.0]);
        assert_eq!((scale.at(12_150.0), scale.at(12_300.0)), (100.0, 0.0));
    }

    #[test]
    fn charts_of_nothing_and_of_one_value_are_drawn() {
        for values in [&[][..], &[7.0][..], &[7.0, 7.0][..]] {
            let times = Times { values: (0..values.len()).map(|i| i as f64).collect(), unit: "s" };
            let series = [Series { class: "series", name: "<x>", values }];
            let svg = lines(&times, &series, 200.0, false, "frames");
            assert!(!svg.contains("NaN") && !svg.contains("inf") && svg.contains("&lt;x&gt;"), "{svg}");
        }
    }
}
