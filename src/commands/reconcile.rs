//! `session-invite reconcile`: holds the sessions against the provider's list of texts.

use super::WrongUsage;
use crate::{
    config::{DatabaseArgs, Faults, ProviderArgs, ProviderConfig},
    group::store,
    output::{Format, note},
    reconcile::{Difference, FoundDifference, Report, Scope, reconcile},
    sms::Sms,
};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    fs,
    io::{IsTerminal, Write as _},
    path::{Path, PathBuf},
};
use strum::VariantArray;
use time::{Duration, OffsetDateTime};

const EXAMPLES: &str = "\
Examples:
  Yesterday and today:
    session-invite reconcile --since 1d

  Only look, and change no session:
    session-invite reconcile --since 6h --dry-run

  Each night, with a metric for node_exporter's textfile collector:
    session-invite reconcile --since 26h --textfile /var/lib/node_exporter/session_invite.prom

The provider's list is read page by page, each text of our senders is held against its session, and
each session against the list:
  text_without_session   no session has this text: another program uses the sender, or sessions were
                         lost or deleted
  session_without_text   the session says sent, and the provider does not list the text
  texted_twice           two texts for one session
  text_after_denial      a text went out although the reply had denied that
  text_not_noted         the session did not know of its text; it is noted
  receipt_missing        the receipt never came; the list's status is noted instead

Exit code 1 if there was a difference, also one that is settled now: then the next run exits with 0.";

/// The metrics of `--textfile`.
const METRICS: [FileMetric; 3] = [
    FileMetric {
        name: "session_invite_reconcile_differences",
        help: "Differences between sessions and the provider's list.",
        series: |report| {
            let series = |kind: &Difference| {
                (format!("{{difference=\"{}\"}}", kind.as_str()), report.count(*kind).to_string())
            };
            Difference::VARIANTS.iter().map(series).collect()
        },
    },
    FileMetric {
        name: "session_invite_reconcile_texts",
        help: "Texts in the provider's list that were compared.",
        series: |report| vec![(String::new(), report.texts.to_string())],
    },
    FileMetric {
        name: "session_invite_reconcile_until_timestamp_seconds",
        help: "Up to when texts were compared.",
        series: |report| vec![(String::new(), report.until.unix_timestamp().to_string())],
    },
];

/// A gauge of `--textfile`.
struct FileMetric {
    name: &'static str,
    help: &'static str,
    /// The labels and the value of each of its series.
    series: fn(&Report) -> Vec<(String, String)>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ReconcileArgs {
    /// How far back, such as 90m, 26h or 7d
    #[arg(long, default_value = "1d", value_name = "DURATION", value_parser = duration)]
    since: Duration,
    /// Leave out what is younger: it may still be under way
    #[arg(long, default_value = "5m", value_name = "DURATION", value_parser = duration)]
    until: Duration,
    /// Note nothing in the sessions
    #[arg(long)]
    dry_run: bool,
    /// Write the counts to this file, as metrics in Prometheus' text format
    #[arg(long, value_name = "FILE")]
    textfile: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    provider: ProviderArgs,
}

pub(crate) async fn run(args: &ReconcileArgs) -> anyhow::Result<()> {
    if args.until >= args.since {
        return Err(WrongUsage::of("--until", "must be shorter than --since").into());
    }
    let mut faults = Faults::default();
    let provider = args.provider.check(&mut faults);
    let provider = faults.finish(provider)?;
    let operator = super::operator(&args.database).await?;
    let pool = operator.pool();
    let groups = store::list(pool).await?;
    let own = groups.iter().filter_map(|group| group.options.sms_from.as_deref());
    let senders = own.chain([provider.from_number.as_str()]).collect();
    let (report, compared) = reconcile(pool, &sms(&provider)?, &scope(args, senders), progress).await;
    if !args.dry_run {
        // Also what was noted before an error.
        operator.record(None, None, Some(counts(&report))).await?;
    }
    compared?;
    if let Some(file) = &args.textfile {
        write_metrics(file, &report).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    show(args.format, &report)?;
    let (found, noted) = (report.total(), report.noted);
    ensure!(
        found == 0,
        "{found} differences between the sessions and the provider's list; {noted} are settled now"
    );
    Ok(())
}

fn sms(provider: &ProviderConfig) -> anyhow::Result<Sms> {
    Sms::new(provider).map_err(anyhow::Error::msg)
}

fn scope<'a>(args: &ReconcileArgs, senders: Vec<&'a str>) -> Scope<'a> {
    let now = OffsetDateTime::now_utc();
    Scope { since: now - args.since, until: now - args.until, senders, notes: !args.dry_run }
}

/// The report for the audit, which names no session.
fn counts(report: &Report) -> Value {
    let Report { texts, sessions, differences, noted, .. } = report;
    json!({"noted": noted, "differences": differences, "texts": texts, "sessions": sessions})
}

/// Shows how far the reading is, to a person.
fn progress(texts: u64) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r{texts} texts");
    }
}

fn show(format: Format, report: &Report) -> anyhow::Result<()> {
    if format.json {
        return format.object(report, |_| Vec::<(&str, String)>::new());
    }
    if std::io::stderr().is_terminal() {
        note("");
    }
    format.list(
        ["DIFFERENCE", "SESSION", "GROUP", "TEXT", "TO", "SESSION STATUS", "PROVIDER STATUS"],
        &report.findings,
        cells,
    )?;
    format.object(report, |report| {
        let mut rows = vec![("texts", report.texts.to_string()), ("sessions", report.sessions.to_string())];
        rows.extend(Difference::VARIANTS.iter().map(|kind| (kind.as_str(), report.count(*kind).to_string())));
        rows.push(("noted", report.noted.to_string()));
        rows
    })
}

fn cells(finding: &FoundDifference) -> [String; 7] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        finding.difference.as_str().to_owned(),
        or_dash(finding.session.map(|id| id.to_string())),
        or_dash(finding.group.map(|id| id.to_string())),
        or_dash(finding.text.as_deref().map(crate::output::plain)),
        finding.to.clone(),
        or_dash(finding.session_status.map(str::to_owned)),
        or_dash(finding.provider_status.as_deref().map(crate::output::plain)),
    ]
}

/// Replaces the file at once: a collector never reads half of it.
fn write_metrics(file: &Path, report: &Report) -> std::io::Result<()> {
    let mut text = String::new();
    for FileMetric { name, help, series } in METRICS {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in series(report) {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    }
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(".new");
    fs::write(&temporary, text)?;
    fs::rename(&temporary, file)
}

/// A duration of at least a minute.
fn duration(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    Duration::try_from(span).map_err(|error| error.to_string())
}
