//! The audit finds each kind of anomaly: each test has evidence with one fault.

use super::{AnomalyKind, AuditResult, Evidence, ProviderText, audit};
use crate::{
    cluster::Replication,
    invite::{self, Invite, InviteKind},
    journal::{DeadLetter, JournalEntry, PublishedMessage, ReceivedReply},
    options::Options,
    session_events::SessionEvent,
};
use clap::Parser;
use serde_json::{Value, json};
use time::OffsetDateTime;

const KEY: &str = "123456789";

/// One invite, with evidence of its text and its reply.
struct AuditCase {
    invite: Invite,
    evidence: Evidence,
}

fn case(kind: InviteKind) -> AuditCase {
    let options = Options::parse_from(["soak", "--invites", "1"]);
    let invite = Invite { kind, ..invite::invites(&options, 7, &[]).remove(0) };
    let message = PublishedMessage { phone: invite.phone.clone(), at: now(), confirmed: Some(now()) };
    let mut case = AuditCase {
        evidence: Evidence {
            invites: vec![invite.clone()],
            entries: vec![JournalEntry { messages: vec![message], replies: Vec::new() }],
            strays: Vec::new(),
            dead: Vec::new(),
            texts: Vec::new(),
            rows: Vec::new(),
            events: Vec::new(),
            replication: Replication::Synchronous,
        },
        invite,
    };
    case.text("SM1");
    case.row(
        "sent",
        &json!({"provider_message_id": "SM1", "owns_message_id": kind != InviteKind::Anonymous}),
    );
    case.reply(0, &sent(&case.invite));
    case
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn sent(invite: &Invite) -> Value {
    json!({"status": "sent", "sessionKey": KEY, "sessionId": "s", "providerMessageId": "SM1",
           "invitationText": format!("code {KEY}"), "smsPhone": invite.phone})
}

fn error(status: &str, code: &str) -> Value {
    json!({"status": status, "error": {"code": code}})
}

impl AuditCase {
    fn entry(&mut self) -> &mut JournalEntry {
        &mut self.evidence.entries[0]
    }

    fn publish(&mut self, phone: &str) {
        let message = PublishedMessage { phone: phone.to_owned(), at: now(), confirmed: Some(now()) };
        self.entry().messages.push(message);
    }

    fn reply(&mut self, message: usize, body: &Value) {
        let body = body.to_string().into_bytes();
        let reply = ReceivedReply { message, at: now(), body, is_dead_letter: false };
        self.entry().replies.push(reply);
    }

    /// Replaces all replies by this one.
    fn only_reply(&mut self, body: &Value) {
        self.entry().replies.clear();
        self.reply(0, body);
    }

    fn text(&mut self, sid: &str) {
        let to = self.invite.phone.clone();
        let text = ProviderText { sid: sid.to_owned(), to, body: format!("code {KEY}"), received: now() };
        self.evidence.texts.push(text);
    }

    fn row(&mut self, status: &str, more: &Value) {
        let mut row = json!({"id": "s", "status": status, "phone": self.invite.phone, "session_key": KEY,
                             "message_id": self.invite.id(), "correlation_id": "0.0"});
        for (name, value) in more.as_object().expect("an object") {
            row[name] = value.clone();
        }
        self.evidence.rows.push(row);
    }

    fn audit(&self) -> AuditResult {
        audit(&self.evidence)
    }

    /// The audit finds these kinds of anomalies, and no others.
    #[track_caller]
    fn has(&self, expected: &[AnomalyKind]) {
        let mut kinds: Vec<_> = self.audit().anomalies.iter().map(|anomaly| anomaly.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds, expected, "{:#?}", self.audit().anomalies);
    }
}

#[test]
fn a_text_with_its_reply_is_correct() {
    let mut case = case(InviteKind::Plain);
    case.has(&[]);
    // A copy of the reply, and a message that the broker never received.
    let copy = sent(&case.invite);
    case.reply(0, &copy);
    let phone = case.invite.phone.clone();
    case.publish(&phone);
    case.entry().messages[1].confirmed = None;
    case.has(&[]);
    assert_eq!((case.audit().answered, case.audit().unconfirmed), (1, 1));
}

#[test]
fn a_confirmed_request_without_a_reply_is_lost() {
    let mut silent = case(InviteKind::Plain);
    silent.entry().replies.clear();
    silent.has(&[AnomalyKind::Lost]);
    // Without a confirm too, if a text proves that the broker received the request.
    silent.entry().messages[0].confirmed = None;
    silent.has(&[AnomalyKind::Lost]);
    silent.evidence.texts.clear();
    silent.has(&[]);
}

#[test]
fn a_second_text_is_found_with_any_reply() {
    let mut doubled = case(InviteKind::Plain);
    doubled.text("SM2");
    doubled.has(&[AnomalyKind::TextedTwice]);
    doubled.only_reply(&error("failed", "outcome_unknown"));
    doubled.evidence.rows[0]["status"] = json!("unknown");
    doubled.has(&[AnomalyKind::TextedTwice]);
}

#[test]
fn two_replies_to_one_request_conflict() {
    let mut case = case(InviteKind::Plain);
    case.reply(0, &error("failed", "provider_unavailable"));
    case.has(&[AnomalyKind::ConflictingReplies]);
}

#[test]
fn a_repeat_may_start_again_after_a_failure_and_never_after_a_text() {
    let mut again = case(InviteKind::RepeatedLater);
    let phone = again.invite.phone.clone();
    again.publish(&phone);
    again.row("failed", &json!({"owns_message_id": false}));
    again.only_reply(&error("failed", "provider_unavailable"));
    let second = sent(&again.invite);
    again.reply(1, &second);
    again.has(&[]);
    again.entry().replies.clear();
    again.reply(0, &second);
    let mut other = second.clone();
    other["expiresAt"] = json!("another time");
    again.reply(1, &other);
    again.has(&[AnomalyKind::ConflictingReplies]);
}

#[test]
fn a_reply_must_agree_with_the_texts() {
    let mut none = case(InviteKind::Plain);
    none.evidence.texts.clear();
    none.has(&[AnomalyKind::ContradictedReply]);

    let mut other = case(InviteKind::Plain);
    other.evidence.texts[0].body = "another text".to_owned();
    other.has(&[AnomalyKind::ContradictedReply]);

    let mut denied = case(InviteKind::Plain);
    denied.only_reply(&error("failed", "provider_unavailable"));
    denied.evidence.rows[0]["status"] = json!("failed");
    denied.has(&[AnomalyKind::ContradictedReply]);

    // An unknown outcome agrees with a text and with none.
    for texts in 0..2 {
        let mut unknown = case(InviteKind::Plain);
        unknown.only_reply(&error("failed", "outcome_unknown"));
        unknown.evidence.rows[0]["status"] = json!("unknown");
        unknown.evidence.texts.truncate(texts);
        unknown.has(&[]);
    }

    let mut conflict = case(InviteKind::Conflict);
    let phone = conflict.invite.other_phone.clone();
    conflict.publish(&phone);
    conflict.reply(1, &error("rejected", "idempotency_conflict"));
    conflict.has(&[]);
    conflict.evidence.texts.push(ProviderText { to: phone, ..conflict.evidence.texts[0].clone() });
    conflict.has(&[AnomalyKind::ContradictedReply]);
}

#[test]
fn an_invite_must_end_as_its_kind_allows() {
    let mut refused = case(InviteKind::BadPhone);
    refused.only_reply(&error("rejected", "phone_invalid"));
    refused.evidence.texts.clear();
    refused.evidence.rows[0]["status"] = json!("rejected");
    refused.has(&[]);
    refused.only_reply(&error("rejected", "opted_out"));
    refused.has(&[AnomalyKind::UnexpectedOutcome]);

    let mut set_aside = case(InviteKind::Plain);
    set_aside.only_reply(&error("failed", "internal_error"));
    set_aside.evidence.texts.clear();
    set_aside.evidence.rows.clear();
    set_aside.has(&[AnomalyKind::UnexpectedOutcome]);
}

#[test]
fn only_replies_without_a_queue_may_be_dead_letters() {
    let mut case = case(InviteKind::Orphan);
    let letter = |kind: &str| DeadLetter {
        kind: kind.to_owned(),
        reason: "why".to_owned(),
        correlation: "0.0".to_owned(),
    };
    case.evidence.dead = vec![letter("reply")];
    case.entry().replies[0].is_dead_letter = true;
    case.has(&[]);
    case.evidence.dead.push(letter("request"));
    case.has(&[AnomalyKind::UnexpectedDeadLetter]);
    case.evidence.invites[0].kind = InviteKind::Plain;
    case.evidence.dead.pop();
    case.has(&[AnomalyKind::UnexpectedDeadLetter]);
}

#[test]
fn rows_must_agree_with_the_reply() {
    let mut unfinished = case(InviteKind::Plain);
    unfinished.evidence.rows[0]["status"] = json!("sending");
    unfinished.has(&[AnomalyKind::ContradictedRow]);

    let mut two = case(InviteKind::Plain);
    two.row("failed", &json!({"owns_message_id": true}));
    two.has(&[AnomalyKind::ContradictedRow, AnomalyKind::SurplusRefusal]);

    let mut twice = case(InviteKind::RepeatedLater);
    twice.row("failed", &json!({"owns_message_id": false}));
    twice.has(&[AnomalyKind::SurplusRefusal]);
    twice.evidence.rows[1]["status"] = json!("delivered");
    twice.has(&[AnomalyKind::ContradictedRow]);

    let mut other = case(InviteKind::Plain);
    other.evidence.rows[0]["provider_message_id"] = json!("SM2");
    other.has(&[AnomalyKind::ContradictedRow]);

    let mut none = case(InviteKind::Anonymous);
    none.has(&[]);
    none.evidence.rows.clear();
    none.has(&[AnomalyKind::ContradictedRow]);
}

#[test]
fn replies_and_texts_of_no_invite_are_strays() {
    let mut case = case(InviteKind::Plain);
    case.evidence.strays.push("a reply".to_owned());
    case.has(&[AnomalyKind::Stray]);
    case.evidence.strays.clear();
    let text = ProviderText { to: "+19999999999".to_owned(), ..case.evidence.texts[0].clone() };
    case.evidence.texts.push(text);
    case.has(&[AnomalyKind::Stray]);
}

#[test]
fn without_an_id_a_second_session_is_a_kind_of_its_own() {
    let mut twice = case(InviteKind::Anonymous);
    twice.row("sent", &json!({"id": "another", "owns_message_id": false}));
    twice.text("SM2");
    let mut other = sent(&twice.invite);
    other["sessionId"] = json!("another");
    twice.reply(0, &other);
    twice.has(&[AnomalyKind::BegunTwice]);
    // Three texts are another anomaly.
    twice.text("SM3");
    twice.has(&[AnomalyKind::TextedTwice, AnomalyKind::ConflictingReplies, AnomalyKind::ContradictedRow]);
}

#[test]
fn each_step_needs_its_event_in_the_right_order() {
    let mut case = case(InviteKind::Plain);
    case.evidence.rows[0]["sent_at"] = "2026-11-25T05:00:00Z".into();
    case.evidence.rows[0]["delivered_at"] = "2026-11-25T05:00:01Z".into();
    case.evidence.rows[0]["status"] = "delivered".into();
    let event = |status: &str| {
        SessionEvent::parse(json!({"sessionId": "s", "status": status}).to_string().as_bytes(), false)
            .expect("an event")
    };
    case.has(&[AnomalyKind::EventMismatch]);
    case.evidence.events = vec![event("sent")];
    case.has(&[AnomalyKind::EventMismatch]);
    case.evidence.events = vec![event("delivered"), event("sent")];
    case.has(&[AnomalyKind::EventMismatch]);
    case.evidence.events[1].redelivered = true;
    case.has(&[]);
    // A batch that was published twice.
    case.evidence.events = vec![event("sent"), event("sent"), event("delivered"), event("sent")];
    case.has(&[]);
    assert_eq!((case.audit().events, case.audit().events_repeated), (4, 2));
}

#[test]
fn a_receipt_may_settle_a_session_after_its_reply() {
    let mut case = case(InviteKind::Plain);
    case.only_reply(&error("failed", "outcome_unknown"));
    case.evidence.rows[0]["error"] = json!({"code": "outcome_unknown"});
    case.evidence.rows[0]["status"] = "delivered".into();
    case.has(&[]);
}

#[test]
fn what_an_asynchronous_standby_forgets_breaks_no_promise_but_a_second_text_does() {
    let mut case = case(InviteKind::RepeatedLater);
    case.evidence.rows.clear();
    case.publish(&case.invite.phone.clone());
    case.reply(1, &error("failed", "outcome_unknown"));
    case.has(&[AnomalyKind::ConflictingReplies, AnomalyKind::ContradictedRow]);
    case.evidence.replication = Replication::Asynchronous;
    case.has(&[AnomalyKind::Forgotten]);
    case.text("SM2");
    case.has(&[AnomalyKind::TextedTwice, AnomalyKind::Forgotten]);
}

#[test]
fn an_unconfirmed_message_that_was_answered_is_recovered() {
    let mut case = case(InviteKind::Plain);
    assert_eq!(case.audit().jepsen_recovered, 0);
    case.entry().messages[0].confirmed = None;
    assert_eq!((case.audit().jepsen_recovered, case.audit().jepsen_lost), (1, 0));
}

#[test]
fn a_confirmed_message_without_a_row_is_lost_to_rabbitmqs_suite_too() {
    let mut case = case(InviteKind::Plain);
    case.entry().replies.clear();
    case.evidence.texts.clear();
    assert_eq!(case.audit().jepsen_lost, 0);
    case.evidence.rows.clear();
    assert_eq!(case.audit().jepsen_lost, 1);
    case.has(&[AnomalyKind::Lost]);
}
