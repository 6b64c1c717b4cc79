//! docs/performance.svg: throughput, where the CPU goes, and latency against rate.

use crate::{
    figures::{CpuPerInvite, Figures, ScenarioResult, ratio, short, whole},
    report::{RatePair, RunReport, keeps_up},
    scenario::Subject,
};
use plotters::{
    coord::{
        Shift,
        ranged1d::SegmentedCoord,
        types::{RangedCoordf64, RangedCoordu32},
    },
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use std::{error::Error, fmt::Write as _};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// Bars from left to right, in rows that are numbered from the bottom.
type BarChart<'a> =
    ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, SegmentedCoord<RangedCoordu32>>>;
type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TITLE: &str = "Session Invite: throughput, CPU and latency";
const FONTS: &str = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif";
const WIDTH: u32 = 1_040;
const HEADER_HEIGHT: u32 = 72;
const ROW_HEIGHT: u32 = 34;
/// The height of caption, axis and legend of a bar chart.
const AROUND_ROWS: u32 = 104;
const LATENCY_HEIGHT: u32 = 380;
/// Space above and below each bar, in pixels.
const BAR_MARGIN: u32 = 7;
const LEGEND_HEIGHT: u32 = 30;
const BARS_LEFT: i32 = 30;

const PAPER: RGBColor = RGBColor(0xff, 0xff, 0xff);
const TEXT: RGBColor = RGBColor(0x1f, 0x23, 0x28);
const FAINT: RGBColor = RGBColor(0x59, 0x63, 0x6e);
const GRID: RGBColor = RGBColor(0xd1, 0xd9, 0xe0);
const WORKER: RGBColor = RGBColor(0x09, 0x69, 0xda);
const POSTGRES: RGBColor = RGBColor(0x82, 0x50, 0xdf);
const BROKER: RGBColor = RGBColor(0xd4, 0x73, 0x1f);
const PROVIDER: RGBColor = RGBColor(0x2d, 0xa4, 0x4e);
const PUBLISHER: RGBColor = RGBColor(0xb8, 0x42, 0x8c);
const REST: RGBColor = RGBColor(0xaf, 0xb8, 0xc1);

/// What replaces each colour on a dark page.
const DARK: [(RGBColor, &str); 10] = [
    (PAPER, "#0d1117"),
    (TEXT, "#f0f6fc"),
    (FAINT, "#9198a1"),
    (GRID, "#2a313c"),
    (WORKER, "#4493f8"),
    (POSTGRES, "#a371f7"),
    (BROKER, "#e0823d"),
    (PROVIDER, "#3fb950"),
    (PUBLISHER, "#db61a2"),
    (REST, "#656c76"),
];

/// One part of a bar of CPU time.
struct CpuShare {
    color: RGBColor,
    name: &'static str,
    of: fn(&CpuPerInvite) -> f64,
}

/// From left to right. CPU time of unknown processes comes last.
const CPU_SHARES: [CpuShare; 6] = [
    CpuShare { color: WORKER, name: "worker", of: |cpu| cpu.worker.unwrap_or_default() },
    CpuShare { color: POSTGRES, name: "Postgres", of: |cpu| cpu.postgres.unwrap_or_default() },
    CpuShare { color: BROKER, name: "RabbitMQ", of: |cpu| cpu.broker.unwrap_or_default() },
    CpuShare { color: PROVIDER, name: "provider", of: |cpu| cpu.provider.unwrap_or_default() },
    CpuShare { color: PUBLISHER, name: "publisher", of: |cpu| cpu.publisher.unwrap_or_default() },
    CpuShare { color: REST, name: "the rest", of: rest },
];

/// One line of the latency chart.
struct LatencySeries {
    name: &'static str,
    is_floor: bool,
    is_dashed: bool,
    of: fn(&Figures) -> f64,
}

const LATENCY_SERIES: [LatencySeries; 4] = [
    LatencySeries { name: "worker p99", is_floor: false, is_dashed: false, of: |figures| figures.p99_ms },
    LatencySeries { name: "worker p50", is_floor: false, is_dashed: true, of: |figures| figures.p50_ms },
    LatencySeries { name: "floor p99", is_floor: true, is_dashed: false, of: |figures| figures.p99_ms },
    LatencySeries { name: "floor p50", is_floor: true, is_dashed: true, of: |figures| figures.p50_ms },
];

/// The whole picture.
pub(crate) fn draw(report: &RunReport) -> Result<String> {
    let fastest: Vec<&ScenarioResult> = report.fastest().collect();
    let bars_height = u32::try_from(fastest.len())? * ROW_HEIGHT + AROUND_ROWS;
    let mut svg = String::new();
    {
        let size = (WIDTH, HEADER_HEIGHT + bars_height + LATENCY_HEIGHT);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&PAPER)?;
        root.draw_text(TITLE, &heading(17), (24, 20))?;
        root.draw_text(&report.machine.describe(), &label(12, FAINT), (24, 44))?;
        let (_, charts) = root.split_vertically(HEADER_HEIGHT);
        let (bars, latency) = charts.split_vertically(bars_height);
        let (throughput, cpu) = bars.split_horizontally(530);
        draw_throughput(&throughput, &fastest, report.floor())?;
        draw_cpu(&cpu, &fastest)?;
        draw_latency(&latency, &report.rates())?;
        root.present()?;
    }
    Ok(svg.replacen(">\n", &format!(" role=\"img\">\n<title>{TITLE}</title>\n{}", style_sheet()), 1))
}

/// The SVG backend writes colours as attributes, which a style sheet overrides.
fn style_sheet() -> String {
    let mut rules = String::new();
    for (RGBColor(r, g, b), dark) in DARK {
        for attribute in ["fill", "stroke"] {
            let _ =
                writeln!(rules, "    [{attribute}=\"#{r:02X}{g:02X}{b:02X}\"] {{ {attribute}: {dark}; }}");
        }
    }
    format!(
        "<style>\n  text {{ font-family: {FONTS}; }}\n  @media (prefers-color-scheme: dark) {{\n{rules}  }}\n</style>\n"
    )
}

/// The backend divides a font's size by 1.24.
fn label(pixels: u32, color: RGBColor) -> TextStyle<'static> {
    ("sans-serif", f64::from(pixels) * 1.24).into_font().color(&color)
}

fn heading(pixels: u32) -> TextStyle<'static> {
    ("sans-serif", f64::from(pixels) * 1.24, FontStyle::Bold).into_font().color(&TEXT)
}

/// A chart with one row for each scenario, the first at the top. Without a width for them, the rows have no titles.
fn bar_chart<'a>(
    area: &Area<'a>,
    (caption, unit): (&str, &str),
    rows: &[&ScenarioResult],
    largest: f64,
    titles_width: u32,
) -> Result<BarChart<'a>> {
    let last = u32::try_from(rows.len())?.checked_sub(1).ok_or("there is nothing to draw")?;
    let title = |row: &SegmentValue<u32>| match row {
        SegmentValue::CenterOf(row) if titles_width > 0 => rows[(last - row) as usize].scenario.title(),
        _ => String::new(),
    };
    let mut chart = ChartBuilder::on(area)
        .caption(caption, heading(14))
        .margin_left(BARS_LEFT)
        .margin_right(20)
        .margin_bottom(LEGEND_HEIGHT)
        .x_label_area_size(40)
        .y_label_area_size(titles_width)
        .build_cartesian_2d(0.0..largest, (0..last).into_segmented())?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(FAINT)
        .label_style(label(12, FAINT))
        .y_label_style(label(13, TEXT))
        .x_labels(5)
        .y_labels(rows.len())
        .x_label_formatter(&|value| whole(*value))
        .y_label_formatter(&title)
        .x_desc(unit)
        .draw()?;
    Ok(chart)
}

/// The number of a row from the bottom, by its number from the top.
fn from_bottom(rows: usize, row: usize) -> u32 {
    u32::try_from(rows - 1 - row).unwrap_or_default()
}

/// A bar in a row that is numbered from the top.
fn bar(
    rows: usize,
    row: usize,
    (from, to): (f64, f64),
    color: RGBColor,
) -> Rectangle<(f64, SegmentValue<u32>)> {
    let row = from_bottom(rows, row);
    let mut bar = Rectangle::new(
        [(from, SegmentValue::Exact(row)), (to, SegmentValue::Exact(row + 1))],
        color.filled(),
    );
    bar.set_margin(BAR_MARGIN, BAR_MARGIN, 0, 0);
    bar
}

/// Each bar has its figure and its share of the floor at its end.
fn draw_throughput(area: &Area<'_>, rows: &[&ScenarioResult], floor: Option<&Figures>) -> Result<()> {
    let largest = rows.iter().map(|row| row.figures.per_second).fold(1.0, f64::max) * 1.25;
    let texts = ("As fast as it goes, and its share of the floor", "invites answered per second");
    let mut chart = bar_chart(area, texts, rows, largest, 157)?;
    for (at, row) in rows.iter().enumerate() {
        let (per_second, is_floor) = (row.figures.per_second, row.scenario.subject == Subject::Floor);
        let color = if is_floor { REST } else { WORKER };
        let share = floor.filter(|_| !is_floor).and_then(|floor| ratio(per_second, floor.per_second));
        let share = share.map_or_else(String::new, |share| format!(" · {share:.2}"));
        let end = (per_second, SegmentValue::CenterOf(from_bottom(rows.len(), at)));
        let figure = label(13, TEXT).pos(Pos::new(HPos::Left, VPos::Center));
        chart.draw_series([bar(rows.len(), at, (0.0, per_second), color)])?;
        chart.draw_series([EmptyElement::at(end) + Text::new(whole(per_second) + &share, (6, 0), figure)])?;
    }
    Ok(())
}

/// Stacked by process. A legend below the axis names the colours.
fn draw_cpu(area: &Area<'_>, rows: &[&ScenarioResult]) -> Result<()> {
    let total = |cpu: &CpuPerInvite| CPU_SHARES.iter().map(|share| (share.of)(cpu)).sum::<f64>();
    let largest = rows.iter().map(|row| total(&row.figures.cpu)).fold(1.0, f64::max) * 1.04;
    let mut chart = bar_chart(area, ("CPU per invite, by process", "µs of one core"), rows, largest, 0)?;
    for (at, row) in rows.iter().enumerate() {
        let mut from = 0.0;
        for share in &CPU_SHARES {
            let to = from + (share.of)(&row.figures.cpu);
            chart.draw_series([bar(rows.len(), at, (from, to), share.color)])?;
            from = to;
        }
    }
    let (_, legend) = area.split_vertically(area.dim_in_pixel().1 - LEGEND_HEIGHT);
    for (x, share) in (BARS_LEFT..).step_by(79).zip(&CPU_SHARES) {
        legend.draw(&Rectangle::new([(x, 2), (x + 11, 13)], share.color.filled()))?;
        legend.draw_text(share.name, &label(12, FAINT), (x + 15, 2))?;
    }
    Ok(())
}

/// CPU of the machine that none of the known processes used.
fn rest(cpu: &CpuPerInvite) -> f64 {
    let known = [cpu.worker, cpu.postgres, cpu.broker, cpu.provider, cpu.publisher];
    (cpu.machine.unwrap_or_default() - known.into_iter().flatten().sum::<f64>()).max(0.0)
}

/// Against the rate, on a logarithmic axis. A rate that was not kept up with has no latency to speak of.
fn draw_latency(area: &Area<'_>, rates: &[RatePair<'_>]) -> Result<()> {
    let ticks: Vec<i32> = rates.iter().map(|pair| axis_value(pair.rate)).collect();
    let rightmost = ticks.iter().max().map_or(1, |rate| rate + rate / 25);
    let all = LATENCY_SERIES.iter().flat_map(|series| latencies(series, rates));
    let (least, most) = all.fold((1.0_f64, 10.0_f64), |(least, most), (_, ms)| (least.min(ms), most.max(ms)));
    let (bottom, top) = (10_f64.powf(least.log10().floor()), 10_f64.powf(most.log10().ceil()));
    let mut chart = ChartBuilder::on(area)
        .caption("Latency at a fixed rate, from when each invite was due to its reply", heading(14))
        .margin_top(10)
        .margin_right(160)
        .margin_bottom(10)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d((0..rightmost).with_key_points(ticks), (bottom..top).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(FAINT)
        .label_style(label(12, FAINT))
        .y_labels(6)
        .x_label_formatter(&|rate| whole(f64::from(*rate)))
        .y_label_formatter(&|ms| format!("{} ms", if *ms < 1.0 { short(*ms) } else { whole(*ms) }))
        .x_desc("invites published per second")
        .draw()?;
    for pair in rates.iter().filter(|pair| !keeps_up(pair.rate, pair.worker)) {
        let behind = label(12, FAINT).pos(Pos::new(HPos::Center, VPos::Bottom));
        chart.draw_series([Text::new("worker behind", (axis_value(pair.rate), bottom), behind)])?;
    }
    let mut names = Vec::new();
    for series in &LATENCY_SERIES {
        let points = latencies(series, rates);
        let style = if series.is_floor { FAINT } else { WORKER }.stroke_width(2);
        if series.is_dashed {
            chart.draw_series(DashedLineSeries::new(points.iter().copied(), 5, 4, style))?;
        } else {
            chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
        }
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, style.filled())))?;
        names.extend(points.last().map(|last| (chart.backend_coord(last), series.name)));
    }
    // Where lines end close to each other, their names are moved down.
    names.sort_unstable_by_key(|((_, y), _)| *y);
    let mut lowest = i32::MIN;
    for ((x, y), name) in names {
        lowest = y.max(lowest.saturating_add(16));
        let style = label(13, TEXT).pos(Pos::new(HPos::Left, VPos::Center));
        area.use_screen_coord().draw(&Text::new(name, (x + 12, lowest), style))?;
    }
    Ok(())
}

/// The latency at each rate that was kept up with.
fn latencies(series: &LatencySeries, rates: &[RatePair<'_>]) -> Vec<(i32, f64)> {
    let figures =
        rates.iter().map(|pair| (pair.rate, if series.is_floor { pair.floor } else { pair.worker }));
    let kept = figures.filter(|(rate, figures)| keeps_up(*rate, figures));
    kept.map(|(rate, figures)| (axis_value(rate), (series.of)(figures))).collect()
}

/// plotters places ticks by hand on axes of signed integers only.
fn axis_value(rate: u32) -> i32 {
    i32::try_from(rate).unwrap_or(i32::MAX)
}
