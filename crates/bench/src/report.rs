//! What a run tells: tables for a terminal, and the same for the documents.

use crate::{
    figures::{Cpu, Finding, Measure, or_dash, ratio, short, whole},
    machine::Machine,
    over_http,
    part::{Part, Subject, WINDOW, thousands},
};
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// Less than this share of a rate is not keeping up with it.
const KEEPS_UP: f64 = 0.97;

/// All that a run has found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub machine: Machine,
    pub rounds: u16,
    pub settings: Vec<(String, String)>,
    pub findings: Vec<Finding>,
    pub wrongs: Vec<String>,
}

/// A table, before it is drawn in one way or another. The first column is text, the others are numbers.
pub struct Grid {
    pub header: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

/// Both at the same rate.
pub struct AtRate<'a> {
    pub rate: u32,
    pub floor: &'a Measure,
    pub worker: &'a Measure,
}

impl Run {
    /// As fast as it goes: the floor first, then one worker, then the rest.
    pub fn fastest(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|it| it.scenario.rate.is_none() && it.scenario.part != Part::Gateway)
    }

    pub fn floor(&self) -> Option<&Measure> {
        self.fastest().find(|it| it.scenario.subject == Subject::Floor).map(|it| &it.measure)
    }

    pub fn one_worker(&self) -> Option<&Measure> {
        let mut workers = self.fastest().filter(|it| it.scenario.subject == Subject::Worker);
        workers.find(|it| it.scenario.part == Part::Throughput).map(|it| &it.measure)
    }

    pub fn rates(&self) -> Vec<AtRate<'_>> {
        let latencies = || self.findings.iter().filter(|it| it.scenario.part == Part::Latency);
        let of = |subject, rate| {
            let mut same = latencies().filter(|it| it.scenario.rate == Some(rate));
            same.find(|it| it.scenario.subject == subject).map(|it| &it.measure)
        };
        latencies()
            .filter(|it| it.scenario.subject == Subject::Worker)
            .filter_map(|it| it.scenario.rate)
            .filter_map(|rate| {
                Some(AtRate { rate, floor: of(Subject::Floor, rate)?, worker: of(Subject::Worker, rate)? })
            })
            .collect()
    }

    /// For a terminal.
    pub fn tables(&self) -> String {
        let mut text = format!("{}\n{}\n", self.machine.describe(), self.how());
        for grid in [self.throughput(), self.latency(), over_http::grid(self)]
            .iter()
            .filter(|grid| !grid.rows.is_empty())
        {
            let _ = write!(text, "\n{}\n", grid.plain());
        }
        let _ = write!(
            text,
            "\nCPU in µs per invite; `all` is the whole machine's. The floor's `worker` is the bare consumer. Memory is the peak."
        );
        text
    }

    /// For docs/PERFORMANCE.md.
    pub fn markdown(&self) -> String {
        format!(
            "{}.\n{}\n\n{}\n{}",
            self.machine.describe(),
            self.how(),
            self.throughput().markdown(),
            self.latency().markdown()
        )
    }

    /// One round or a median, and what was set.
    pub fn how(&self) -> String {
        let mut text = match self.rounds {
            1 => "One round.".to_owned(),
            rounds => format!("Medians of {rounds} rounds."),
        };
        let _ = write!(
            text,
            " {} unanswered at most, where there is no rate.",
            thousands(u32::try_from(WINDOW).unwrap_or_default())
        );
        for (name, value) in &self.settings {
            let _ = write!(text, " {name}={value}.");
        }
        text
    }

    pub fn throughput(&self) -> Grid {
        let (floor, one) = (self.floor(), self.one_worker());
        let of = |base: Option<&Measure>, measure: &Measure| {
            or_dash(base.and_then(|base| ratio(measure.per_second, base.per_second)), |ratio| {
                format!("{ratio:.2}")
            })
        };
        let row = |finding: &Finding| {
            let measure = &finding.measure;
            let alone = finding.scenario.subject == Subject::Floor;
            let own = [
                finding.scenario.title(),
                whole(measure.per_second),
                of(floor, measure),
                if alone { "–".to_owned() } else { of(one, measure) },
            ];
            own.into_iter().chain(cpu(&measure.cpu)).chain([format!("{:.0}", measure.peak_mib)]).collect()
        };
        let header = [
            "as fast as it goes",
            "invites/s",
            "of floor",
            "of one",
            "worker",
            "Postgres",
            "broker",
            "provider",
            "publisher",
            "all",
            "MiB",
        ];
        Grid { header: header.to_vec(), rows: self.fastest().map(row).collect() }
    }

    pub fn latency(&self) -> Grid {
        let row = |at: AtRate<'_>| {
            let times = |of: fn(&Measure) -> f64| or_dash(ratio(of(at.worker), of(at.floor)), short);
            let ms = |value: f64| format!("{value:.1}");
            vec![
                format!("{}/s", thousands(at.rate)),
                whole(at.worker.per_second),
                ms(at.worker.p50_ms),
                times(|of| of.p50_ms),
                ms(at.worker.p99_ms),
                times(|of| of.p99_ms),
                ms(at.worker.max_ms),
                or_dash(at.worker.cpu.worker, whole),
                or_dash(at.worker.cpu.machine, whole),
                format!("{:.0}", at.worker.peak_mib),
            ]
        };
        let header = [
            "at a fixed rate",
            "answered/s",
            "p50 ms",
            "of floor",
            "p99 ms",
            "of floor",
            "max ms",
            "worker",
            "all",
            "MiB",
        ];
        Grid { header: header.to_vec(), rows: self.rates().into_iter().map(row).collect() }
    }
}

/// Whether a measurement at a rate answered as many as came.
pub fn keeps_up(rate: u32, measure: &Measure) -> bool {
    measure.per_second >= KEEPS_UP * f64::from(rate)
}

fn cpu(cpu: &Cpu) -> impl Iterator<Item = String> {
    [cpu.worker, cpu.postgres, cpu.broker, cpu.provider, cpu.publisher, cpu.machine]
        .into_iter()
        .map(|microseconds| or_dash(microseconds, whole))
}

impl Grid {
    fn plain(&self) -> String {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(self.header.clone()).add_rows(self.rows.clone());
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.trim_fmt()
    }

    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let header: Vec<String> = self.header.iter().map(ToString::to_string).collect();
        let mut text = line(&header);
        let _ = writeln!(text, "|---|{}", "---:|".repeat(header.len() - 1));
        for row in &self.rows {
            text += &line(row);
        }
        text
    }
}
