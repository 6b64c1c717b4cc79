//! The contract's section 6, "perhaps sent": a text whose answer was lost is looked for before it is sent again.

use crate::support::{
    Message,
    SessionStatus::{Sending, Sent, Unknown},
    Setup, until,
};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_text_whose_answer_was_lost_is_found_in_the_list_and_not_sent_again() {
    let world = Setup::default().short_waits().start().await;
    for (sent, fault) in ["cut", "accept_then_fail", "hang", "no_sid"].into_iter().enumerate() {
        world.provider.next(&[fault]).await;
        let reply = world.invite(&world.request()).await.sent();
        let texts = world.provider.texts().await;
        assert_eq!((texts.len(), world.provider.posts().await), (sent + 1, sent as u64 + 1), "{fault}");
        assert_eq!(reply.provider_message_id, texts[sent]["sid"], "{fault}");
    }
    for row in world.database.sessions().await {
        assert_eq!((row.status, row.attempts), (Sent, 1), "{row:?}");
    }
}

#[tokio::test]
async fn a_text_that_two_looks_do_not_find_is_sent_again() {
    let world = Setup::default().short_waits().start().await;
    let faults = ["fail", "cut_before", "redirect", "garbage"];
    let invites = faults.map(|fault| {
        let world = &world;
        async move {
            world.invite(&world.request_with(json!({"smsPhone": "201-555-0123"}))).await.sent();
            fault
        }
    });
    // Each invite gets one of the faults, in any order.
    world.provider.next(&faults).await;
    futures::future::join_all(invites).await;
    assert_eq!((world.provider.posts().await, world.provider.texts().await.len()), (8, 4));
    for row in world.database.sessions().await {
        assert_eq!((row.status, row.attempts), (Sent, 2), "{row:?}");
    }
    let metrics = world.running().metrics().await;
    assert!(
        metrics.contains("session_invite_uncertain_sms_resolved_total{resolution=\"not_found\"} 4"),
        "{metrics}"
    );
}

#[tokio::test]
async fn no_text_is_sent_again_before_the_list_has_settled() {
    let world = Setup::default().set("SMS_TIMEOUT", "1s").set("SMS_SETTLE", "4s").start().await;
    // The text is in the list after three seconds. A look before that proves nothing.
    world.provider.set(json!({"list_lag_ms": 3_000, "next": ["cut"]})).await;
    let begun = Instant::now();
    world.invite(&world.request()).await.sent();
    assert!(begun.elapsed() > Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!((world.provider.posts().await, world.provider.texts().await.len()), (1, 1));
}

#[tokio::test]
async fn a_text_that_is_not_found_before_its_session_expires_is_unknown() {
    let world = Setup::default().set("SMS_TIMEOUT", "1s").group(&["--session-ttl", "4s"]).start().await;
    world.provider.set(json!({"list_lag_ms": 600_000, "next": ["cut"]})).await;
    let message = Message::json(&world.request()).id("x");
    let first = world.call(message.clone()).await;
    let error = first.refused("failed", "outcome_unknown", 504);
    assert!(!error.retryable);
    let row = world.database.session().await;
    assert_eq!((row.status, row.error_code()), (Unknown, Some("outcome_unknown")));
    assert_eq!(world.call(message).await.bytes, first.bytes, "its id is held");
    assert_eq!(world.provider.posts().await, 1);
}

#[tokio::test]
async fn a_look_that_fails_is_repeated() {
    let world = Setup::default().short_waits().start().await;
    world.provider.set(json!({"list_status": 503, "next": ["cut"]})).await;
    world.broker.request(Message::json(&world.request()).correlation("x")).await;
    until("a look has failed", || async {
        let metrics = world.running().metrics().await;
        let name = "session_invite_provider_lookups_total{result=\"failed\"} ";
        let failed: u64 = metrics.lines().find_map(|line| line.strip_prefix(name))?.parse().ok()?;
        (failed >= 1).then_some(())
    })
    .await;
    assert_eq!(world.database.session().await.status, Sending);
    world.provider.set(json!({"list_status": null})).await;
    world.broker.reply("x").await.sent();
    assert_eq!(world.provider.posts().await, 1);
}

#[tokio::test]
async fn a_look_reads_every_page_of_the_list() {
    let world = Setup::default().short_waits().start().await;
    world.provider.set(json!({"list_lag_ms": 2_000, "next": ["cut"]})).await;
    world.broker.request(Message::json(&world.request()).correlation("x")).await;
    world.provider.until_posts(1).await;
    // Newer texts to the same number push this one to a later page.
    for n in 0..250 {
        world.provider.take("+11110000000", &format!("another text, {n}")).await;
    }
    world.broker.reply_within(Duration::from_secs(30), "x").await.sent();
    assert_eq!(world.provider.texts().await.len(), 251);
}

#[tokio::test]
async fn a_look_does_not_take_the_text_of_another_session() {
    // The text has neither link nor token: only the key differs.
    let world = Setup::default()
        .short_waits()
        .group(&["--template", "code {key}", "--key-length", "4"])
        .start()
        .await;
    world.invite(&world.request()).await.sent();
    world.provider.next(&["cut_before"]).await;
    let reply = world.invite(&world.request()).await.sent();
    let texts = world.provider.texts().await;
    assert_eq!(texts.len(), 2);
    assert_eq!(reply.provider_message_id, texts[1]["sid"]);
}

#[tokio::test]
async fn with_sms_when_unsure_resend_there_is_no_look() {
    let setup = Setup::default().short_waits().set("SMS_TIMEOUT", "5s");
    let world = setup.set("SMS_WHEN_UNSURE", "resend").start().await;
    world.provider.set(json!({"list_status": 503, "next": ["cut_before"]})).await;
    world.invite(&world.request()).await.sent();
    assert_eq!((world.provider.posts().await, world.provider.texts().await.len()), (2, 1));
    // An earlier try may have sent the text, although a later one is refused.
    world.provider.set(json!({"next": ["cut_before", "daily_limit"]})).await;
    world.invite(&world.request()).await.refused("failed", "outcome_unknown", 504);
}

#[tokio::test]
async fn a_look_finds_a_key_beside_other_digits() {
    let world = Setup::default().short_waits().group(&["--template", "Code 72{key}"]).start().await;
    world.provider.next(&["cut"]).await;
    world.invite(&world.request()).await.sent();
    assert_eq!(world.provider.posts().await, 1);
}
