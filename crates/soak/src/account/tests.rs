//! The soak's accounting finds what it is there for: evidence with one thing wrong each.

use super::{Accepted, Account, Evidence, Wrong, account};
use crate::{
    book::{DeadLetter, Entry, Heard, Publish},
    events::Event,
    invite::{self, Invite, Kind},
    options::Options,
};
use clap::Parser;
use serde_json::{Value, json};
use time::OffsetDateTime;

const KEY: &str = "123456789";

/// One invite of this kind, with the evidence that it was texted, and its sender told so.
struct Case {
    invite: Invite,
    evidence: Evidence,
}

fn case(kind: Kind) -> Case {
    let options = Options::parse_from(["soak", "--invites", "1"]);
    let invite = Invite { kind, ..invite::invites(&options, 7, &[]).remove(0) };
    let publish = Publish { phone: invite.phone.clone(), at: now(), confirmed: Some(now()) };
    let mut case = Case {
        evidence: Evidence {
            invites: vec![invite.clone()],
            entries: vec![Entry { publishes: vec![publish], heard: Vec::new() }],
            strays: Vec::new(),
            dead: Vec::new(),
            texts: Vec::new(),
            rows: Vec::new(),
            events: Vec::new(),
        },
        invite,
    };
    case.text("SM1");
    case.row("sent", &json!({"provider_message_id": "SM1", "owns_message_id": kind != Kind::Anonymous}));
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

impl Case {
    fn entry(&mut self) -> &mut Entry {
        &mut self.evidence.entries[0]
    }

    fn publish(&mut self, phone: &str) {
        let publish = Publish { phone: phone.to_owned(), at: now(), confirmed: Some(now()) };
        self.entry().publishes.push(publish);
    }

    fn reply(&mut self, publish: usize, body: &Value) {
        let heard = Heard { publish, at: now(), body: body.to_string().into_bytes(), dead: false };
        self.entry().heard.push(heard);
    }

    /// The only reply.
    fn told(&mut self, body: &Value) {
        self.entry().heard.clear();
        self.reply(0, body);
    }

    fn text(&mut self, sid: &str) {
        let to = self.invite.phone.clone();
        let text = Accepted { sid: sid.to_owned(), to, body: format!("code {KEY}"), received: now() };
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

    fn account(&self) -> Account {
        account(&self.evidence)
    }

    /// This is what is wrong, and nothing else.
    #[track_caller]
    fn is(&self, wrong: &[Wrong]) {
        let mut found: Vec<_> = self.account().anomalies.iter().map(|anomaly| anomaly.wrong).collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, wrong, "{:#?}", self.account().anomalies);
    }
}

#[test]
fn a_text_that_was_told_is_well() {
    let mut case = case(Kind::Plain);
    case.is(&[]);
    // A copy of the reply, and a message that the broker never had.
    let copy = sent(&case.invite);
    case.reply(0, &copy);
    let phone = case.invite.phone.clone();
    case.publish(&phone);
    case.entry().publishes[1].confirmed = None;
    case.is(&[]);
    assert_eq!((case.account().answered, case.account().unconfirmed), (1, 1));
}

#[test]
fn a_confirmed_request_without_a_reply_is_lost() {
    let mut silent = case(Kind::Plain);
    silent.entry().heard.clear();
    silent.is(&[Wrong::Lost]);
    // Without a confirm too, if its text shows that it was worked.
    silent.entry().publishes[0].confirmed = None;
    silent.is(&[Wrong::Lost]);
    silent.evidence.texts.clear();
    silent.is(&[]);
}

#[test]
fn a_second_text_is_found_whatever_was_told() {
    let mut doubled = case(Kind::Plain);
    doubled.text("SM2");
    doubled.is(&[Wrong::Doubled]);
    doubled.told(&error("failed", "outcome_unknown"));
    doubled.evidence.rows[0]["status"] = json!("unknown");
    doubled.is(&[Wrong::Doubled]);
}

#[test]
fn two_replies_to_one_request_conflict() {
    let mut case = case(Kind::Plain);
    case.reply(0, &error("failed", "provider_unavailable"));
    case.is(&[Wrong::Conflict]);
}

#[test]
fn a_repeat_may_begin_anew_after_a_failure_and_never_after_a_text() {
    let mut again = case(Kind::RepeatedLater);
    let phone = again.invite.phone.clone();
    again.publish(&phone);
    again.row("failed", &json!({"owns_message_id": false}));
    again.told(&error("failed", "provider_unavailable"));
    let second = sent(&again.invite);
    again.reply(1, &second);
    again.is(&[]);
    again.entry().heard.clear();
    again.reply(0, &second);
    let mut other = second.clone();
    other["expiresAt"] = json!("another time");
    again.reply(1, &other);
    again.is(&[Wrong::Conflict]);
}

#[test]
fn what_was_told_has_to_be_true() {
    let mut none = case(Kind::Plain);
    none.evidence.texts.clear();
    none.is(&[Wrong::Untrue]);

    let mut other = case(Kind::Plain);
    other.evidence.texts[0].body = "another text".to_owned();
    other.is(&[Wrong::Untrue]);

    let mut denied = case(Kind::Plain);
    denied.told(&error("failed", "provider_unavailable"));
    denied.evidence.rows[0]["status"] = json!("failed");
    denied.is(&[Wrong::Untrue]);

    // Nobody knows, and that is what was said.
    for texts in 0..2 {
        let mut unknown = case(Kind::Plain);
        unknown.told(&error("failed", "outcome_unknown"));
        unknown.evidence.rows[0]["status"] = json!("unknown");
        unknown.evidence.texts.truncate(texts);
        unknown.is(&[]);
    }

    let mut conflict = case(Kind::Conflict);
    let phone = conflict.invite.other_phone.clone();
    conflict.publish(&phone);
    conflict.reply(1, &error("rejected", "idempotency_conflict"));
    conflict.is(&[]);
    conflict.evidence.texts.push(Accepted { to: phone, ..conflict.evidence.texts[0].clone() });
    conflict.is(&[Wrong::Untrue]);
}

#[test]
fn an_invite_ends_as_its_kind_can() {
    let mut refused = case(Kind::BadPhone);
    refused.told(&error("rejected", "phone_invalid"));
    refused.evidence.texts.clear();
    refused.evidence.rows[0]["status"] = json!("rejected");
    refused.is(&[]);
    refused.told(&error("rejected", "opted_out"));
    refused.is(&[Wrong::Unexpected]);

    let mut set_aside = case(Kind::Plain);
    set_aside.told(&error("failed", "internal_error"));
    set_aside.evidence.texts.clear();
    set_aside.evidence.rows.clear();
    set_aside.is(&[Wrong::Unexpected]);
}

#[test]
fn dead_letters_are_replies_without_a_queue_and_nothing_else() {
    let mut case = case(Kind::Orphan);
    let letter = |kind: &str| DeadLetter {
        kind: kind.to_owned(),
        reason: "why".to_owned(),
        correlation: "0.0".to_owned(),
    };
    case.evidence.dead = vec![letter("reply")];
    case.entry().heard[0].dead = true;
    case.is(&[]);
    case.evidence.dead.push(letter("request"));
    case.is(&[Wrong::Dead]);
    case.evidence.invites[0].kind = Kind::Plain;
    case.evidence.dead.pop();
    case.is(&[Wrong::Dead]);
}

#[test]
fn rows_have_to_agree() {
    let mut unfinished = case(Kind::Plain);
    unfinished.evidence.rows[0]["status"] = json!("sending");
    unfinished.is(&[Wrong::Row]);

    let mut two = case(Kind::Plain);
    two.row("failed", &json!({"owns_message_id": true}));
    two.is(&[Wrong::Row, Wrong::Surplus]);

    let mut twice = case(Kind::RepeatedLater);
    twice.row("failed", &json!({"owns_message_id": false}));
    twice.is(&[Wrong::Surplus]);
    twice.evidence.rows[1]["status"] = json!("delivered");
    twice.is(&[Wrong::Row]);

    let mut other = case(Kind::Plain);
    other.evidence.rows[0]["provider_message_id"] = json!("SM2");
    other.is(&[Wrong::Row]);

    let mut none = case(Kind::Anonymous);
    none.is(&[]);
    none.evidence.rows.clear();
    none.is(&[Wrong::Row]);
}

#[test]
fn what_belongs_to_nobody_is_found() {
    let mut case = case(Kind::Plain);
    case.evidence.strays.push("a reply".to_owned());
    case.is(&[Wrong::Stray]);
    case.evidence.strays.clear();
    let text = Accepted { to: "+19999999999".to_owned(), ..case.evidence.texts[0].clone() };
    case.evidence.texts.push(text);
    case.is(&[Wrong::Stray]);
}

#[test]
fn without_an_id_a_second_session_is_a_kind_of_its_own() {
    let mut twice = case(Kind::Anonymous);
    twice.row("sent", &json!({"id": "another", "owns_message_id": false}));
    twice.text("SM2");
    let mut other = sent(&twice.invite);
    other["sessionId"] = json!("another");
    twice.reply(0, &other);
    twice.is(&[Wrong::BegunTwice]);
    // Three texts are not that.
    twice.text("SM3");
    twice.is(&[Wrong::Doubled, Wrong::Conflict, Wrong::Row]);
}

#[test]
fn a_step_without_its_event_is_untold_and_so_are_steps_in_another_order() {
    let mut case = case(Kind::Plain);
    case.evidence.rows[0]["sent_at"] = "2026-11-25T05:00:00Z".into();
    case.evidence.rows[0]["delivered_at"] = "2026-11-25T05:00:01Z".into();
    case.evidence.rows[0]["status"] = "delivered".into();
    let event = |status: &str| {
        Event::read(json!({"sessionId": "s", "status": status}).to_string().as_bytes()).expect("an event")
    };
    case.is(&[Wrong::Untold]);
    case.evidence.events = vec![event("sent")];
    case.is(&[Wrong::Untold]);
    case.evidence.events = vec![event("delivered"), event("sent")];
    case.is(&[Wrong::Untold]);
    // A batch that was published again.
    case.evidence.events = vec![event("sent"), event("sent"), event("delivered"), event("sent")];
    case.is(&[]);
    assert_eq!((case.account().events, case.account().events_repeated), (4, 2));
}

#[test]
fn what_a_receipt_settled_after_the_answer_is_well() {
    let mut case = case(Kind::Plain);
    case.told(&error("failed", "outcome_unknown"));
    case.evidence.rows[0]["error"] = json!({"code": "outcome_unknown"});
    case.evidence.rows[0]["status"] = "delivered".into();
    case.is(&[]);
}
