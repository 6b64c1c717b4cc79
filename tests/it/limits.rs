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

#[tokio::test]
async fn a_groups_invites_in_a_minute_are_counted_across_workers() {
    let mut world = Setup::default().group(&["--per-minute", "12"]).start().await;
    let mut second = world.start_worker().await;
    let numbers = |n: usize| json!({"smsPhone": format!("201-555-{n:04}")});
    let first = Message::json(&world.request_with(numbers(0))).id("first");
    let stored = world.ask(first.clone()).await;
    stored.sent();
    let replies = all(&world, (1..40).map(|n| world.request_with(numbers(n)))).await;
    assert_eq!(sent(&replies), 11, "with the first one twelve, whoever took them");
    for reply in replies.iter().filter(|reply| reply.json()["status"] != "sent") {
        let after = comes_again_after(reply);
        assert!((1..=5).contains(&after), "one in five seconds: {after}");
    }
    // A repeat is no invite, and what is unknown or wrong takes nothing.
    assert_eq!(world.ask(first).await.bytes, stored.bytes);
    world.invite(&world.request_with(json!({"smsPhone": "12"}))).await.refused(
        "rejected",
        "phone_invalid",
        400,
    );
    // Another group has its own.
    world.add_group(73, &["--api-key".to_owned(), "the key of 73".to_owned()]);
    let of_73 = json!({"groupid": 73, "authorization": gkey(73, "x", "the key of 73")});
    world.invite(&world.request_with(of_73)).await.sent();
    assert!(second.stop().success() && world.worker().is_running());
}

#[tokio::test]
async fn repeats_take_nothing_of_the_minute() {
    let world = Setup::default().group(&["--per-minute", "3"]).start().await;
    let message = Message::json(&world.request()).id("one");
    let first = world.ask(message.clone()).await;
    for _ in 0..20 {
        assert_eq!(world.ask(message.clone()).await.bytes, first.bytes);
    }
    for _ in 0..2 {
        world.invite(&world.request()).await.sent();
    }
    comes_again_after(&world.invite(&world.request()).await);
}

#[tokio::test]
async fn a_country_has_its_own_limit() {
    let world = Setup::default().group(&["--per-country", "2/1h"]).start().await;
    let to = |phone: &str| world.request_with(json!({ "smsPhone": phone }));
    for country in ["201-555-01", "+44 20 7946 09", "+49 151 234567"] {
        for last in ["23", "24"] {
            world.invite(&to(&format!("{country}{last}"))).await.sent();
        }
        let after = comes_again_after(&world.invite(&to(&format!("{country}25"))).await);
        assert!((1_790..=1_800).contains(&after), "one in half an hour: {after}");
    }
    world.run(&["groups", "set", "72", "--per-country", "0"]).ok();
    crate::support::until("the limit is gone", || async {
        (world.invite(&to("201-555-0126")).await.json()["status"] == "sent").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_sender_keeps_its_pace_across_workers_and_nobody_is_refused() {
    let mut world = Setup::default().set("SMS_PER_SECOND", "20").start().await;
    let mut second = world.start_worker().await;
    let begun = std::time::Instant::now();
    let replies = all(&world, (0..41).map(|_| world.request())).await;
    let took = begun.elapsed().as_secs_f64();
    assert_eq!(sent(&replies), 41);
    assert!(took >= 1.9, "41 texts at 20 a second took {took} s");
    let mut at: Vec<_> = world.provider.texts().await.iter().map(received).collect();
    at.sort_unstable();
    // A second's texts are those of a second, give or take what the way to the provider differs by.
    for window in at.windows(28) {
        let span = window[27] - window[0];
        assert!(span >= time::Duration::seconds(1), "28 texts in {span}");
    }
    assert!(second.stop().success() && world.worker().is_running());
}

fn received(text: &Value) -> time::OffsetDateTime {
    let at = text["received"].as_str().expect("when it was received");
    time::OffsetDateTime::parse(at, &time::format_description::well_known::Rfc3339).expect("a time")
}

#[tokio::test]
async fn whoever_waits_for_too_long_is_too_old_and_a_stop_ends_the_wait() {
    let mut world = Setup::default().set("SMS_PER_SECOND", "0.01").set("INVITE_MAX_AGE", "2s").start().await;
    world.invite(&world.request()).await.sent();
    let aged = Message::json(&world.request()).timestamp(crate::support::now());
    world.ask(aged).await.refused("failed", "invite_expired", 504);
    assert_eq!(world.provider.posts().await, 1);
    // Without a timestamp it waits, until the worker stops and gives it back.
    world.publish(Message::json(&world.request()).correlation("waits")).await;
    world.broker.quiet().await;
    let begun = std::time::Instant::now();
    assert!(world.take_worker().stop().success());
    assert!(begun.elapsed().as_secs() < 8, "the wait ends at once: {:?}", begun.elapsed());
    assert_eq!(world.broker.take("requests").await.correlation().as_deref(), Some("waits"));
}

#[tokio::test]
async fn a_range_of_numbers_with_most_of_the_texts_is_told_of_once() {
    let mut world = World::start().await;
    let numbers = |n: usize| json!({"smsPhone": format!("415-555-{n:04}")});
    let replies = all(&world, (0..60).map(|n| world.request_with(numbers(n)))).await;
    assert_eq!(sent(&replies), 60);
    world.worker().says("unusual share").await;
    let told = world.worker().log().matches("unusual share").count();
    assert_eq!(told, 1, "{}", world.worker().log());
    assert!(world.worker().log().contains("prefix=\"+141…\""), "{}", world.worker().log());
    let metrics = world.get("/metrics").await.text().await.expect("text");
    assert!(metrics.contains("session_invite_unusual_number_ranges{group=\"72\"} 1"), "{metrics}");
}
