//! Limits: texts to one number, invites of a group, texts to a country and from a sender (contract, section 13).

use crate::support::{Message, Reply, Setup, World, gkey, now, until};
use serde_json::{Value, json};

/// Publishes all invites at the same time, and waits for their replies.
async fn invite_all(world: &World, bodies: impl IntoIterator<Item = Value>) -> Vec<Reply> {
    let invites = bodies.into_iter().map(|body| async move { world.invite(&body).await });
    futures::future::join_all(invites).await
}

fn count_sent(replies: &[Reply]) -> usize {
    replies.iter().filter(|reply| reply.json()["status"] == "sent").count()
}

/// Asserts that an invite was refused for a limit; returns after how many seconds to retry.
#[track_caller]
fn limited(reply: &Reply) -> u64 {
    let error = reply.refused("failed", "rate_limited", 429);
    assert!(error.retryable, "{error:?}");
    error.retry_after_seconds.expect("seconds")
}

#[tokio::test]
async fn the_eleventh_text_to_a_number_in_an_hour_is_refused_without_a_request_to_the_provider() {
    let world = Setup::default().group(&["--per-number", "10/1h"]).start().await;
    let first = Message::json(&world.request()).id("first");
    let stored = world.call(first.clone()).await;
    stored.sent();
    for _ in 1..10 {
        world.invite(&world.request()).await.sent();
    }
    for id in ["eleventh", "twelfth"] {
        let after = limited(&world.call(Message::json(&world.request()).id(id)).await);
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
    assert_eq!(refused, 2, "a refusal for a limit leaves a row");

    // A repeat is still answered from its row, a conflict is still refused, and another number has its own limit.
    assert_eq!(world.call(first).await.bytes, stored.bytes);
    let other = Message::json(&world.request_with(json!({"sessiontype": 2}))).id("first");
    world.call(other).await.refused("rejected", "idempotency_conflict", 409);
    world.invite(&world.request_with(json!({"smsPhone": "201-555-0123"}))).await.sent();
}

#[tokio::test]
async fn a_number_can_be_texted_again_when_its_window_has_passed() {
    let world = Setup::default().group(&["--per-number", "2/1h"]).start().await;
    let message = Message::json(&world.request()).id("again");
    for _ in 0..2 {
        world.invite(&world.request()).await.sent();
    }
    limited(&world.call(message.clone()).await);
    world.database.execute("update sessions set created_at = created_at - interval '59 min'").await;
    let after = limited(&world.call(message.clone()).await);
    assert!((1..=60).contains(&after), "{after}");
    world.database.execute("update sessions set created_at = created_at - interval '1 min'").await;
    world.call(message).await.sent();
}

#[tokio::test]
async fn other_groups_have_their_own_limits_and_0_means_no_limit() {
    let world = Setup::default().group(&["--per-number", "1/1h"]).start().await;
    let options = ["--api-key", "the key of 73", "--per-number", "0"].map(str::to_owned);
    world.add_group(73, &options);
    world.invite(&world.request()).await.sent();
    limited(&world.invite(&world.request()).await);
    let of_73 = json!({"groupid": 73, "authorization": gkey(73, "x", "the key of 73")});
    let replies = invite_all(&world, (0..30).map(|_| world.request_with(of_73.clone()))).await;
    assert_eq!(count_sent(&replies), 30);
}

#[tokio::test]
async fn a_text_that_was_surely_not_sent_does_not_count() {
    let world = Setup::default().group(&["--per-number", "2/1h"]).one_try().start().await;
    world.provider.next(&["throttle", "throttle", "throttle"]).await;
    for _ in 0..3 {
        world.invite(&world.request()).await.refused("failed", "provider_unavailable", 503);
    }
    for _ in 0..2 {
        world.invite(&world.request()).await.sent();
    }
    limited(&world.invite(&world.request()).await);
}

#[tokio::test]
async fn one_worker_keeps_the_limit_under_many_invites_at_the_same_time() {
    let world = Setup::default().group(&["--per-number", "10/1h"]).start().await;
    world.provider.set(json!({"latency_ms": 100})).await;
    let replies = invite_all(&world, (0..50).map(|_| world.request())).await;
    assert_eq!(count_sent(&replies), 10);
    assert_eq!(world.provider.posts().await, 10);
}

#[tokio::test]
async fn two_workers_send_at_most_twice_the_limit() {
    let mut world = Setup::default().group(&["--per-number", "10/1h"]).start().await;
    let mut second = world.start_worker().await;
    let replies = invite_all(&world, (0..50).map(|_| world.request())).await;
    let texts = count_sent(&replies);
    assert!((10..=20).contains(&texts), "{texts}");
    limited(&world.invite(&world.request()).await);
    assert!(second.stop().success() && world.worker().is_running());
}

#[tokio::test]
async fn copies_of_one_message_count_once() {
    let world = Setup::default().group(&["--per-number", "2/1h"]).start().await;
    world.provider.set(json!({"latency_ms": 200})).await;
    let copies = (0..10).map(|_| async { world.call(Message::json(&world.request()).id("one")).await });
    let replies = futures::future::join_all(copies).await;
    assert!(replies.iter().all(|reply| reply.bytes == replies[0].bytes));
    replies[0].sent();
    world.invite(&world.request()).await.sent();
    limited(&world.invite(&world.request()).await);
}

#[tokio::test]
async fn a_groups_invites_in_a_minute_are_counted_across_workers() {
    let mut world = Setup::default().group(&["--per-minute", "12"]).start().await;
    let mut second = world.start_worker().await;
    let first = Message::json(&world.request_to_number(0)).id("first");
    let begun = std::time::Instant::now();
    let stored = world.call(first.clone()).await;
    stored.sent();
    let replies = invite_all(&world, (1..40).map(|n| world.request_to_number(n))).await;
    // One more is permitted every five seconds.
    let more = usize::try_from(begun.elapsed().as_secs() / 5).unwrap();
    let sent = count_sent(&replies);
    assert!((11..=11 + more).contains(&sent), "{sent} and the first one, on both workers together");
    for reply in replies.iter().filter(|reply| reply.json()["status"] != "sent") {
        let after = limited(reply);
        assert!((1..=5).contains(&after), "one in five seconds: {after}");
    }
    // A repeat and a refused request do not count.
    assert_eq!(world.call(first).await.bytes, stored.bytes);
    world.invite(&world.request_with(json!({"smsPhone": "12"}))).await.refused(
        "rejected",
        "phone_invalid",
        400,
    );
    // Another group has its own limit.
    world.add_group(73, &["--api-key".to_owned(), "the key of 73".to_owned()]);
    let of_73 = json!({"groupid": 73, "authorization": gkey(73, "x", "the key of 73")});
    world.invite(&world.request_with(of_73)).await.sent();
    assert!(second.stop().success() && world.worker().is_running());
}

#[tokio::test]
async fn repeats_do_not_count_towards_the_invites_of_a_minute() {
    let world = Setup::default().group(&["--per-minute", "3"]).start().await;
    let message = Message::json(&world.request()).id("one");
    let first = world.call(message.clone()).await;
    for _ in 0..20 {
        assert_eq!(world.call(message.clone()).await.bytes, first.bytes);
    }
    for _ in 0..2 {
        world.invite(&world.request()).await.sent();
    }
    limited(&world.invite(&world.request()).await);
}

#[tokio::test]
async fn each_country_has_its_own_limit() {
    let world = Setup::default().group(&["--per-country", "2/1h"]).start().await;
    let to = |phone: &str| world.request_with(json!({ "smsPhone": phone }));
    for country in ["201-555-01", "+44 20 7946 09", "+49 151 234567"] {
        for last in ["23", "24"] {
            world.invite(&to(&format!("{country}{last}"))).await.sent();
        }
        let after = limited(&world.invite(&to(&format!("{country}25"))).await);
        assert!((1_700..=1_800).contains(&after), "one in half an hour: {after}");
    }
    world.run(&["groups", "set", "72", "--per-country", "0"]).ok();
    until("the limit is removed", || async {
        (world.invite(&to("201-555-0126")).await.json()["status"] == "sent").then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_workers_keep_the_pace_of_a_from_number_and_refuse_no_invite() {
    let mut world = Setup::default().set("SMS_PER_SECOND", "20").start().await;
    let mut second = world.start_worker().await;
    let begun = std::time::Instant::now();
    let replies = invite_all(&world, (0..41).map(|_| world.request())).await;
    let took = begun.elapsed().as_secs_f64();
    assert_eq!(count_sent(&replies), 41);
    assert!(took >= 1.9, "41 texts at 20 a second took {took} s");
    assert!(second.stop().success() && world.worker().is_running());
}

#[tokio::test]
async fn an_invite_that_waits_too_long_for_its_turn_expires_and_a_stop_ends_the_wait() {
    let mut world = Setup::default().set("SMS_PER_SECOND", "0.01").set("INVITE_MAX_AGE", "2s").start().await;
    world.invite(&world.request()).await.sent();
    let aged = Message::json(&world.request()).timestamp(now());
    world.call(aged).await.refused("failed", "invite_expired", 504);
    assert_eq!(world.provider.posts().await, 1);
    // Without a timestamp it waits, until the worker stops and requeues it.
    world.publish(Message::json(&world.request()).correlation("waits")).await;
    world.broker.until_queues_are_empty().await;
    let begun = std::time::Instant::now();
    world.stop_worker();
    assert!(begun.elapsed().as_secs() < 15, "the stop ends the wait, not its grace: {:?}", begun.elapsed());
    assert_eq!(world.broker.take("requests").await.correlation().as_deref(), Some("waits"));
}

#[tokio::test]
async fn a_range_of_numbers_with_most_of_the_texts_is_warned_of_once() {
    let mut world = World::start().await;
    let numbers = |n: usize| json!({"smsPhone": format!("415-555-{n:04}")});
    let replies = invite_all(&world, (0..60).map(|n| world.request_with(numbers(n)))).await;
    assert_eq!(count_sent(&replies), 60);
    world.worker().logs("unusual share").await;
    let warnings = world.worker().log().matches("unusual share").count();
    assert_eq!(warnings, 1, "{}", world.worker().log());
    assert!(world.worker().log().contains("prefix=\"+141…\""), "{}", world.worker().log());
    let metrics = world.running().metrics().await;
    assert!(metrics.contains("session_invite_unusual_number_ranges{group=\"72\"} 1"), "{metrics}");
}
