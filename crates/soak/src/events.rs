//! What the exchange of events told: each step of each session at least once, and first in its order.

use crate::account::{Account, Wrong};
use serde_json::Value;
use std::collections::HashMap;

/// One event as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub session: String,
    pub status: String,
}

impl Event {
    pub fn read(body: &[u8]) -> Option<Self> {
        let event: Value = serde_json::from_slice(body).ok()?;
        let text = |name: &str| event[name].as_str().map(str::to_owned);
        Some(Self { session: text("sessionId")?, status: text("status")? })
    }
}

/// Each row's steps were told.
pub fn were_told(account: &mut Account, rows: &[Value], events: &[Event]) {
    let mut first: HashMap<(&str, &str), usize> = HashMap::new();
    for (at, event) in events.iter().enumerate() {
        if first.contains_key(&(event.session.as_str(), event.status.as_str())) {
            account.events_repeated += 1;
        } else {
            first.insert((&event.session, &event.status), at);
        }
    }
    account.events = events.len();
    for row in rows {
        let id = row["id"].as_str().unwrap_or_default();
        let steps = [("sent_at", "sent"), ("undelivered_at", "undelivered"), ("delivered_at", "delivered")];
        let steps = steps.into_iter().filter(|(column, _)| row[column].is_string());
        let told: Vec<_> = steps.map(|(_, status)| (status, first.get(&(id, status)))).collect();
        for (status, _) in told.iter().filter(|(_, at)| at.is_none()) {
            account.add(Wrong::Untold, None, format!("no session.{status} of {id}"));
        }
        if !told.iter().filter_map(|(_, at)| *at).is_sorted() {
            account.add(Wrong::Untold, None, format!("the events of {id} came in another order"));
        }
    }
}
