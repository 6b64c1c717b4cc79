//! Limits: texts to one number, invites of a group, texts to a country and from a sender (contract, section 13).

use crate::support::{Message, Reply, Setup, World, gkey};
use serde_json::{Value, json};

/// Publishes them all at once, and waits for their replies.
async fn all(world: &World, bodies: impl IntoIterator<Item = Value>) -> Vec<Reply> {
    let asked = bodies.into_iter().map(|body| async move { world.invite(&body).await });
    futures::future::join_all(asked).await
}

fn sent(replies: &[Reply]) -> usize {
    replies.iter().filter(|reply| reply.json()["status"] == "sent").count()
}

/// The refusal of one that is to come again, and after how many seconds.
#[track_caller]
fn comes_again_after(reply: &Reply) -> u64 {
    let error = reply.refused("failed", "rate_limited", 429);
    assert_eq!(error["retryable"], true, "{error}");
    error["retryAfterSeconds"].as_u64().expect("seconds")
}

#[tokio::test]
async fn the_eleventh_text_to_a_number_in_an_hour_is_refused_and_nobody_is_asked() {
    let world = Setup::default().group(&["--per-number", "10/1h"]).start().await;
    let first = Message::json(&world.request()).id("first");
    let stored = world.ask(first.clone()).await;
    stored.sent();
    for _ in 1..10 {
        world.invite(&world.request()).await.sent();
    }
    for id in ["eleventh", "twelfth"] {
        let after = comes_again_after(&world.ask(Message::json(&world.request()).id(id)).await);
        assert!((3_500..=3_600).contains(&after), "{after}");
    }
    assert_eq!(world.provider.posts().await, 10);
    let refused: i64 = world
        .database
        .value(
            "select count(*) from sessions where error_code = 'rate_limited' and status = 'failed'
                and token is null and session_key is null and owns_message_id and attempts = 0",
        )
        .await;
    assert_eq!(refused, 2, "refusals leave rows, as others do");

    // A repeat is answered from its row, and a conflict is one; another number has its own texts.
    assert_eq!(world.ask(first).await.bytes, stored.bytes);
    let other = Message::json(&world.request_with(json!({"sessiontype": 2}))).id("first");
    world.ask(other).await.refused("rejected", "idempotency_conflict", 409);
    world.invite(&world.request_with(json!({"smsPhone": "201-555-0123"}))).await.sent();
}

#[tokio::test]
async fn a_place_is_free_again_when_the_window_has_moved_on() {
    let world = Setup::default().group(&["--per-number", "2/1h"]).start().await;
    let message = Message::json(&world.request()).id("again");
    for _ in 0..2 {
        world.invite(&world.request()).await.sent();
    }
    comes_again_after(&world.ask(message.clone()).await);
    world.database.execute("update sessions set created_at = created_at - interval '59 min 50 s'").await;
    let after = comes_again_after(&world.ask(message.clone()).await);
    assert!((1..=10).contains(&after), "{after}");
    world.database.execute("update sessions set created_at = created_at - interval '10 s'").await;
    world.ask(message).await.sent();
}

#[tokio::test]
async fn other_groups_have_their_own_texts_and_none_is_no_limit() {
    let world = Setup::default().group(&["--per-number", "1/1h"]).start().await;
    let options = ["--api-key", "the key of 73", "--per-number", "0"].map(str::to_owned);
    world.add_group(73, &options);
    world.invite(&world.request()).await.sent();
    comes_again_after(&world.invite(&world.request()).await);
    let of_73 = json!({"groupid": 73, "authorization": gkey(73, "x", "the key of 73")});
    let replies = all(&world, (0..30).map(|_| world.request_with(of_73.clone()))).await;
    assert_eq!(sent(&replies), 30);
}

#[tokio::test]
async fn what_surely_was_no_text_does_not_count() {
    let world = Setup::default().group(&["--per-number", "2/1h"]).one_try().start().await;
    world.provider.next(&["throttle", "throttle", "throttle"]).await;
    for _ in 0..3 {
        world.invite(&world.request()).await.refused("failed", "provider_unavailable", 503);
    }
    for _ in 0..2 {
        world.invite(&world.request()).await.sent();
    }
    comes_again_after(&world.invite(&world.request()).await);
}

#[tokio::test]
async fn many_at_once_do_not_exceed_the_limit_of_one_worker() {
    let world = Setup::default().group(&["--per-number", "10/1h"]).start().await;
    world.provider.set(json!({"latency_ms": 100})).await;
    let replies = all(&world, (0..50).map(|_| world.request())).await;
    assert_eq!(sent(&replies), 10);
    assert_eq!(world.provider.posts().await, 10);
}

#[tokio::test]
async fn two_workers_exceed_it_by_less_than_as_much_again() {
    let mut world = Setup::default().group(&["--per-number", "10/1h"]).start().await;
    let mut second = world.start_worker().await;
    let replies = all(&world, (0..50).map(|_| world.request())).await;
    let texts = sent(&replies);
    assert!((10..=20).contains(&texts), "{texts}");
    comes_again_after(&world.invite(&world.request()).await);
    assert!(second.stop().success() && world.worker().is_running());
}

#[tokio::test]
async fn copies_of_one_message_take_one_place() {
    let world = Setup::default().group(&["--per-number", "2/1h"]).start().await;
    world.provider.set(json!({"latency_ms": 200})).await;
    let copies = (0..10).map(|_| async { world.ask(Message::json(&world.request()).id("one")).await });
    let replies = futures::future::join_all(copies).await;
    assert!(replies.iter().all(|reply| reply.bytes == replies[0].bytes));
    replies[0].sent();
    world.invite(&world.request()).await.sent();
    comes_again_after(&world.invite(&world.request()).await);
}
