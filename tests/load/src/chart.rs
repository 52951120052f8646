//! Charts as SVG: horizontal bars on a logarithmic scale, because the peers lie decades apart.

use std::fmt::Write;

use crate::kind::Kind;
use crate::spread::{Spread, digits};

const WIDTH: f64 = 880.0;
/// Where the plot begins and ends; names stand left of it, figures right.
const LEFT: f64 = 110.0;
const RIGHT: f64 = 680.0;
const ROW: f64 = 20.0;
const HEAD: f64 = 34.0;
/// Above the first group: title, explanation, colours.
const TOP: f64 = 84.0;
const BOTTOM: f64 = 12.0;

const DIGI: &str = "#2563eb";
const STORES: &str = "#d97706";
const FANS_OUT: &str = "#94a3b8";
const GRID: &str = "#e2e8f0";
const DARK: &str = "#1e293b";
const DIM: &str = "#64748b";

pub(crate) struct Chart {
    pub(crate) title: String,
    /// What the figures are.
    pub(crate) text: String,
    /// Where bars begin; None: at the left.
    pub(crate) origin: Option<f64>,
    pub(crate) groups: Vec<Group>,
}

pub(crate) struct Group {
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
}

pub(crate) struct Bar {
    pub(crate) kind: Kind,
    pub(crate) label: String,
    pub(crate) mark: Mark,
}

#[derive(Clone, Copy)]
pub(crate) enum Mark {
    /// A bar up to the median, with a whisker from lowest to highest.
    Bar(Spread),
    /// Percentiles on a line. Those that are not there are not numbers.
    Points([f64; 3]),
    Failed,
}

impl Mark {
    fn values(self) -> [f64; 3] {
        match self {
            Self::Bar(Spread { min, median, max }) => [min, median, max],
            Self::Points(points) => points,
            Self::Failed => [f64::NAN; 3],
        }
    }
}

/// From values to places.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// Between round numbers, so that all has its place.
    fn over(values: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite() && *value > 0.0) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        // A little room left of the smallest, lest its bar have no length.
        let (low, high) = (round_below(low * 0.9), round_above(high));
        Self { low, high: if high > low { high } else { low * 10.0 } }
    }

    fn x(&self, value: f64) -> f64 {
        let part = (value.max(self.low) / self.low).ln() / (self.high / self.low).ln();
        LEFT + part.min(1.0) * (RIGHT - LEFT)
    }

    /// The numbers at which there are lines.
    fn ticks(&self) -> Vec<f64> {
        let decades = (self.high / self.low).log10();
        let steps: &[f64] = if decades <= 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let first = self.low.log10().floor() as i32;
        let last = self.high.log10().ceil() as i32;
        let all = (first..=last).flat_map(|decade| steps.iter().map(move |step| step * 10.0_f64.powi(decade)));
        all.filter(|tick| (self.low * 0.999..=self.high * 1.001).contains(tick)).collect()
    }
}

/// The next of 1, 2, 5, 10 … that is not above.
fn round_below(value: f64) -> f64 {
    let decade = 10.0_f64.powf(value.log10().floor());
    let step = [5.0, 2.0, 1.0].into_iter().find(|step| step * decade <= value * 1.000_001);
    step.unwrap_or(1.0) * decade
}

fn round_above(value: f64) -> f64 {
    let decade = 10.0_f64.powf(value.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * decade >= value * 0.999_999);
    step.unwrap_or(10.0) * decade
}

/// A number as it stands at a line: `0.05`, `20`, `5k`, `1M`.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        999_999.0.. => (value / 1e6, "M"),
        999.0.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    format!("{}{unit}", (value * 1e4).round() / 1e4)
}

impl Chart {
    pub(crate) fn svg(&self) -> String {
        let marks = || self.groups.iter().flat_map(|group| &group.bars).map(|bar| bar.mark);
        let axis = Axis::over(marks().flat_map(Mark::values).chain(self.origin));
        let rows: usize = self.groups.iter().map(|group| group.bars.len()).sum();
        let height = TOP + self.groups.len() as f64 * (HEAD + ROW * 0.7) + rows as f64 * ROW + BOTTOM;
        let mut svg = String::new();
        // Writing to a String does not fail.
        let _ = self.draw(&mut svg, &axis, height);
        svg
    }

    fn draw(&self, svg: &mut String, axis: &Axis, height: f64) -> std::fmt::Result {
        writeln!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0}" viewBox="0 0 {WIDTH} {height:.0}" font-family="system-ui, 'DejaVu Sans', sans-serif" font-size="12">"#
        )?;
        writeln!(svg, r#"<rect width="100%" height="100%" fill="white"/>"#)?;
        writeln!(svg, r#"<text x="12" y="26" font-size="17" fill="{DARK}">{}</text>"#, escaped(&self.title))?;
        writeln!(svg, r#"<text x="12" y="46" fill="{DIM}">{}</text>"#, escaped(&self.text))?;
        let mut x = 12.0;
        for (colour, text) in [(DIGI, "Digi"), (STORES, "stores messages"), (FANS_OUT, "only hands them on")] {
            writeln!(svg, r#"<rect x="{x}" y="58" width="12" height="12" fill="{colour}"/>"#)?;
            writeln!(svg, r#"<text x="{}" y="68" fill="{DARK}">{text}</text>"#, x + 17.0)?;
            x += 40.0 + 7.0 * text.len() as f64;
        }
        let mut y = TOP;
        for group in &self.groups {
            writeln!(
                svg,
                r#"<text x="12" y="{:.1}" font-weight="600" fill="{DARK}">{}</text>"#,
                y + 21.0,
                escaped(&group.title)
            )?;
            y += HEAD;
            let below = y + ROW * group.bars.len() as f64;
            for tick in axis.ticks() {
                let x = axis.x(tick);
                let colour = if self.origin == Some(tick) { DIM } else { GRID };
                writeln!(svg, r#"<path d="M{x:.1} {:.1}V{below:.1}" stroke="{colour}"/>"#, y - 3.0)?;
                writeln!(
                    svg,
                    r#"<text x="{x:.1}" y="{:.1}" font-size="10" text-anchor="middle" fill="{DIM}">{}</text>"#,
                    below + 11.0,
                    short(tick)
                )?;
            }
            for bar in &group.bars {
                self.draw_bar(svg, axis, bar, y + ROW / 2.0)?;
                y += ROW;
            }
            y += ROW * 0.7;
        }
        writeln!(svg, "</svg>")
    }

    fn draw_bar(&self, svg: &mut String, axis: &Axis, bar: &Bar, y: f64) -> std::fmt::Result {
        let colour = match bar.kind {
            kind if kind.is_digi() => DIGI,
            kind if kind.stores() => STORES,
            _ => FANS_OUT,
        };
        let base = y + 4.0;
        writeln!(
            svg,
            r#"<text x="{}" y="{base:.1}" text-anchor="end" fill="{DARK}">{}</text>"#,
            LEFT - 8.0,
            escaped(&bar.label)
        )?;
        let right = RIGHT + 10.0;
        let figures = match bar.mark {
            Mark::Failed => "failed".to_owned(),
            Mark::Bar(spread) if !spread.median.is_finite() => "-".to_owned(),
            Mark::Bar(spread) => {
                let (from, to) = (self.origin.map_or(LEFT, |origin| axis.x(origin)), axis.x(spread.median));
                let (left, width) = (from.min(to), (to - from).abs().max(1.0));
                writeln!(
                    svg,
                    r#"<rect x="{left:.1}" y="{:.1}" width="{width:.1}" height="12" fill="{colour}"/>"#,
                    y - 6.0
                )?;
                let (min, max) = (axis.x(spread.min), axis.x(spread.max));
                writeln!(
                    svg,
                    r#"<path d="M{min:.1} {:.1}v8m0 -4H{max:.1}m0 -4v8" stroke="{DARK}" fill="none"/>"#,
                    y - 4.0
                )?;
                spread.show()
            }
            Mark::Points(points) => {
                let there = || points.into_iter().filter(|point| point.is_finite());
                // Without any, a line of no length at the left.
                let (to, from) = (there().fold(0.0, f64::max), there().reduce(f64::min).unwrap_or_default());
                writeln!(
                    svg,
                    r#"<path d="M{:.1} {y:.1}H{:.1}" stroke="{colour}" stroke-width="3"/>"#,
                    axis.x(from),
                    axis.x(to)
                )?;
                for (point, radius) in points.into_iter().zip([6.0, 4.5, 3.0]).filter(|(point, _)| point.is_finite()) {
                    let x = axis.x(point);
                    writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius}" fill="{colour}" stroke="white"/>"#)?;
                }
                points.map(|point| if point.is_finite() { digits(point) } else { "-".to_owned() }).join(" / ")
            }
        };
        writeln!(svg, r#"<text x="{right}" y="{base:.1}" fill="{DIM}">{figures}</text>"#)
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_round_numbers_and_has_a_place_for_all() {
        let axis = Axis::over([0.03, 7.0, f64::NAN].into_iter());
        assert_eq!((axis.low, axis.high), (0.02, 10.0));
        assert!(LEFT < axis.x(0.03) && axis.x(0.03) < axis.x(7.0) && axis.x(7.0) < RIGHT);
        let ticks = axis.ticks().into_iter().map(short).collect::<Vec<_>>().join(" ");
        assert_eq!(ticks, "0.02 0.05 0.1 0.2 0.5 1 2 5 10");
        let wide = Axis::over([1.5, 2_000_000.0].into_iter()).ticks();
        assert_eq!(wide.into_iter().map(short).collect::<Vec<_>>().join(" "), "1 10 100 1k 10k 100k 1M");
    }

    #[test]
    fn a_chart_shows_what_there_is() {
        let bar = |label: &str, mark| Bar { kind: Kind::Digi, label: label.to_owned(), mark };
        let spread = Spread { min: 1.0, median: 2.0, max: 3.0 };
        let group = Group {
            title: "S1 <b>".to_owned(),
            bars: vec![
                bar("one", Mark::Bar(spread)),
                bar("two", Mark::Points([10.0, 20.0, f64::NAN])),
                bar("three", Mark::Points([f64::NAN; 3])),
                bar("four", Mark::Failed),
            ],
        };
        let svg = Chart { title: "T".into(), text: "t".into(), origin: Some(1.0), groups: vec![group] }.svg();
        for part in ["S1 &lt;b&gt;", "2.00 [1.00-3.00]", "10.0 / 20.0 / -", "- / - / -", ">failed<"] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
