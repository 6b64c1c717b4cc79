//! The report of a run: tables for a terminal, and the same tables for the documents.

use crate::{
    figure_table::FigureTable,
    figures::{CpuPerInvite, Figures, ScenarioResult, or_dash, ratio, short, whole},
    gateway_report,
    machine::Machine,
    scenario::{BenchPart, MAX_UNANSWERED, Subject, thousands},
};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// A worker keeps up with a rate if it answers at least this share of it.
const KEEPS_UP: f64 = 0.97;

/// The results of a run, as they are stored and printed in JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunReport {
    pub machine: Machine,
    pub rounds: u16,
    pub settings: Vec<(String, String)>,
    #[serde(rename = "findings")]
    pub results: Vec<ScenarioResult>,
    /// What must not have happened.
    #[serde(rename = "wrongs")]
    pub violations: Vec<String>,
}

/// The figures of the floor and of a worker at the same rate.
pub(crate) struct RatePair<'a> {
    pub rate: u32,
    pub floor: &'a Figures,
    pub worker: &'a Figures,
}

impl RunReport {
    /// The results as fast as it goes: the floor first, then one worker, then the others.
    pub(crate) fn fastest(&self) -> impl Iterator<Item = &ScenarioResult> {
        self.results.iter().filter(|it| it.scenario.rate.is_none() && it.scenario.part != BenchPart::Gateway)
    }

    pub(crate) fn floor(&self) -> Option<&Figures> {
        self.fastest().find(|it| it.scenario.subject == Subject::Floor).map(|it| &it.figures)
    }

    pub(crate) fn one_worker(&self) -> Option<&Figures> {
        let mut workers = self.fastest().filter(|it| it.scenario.subject == Subject::Worker);
        workers.find(|it| it.scenario.part == BenchPart::Throughput).map(|it| &it.figures)
    }

    pub(crate) fn rates(&self) -> Vec<RatePair<'_>> {
        let latencies = || self.results.iter().filter(|it| it.scenario.part == BenchPart::Latency);
        let of = |subject, rate| {
            let mut same = latencies().filter(|it| it.scenario.rate == Some(rate));
            same.find(|it| it.scenario.subject == subject).map(|it| &it.figures)
        };
        latencies()
            .filter(|it| it.scenario.subject == Subject::Worker)
            .filter_map(|it| it.scenario.rate)
            .filter_map(|rate| {
                Some(RatePair { rate, floor: of(Subject::Floor, rate)?, worker: of(Subject::Worker, rate)? })
            })
            .collect()
    }

    /// For a terminal.
    pub(crate) fn tables(&self) -> String {
        let mut text = format!("{}\n{}\n", self.machine.describe(), self.conditions());
        for table in [self.throughput(), self.latency(), gateway_report::table(&self.results)]
            .iter()
            .filter(|table| !table.rows.is_empty())
        {
            let _ = write!(text, "\n{}\n", table.plain());
        }
        let _ = write!(
            text,
            "\nCPU in µs per invite; `all` is the whole machine's. The floor's `worker` is the bare consumer. Memory is the peak."
        );
        text
    }

    /// For docs/PERFORMANCE.md.
    pub(crate) fn markdown(&self) -> String {
        format!(
            "{}.\n{}\n\n{}\n{}",
            self.machine.describe(),
            self.conditions(),
            self.throughput().markdown(),
            self.latency().markdown()
        )
    }

    /// The table of invites over HTTP, for docs/PERFORMANCE.md.
    pub(crate) fn gateway_markdown(&self) -> String {
        format!(
            "{}.\n{}\n\n{}",
            self.machine.describe(),
            self.conditions(),
            gateway_report::table(&self.results).markdown()
        )
    }

    /// The number of rounds, and the settings.
    pub(crate) fn conditions(&self) -> String {
        let mut text = match self.rounds {
            1 => "One round.".to_owned(),
            rounds => format!("Medians of {rounds} rounds."),
        };
        let _ = write!(
            text,
            " {} unanswered at most, where there is no rate.",
            thousands(u32::try_from(MAX_UNANSWERED).unwrap_or_default())
        );
        for (name, value) in &self.settings {
            let _ = write!(text, " {name}={value}.");
        }
        text
    }

    pub(crate) fn throughput(&self) -> FigureTable {
        let (floor, one) = (self.floor(), self.one_worker());
        let of = |base: Option<&Figures>, figures: &Figures| {
            or_dash(base.and_then(|base| ratio(figures.per_second, base.per_second)), |ratio| {
                format!("{ratio:.2}")
            })
        };
        let row = |result: &ScenarioResult| {
            let figures = &result.figures;
            let is_floor = result.scenario.subject == Subject::Floor;
            let first = [
                result.scenario.title(),
                whole(figures.per_second),
                of(floor, figures),
                if is_floor { "–".to_owned() } else { of(one, figures) },
            ];
            first
                .into_iter()
                .chain(cpu_cells(&figures.cpu))
                .chain([format!("{:.0}", figures.peak_mib)])
                .collect()
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
        FigureTable { header: header.to_vec(), rows: self.fastest().map(row).collect() }
    }

    pub(crate) fn latency(&self) -> FigureTable {
        let row = |pair: RatePair<'_>| {
            let of_floor = |of: fn(&Figures) -> f64| or_dash(ratio(of(pair.worker), of(pair.floor)), short);
            let ms = |value: f64| format!("{value:.1}");
            vec![
                format!("{}/s", thousands(pair.rate)),
                whole(pair.worker.per_second),
                ms(pair.worker.p50_ms),
                of_floor(|figures| figures.p50_ms),
                ms(pair.worker.p99_ms),
                of_floor(|figures| figures.p99_ms),
                ms(pair.worker.max_ms),
                or_dash(pair.worker.cpu.worker, whole),
                or_dash(pair.worker.cpu.machine, whole),
                format!("{:.0}", pair.worker.peak_mib),
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
        FigureTable { header: header.to_vec(), rows: self.rates().into_iter().map(row).collect() }
    }
}

/// Whether nearly all invites at this rate were answered at once.
pub(crate) fn keeps_up(rate: u32, figures: &Figures) -> bool {
    figures.per_second >= KEEPS_UP * f64::from(rate)
}

fn cpu_cells(cpu: &CpuPerInvite) -> impl Iterator<Item = String> {
    [cpu.worker, cpu.postgres, cpu.broker, cpu.provider, cpu.publisher, cpu.machine]
        .into_iter()
        .map(|microseconds| or_dash(microseconds, whole))
}
