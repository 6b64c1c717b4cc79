//! A run: its rounds, its progress, its report.

use crate::{
    database::Database,
    documents,
    figures::{Figures, ScenarioResult, whole},
    machine::Machine,
    measure::Bench,
    options::{BenchEnvironment, Options},
    plan::plan,
    report::RunReport,
    scenario::{BenchPart, Scenario},
};
use clap::ValueEnum;
use std::{fs, process::ExitCode};

pub(crate) async fn run(options: Options, environment: BenchEnvironment) -> ExitCode {
    let report_file = environment.report_file();
    let report = if options.again {
        let text = fs::read(&report_file).map_err(|error| format!("{}: {error}", report_file.display()));
        text.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()))
    } else {
        measure_all(&options, environment).await
    };
    let report: RunReport = match report {
        Ok(report) => report,
        Err(error) => return fail(&error),
    };
    let json = serde_json::to_string_pretty(&report).expect("figures are JSON");
    println!("{}", if options.json { json.clone() } else { report.tables() });
    for violation in &report.violations {
        eprintln!("bench: WRONG: {violation}");
    }
    if !options.again
        && let Err(error) = fs::write(&report_file, json)
    {
        return fail(&format!("{}: {error}", report_file.display()));
    }
    if !report.violations.is_empty() {
        return ExitCode::FAILURE;
    }
    if options.write {
        let is_complete = BenchPart::value_variants()
            .iter()
            .filter(|part| **part != BenchPart::Shards)
            .all(|part| report.results.iter().any(|it| it.scenario.part == *part));
        if !is_complete {
            return fail("the documents take only the figures of a run with all parts");
        }
        if let Err(error) = documents::write(&report) {
            return fail(&error);
        }
        eprintln!("Wrote {}", documents::WRITTEN.join(", "));
    }
    ExitCode::SUCCESS
}

fn fail(error: &str) -> ExitCode {
    eprintln!("bench: {error}");
    ExitCode::FAILURE
}

async fn measure_all(options: &Options, environment: BenchEnvironment) -> Result<RunReport, String> {
    // The HTTP client for the provider's statistics needs a TLS provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let database = Database::new(&environment.run.database_url);
    let machine = Machine::detect(&environment.run, &database).await;
    eprintln!("{}", machine.describe());
    let mut bench = Bench::prepare(options, environment, database)?;
    let plan = plan(options);
    let mut progress = RunProgress {
        started: 0,
        total: (plan.empty_table.len() + plan.old_rows.len()) * usize::from(options.rounds()),
        violations: Vec::new(),
    };
    let mut results = Vec::new();
    for scenarios in [plan.empty_table, plan.old_rows] {
        results.extend(progress.measure_rounds(&mut bench, &scenarios, options.rounds()).await?);
    }
    Ok(RunReport {
        machine,
        rounds: options.rounds(),
        settings: options.settings.clone(),
        results,
        violations: progress.violations,
    })
}

struct RunProgress {
    /// Started measurements.
    started: usize,
    total: usize,
    violations: Vec<String>,
}

impl RunProgress {
    /// Measures all scenarios, then all of them again, so that a change on the machine affects them alike.
    async fn measure_rounds(
        &mut self,
        bench: &mut Bench,
        scenarios: &[Scenario],
        rounds: u16,
    ) -> Result<Vec<ScenarioResult>, String> {
        let mut all_figures = vec![Vec::new(); scenarios.len()];
        for _ in 0..rounds {
            for (scenario, figures) in scenarios.iter().zip(&mut all_figures) {
                figures.push(self.measure(bench, scenario).await?);
            }
        }
        let results = scenarios.iter().zip(all_figures).filter_map(|(scenario, rounds)| {
            Some(ScenarioResult { scenario: scenario.clone(), figures: Figures::of_rounds(&rounds)? })
        });
        Ok(results.collect())
    }

    async fn measure(&mut self, bench: &mut Bench, scenario: &Scenario) -> Result<Figures, String> {
        self.started += 1;
        let title = scenario.title();
        eprint!("[{}/{}] {title}: ", self.started, self.total);
        let measurement = bench.measure(scenario).await?;
        let Figures { per_second, p50_ms, p99_ms, .. } = &measurement.figures;
        eprintln!("{}/s, p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms", whole(*per_second));
        self.violations
            .extend(measurement.violations.iter().map(|violation| format!("{title}: {violation}")));
        Ok(measurement.figures)
    }
}
