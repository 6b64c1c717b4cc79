//! Faults that are put in one at a time, as an on-call operator meets them. A fault scores 2 points if its cause is named
//! within 10 s and the remedy that is shown, typed, clears it; 1 if only the cause is named; 0 otherwise. Each fault is a test.

mod broker;
mod database;
mod document;
mod gateway;
mod groups;
mod processes;
mod provider;
mod servers;
mod settings;
mod start;

use crate::support::{Worker, World, run};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How soon a cause has to be named. The clock starts when the fault has taken effect: with the statement or the signal that
/// brings it about, with the first invite that meets it, or with the start of the process that ends because of it.
const NAMED_WITHIN: Duration = Duration::from_secs(10);
/// How soon after the remedy the cause may no longer be named.
const CLEARED_WITHIN: Duration = Duration::from_secs(30);
/// The time between two looks.
const LOOKS_EVERY: Duration = Duration::from_millis(50);

/// Where an operator sees a fault.
#[derive(Debug, Clone, Copy)]
enum SeenIn {
    /// Standard error of a process that ends at its start.
    FatalLine,
    WorkerReadiness,
    GatewayReadiness,
    Doctor,
}

impl SeenIn {
    fn text(self) -> &'static str {
        match self {
            Self::FatalLine => "the last line at the start",
            Self::WorkerReadiness => "`/readyz` of the worker",
            Self::GatewayReadiness => "`/readyz` of the gateway",
            Self::Doctor => "`doctor`",
        }
    }
}

/// One fault of the table. In its texts, names in braces stand for what differs from run to run.
#[derive(Debug, Clone, Copy)]
struct SeededFault {
    /// The name of its test.
    name: &'static str,
    seen_in: SeenIn,
    /// All of these are in one text.
    cause: &'static [&'static str],
    /// A part of the same text.
    remedy: &'static str,
    /// What the test does with the remedy.
    typed: &'static str,
    points: u8,
}

impl SeededFault {
    /// A fault of 2 points.
    const fn new(
        seen_in: SeenIn,
        cause: &'static [&'static str],
        remedy: &'static str,
        typed: &'static str,
    ) -> Self {
        Self { name: "", seen_in, cause, remedy, typed, points: 2 }
    }

    /// Puts values in the place of the names in braces.
    fn with(self, values: &[(&str, &str)]) -> FilledFault {
        let fill = |text: &str| {
            values
                .iter()
                .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
        };
        FilledFault { cause: self.cause.iter().map(|part| fill(part)).collect(), remedy: fill(self.remedy) }
    }
}

/// What a test looks for.
#[derive(Debug)]
struct FilledFault {
    cause: Vec<String>,
    remedy: String,
}

impl FilledFault {
    fn is_named_in(&self, text: &str) -> bool {
        self.cause.iter().all(|part| text.contains(part))
    }

    /// The points of a fault that has just taken effect. `look` returns what an operator sees. `repair` gets the remedy.
    async fn score(&self, look: impl AsyncFn() -> Vec<String>, repair: impl AsyncFnOnce(&str)) -> u8 {
        let begun = Instant::now();
        let mut texts = look().await;
        while !texts.iter().any(|text| self.is_named_in(text)) {
            if begun.elapsed() > NAMED_WITHIN {
                eprintln!("the cause is not named: {self:#?}\nwhat is seen: {texts:#?}");
                return 0;
            }
            tokio::time::sleep(LOOKS_EVERY).await;
            texts = look().await;
        }
        texts.retain(|text| self.is_named_in(text));
        if !texts.iter().any(|text| text.contains(&self.remedy)) {
            eprintln!("the remedy is not shown: {self:#?}\nwhat is seen: {texts:#?}");
            return 1;
        }
        repair(&self.remedy).await;
        let repaired = Instant::now();
        while look().await.iter().any(|text| self.is_named_in(text)) {
            if repaired.elapsed() > CLEARED_WITHIN {
                eprintln!("the remedy does not help: {self:#?}");
                return 1;
            }
            tokio::time::sleep(LOOKS_EVERY).await;
        }
        2
    }
}

/// Declares faults, each with its test: `test_name: fault, an async function of the fault that returns its points;`.
macro_rules! seeded_faults {
    ($($test:ident: $fault:expr, $attempt:expr;)+) => {
        pub(super) const FAULTS: &[super::SeededFault] =
            &[$(super::SeededFault { name: stringify!($test), ..$fault }),+];

        $(
            #[tokio::test]
            async fn $test() {
                let fault: super::SeededFault = $fault;
                let points: u8 = ($attempt)(fault).await;
                assert_eq!(points, fault.points, "points of the fault");
            }
        )+
    };
}
use seeded_faults;

/// All faults, by where they are put in.
fn all() -> impl Iterator<Item = (&'static str, &'static SeededFault)> {
    let parts = [
        ("provider", provider::FAULTS),
        ("database", database::FAULTS),
        ("servers", servers::FAULTS),
        ("broker", broker::FAULTS),
        ("gateway", gateway::FAULTS),
        ("groups", groups::FAULTS),
        ("processes", processes::FAULTS),
        ("start", start::FAULTS),
        ("settings", settings::FAULTS),
    ];
    parts.into_iter().flat_map(|(part, faults)| faults.iter().map(move |fault| (part, fault)))
}

/// The problems of `/readyz`.
async fn problems(process: &Worker) -> Vec<String> {
    let (_, body) = process.readiness().await;
    let problems = body["problems"].as_array().expect("a list").iter().filter_map(Value::as_str);
    problems.map(str::to_owned).collect()
}

/// What `doctor` warns of, each with its remedy.
fn doctors_findings(world: &World, changes: &[(&str, &str)]) -> Vec<String> {
    let ran = run(&world.environment(changes), &["doctor", "--json"]);
    let findings: Vec<Value> =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    let is_wrong = |finding: &&Value| finding["verdict"] == "failed" || finding["verdict"] == "warning";
    let text = |finding: &Value| {
        let part = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
        format!("{}: {}. What to do: {}", part("check"), part("found"), part("mend"))
    };
    findings.iter().filter(is_wrong).map(text).collect()
}

/// Types a command of the program, which has to succeed.
fn type_command(world: &World, command: &str) {
    let mut words = command.split_whitespace();
    assert_eq!(words.next(), Some("session-invite"), "{command}");
    world.run(&words.collect::<Vec<_>>()).ok();
}

/// Types a line into a shell, which has to succeed; returns what it prints.
fn type_into_a_shell(line: &str) -> String {
    let typed = std::process::Command::new("sh").args(["-c", line]).output().expect("a shell starts");
    assert!(typed.status.success(), "{line}: {}", String::from_utf8_lossy(&typed.stderr));
    String::from_utf8(typed.stdout).expect("text").trim().to_owned()
}
