//! The contract's section 6, "perhaps sent": a text whose answer was lost is looked for before anything is sent again.

use crate::support::{Message, Setup, until};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_text_that_was_taken_though_its_answer_was_lost_is_found_and_not_sent_again() {
    let world = Setup::default().hurried().start().await;
    for (sent, fault) in ["cut", "accept_then_fail", "hang", "no_sid"].into_iter().enumerate() {
        world.provider.next(&[fault]).await;
        let reply = world.invite(&world.request()).await.sent();
        let texts = world.provider.texts().await;
        assert_eq!((texts.len(), world.provider.posts().await), (sent + 1, sent as u64 + 1), "{fault}");
        assert_eq!(reply["providerMessageId"], texts[sent]["sid"], "{fault}");
    }
    for row in world.database.sessions().await {
        assert_eq!((&row["status"], &row["attempts"]), (&json!("sent"), &json!(1)), "{row}");
    }
}

#[tokio::test]
async fn a_text_that_two_looks_have_missed_is_sent_again() {
    let world = Setup::default().hurried().start().await;
    let faults = ["fail", "cut_before", "redirect", "garbage"];
    let invites = faults.map(|fault| {
        let world = &world;
        async move {
            world.invite(&world.request_with(json!({"smsPhone": "201-555-0123"}))).await.sent();
            fault
        }
    });
    // Each meets one of them, whichever.
    world.provider.next(&faults).await;
    futures::future::join_all(invites).await;
    assert_eq!((world.provider.posts().await, world.provider.texts().await.len()), (8, 4));
    for row in world.database.sessions().await {
        assert_eq!((&row["status"], &row["attempts"]), (&json!("sent"), &json!(2)), "{row}");
    }
    let metrics = world.get("/metrics").await.text().await.unwrap();
    assert!(
        metrics.contains("session_invite_uncertain_sms_resolved_total{resolution=\"not_found\"} 4"),
        "{metrics}"
    );
}

#[tokio::test]
async fn nothing_is_sent_again_before_the_list_has_had_its_time() {
    let world = Setup::default().set("SMS_TIMEOUT", "1s").set("SMS_SETTLE", "4s").start().await;
    // In the list after three seconds: a look that came sooner proves nothing.
    world.provider.set(json!({"list_lag_ms": 3_000, "next": ["cut"]})).await;
    let begun = Instant::now();
    world.invite(&world.request()).await.sent();
    assert!(begun.elapsed() > Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!((world.provider.posts().await, world.provider.texts().await.len()), (1, 1));
}

#[tokio::test]
async fn a_text_that_is_not_settled_before_its_session_ends_is_unknown() {
    let world = Setup::default().set("SMS_TIMEOUT", "1s").group(&["--session-ttl", "4s"]).start().await;
    world.provider.set(json!({"list_lag_ms": 600_000, "next": ["cut"]})).await;
    let message = Message::json(&world.request()).id("x");
    let first = world.ask(message.clone()).await;
    let error = first.refused("failed", "outcome_unknown", 504);
    assert_eq!(error["retryable"], false);
    let row = world.database.session().await;
    assert_eq!((&row["status"], &row["error_code"]), (&json!("unknown"), &json!("outcome_unknown")));
    assert_eq!(world.ask(message).await.bytes, first.bytes, "its id is held");
    assert_eq!(world.provider.posts().await, 1);
}

#[tokio::test]
async fn a_list_that_cannot_be_read_proves_nothing() {
    let world = Setup::default().hurried().start().await;
    world.provider.set(json!({"list_status": 503, "next": ["cut"]})).await;
    world.broker.request(Message::json(&world.request()).correlation("x")).await;
    until("it was looked for", || async {
        let metrics = world.get("/metrics").await.text().await.unwrap();
        metrics.contains("session_invite_provider_lookups_total{result=\"failed\"} 1").then_some(())
    })
    .await;
    assert_eq!(world.database.session().await["status"], "sending");
    world.provider.set(json!({"list_status": null})).await;
    world.broker.reply("x").await.sent();
    assert_eq!(world.provider.posts().await, 1);
}

#[tokio::test]
async fn it_is_looked_for_on_each_page_of_the_list() {
    let world = Setup::default().hurried().start().await;
    world.provider.set(json!({"list_lag_ms": 2_000, "next": ["cut"]})).await;
    world.broker.request(Message::json(&world.request()).correlation("x")).await;
    until("it is there", || async { (world.provider.posts().await == 1).then_some(()) }).await;
    // Newer ones to the same number, so that ours is on a later page.
    for n in 0..250 {
        world.provider.take("+11110000000", &format!("another text, {n}")).await;
    }
    world.broker.reply_within(Duration::from_secs(30), "x").await.sent();
    assert_eq!(world.provider.texts().await.len(), 251);
}

#[tokio::test]
async fn a_text_of_another_session_is_not_taken_for_ours() {
    // Neither link nor token in the text: only the key tells them apart.
    let world =
        Setup::default().hurried().group(&["--template", "code {key}", "--key-length", "4"]).start().await;
    world.invite(&world.request()).await.sent();
    world.provider.next(&["cut_before"]).await;
    let reply = world.invite(&world.request()).await.sent();
    let texts = world.provider.texts().await;
    assert_eq!(texts.len(), 2);
    assert_eq!(reply["providerMessageId"], texts[1]["sid"]);
}

#[tokio::test]
async fn resend_does_not_even_look() {
    let world = Setup::default().hurried().set("SMS_WHEN_UNSURE", "resend").start().await;
    world.provider.set(json!({"list_status": 503, "next": ["cut_before"]})).await;
    world.invite(&world.request()).await.sent();
    assert_eq!((world.provider.posts().await, world.provider.texts().await.len()), (2, 1));
    // What an earlier try may have done is not forgotten when a later one is refused.
    world.provider.set(json!({"next": ["cut_before", "daily_limit"]})).await;
    world.invite(&world.request()).await.refused("failed", "outcome_unknown", 504);
}

#[tokio::test]
async fn a_key_that_the_wording_has_beside_other_digits_is_found() {
    let world = Setup::default().hurried().group(&["--template", "Code 72{key}"]).start().await;
    world.provider.next(&["cut"]).await;
    world.invite(&world.request()).await.sent();
    assert_eq!(world.provider.posts().await, 1);
}
