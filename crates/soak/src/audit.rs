//! Accounts for each invite, by its publisher's journal and the provider's texts. The worker's rows and events must agree
//! with these.

use crate::{
    audit_result::{AnomalyKind, AuditResult},
    checks::{
        SessionRows, check_outcome_against_texts, check_rows, holds_its_id, outcome_name, unexpected_reply,
    },
    cluster::Replication,
    invite::{Invite, InviteKind},
    journal::{DeadLetter, JournalEntry},
    provider::ProviderText,
    session_events::{SessionEvent, check_events},
};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};

#[cfg(test)]
mod tests;

/// What publishers, provider and database have at the end of a run.
pub(crate) struct Evidence {
    pub invites: Vec<Invite>,
    pub entries: Vec<JournalEntry>,
    /// Replies with an unknown correlation id.
    pub strays: Vec<String>,
    pub dead: Vec<DeadLetter>,
    pub texts: Vec<ProviderText>,
    pub rows: Vec<Value>,
    /// In the order of their arrival.
    pub events: Vec<SessionEvent>,
    /// Whether a promotion may lose rows.
    pub replication: Replication,
}

pub(crate) fn audit(evidence: &Evidence) -> AuditResult {
    let mut result = AuditResult { texts: evidence.texts.len(), ..AuditResult::default() };
    let mut texts: HashMap<&str, Vec<&ProviderText>> = HashMap::new();
    for text in &evidence.texts {
        texts.entry(&text.to).or_default().push(text);
    }
    let rows = SessionRows::new(&evidence.rows);
    for (invite, entry) in evidence.invites.iter().zip(&evidence.entries) {
        if !entry.messages.is_empty() {
            let before = result.anomalies.len();
            audit_invite(&mut result, invite, entry, &texts, &rows);
            if evidence.replication == Replication::Asynchronous {
                merge_into_forgotten(&mut result, before, invite, entry);
            }
            let texts_of_invite = texts.get(invite.phone.as_str()).map_or(0, Vec::len);
            if invite.kind == InviteKind::Anonymous && rows.of(invite).len() == 2 && texts_of_invite <= 2 {
                merge_into_begun_twice(&mut result, before, invite);
            }
        }
    }
    check_strays_and_dead_letters(&mut result, evidence);
    check_events(&mut result, &evidence.rows, &evidence.events);
    result
}

/// Replaces the anomalies since `before` that follow from a second row by one, which breaks no promise.
fn merge_into_begun_twice(result: &mut AuditResult, before: usize, invite: &Invite) {
    let follows = |kind| {
        matches!(
            kind,
            AnomalyKind::TextedTwice
                | AnomalyKind::ConflictingReplies
                | AnomalyKind::ContradictedReply
                | AnomalyKind::ContradictedRow
                | AnomalyKind::SurplusRefusal
        )
    };
    let new = result.anomalies.split_off(before);
    let (following, other): (Vec<_>, Vec<_>) = new.into_iter().partition(|anomaly| follows(anomaly.kind));
    result.anomalies.extend(other);
    let details: Vec<_> = following.into_iter().map(|anomaly| anomaly.detail).collect();
    result.add(AnomalyKind::BegunTwice, invite.index, details.join("; "));
}

/// With an asynchronous standby, a promotion loses rows. What follows from a lost row breaks no promise; a second text, a
/// missing reply and another pair of outcomes than *sent* and *unknown* do.
fn merge_into_forgotten(result: &mut AuditResult, before: usize, invite: &Invite, entry: &JournalEntry) {
    let outcomes: BTreeSet<_> = (entry.replies.iter())
        .filter(|reply| holds_its_id(&reply.body))
        .map(|reply| outcome_name(&serde_json::from_slice(&reply.body).unwrap_or_default()))
        .collect();
    let may_differ = outcomes.iter().all(|it| it == "sent" || it == "failed outcome_unknown");
    for anomaly in &mut result.anomalies[before..] {
        let follows = match anomaly.kind {
            AnomalyKind::ContradictedRow => true,
            AnomalyKind::ConflictingReplies => may_differ && outcomes.len() > 1,
            // The id of a lost row is free again.
            AnomalyKind::UnexpectedOutcome | AnomalyKind::ContradictedReply => {
                invite.kind == InviteKind::Conflict
            }
            _ => false,
        };
        if follows {
            anomaly.kind = AnomalyKind::Forgotten;
        }
    }
}

fn audit_invite(
    result: &mut AuditResult,
    invite: &Invite,
    entry: &JournalEntry,
    texts: &HashMap<&str, Vec<&ProviderText>>,
    rows: &SessionRows<'_>,
) {
    result.published += 1;
    result.messages += entry.messages.len();
    result.replies += entry.replies.len();
    let replies = replies_by_message(result, invite, entry, rows);
    let none = Vec::new();
    // The invites with an opted out number share it.
    let own_texts =
        texts.get(invite.phone.as_str()).filter(|_| invite.kind != InviteKind::OptedOut).unwrap_or(&none);
    if replies.is_empty() {
        // Perhaps the broker never received the message. A text proves that it did.
        if !own_texts.is_empty() {
            result.add(
                AnomalyKind::Lost,
                invite.index,
                format!("a text, {}, and no reply", own_texts[0].sid),
            );
        }
        return;
    }
    result.answered += 1;
    result.over_http += usize::from(invite.over_http);
    let mut holding = BTreeSet::new();
    for (message, body) in &replies {
        let other_phone = entry.messages[*message].phone != invite.phone;
        if let Some(detail) = unexpected_reply(invite, other_phone, body) {
            result.add(AnomalyKind::UnexpectedOutcome, invite.index, detail);
        }
        if holds_its_id(body) {
            holding.insert(*body);
        }
    }
    if holding.len() > 1 {
        let detail = format!("{} outcomes of one id", holding.len());
        result.add(AnomalyKind::ConflictingReplies, invite.index, detail);
    }
    let reply = holding.first().copied().unwrap_or_else(|| replies[0].1);
    let outcome: Value = serde_json::from_slice(reply).unwrap_or_default();
    *result.outcomes.entry(outcome_name(&outcome)).or_default() += 1;
    if invite.kind != InviteKind::OptedOut {
        check_outcome_against_texts(result, invite, &outcome, own_texts);
        if let Some(text) = texts.get(invite.other_phone.as_str()).and_then(|texts| texts.first()) {
            let detail = format!("{} to the number of a refused use of its id", text.sid);
            result.add(AnomalyKind::ContradictedReply, invite.index, detail);
        }
    }
    check_rows(result, invite, entry, &outcome, rows);
}

/// The replies, each with the index of its message. Each confirmed message must have one, and no message may have two
/// different ones.
fn replies_by_message<'a>(
    result: &mut AuditResult,
    invite: &Invite,
    entry: &'a JournalEntry,
    rows: &SessionRows<'_>,
) -> Vec<(usize, &'a [u8])> {
    let mut by_message = Vec::new();
    for (index, message) in entry.messages.iter().enumerate() {
        let replies = entry.replies.iter().filter(|reply| reply.message == index);
        let bodies: BTreeSet<&[u8]> = replies.clone().map(|reply| reply.body.as_slice()).collect();
        match bodies.len() {
            0 if message.confirmed.is_some() => {
                result.jepsen_lost += usize::from(rows.of(invite).is_empty());
                result.add(AnomalyKind::Lost, invite.index, format!("no reply to message {index}"));
            }
            0 => result.unconfirmed += 1,
            1 => result.jepsen_recovered += usize::from(message.confirmed.is_none()),
            several => {
                let detail = format!("{several} replies to message {index}");
                result.add(AnomalyKind::ConflictingReplies, invite.index, detail);
            }
        }
        if invite.kind != InviteKind::Orphan && replies.clone().any(|reply| reply.is_dead_letter) {
            result.add(AnomalyKind::UnexpectedDeadLetter, invite.index, "a reply among the dead letters");
        }
        by_message.extend(bodies.into_iter().map(|body| (index, body)));
    }
    by_message
}

fn check_strays_and_dead_letters(result: &mut AuditResult, evidence: &Evidence) {
    for stray in &evidence.strays {
        result.add(AnomalyKind::Stray, None, format!("a reply without a request: {stray}"));
    }
    let numbers: BTreeSet<&str> = (evidence.invites.iter())
        .flat_map(|invite| [invite.phone.as_str(), invite.other_phone.as_str()])
        .collect();
    for text in evidence.texts.iter().filter(|text| !numbers.contains(text.to.as_str())) {
        result.add(AnomalyKind::Stray, None, format!("a text to a number of no invite: {}", text.sid));
    }
    let orphans: BTreeSet<String> = (evidence.invites.iter())
        .filter(|invite| invite.kind == InviteKind::Orphan)
        .map(|invite| invite.index.to_string())
        .collect();
    for letter in &evidence.dead {
        let is_of_orphan = letter.correlation.split('.').next().is_some_and(|index| orphans.contains(index));
        if letter.kind == "reply" && is_of_orphan {
            result.dead_expected += 1;
        } else if letter.kind != "reply" {
            let detail = format!("a {} of {:?}: {}", letter.kind, letter.correlation, letter.reason);
            let invite = letter.correlation.split('.').next().and_then(|index| index.parse().ok());
            result.add(AnomalyKind::UnexpectedDeadLetter, invite, detail);
        }
    }
}
