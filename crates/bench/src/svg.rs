//! As much of SVG as a plot needs.

use std::fmt::Write as _;

/// Where a text stands by its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing that takes light or dark colours from whoever shows it.
#[derive(Debug)]
pub struct Drawing {
    width: f64,
    height: f64,
    title: String,
    body: String,
}

/// Classes of lines, areas and texts; light first, then what dark changes.
const STYLE: &str = "
  text { font: 13px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2328; }
  .title { font-size: 17px; font-weight: 600; }
  .panel { font-size: 14px; font-weight: 600; }
  .faint { fill: #59636e; font-size: 12px; }
  .paper { fill: #ffffff; }
  .axis { stroke: #59636e; stroke-width: 1; fill: none; }
  .grid { stroke: #d1d9e0; stroke-width: 1; fill: none; }
  .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
  .dashed { stroke-dasharray: 5 4; }
  .worker { fill: #0969da; } .line.worker { stroke: #0969da; fill: none; }
  .postgres { fill: #8250df; }
  .broker { fill: #d4731f; } .line.broker { stroke: #d4731f; fill: none; }
  .provider { fill: #2da44e; }
  .publisher { fill: #b8428c; }
  .rest { fill: #afb8c1; } .line.rest { stroke: #59636e; fill: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; }
    .faint { fill: #9198a1; }
    .paper { fill: #0d1117; }
    .axis { stroke: #9198a1; }
    .grid { stroke: #2a313c; }
    .worker { fill: #4493f8; } .line.worker { stroke: #4493f8; fill: none; }
    .postgres { fill: #a371f7; }
    .broker { fill: #e0823d; } .line.broker { stroke: #e0823d; fill: none; }
    .provider { fill: #3fb950; }
    .publisher { fill: #db61a2; }
    .rest { fill: #656c76; } .line.rest { stroke: #9198a1; fill: none; }
  }";

impl Drawing {
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        let mut drawing = Self { width, height, title: escape(title), body: String::new() };
        drawing.area("paper", 0.0, 0.0, width, height);
        drawing
    }

    pub fn area(&mut self, class: &str, x: f64, y: f64, width: f64, height: f64) {
        let _ = writeln!(
            self.body,
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"/>"#
        );
    }

    pub fn line(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(self.body, r#"<polyline class="{class}" points="{}"/>"#, points.join(" "));
    }

    pub fn dot(&mut self, class: &str, (x, y): (f64, f64)) {
        let _ = writeln!(self.body, r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="3.5"/>"#);
    }

    pub fn text(&mut self, class: &str, anchor: Anchor, (x, y): (f64, f64), text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = writeln!(
            self.body,
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#,
            escape(text)
        );
    }

    pub fn finish(self) -> String {
        let Self { width, height, title, body } = self;
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0} {height:.0}" width="{width:.0}" height="{height:.0}" role="img">
<title>{title}</title>
<style>{STYLE}
</style>
{body}</svg>
"#
        )
    }
}

/// For a text, and for an attribute in double quotes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A round number of units for the distance of ticks: 1, 2 or 5 times a power of ten, and `most` of them at most.
pub fn step(largest: f64, most: u32) -> f64 {
    let least = largest.max(f64::MIN_POSITIVE) / f64::from(most);
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|times| times * power)
        .into_iter()
        .find(|step| *step >= least * 0.999)
        .unwrap_or(power)
}
