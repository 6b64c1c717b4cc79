//! docs/performance.svg: throughput, where the CPU goes, and latency against rate.

use crate::{
    figures::{Cpu, Finding, Measure, ratio, short, whole},
    report::{AtRate, Run, keeps_up},
    svg::{Anchor, Drawing, step},
};

const WIDTH: f64 = 1_040.0;
/// The rows of both upper panels, one below the other.
const ROW: f64 = 34.0;
const BAR: f64 = 20.0;
const ROWS_FROM: f64 = 110.0;
/// From where to where the bars of each upper panel reach.
const THROUGHPUT: (f64, f64) = (185.0, 500.0);
const PROCESSOR: (f64, f64) = (640.0, 1_010.0);
/// The lower panel.
const CURVE: (f64, f64) = (70.0, 880.0);
const CURVE_HEIGHT: f64 = 260.0;
/// Room right of the longest bar for its figure.
const ROOM: f64 = 1.04;

/// A part of the CPU's bar.
struct Share {
    class: &'static str,
    name: &'static str,
    of: fn(&Cpu) -> Option<f64>,
}

/// From left to right.
const SHARES: [Share; 5] = [
    Share { class: "worker", name: "worker", of: |cpu| cpu.worker },
    Share { class: "postgres", name: "Postgres", of: |cpu| cpu.postgres },
    Share { class: "broker", name: "RabbitMQ", of: |cpu| cpu.broker },
    Share { class: "provider", name: "provider", of: |cpu| cpu.provider },
    Share { class: "publisher", name: "publisher", of: |cpu| cpu.publisher },
];

/// A line of the lower panel.
struct Series {
    class: &'static str,
    name: &'static str,
    of: fn(&Measure) -> f64,
    floor: bool,
}

const SERIES: [Series; 4] = [
    Series { class: "line worker", name: "worker p99", of: |measure| measure.p99_ms, floor: false },
    Series { class: "line worker dashed", name: "worker p50", of: |measure| measure.p50_ms, floor: false },
    Series { class: "line rest", name: "floor p99", of: |measure| measure.p99_ms, floor: true },
    Series { class: "line rest dashed", name: "floor p50", of: |measure| measure.p50_ms, floor: true },
];

/// The whole picture.
pub fn draw(run: &Run) -> String {
    let fastest: Vec<&Finding> = run.fastest().collect();
    let rows = f64::from(u32::try_from(fastest.len()).unwrap_or_default());
    let curve_from = ROWS_FROM + rows * ROW + 125.0;
    let height = curve_from + CURVE_HEIGHT + 85.0;
    let mut drawing = Drawing::new(WIDTH, height, "Session Invite: throughput, CPU and latency");
    drawing.text("title", Anchor::Start, (24.0, 34.0), "Session Invite: throughput, CPU and latency");
    drawing.text("faint", Anchor::Start, (24.0, 54.0), &run.machine.describe());
    for (place, finding) in fastest.iter().enumerate() {
        let middle = row(place) + BAR / 2.0 + 4.5;
        drawing.text("", Anchor::End, (THROUGHPUT.0 - 10.0, middle), &finding.scenario.title());
    }
    throughput(&mut drawing, run, &fastest);
    processor(&mut drawing, &fastest);
    latency(&mut drawing, run, curve_from);
    drawing.finish()
}

fn row(place: usize) -> f64 {
    ROWS_FROM + f64::from(u32::try_from(place).unwrap_or_default()) * ROW + (ROW - BAR) / 2.0
}

/// From a value to its place between two ends.
fn scale(value: f64, largest: f64, (from, to): (f64, f64)) -> f64 {
    from + (to - from) * value / largest
}

/// An axis below rows of bars, with lines up through them.
fn ticks(drawing: &mut Drawing, rows: usize, largest: f64, ends: (f64, f64), unit: &str) {
    let bottom = row(rows) - (ROW - BAR) / 2.0;
    let step = step(largest, 5);
    let mut value = 0.0;
    while value <= largest {
        let x = scale(value, largest, ends);
        drawing.line(if value > 0.0 { "grid" } else { "axis" }, &[(x, ROWS_FROM), (x, bottom)]);
        drawing.text("faint", Anchor::Middle, (x, bottom + 17.0), &whole(value));
        value += step;
    }
    drawing.text("faint", Anchor::Middle, (f64::midpoint(ends.0, ends.1), bottom + 36.0), unit);
}

fn throughput(drawing: &mut Drawing, run: &Run, fastest: &[&Finding]) {
    let largest = fastest.iter().map(|it| it.measure.per_second).fold(1.0, f64::max) * ROOM;
    drawing.text(
        "panel",
        Anchor::Start,
        (THROUGHPUT.0, ROWS_FROM - 18.0),
        "As fast as it goes, and its share of the floor",
    );
    ticks(drawing, fastest.len(), largest, THROUGHPUT, "invites answered per second");
    for (place, finding) in fastest.iter().enumerate() {
        let per_second = finding.measure.per_second;
        let class = if place == 0 { "rest" } else { "worker" };
        let x = scale(per_second, largest, THROUGHPUT);
        drawing.area(class, THROUGHPUT.0, row(place), x - THROUGHPUT.0, BAR);
        let share = run.floor().and_then(|floor| ratio(per_second, floor.per_second));
        let share = share.filter(|_| place > 0).map_or(String::new(), |share| format!(" · {share:.2}"));
        drawing.text(
            "",
            Anchor::Start,
            (x + 6.0, row(place) + BAR / 2.0 + 4.5),
            &(whole(per_second) + &share),
        );
    }
}

/// Stacked: who needs how much of it. What no known process accounts for comes last.
fn processor(drawing: &mut Drawing, fastest: &[&Finding]) {
    let whole_bar = |cpu: &Cpu| cpu.machine.unwrap_or_default().max(known(cpu));
    let largest = fastest.iter().map(|it| whole_bar(&it.measure.cpu)).fold(1.0, f64::max) * ROOM;
    drawing.text("panel", Anchor::Start, (PROCESSOR.0, ROWS_FROM - 18.0), "CPU per invite, by process");
    ticks(drawing, fastest.len(), largest, PROCESSOR, "µs of one core");
    let width = |value: f64| scale(value, largest, PROCESSOR) - PROCESSOR.0;
    for (place, finding) in fastest.iter().enumerate() {
        let cpu = &finding.measure.cpu;
        let mut x = PROCESSOR.0;
        for Share { class, of, .. } in SHARES {
            let part = width(of(cpu).unwrap_or_default());
            drawing.area(class, x, row(place), part, BAR);
            x += part;
        }
        drawing.area("rest", x, row(place), width(whole_bar(cpu) - known(cpu)), BAR);
    }
    let y = row(fastest.len()) - (ROW - BAR) / 2.0 + 58.0;
    let legend = SHARES.map(|share| (share.class, share.name)).into_iter().chain([("rest", "the rest")]);
    let mut x = PROCESSOR.0 - 95.0;
    for (class, name) in legend {
        drawing.area(class, x, y - 10.0, 11.0, 11.0);
        drawing.text("faint", Anchor::Start, (x + 15.0, y), name);
        x += 82.0;
    }
}

fn known(cpu: &Cpu) -> f64 {
    SHARES.iter().filter_map(|share| (share.of)(cpu)).sum()
}

/// The rates that were kept up with, and this line's latency at each.
fn points(series: &Series, rates: &[AtRate<'_>]) -> Vec<(u32, f64)> {
    let measures = rates.iter().map(|at| (at.rate, if series.floor { at.floor } else { at.worker }));
    let kept = measures.filter(|(rate, measure)| keeps_up(*rate, measure));
    kept.map(|(rate, measure)| (rate, (series.of)(measure))).collect()
}

/// Against the rate, on a logarithmic axis. A rate that the worker does not keep up with has no latency to speak of.
fn latency(drawing: &mut Drawing, run: &Run, top: f64) {
    let all = run.rates();
    let bottom = top + CURVE_HEIGHT;
    let fastest = all.iter().map(|at| f64::from(at.rate)).fold(1.0, f64::max) * ROOM;
    let values = SERIES.iter().flat_map(|series| points(series, &all)).map(|(_, value)| value);
    let (least, most) =
        values.fold((1.0_f64, 10.0_f64), |(least, most), value| (least.min(value), most.max(value)));
    let decades = (least.log10().floor(), most.log10().ceil());
    let across = |rate: u32| scale(f64::from(rate), fastest, CURVE);
    let up = |ms: f64| bottom - CURVE_HEIGHT * (ms.log10() - decades.0) / (decades.1 - decades.0);

    drawing.text(
        "panel",
        Anchor::Start,
        (CURVE.0, top - 18.0),
        "Latency at a fixed rate, from when each invite was due to its reply",
    );
    let mut decade = decades.0;
    while decade <= decades.1 {
        let (ms, y) = (10_f64.powf(decade), up(10_f64.powf(decade)));
        drawing.line("grid", &[(CURVE.0, y), (CURVE.1, y)]);
        let label = if ms < 1.0 { short(ms) } else { whole(ms) };
        drawing.text("faint", Anchor::End, (CURVE.0 - 8.0, y + 4.0), &format!("{label} ms"));
        decade += 1.0;
    }
    drawing.line("axis", &[(CURVE.0, top), (CURVE.0, bottom), (CURVE.1, bottom)]);
    for at in &all {
        drawing.text("faint", Anchor::Middle, (across(at.rate), bottom + 17.0), &whole(f64::from(at.rate)));
        if !keeps_up(at.rate, at.worker) {
            drawing.text("faint", Anchor::Middle, (across(at.rate), bottom - 8.0), "worker behind");
        }
    }
    drawing.text(
        "faint",
        Anchor::Middle,
        (f64::midpoint(CURVE.0, CURVE.1), bottom + 36.0),
        "invites published per second",
    );
    let mut taken: Vec<(f64, f64)> = Vec::new();
    for series in &SERIES {
        let points = points(series, &all).into_iter().map(|(rate, value)| (across(rate), up(value)));
        let points: Vec<_> = points.collect();
        let Some(last) = points.last().copied() else { continue };
        drawing.line(series.class, &points);
        for point in &points {
            drawing.dot(if series.floor { "rest" } else { "worker" }, *point);
        }
        // Labels of lines that end close to each other stand below each other.
        let mut y = last.1 + 4.0;
        while let Some(other) =
            taken.iter().find(|(x, other)| (x - last.0).abs() < 90.0 && (other - y).abs() < 16.0)
        {
            y = other.1 + 16.0;
        }
        taken.push((last.0, y));
        drawing.text("", Anchor::Start, (last.0 + 12.0, y), series.name);
    }
}
