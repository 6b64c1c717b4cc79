//! A run: its rounds, its progress, its report.

use crate::{
    database::Database,
    figures::{Finding, Measure, whole},
    machine::Machine,
    measure::Bench,
    options::{Options, Surroundings},
    part::{Part, Scenario},
    plan::plan,
    report::Run,
    write,
};
use clap::ValueEnum;
use std::{fs, process::ExitCode};

pub async fn run(options: Options, surroundings: Surroundings) -> ExitCode {
    let kept = surroundings.kept();
    let ran = if options.again {
        let text = fs::read(&kept).map_err(|error| format!("{}: {error}", kept.display()));
        text.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()))
    } else {
        measure_all(&options, surroundings).await
    };
    let ran: Run = match ran {
        Ok(ran) => ran,
        Err(why) => return fail(&why),
    };
    let json = serde_json::to_string_pretty(&ran).expect("figures are JSON");
    println!("{}", if options.json { json.clone() } else { ran.tables() });
    for wrong in &ran.wrongs {
        eprintln!("bench: WRONG: {wrong}");
    }
    if !options.again
        && let Err(error) = fs::write(&kept, json)
    {
        return fail(&format!("{}: {error}", kept.display()));
    }
    if !ran.wrongs.is_empty() {
        return ExitCode::FAILURE;
    }
    if options.write {
        let whole =
            Part::value_variants().iter().all(|part| ran.findings.iter().any(|it| it.scenario.part == *part));
        if !whole {
            return fail("only the figures of all parts are written into the documents");
        }
        if let Err(why) = write::documents(&ran) {
            return fail(&why);
        }
        eprintln!("Wrote {}", write::WRITTEN.join(", "));
    }
    ExitCode::SUCCESS
}

fn fail(why: &str) -> ExitCode {
    eprintln!("bench: {why}");
    ExitCode::FAILURE
}

async fn measure_all(options: &Options, surroundings: Surroundings) -> Result<Run, String> {
    // The client of the provider's statistics wants one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let machine = Machine::look(&surroundings, &Database::at(&surroundings.database)).await;
    eprintln!("{}", machine.describe());
    let mut bench = Bench::prepare(options, surroundings)?;
    let plan = plan(options);
    let mut stage = Stage {
        done: 0,
        of: (plan.round.len() + plan.beside_old_rows.len()) * usize::from(options.rounds()),
        wrongs: Vec::new(),
    };
    let mut findings = Vec::new();
    for scenarios in [plan.round, plan.beside_old_rows] {
        findings.extend(stage.rounds(&mut bench, &scenarios, options.rounds()).await?);
    }
    Ok(Run {
        machine,
        rounds: options.rounds(),
        settings: options.settings.clone(),
        findings,
        wrongs: stage.wrongs,
    })
}

struct Stage {
    done: usize,
    of: usize,
    wrongs: Vec<String>,
}

impl Stage {
    /// By turns, so that what changes on the machine meanwhile meets all alike.
    async fn rounds(
        &mut self,
        bench: &mut Bench,
        scenarios: &[Scenario],
        rounds: u16,
    ) -> Result<Vec<Finding>, String> {
        let mut found = vec![Vec::new(); scenarios.len()];
        for _ in 0..rounds {
            for (scenario, found) in scenarios.iter().zip(&mut found) {
                found.push(self.one(bench, scenario).await?);
            }
        }
        let of_rounds = scenarios.iter().zip(found).filter_map(|(scenario, found)| {
            Some(Finding { scenario: scenario.clone(), measure: Measure::of_rounds(&found)? })
        });
        Ok(of_rounds.collect())
    }

    async fn one(&mut self, bench: &mut Bench, scenario: &Scenario) -> Result<Measure, String> {
        self.done += 1;
        let title = scenario.title();
        eprint!("[{}/{}] {title}: ", self.done, self.of);
        let found = bench.measure(scenario).await?;
        let Measure { per_second, p50_ms, p99_ms, .. } = &found.measure;
        eprintln!("{}/s, p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms", whole(*per_second));
        self.wrongs.extend(found.wrongs.into_iter().map(|wrong| format!("{title}: {wrong}")));
        Ok(found.measure)
    }
}
