//! The report: a table and the failures on the terminal, and a file with all anomalies.

use crate::{
    audit::Evidence,
    audit_result::{Anomaly, AnomalyKind, AuditResult},
    chaos::{BrokerRestart, ChaosSummary, Resumption},
    journal::{ReceivedReply, correlation},
    plan::{ServerKind, StopMode},
};
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write as _, io, path::Path, time::Duration};
use strum::VariantArray;
use time::OffsetDateTime;

/// How long after a restart of the broker the workers may take to answer again.
const RESUME_TIMEOUT: Duration = Duration::from_secs(5);
/// The memory that a worker may take, in KiB.
const MEMORY_LIMIT: u64 = 150 * 1_024;
/// How many anomalies the file describes.
const MAX_ANOMALIES: usize = 200;

/// All results of a soak.
pub(crate) struct SoakReport {
    pub seed: u64,
    pub audit: AuditResult,
    pub chaos: ChaosSummary,
    /// Remaining messages in the queues that must be empty.
    pub depths: Vec<(&'static str, u32)>,
    /// Messages in `.unreadable`.
    pub unreadable: u32,
    /// From when work could go on until it did. See [`resume_times`].
    pub resume_times: Vec<ResumeTime>,
    /// The largest resident memory of a process, in KiB.
    pub peak_memory: u64,
    /// Unexpected ends of processes, and slow ones.
    pub process_faults: Vec<String>,
    /// Lines of the workers' logs with an error or a panic.
    pub errors: Vec<String>,
    /// Other failures that the soak found.
    pub problems: Vec<String>,
    /// From the first publish to the last reply.
    pub duration: Duration,
    pub provider_stats: Value,
}

impl SoakReport {
    /// Why the soak failed. Empty if it passed.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut failures: Vec<String> = AnomalyKind::VARIANTS
            .iter()
            .filter(|kind| kind.breaks_a_promise())
            .map(|kind| (kind.name(), self.audit.count(*kind)))
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        if self.audit.published == 0 {
            failures.push("nothing was published".to_owned());
        }
        for (queue, left) in self.depths.iter().filter(|(_, left)| *left > 0) {
            failures.push(format!("{left} left in .{queue}"));
        }
        let confirmed = self.chaos.undecodable;
        let expected = confirmed..=confirmed + self.chaos.unconfirmed_undecodable;
        if !expected.contains(&self.unreadable) {
            failures.push(format!("{} in .unreadable instead of {expected:?}", self.unreadable));
        }
        for time in &self.resume_times {
            match time.taken {
                None => failures.push(format!("nothing was answered after: {}", time.what)),
                Some(slow) if slow > time.limit => {
                    failures.push(format!("resumed {:.1} s after: {}", slow.as_secs_f64(), time.what));
                }
                Some(_) => {}
            }
        }
        if self.peak_memory > MEMORY_LIMIT {
            failures.push(format!("a worker took {} MiB", self.peak_memory / 1_024));
        }
        failures.extend(self.process_faults.iter().cloned());
        failures.extend(self.errors.iter().filter(|line| line.contains("panicked")).cloned());
        failures.extend(self.chaos.failures.iter().chain(&self.problems).cloned());
        failures
    }

    pub(crate) fn table(&self) -> String {
        let mut table = ReportTable::default();
        self.add_invites(&mut table);
        self.add_faults(&mut table);
        let in_words = |time: &ResumeTime| time.taken.map_or("never".to_owned(), seconds);
        let each: Vec<_> = self.resume_times.iter().map(in_words).collect();
        let worst = self.resume_times.iter().max_by_key(|time| time.taken.unwrap_or(Duration::MAX));
        let note = format!("after the servers were up; each: {}", each.join(", "));
        table.row("worst resume", worst.map_or("-".to_owned(), in_words), note);
        if !self.chaos.resumptions.is_empty() {
            for time in &self.resume_times {
                let note = format!("limit {} s: {}", time.limit.as_secs(), time.what);
                table.row("  work went on after", in_words(time), note);
            }
        }
        table.row("peak memory", format!("{} MiB", self.peak_memory / 1_024), "of one worker");
        table.row("errors in the logs", self.errors.len(), "");
        table.0
    }

    fn add_invites(&self, table: &mut ReportTable) {
        let audit = &self.audit;
        let note =
            format!("{} messages, {} of them without confirm and reply", audit.messages, audit.unconfirmed);
        table.row("invites", audit.published, note);
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let rate = audit.answered as f64 / self.duration.as_secs_f64().max(0.001);
        let note = format!("{} replies, {rate:.0}/s over {} s", audit.replies, self.duration.as_secs());
        table.row("answered", audit.answered, note);
        table.row("  over HTTP", audit.over_http, "");
        for (outcome, count) in &audit.outcomes {
            table.row(&format!("  {outcome}"), *count, "");
        }
        let posts = self.provider_stats["posts"].as_u64().unwrap_or_default();
        let lists = self.provider_stats["lists"].as_u64().unwrap_or_default();
        table.row("texts at the provider", audit.texts, format!("{posts} posts, {lists} looks at its list"));
        table.row("  faults of the provider", "", self.provider_faults());
        for kind in AnomalyKind::VARIANTS {
            table.row(kind.name(), audit.count(*kind), "");
        }
        let twice = [AnomalyKind::TextedTwice, AnomalyKind::ConflictingReplies];
        let duplicated: usize = twice.iter().map(|kind| audit.count(*kind)).sum();
        let note = format!("duplicated {duplicated}, recovered {}", audit.jepsen_recovered);
        table.row("as RabbitMQ's Jepsen suite: lost", audit.jepsen_lost, note);
        table.row("dead letters, expected", audit.dead_expected, "");
        table.row("left in queues", self.depths.iter().map(|(_, left)| left).sum::<u32>(), "");
        let sent = self.chaos.undecodable + self.chaos.unconfirmed_undecodable;
        table.row("unreadable", self.unreadable, format!("{sent} sent"));
        table.row("events", audit.events, format!("{} of them repeated", audit.events_repeated));
    }

    fn add_faults(&self, table: &mut ReportTable) {
        let chaos = &self.chaos;
        table.row("kill -9", chaos.kills, format!("and {} of gateways", chaos.gateway_kills));
        table.row("SIGTERM", chaos.terms, format!("and {} to gateways", chaos.gateway_terms));
        let note = format!(
            "{} of them longer than a lease; and {} to gateways",
            chaos.long_stops, chaos.gateway_stops
        );
        table.row("SIGSTOP", chaos.stops, note);
        for (name, counts) in [("cuts", chaos.cuts), ("stalls", chaos.stalls)] {
            let of = |server| counts[server as usize];
            let (broker, database) = (of(ServerKind::Broker), of(ServerKind::Database));
            let provider = of(ServerKind::Provider);
            let note =
                format!("{broker} to the broker, {database} to the database, {provider} to the provider");
            table.row(name, counts.iter().sum::<u64>(), note);
        }
        let crashes = chaos.broker_restarts.iter().filter(|restart| restart.mode == StopMode::Crash).count();
        table.row("broker restarts", chaos.broker_restarts.len(), format!("{crashes} by kill -9"));
        table.row("database restarts", chaos.database_restarts, "");
        if !chaos.resumptions.is_empty() {
            let note = format!("and {} partitions, {} slow networks", chaos.partitions, chaos.slownesses);
            table.row("broker nodes killed", chaos.broker_kills, note);
            let note = format!("and {} rolling restarts of all", chaos.rolling_restarts);
            table.row("standby promoted", chaos.promotions, note);
        }
        let note = format!("{} connections", chaos.terminated_backends);
        table.row("terminations of all backends", chaos.terminations, note);
    }

    fn provider_faults(&self) -> String {
        let faults = self.provider_stats["faults"].as_object().into_iter().flatten();
        let counts =
            faults.filter_map(|(name, count)| Some(format!("{} {name}", count.as_u64().filter(|n| *n > 0)?)));
        counts.collect::<Vec<_>>().join(", ")
    }

    /// Writes the anomalies with all facts about their invites, the timeline and the errors. It contains no credential.
    pub(crate) fn write(&self, evidence: &Evidence, directory: &Path) -> io::Result<()> {
        let mut text = format!("seed {}\n\n{}\n", self.seed, self.table());
        for line in self.failures() {
            let _ = writeln!(text, "! {line}");
        }
        text.push_str("\nANOMALIES\n");
        for anomaly in self.audit.anomalies.iter().take(MAX_ANOMALIES) {
            describe(&mut text, anomaly, evidence);
        }
        let _ = writeln!(text, "\nERRORS IN THE LOGS\n{}", self.errors.join("\n"));
        let _ = writeln!(text, "\nTIMELINE\n{}", self.chaos.timeline);
        std::fs::write(directory.join("report.txt"), text)
    }

    /// The different error messages in the logs, with their counts.
    pub(crate) fn kinds_of_errors(&self) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for line in &self.errors {
            let message = line.split_once(" ERROR ").map_or(line.as_str(), |(_, message)| message);
            // Without the span's fields, which differ from invite to invite.
            let message = message.split_once("}: ").map_or(message, |(_, message)| message);
            *kinds.entry(message.to_owned()).or_default() += 1;
        }
        kinds
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

#[derive(Default)]
struct ReportTable(String);

impl ReportTable {
    #[expect(clippy::needless_pass_by_value, reason = "cells are of many types")]
    fn row(&mut self, name: &str, value: impl ToString, note: impl AsRef<str>) {
        let line = format!("  {name:<34} {:>10}   {}", value.to_string(), note.as_ref());
        let _ = writeln!(self.0, "{}", line.trim_end());
    }
}

/// Adds an anomaly with the messages, replies, texts and rows of its invite.
fn describe(text: &mut String, anomaly: &Anomaly, evidence: &Evidence) {
    let _ = writeln!(text, "\n{}: {}", anomaly.kind.name(), anomaly.detail);
    let Some((invite, entry)) =
        anomaly.invite.and_then(|index| evidence.invites.get(index).zip(evidence.entries.get(index)))
    else {
        return;
    };
    let _ = writeln!(
        text,
        "  invite {} ({:?}), group {}, id {:?}",
        invite.index,
        invite.kind,
        invite.group,
        invite.id()
    );
    for (index, message) in entry.messages.iter().enumerate() {
        let _ = writeln!(
            text,
            "  {} message {index} to {}, confirmed {:?}",
            message.at, message.phone, message.confirmed
        );
    }
    let mut copies: BTreeMap<_, Vec<&ReceivedReply>> = BTreeMap::new();
    for reply in &entry.replies {
        copies.entry((reply.message, &reply.body, reply.is_dead_letter)).or_default().push(reply);
    }
    for ((message, body, is_dead_letter), replies) in copies {
        let (first, last) = (replies[0].at, replies[replies.len() - 1].at);
        let (body, dead) = (String::from_utf8_lossy(body), if is_dead_letter { ", dead" } else { "" });
        let _ = writeln!(
            text,
            "  {first} reply to message {message}{dead}, {} times until {last}: {body}",
            replies.len()
        );
    }
    for sms in evidence.texts.iter().filter(|sms| sms.to == invite.phone || sms.to == invite.other_phone) {
        let _ = writeln!(text, "  {} text {} to {}: {}", sms.received, sms.sid, sms.to, sms.body);
    }
    let (id, correlation) = (invite.id(), correlation(invite.index, 0));
    let is_of_invite = |row: &&Value| match &id {
        Some(id) => row["message_id"] == id.as_str(),
        None => row["correlation_id"] == correlation.as_str(),
    };
    for row in evidence.rows.iter().filter(is_of_invite) {
        let _ = writeln!(text, "  row {row}");
    }
}

/// How long work took to go on.
#[derive(Debug)]
pub(crate) struct ResumeTime {
    pub what: String,
    /// `None` if it did not go on.
    pub taken: Option<Duration>,
    pub limit: Duration,
}

/// After each restart of the broker and each fault of a cluster, the time until the first reply to an invite that was
/// published or texted later. It begins when there is such an invite.
pub(crate) fn resume_times(
    restarts: &[BrokerRestart],
    resumptions: &[Resumption],
    evidence: &Evidence,
) -> Vec<ResumeTime> {
    let mut texted: BTreeMap<&str, OffsetDateTime> = BTreeMap::new();
    for text in &evidence.texts {
        texted.insert(&text.to, text.received);
    }
    // For each reply, when its invite was published or texted, and when it came.
    let mut answered: Vec<(OffsetDateTime, OffsetDateTime)> = Vec::new();
    for (invite, entry) in evidence.invites.iter().zip(&evidence.entries) {
        for reply in &entry.replies {
            let published = entry.messages[reply.message].at;
            let begun = texted.get(invite.phone.as_str()).map_or(published, |text| published.max(*text));
            answered.push((begun, reply.at));
        }
    }
    let published = evidence.entries.iter().flat_map(|entry| &entry.messages).map(|message| message.at);
    let published: Vec<_> = published.collect();
    let first_after = |up: OffsetDateTime| -> Option<Duration> {
        let later = answered.iter().filter(|(begun, replied)| *begun > up && *replied > up);
        let (begun, replied) = later.min_by_key(|(_, replied)| *replied)?;
        let from = published.iter().copied().filter(|at| *at > up).min().map_or(*begun, |at| at.min(*begun));
        Some((*replied - from).try_into().unwrap_or_default())
    };
    let restarts = restarts.iter().map(|restart| ResumeTime {
        what: "the broker was up".to_owned(),
        taken: first_after(restart.up),
        limit: RESUME_TIMEOUT,
    });
    let resumptions = resumptions.iter().map(|resumption| ResumeTime {
        what: resumption.what.clone(),
        taken: first_after(resumption.since),
        limit: resumption.limit,
    });
    restarts.chain(resumptions).collect()
}
