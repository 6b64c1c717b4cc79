//! Writes the figures and the plot into the documents.

use crate::{
    figure_table::FigureTable,
    figures::{ScenarioResult, or_dash, whole},
    plot,
    report::RunReport,
    scenario::{BenchPart, Subject},
};
use std::{fs, path::Path};

/// The files that `--write` changes.
pub(crate) const WRITTEN: [&str; 3] = [PLOT, PERFORMANCE, SCALING];
const PLOT: &str = "docs/performance.svg";
const PERFORMANCE: &str = "docs/PERFORMANCE.md";
const PICTURE: &str = "![Throughput, CPU per invite by process, and latency against rate](performance.svg)";
const SCALING: &str = "docs/SCALING.md";
const END: &str = "<!-- end of figures -->";

pub(crate) fn write(report: &RunReport) -> Result<(), String> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let write = |path: &str, text: String| {
        fs::write(root.join(path), text).map_err(|error| format!("{path}: {error}"))
    };
    for (path, name, figures) in [
        (PERFORMANCE, "", format!("{PICTURE}\n\n{}", report.markdown())),
        (PERFORMANCE, " over HTTP", report.gateway_markdown()),
        (SCALING, "", scaling(report)),
    ] {
        let text = fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"))?;
        let text = replace_figures(&text, name, &figures);
        write(path, text.ok_or_else(|| format!("{path} has no place for the figures{name}"))?)?;
    }
    write(PLOT, plot::draw(report).map_err(|error| format!("{PLOT}: {error}"))?)
}

/// The text with new figures between its two comments. `name` is empty, or follows "figures" in the first comment. `None`
/// if the comments are missing.
pub(crate) fn replace_figures(text: &str, name: &str, figures: &str) -> Option<String> {
    let begin = format!("<!-- figures{name}: written by ./dev bench --write -->");
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{begin}\n\n{}\n\n{END}{after}", figures.trim_end()))
}

/// One, two and four workers, after the floor.
fn scaling(report: &RunReport) -> String {
    let about_workers = report.fastest().filter(|it| {
        it.scenario.subject == Subject::Floor
            || matches!(it.scenario.part, BenchPart::Throughput | BenchPart::ScaleOut)
    });
    let row = |it: &ScenarioResult| {
        let cpu = &it.figures.cpu;
        let cells = [cpu.worker, cpu.postgres, cpu.broker, cpu.machine].map(|value| or_dash(value, whole));
        [it.scenario.title(), whole(it.figures.per_second)].into_iter().chain(cells).collect()
    };
    let header =
        vec!["on one queue", "invites/s", "workers, µs", "Postgres, µs", "RabbitMQ, µs", "machine, µs"];
    let table = FigureTable { header, rows: about_workers.map(row).collect() };
    format!("{}.\n{} CPU per invite.\n\n{}", report.machine.describe(), report.conditions(), table.markdown())
}
