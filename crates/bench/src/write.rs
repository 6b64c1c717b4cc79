//! The figures and the plot in the documents.

use crate::{
    block::between,
    figures::{or_dash, whole},
    over_http,
    part::{Part, Subject},
    plot,
    report::{Grid, Run},
};
use std::{fs, path::Path};

/// What `--write` changes.
pub const WRITTEN: [&str; 3] = [PLOT, PERFORMANCE, SCALING];
const PLOT: &str = "docs/performance.svg";
const PERFORMANCE: &str = "docs/PERFORMANCE.md";
const PICTURE: &str = "![Throughput, CPU per invite by process, and latency against rate](performance.svg)";
const SCALING: &str = "docs/SCALING.md";

pub fn documents(run: &Run) -> Result<(), String> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let write = |path: &str, text: String| {
        fs::write(root.join(path), text).map_err(|error| format!("{path}: {error}"))
    };
    for (path, of, figures) in [
        (PERFORMANCE, "", format!("{PICTURE}\n\n{}", run.markdown())),
        (PERFORMANCE, " over HTTP", over_http::markdown(run)),
        (SCALING, "", scaling(run)),
    ] {
        let text = fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"))?;
        let written = between(&text, of, &figures);
        write(path, written.ok_or_else(|| format!("{path} has no place for the figures{of}"))?)?;
    }
    write(PLOT, plot::draw(run))
}

/// One, two and four workers, beside the floor.
fn scaling(run: &Run) -> String {
    let about_workers = run.fastest().filter(|it| {
        it.scenario.subject == Subject::Floor || matches!(it.scenario.part, Part::Throughput | Part::ScaleOut)
    });
    let row = |it: &crate::figures::Finding| {
        let cpu = &it.measure.cpu;
        let figures = [cpu.worker, cpu.postgres, cpu.broker, cpu.machine].map(|value| or_dash(value, whole));
        [it.scenario.title(), whole(it.measure.per_second)].into_iter().chain(figures).collect()
    };
    let header =
        vec!["on one queue", "invites/s", "workers, µs", "Postgres, µs", "RabbitMQ, µs", "machine, µs"];
    let grid = Grid { header, rows: about_workers.map(row).collect() };
    format!("{}.\n{} CPU per invite.\n\n{}", run.machine.describe(), run.how(), grid.markdown())
}
