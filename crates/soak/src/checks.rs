//! Checks an invite's outcome against the provider's texts and the worker's rows.

use crate::{
    audit_result::{AnomalyKind, AuditResult},
    invite::{ExpectedEnd, Invite, InviteKind},
    journal::{JournalEntry, correlation},
    provider::ProviderText,
};
use serde_json::Value;
use std::collections::HashMap;

/// The rows of `sessions`, by message id and by correlation id.
pub(crate) struct SessionRows<'a> {
    by_message_id: HashMap<&'a str, Vec<&'a Value>>,
    by_correlation: HashMap<&'a str, Vec<&'a Value>>,
}

impl<'a> SessionRows<'a> {
    pub(crate) fn new(rows: &'a [Value]) -> Self {
        let mut by_message_id: HashMap<_, Vec<_>> = HashMap::new();
        let mut by_correlation: HashMap<_, Vec<_>> = HashMap::new();
        for row in rows {
            if let Some(id) = row["message_id"].as_str() {
                by_message_id.entry(id).or_default().push(row);
            }
            if let Some(id) = row["correlation_id"].as_str() {
                by_correlation.entry(id).or_default().push(row);
            }
        }
        Self { by_message_id, by_correlation }
    }

    /// The rows of one invite.
    pub(crate) fn of(&self, invite: &Invite) -> &[&'a Value] {
        let rows = match invite.id() {
            Some(id) => self.by_message_id.get(id.as_str()),
            None => self.by_correlation.get(correlation(invite.index, 0).as_str()),
        };
        rows.map(Vec::as_slice).unwrap_or_default()
    }
}

/// Whether by this reply a text may exist, so that the `message_id` is taken.
pub(crate) fn holds_its_id(reply: &[u8]) -> bool {
    let reply: Value = serde_json::from_slice(reply).unwrap_or_default();
    reply["status"] == "sent" || reply["error"]["code"] == "outcome_unknown"
}

pub(crate) fn outcome_name(outcome: &Value) -> String {
    let status = outcome["status"].as_str().unwrap_or("no status");
    outcome["error"]["code"].as_str().map_or(status.to_owned(), |code| format!("{status} {code}"))
}

/// Why the invite cannot have this reply. `None` if it can.
pub(crate) fn unexpected_reply(invite: &Invite, other_phone: bool, body: &[u8]) -> Option<String> {
    let Ok(reply) = serde_json::from_slice::<Value>(body) else {
        return Some(format!("a reply that is not JSON: {}", String::from_utf8_lossy(body)));
    };
    let (status, code) = (reply["status"].as_str()?, reply["error"]["code"].as_str());
    let provider_failed =
        status == "failed" && matches!(code, Some("provider_unavailable" | "outcome_unknown"));
    let is_expected = match invite.expected() {
        ExpectedEnd::Refusal(expected) => {
            (status == "rejected" && code == Some(expected))
                || (invite.kind == InviteKind::OptedOut && provider_failed)
        }
        ExpectedEnd::Text if other_phone => status == "rejected" && code == Some("idempotency_conflict"),
        ExpectedEnd::Text => status == "sent" || provider_failed,
    };
    (!is_expected).then(|| format!("the reply to {:?} is {}", invite.kind, outcome_name(&reply)))
}

/// Whether the provider has the text of the reply, and only that.
pub(crate) fn check_outcome_against_texts(
    result: &mut AuditResult,
    invite: &Invite,
    outcome: &Value,
    texts: &[&ProviderText],
) {
    if texts.len() > 1 {
        let copies: Vec<_> = texts.iter().map(|text| format!("{} at {}", text.sid, text.received)).collect();
        result.add(AnomalyKind::TextedTwice, invite.index, copies.join(", "));
    }
    let (sent, unknown) = (outcome["status"] == "sent", outcome["error"]["code"] == "outcome_unknown");
    match texts.first() {
        None if sent => {
            result.add(AnomalyKind::ContradictedReply, invite.index, "replied sent, and there is no text");
        }
        Some(text) if !sent && !unknown => {
            let detail = format!("replied {}, and there is a text: {}", outcome_name(outcome), text.sid);
            result.add(AnomalyKind::ContradictedReply, invite.index, detail);
        }
        _ if sent => {
            let is_same = |text: &&ProviderText| {
                outcome["providerMessageId"] == text.sid && outcome["invitationText"] == text.body
            };
            let key = outcome["sessionKey"].as_str().unwrap_or("no key");
            if !texts.iter().any(is_same) || !texts.iter().all(|text| text.body.contains(key)) {
                let detail = "the reply has another text, or another id of it";
                result.add(AnomalyKind::ContradictedReply, invite.index, detail);
            }
        }
        _ => {}
    }
}

/// The statuses of a session whose text the provider has.
const SENT: [&str; 3] = ["sent", "delivered", "undelivered"];

/// Whether the rows agree with the outcome.
pub(crate) fn check_rows(
    result: &mut AuditResult,
    invite: &Invite,
    entry: &JournalEntry,
    outcome: &Value,
    all_rows: &SessionRows<'_>,
) {
    let rows = all_rows.of(invite);
    let with_status = |status: &'static str| rows.iter().filter(move |row| row["status"] == status);
    // A receipt may settle a session after its outcome was unknown. The reply stays.
    let replied_unknown = |row: &&&Value| row["error"]["code"] == "outcome_unknown";
    let texted = || rows.iter().filter(|row| SENT.iter().any(|status| row["status"] == *status));
    let owners = rows.iter().filter(|row| row["owns_message_id"] == true).count();
    if owners > 1 {
        result.add(AnomalyKind::ContradictedRow, invite.index, format!("{owners} rows own its id"));
    }
    if let Some(unfinished) = with_status("sending").next() {
        result.add(AnomalyKind::ContradictedRow, invite.index, format!("unfinished: {}", unfinished["id"]));
    }
    let (sent, unknown) = (
        texted().filter(|row| !replied_unknown(row)).count(),
        with_status("unknown").count() + texted().filter(replied_unknown).count(),
    );
    let expected = match (&outcome["status"], &outcome["error"]["code"]) {
        (Value::String(status), _) if status == "sent" => (1, 0),
        (_, Value::String(code)) if code == "outcome_unknown" => (0, 1),
        _ => (0, 0),
    };
    if (sent, unknown) != expected {
        let reply = outcome_name(outcome);
        let detail = format!("{sent} rows are sent and {unknown} unknown, and the reply is {reply}");
        result.add(AnomalyKind::ContradictedRow, invite.index, detail);
    }
    let agrees = |row: &Value| {
        row["id"] == outcome["sessionId"]
            && row["provider_message_id"] == outcome["providerMessageId"]
            && row["session_key"] == outcome["sessionKey"]
            && row["phone"] == invite.phone.as_str()
    };
    if expected == (1, 0) && !texted().any(|row| agrees(row)) {
        result.add(AnomalyKind::ContradictedRow, invite.index, "the sent row differs from the reply");
    }
    // Each message has at most one row.
    if rows.len() > entry.messages.len() {
        let refusals = with_status("rejected").count() + with_status("failed").count();
        let only_refusals = rows.len() - refusals <= 1;
        let kind = if only_refusals { AnomalyKind::SurplusRefusal } else { AnomalyKind::ContradictedRow };
        result.add(kind, invite.index, format!("{} rows of {} messages", rows.len(), entry.messages.len()));
    }
}
