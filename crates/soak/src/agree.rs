//! Whether what an invite's sender was told agrees with the provider's inbox, and with the rows.

use crate::{
    account::{Accepted, Account, Wrong},
    book::{Entry, correlation},
    invite::{Expected, Invite, Kind},
};
use serde_json::Value;
use std::collections::HashMap;

/// The sessions, as they are looked for.
pub struct Rows<'a> {
    by_message: HashMap<&'a str, Vec<&'a Value>>,
    by_correlation: HashMap<&'a str, Vec<&'a Value>>,
}

impl<'a> Rows<'a> {
    pub fn new(rows: &'a [Value]) -> Self {
        let mut found = Self { by_message: HashMap::new(), by_correlation: HashMap::new() };
        for row in rows {
            if let Some(id) = row["message_id"].as_str() {
                found.by_message.entry(id).or_default().push(row);
            }
            if let Some(id) = row["correlation_id"].as_str() {
                found.by_correlation.entry(id).or_default().push(row);
            }
        }
        found
    }

    /// Those of one invite.
    pub fn of(&self, invite: &Invite) -> &[&'a Value] {
        let found = match invite.id() {
            Some(id) => self.by_message.get(id.as_str()),
            None => self.by_correlation.get(correlation(invite.index, 0).as_str()),
        };
        found.map(Vec::as_slice).unwrap_or_default()
    }
}

/// Whether a text may exist by this reply, so that its `message_id` stands for it.
pub fn holds_its_id(reply: &[u8]) -> bool {
    let reply: Value = serde_json::from_slice(reply).unwrap_or_default();
    reply["status"] == "sent" || reply["error"]["code"] == "outcome_unknown"
}

pub fn name(outcome: &Value) -> String {
    let status = outcome["status"].as_str().unwrap_or("no status");
    outcome["error"]["code"].as_str().map_or(status.to_owned(), |code| format!("{status} {code}"))
}

/// Why the invite cannot have this reply.
pub fn unexpected(invite: &Invite, other_phone: bool, body: &[u8]) -> Option<String> {
    let Ok(reply) = serde_json::from_slice::<Value>(body) else {
        return Some(format!("a reply that is not JSON: {}", String::from_utf8_lossy(body)));
    };
    let (status, code) = (reply["status"].as_str()?, reply["error"]["code"].as_str());
    let unlucky = status == "failed" && matches!(code, Some("provider_unavailable" | "outcome_unknown"));
    let fits = match invite.expected() {
        Expected::Refusal(wanted) => {
            (status == "rejected" && code == Some(wanted)) || (invite.kind == Kind::OptedOut && unlucky)
        }
        Expected::Text if other_phone => status == "rejected" && code == Some("idempotency_conflict"),
        Expected::Text => status == "sent" || unlucky,
    };
    (!fits).then(|| format!("{:?} was answered {}", invite.kind, name(&reply)))
}

/// Whether the provider has what the sender was told.
pub fn told(account: &mut Account, invite: &Invite, outcome: &Value, texts: &[&Accepted]) {
    if texts.len() > 1 {
        let copies: Vec<_> = texts.iter().map(|text| format!("{} at {}", text.sid, text.received)).collect();
        account.add(Wrong::Doubled, invite.index, copies.join(", "));
    }
    let (sent, unknown) = (outcome["status"] == "sent", outcome["error"]["code"] == "outcome_unknown");
    match texts.first() {
        None if sent => account.add(Wrong::Untrue, invite.index, "told sent, and there is no text"),
        Some(text) if !sent && !unknown => {
            let what = format!("told {}, and there is a text: {}", name(outcome), text.sid);
            account.add(Wrong::Untrue, invite.index, what);
        }
        _ if sent => {
            let right = |text: &&Accepted| {
                outcome["providerMessageId"] == text.sid && outcome["invitationText"] == text.body
            };
            let key = outcome["sessionKey"].as_str().unwrap_or("no key");
            if !texts.iter().any(right) || !texts.iter().all(|text| text.body.contains(key)) {
                account.add(Wrong::Untrue, invite.index, "told another text, or another id of it");
            }
        }
        _ => {}
    }
}

/// The provider has the text.
const SENT: [&str; 3] = ["sent", "delivered", "undelivered"];

/// Whether the rows agree with what was told.
pub fn row(account: &mut Account, invite: &Invite, entry: &Entry, outcome: &Value, rows: &Rows<'_>) {
    let found = rows.of(invite);
    let of = |status: &'static str| found.iter().filter(move |row| row["status"] == status);
    // A receipt moves a session on, and settles what was unknown; the answer stays.
    let told_unknown = |row: &&&Value| row["error"]["code"] == "outcome_unknown";
    let texted = || found.iter().filter(|row| SENT.iter().any(|status| row["status"] == *status));
    let owners = found.iter().filter(|row| row["owns_message_id"] == true).count();
    if owners > 1 {
        account.add(Wrong::Row, invite.index, format!("{owners} rows own its id"));
    }
    if let Some(unfinished) = of("sending").next() {
        account.add(Wrong::Row, invite.index, format!("unfinished: {}", unfinished["id"]));
    }
    let (sent, unknown) = (
        texted().filter(|row| !told_unknown(row)).count(),
        of("unknown").count() + texted().filter(told_unknown).count(),
    );
    let wanted = match (&outcome["status"], &outcome["error"]["code"]) {
        (Value::String(status), _) if status == "sent" => (1, 0),
        (_, Value::String(code)) if code == "outcome_unknown" => (0, 1),
        _ => (0, 0),
    };
    if (sent, unknown) != wanted {
        let what = format!("{sent} rows are sent and {unknown} unknown, and it was told {}", name(outcome));
        account.add(Wrong::Row, invite.index, what);
    }
    let agrees = |row: &Value| {
        row["id"] == outcome["sessionId"]
            && row["provider_message_id"] == outcome["providerMessageId"]
            && row["session_key"] == outcome["sessionKey"]
            && row["phone"] == invite.phone.as_str()
    };
    if wanted == (1, 0) && !texted().any(|row| agrees(row)) {
        account.add(Wrong::Row, invite.index, "the sent row is not what was told");
    }
    // Each message leaves one at most.
    if found.len() > entry.publishes.len() {
        let what = format!("{} rows of {} messages", found.len(), entry.publishes.len());
        let refusals = of("rejected").count() + of("failed").count();
        let only_refusals = found.len() - refusals <= 1;
        account.add(if only_refusals { Wrong::Surplus } else { Wrong::Row }, invite.index, what);
    }
}
