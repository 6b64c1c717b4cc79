//! Checks the published events: each step of each session at least once, and their first copies in order, as far as the broker
//! keeps it.

use crate::audit_result::{AnomalyKind, AuditResult};
use serde_json::Value;
use std::collections::HashMap;

/// A received event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionEvent {
    pub session: String,
    pub status: String,
    /// The broker had delivered it before. It keeps no order then: a consumer that is cut off keeps its messages, and the next
    /// consumer gets later ones first.
    pub redelivered: bool,
}

impl SessionEvent {
    pub(crate) fn parse(body: &[u8], redelivered: bool) -> Option<Self> {
        let event: Value = serde_json::from_slice(body).ok()?;
        let text = |name: &str| event[name].as_str().map(str::to_owned);
        Some(Self { session: text("sessionId")?, status: text("status")?, redelivered })
    }
}

/// Each step of each row must have its event.
pub(crate) fn check_events(result: &mut AuditResult, rows: &[Value], events: &[SessionEvent]) {
    let mut first: HashMap<(&str, &str), usize> = HashMap::new();
    for (index, event) in events.iter().enumerate() {
        if first.contains_key(&(event.session.as_str(), event.status.as_str())) {
            result.events_repeated += 1;
        } else {
            first.insert((&event.session, &event.status), index);
        }
    }
    result.events = events.len();
    for row in rows {
        let id = row["id"].as_str().unwrap_or_default();
        let steps = [("sent_at", "sent"), ("undelivered_at", "undelivered"), ("delivered_at", "delivered")];
        let steps = steps.into_iter().filter(|(column, _)| row[column].is_string());
        let published: Vec<_> = steps.map(|(_, status)| (status, first.get(&(id, status)))).collect();
        for (status, _) in published.iter().filter(|(_, index)| index.is_none()) {
            result.add(AnomalyKind::EventMismatch, None, format!("no session.{status} of {id}"));
        }
        let indexes: Vec<_> = published.iter().filter_map(|(_, index)| index.copied()).collect();
        if indexes.windows(2).any(|pair| pair[0] > pair[1] && !events[pair[0]].redelivered) {
            result.add(AnomalyKind::EventMismatch, None, format!("the events of {id} are out of order"));
        }
    }
}
