//! What is printed at the end, and what is written for whoever has to find out why.

use crate::{
    account::{Account, Anomaly, Evidence, Wrong},
    book::Heard,
    chaos::{Done, Outage},
    plan::{End, Server},
};
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write as _, io, path::Path, time::Duration};
use time::OffsetDateTime;

/// After a restart of the broker, consumption has to resume within this.
const RESUMES_WITHIN: Duration = Duration::from_secs(5);
/// In KiB.
const MEMORY_LIMIT: u64 = 150 * 1_024;
/// How many of its anomalies a report tells in full.
const TOLD_IN_FULL: usize = 200;

/// Everything that the verdict stands on.
pub struct Findings {
    pub seed: u64,
    pub account: Account,
    pub done: Done,
    /// Messages left in the worker's queues.
    pub depths: Vec<(&'static str, u32)>,
    pub unreadable: u32,
    /// From the broker's being up to the first answer to an invite that was worked after that.
    pub resumes: Vec<Option<Duration>>,
    /// In KiB.
    pub peak: u64,
    /// Exits that nobody asked for, slow stops, workers that are not ready at the end.
    pub workers: Vec<String>,
    /// Lines of the workers' logs that say ERROR.
    pub errors: Vec<String>,
    /// What else went wrong, in the driver.
    pub trouble: Vec<String>,
    /// From the first publish to the last answer.
    pub took: Duration,
    pub provider: Value,
}

impl Findings {
    /// What speaks against it; nothing, if all is well.
    pub fn against(&self) -> Vec<String> {
        let mut against: Vec<String> = Wrong::ALL
            .into_iter()
            .filter(|wrong| wrong.counts())
            .map(|wrong| (wrong.name(), self.account.count(wrong)))
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        if self.account.published == 0 {
            against.push("nothing was published".to_owned());
        }
        for (queue, left) in self.depths.iter().filter(|(_, left)| *left > 0) {
            against.push(format!("{left} left in .{queue}"));
        }
        let undecodable = self.done.undecodable..=self.done.undecodable + self.done.perhaps_undecodable;
        if !undecodable.contains(&self.unreadable) {
            against.push(format!("{} in .unreadable instead of {undecodable:?}", self.unreadable));
        }
        for resume in &self.resumes {
            match resume {
                None => against.push("after a restart of the broker nothing was answered".to_owned()),
                Some(slow) if *slow > RESUMES_WITHIN => {
                    against.push(format!("resumed {:.1} s after the broker was up", slow.as_secs_f64()));
                }
                Some(_) => {}
            }
        }
        if self.peak > MEMORY_LIMIT {
            against.push(format!("a worker took {} MiB", self.peak / 1_024));
        }
        against.extend(self.workers.iter().cloned());
        against.extend(self.errors.iter().filter(|line| line.contains("panicked")).cloned());
        against.extend(self.done.failures.iter().chain(&self.trouble).cloned());
        against
    }

    /// The one table.
    pub fn table(&self) -> String {
        let (account, done) = (&self.account, &self.done);
        let mut table = Table::default();
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let rate = account.answered as f64 / self.took.as_secs_f64().max(0.001);
        let took = self.took.as_secs();
        table.row(
            "invites",
            account.published,
            format!(
                "{} messages, {} of them without confirm and reply",
                account.messages, account.unconfirmed
            ),
        );
        table.row(
            "answered",
            account.answered,
            format!("{} replies, {rate:.0}/s over {took} s", account.replies),
        );
        table.row("  over HTTP", account.over_http, "");
        for (outcome, count) in &account.outcomes {
            table.row(&format!("  {outcome}"), *count, "");
        }
        let posts = self.provider["posts"].as_u64().unwrap_or_default();
        let lists = self.provider["lists"].as_u64().unwrap_or_default();
        table.row(
            "texts at the provider",
            account.texts,
            format!("{posts} posts, {lists} looks at its list"),
        );
        table.row("  faults of the provider", "", self.faults_of_the_provider());
        for wrong in Wrong::ALL {
            table.row(wrong.name(), account.count(wrong), "");
        }
        table.row("dead letters, expected", account.dead_expected, "");
        let left: u32 = self.depths.iter().map(|(_, left)| left).sum();
        table.row("left in queues", left, "");
        table.row(
            "unreadable",
            self.unreadable,
            format!("{} sent", done.undecodable + done.perhaps_undecodable),
        );
        table.row("events", account.events, format!("{} of them again", account.events_repeated));
        table.row("kill -9", done.kills, format!("and {} of gateways", done.gateway_kills));
        table.row("SIGTERM", done.terms, format!("and {} to gateways", done.gateway_terms));
        let long = format!(
            "{} of them longer than a lease; and {} to gateways",
            done.long_stops, done.gateway_stops
        );
        table.row("SIGSTOP", done.stops, long);
        for (name, counts) in [("cuts", done.cuts), ("stalls", done.stalls)] {
            let of = |server| counts[server as usize];
            let (broker, database) = (of(Server::Broker), of(Server::Database));
            let note = format!(
                "{broker} to the broker, {database} to the database, {} to the provider",
                of(Server::Provider)
            );
            table.row(name, counts.iter().sum::<u64>(), note);
        }
        let crashes = done.broker.iter().filter(|outage| outage.end == End::Crash).count();
        table.row("broker restarts", done.broker.len(), format!("{crashes} by kill -9"));
        table.row("database restarts", done.database_restarts, "");
        table.row("connection massacres", done.massacres, format!("{} connections", done.massacred));
        let in_words = |resume: &Option<Duration>| resume.map_or("never".to_owned(), seconds);
        let each: Vec<_> = self.resumes.iter().map(in_words).collect();
        let worst = self.resumes.iter().max_by_key(|resume| resume.unwrap_or(Duration::MAX));
        let note = format!("after the broker was up; each: {}", each.join(", "));
        table.row("worst resume", worst.map_or("-".to_owned(), in_words), note);
        table.row("peak memory", format!("{} MiB", self.peak / 1_024), "of one worker");
        table.row("errors in the logs", self.errors.len(), "");
        table.0
    }

    fn faults_of_the_provider(&self) -> String {
        let faults = self.provider["faults"].as_object().into_iter().flatten();
        let counts =
            faults.filter_map(|(name, count)| Some(format!("{} {name}", count.as_u64().filter(|n| *n > 0)?)));
        counts.collect::<Vec<_>>().join(", ")
    }

    /// All anomalies with what is known of their invites, the timeline, and the errors. No credential is among it.
    pub fn write(&self, evidence: &Evidence, directory: &Path) -> io::Result<()> {
        let mut text = format!("seed {}\n\n{}\n", self.seed, self.table());
        for line in self.against() {
            let _ = writeln!(text, "! {line}");
        }
        text.push_str("\nANOMALIES\n");
        for anomaly in self.account.anomalies.iter().take(TOLD_IN_FULL) {
            tell(&mut text, anomaly, evidence);
        }
        let _ = writeln!(text, "\nERRORS IN THE LOGS\n{}", self.errors.join("\n"));
        let _ = writeln!(text, "\nTIMELINE\n{}", self.done.timeline);
        std::fs::write(directory.join("report.txt"), text)
    }

    /// The errors in the logs, each kind once.
    pub fn kinds_of_errors(&self) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for line in &self.errors {
            let message = line.split_once(" ERROR ").map_or(line.as_str(), |(_, message)| message);
            // The span's fields differ from invite to invite.
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
struct Table(String);

impl Table {
    #[expect(clippy::needless_pass_by_value, reason = "cells are of many types")]
    fn row(&mut self, name: &str, value: impl ToString, note: impl AsRef<str>) {
        let line = format!("  {name:<34} {:>10}   {}", value.to_string(), note.as_ref());
        let _ = writeln!(self.0, "{}", line.trim_end());
    }
}

fn tell(text: &mut String, anomaly: &Anomaly, evidence: &Evidence) {
    let _ = writeln!(text, "\n{}: {}", anomaly.wrong.name(), anomaly.what);
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
    for (place, publish) in entry.publishes.iter().enumerate() {
        let _ = writeln!(
            text,
            "  {} publish {place} to {}, confirmed {:?}",
            publish.at, publish.phone, publish.confirmed
        );
    }
    let mut copies: BTreeMap<_, Vec<&Heard>> = BTreeMap::new();
    for heard in &entry.heard {
        copies.entry((heard.publish, &heard.body, heard.dead)).or_default().push(heard);
    }
    for ((publish, body, dead), heard) in copies {
        let (first, last) = (heard[0].at, heard[heard.len() - 1].at);
        let (body, dead) = (String::from_utf8_lossy(body), if dead { ", dead" } else { "" });
        let _ =
            writeln!(text, "  {first} reply to {publish}{dead}, {} times until {last}: {body}", heard.len());
    }
    for accepted in evidence.texts.iter().filter(|t| t.to == invite.phone || t.to == invite.other_phone) {
        let _ = writeln!(
            text,
            "  {} text {} to {}: {}",
            accepted.received, accepted.sid, accepted.to, accepted.body
        );
    }
    let (id, correlation) = (invite.id(), crate::book::correlation(invite.index, 0));
    let own = |row: &&Value| match &id {
        Some(id) => row["message_id"] == id.as_str(),
        None => row["correlation_id"] == correlation.as_str(),
    };
    for row in evidence.rows.iter().filter(own) {
        let _ = writeln!(text, "  row {row}");
    }
}

/// For each restart of the broker, how long it took until an invite was answered that was published or texted after it.
pub fn resumes(outages: &[Outage], evidence: &Evidence) -> Vec<Option<Duration>> {
    let mut texted: BTreeMap<&str, OffsetDateTime> = BTreeMap::new();
    for text in &evidence.texts {
        texted.insert(&text.to, text.received);
    }
    let mut worked: Vec<(OffsetDateTime, OffsetDateTime)> = Vec::new();
    for (invite, entry) in evidence.invites.iter().zip(&evidence.entries) {
        for heard in &entry.heard {
            let published = entry.publishes[heard.publish].at;
            let begun = texted.get(invite.phone.as_str()).map_or(published, |text| published.max(*text));
            worked.push((begun, heard.at));
        }
    }
    let first_after = |up: OffsetDateTime| {
        let later = worked.iter().filter(|(begun, heard)| *begun > up && *heard > up);
        Some((*later.map(|(_, heard)| heard).min()? - up).try_into().unwrap_or_default())
    };
    outages.iter().map(|outage| first_after(outage.up)).collect()
}
