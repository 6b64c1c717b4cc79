//! The contract's section 6: a text that the provider surely did not take is tried again, by way of the retry queues.

use crate::support::{
    Message,
    SessionStatus::{Failed, Sending, Sent},
    Setup, TextState, Tunnel, World, gkey_until, now, until,
};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_throttled_text_is_tried_again_and_sent_once() {
    let world = World::start().await;
    world.provider.next(&["throttle", "throttle"]).await;
    let begun = Instant::now();
    world.invite(&world.request()).await.sent();
    assert!(begun.elapsed() > Duration::from_secs(5), "one second, then five: {:?}", begun.elapsed());
    assert_eq!((world.provider.posts().await, world.provider.texts().await.len()), (3, 1));
    let row = world.database.session().await;
    assert_eq!((row.status, row.attempts), (Sent, 3));
}

#[tokio::test]
async fn a_retry_copy_has_a_ticket_and_neither_credential_nor_phone() {
    let mut world = World::start().await;
    world.provider.set(json!({"next": ["throttle"], "retry_after": 5})).await;
    let message =
        Message::json(&world.request()).id("order-17").correlation("c").timestamp(now()).expiration("60000");
    world.broker.request(message).await;
    let copy = world.broker.take("retry.5s").await;
    let body = String::from_utf8(copy.bytes.clone()).unwrap();
    assert!(!body.contains("GKEY") && !body.contains("smsPhone"), "{body}");
    let headers = format!("{:?}", copy.properties.headers());
    assert!(!headers.to_lowercase().contains("authorization") && !headers.contains("GKEY"), "{headers}");
    assert_eq!(copy.properties.expiration(), &None);
    let row = world.database.session().await;
    assert_eq!(copy.header("x-session-id"), Some(row.id.to_string()));
    assert_eq!(copy.correlation().as_deref(), Some("c"));
    assert_eq!(copy.message_id().as_deref(), Some("order-17"));
    assert_eq!((row.status, row.text_state), (Sending, Some(TextState::Waiting)));

    // A copy with another ticket is not accepted.
    let forged = Message::bytes("{}").text_header("x-session-id", &row.id.to_string());
    let forged = forged.text_header("x-ticket", "00000000-0000-4000-8000-000000000000");
    world.call(forged).await.refused("rejected", "credential_missing", 401);

    // The test has taken the copy away. A repeat by message_id continues the invite.
    world.database.execute("update sessions set lease_until = now()").await;
    world.call(Message::json(&world.request()).id("order-17")).await.sent();
    assert_eq!(world.provider.texts().await.len(), 1);
    assert!(world.worker().is_running());
}

#[tokio::test]
async fn the_next_try_waits_for_the_providers_retry_after() {
    let world = World::start().await;
    world.provider.set(json!({"next": ["throttle"], "retry_after": 3})).await;
    let begun = Instant::now();
    world.invite(&world.request()).await.sent();
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_invite_that_would_expire_before_its_next_try_fails_at_once() {
    let world = Setup::default().group(&["--session-ttl", "1m"]).start().await;
    world.provider.set(json!({"throttle": 1.0, "retry_after": 600})).await;
    let error = world.invite(&world.request()).await.refused("failed", "provider_unavailable", 503);
    assert_eq!((error.retryable, error.retry_after_seconds), (true, Some(600)));
    // The same for a request with a short expiration.
    world.provider.set(json!({"retry_after": 30})).await;
    let short = Message::json(&world.request()).timestamp(now()).expiration("20000");
    world.call(short).await.refused("failed", "provider_unavailable", 503);
    assert_eq!(world.provider.posts().await, 2);
}

#[tokio::test]
async fn an_invite_fails_after_sms_max_attempts_and_frees_its_message_id() {
    let world = Setup::default().set("SMS_MAX_ATTEMPTS", "2").start().await;
    world.provider.set(json!({"throttle": 1.0})).await;
    let message = Message::json(&world.request()).id("x");
    world.call(message.clone()).await.refused("failed", "provider_unavailable", 503);
    let row = world.database.session().await;
    assert_eq!((row.status, row.attempts), (Failed, 2));
    assert_eq!((row.key_held, row.session_key), (false, None));
    // There is surely no text, so the message_id is free.
    world.provider.set(json!({"throttle": 0.0})).await;
    world.call(message).await.sent();
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_tried_again() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let world = Setup::default().set("SMS_BASE_URL", &format!("http://127.0.0.1:{port}")).start().await;
    world.broker.request(Message::json(&world.request()).correlation("x")).await;
    world.database.until_texts_are(1, TextState::Waiting).await;
    let _tunnel = Tunnel::open_on(port, &world.provider.url);
    world.broker.reply("x").await.sent();
}

#[tokio::test]
async fn a_refused_account_is_tried_again_and_reported_to_the_operator() {
    let world = World::start().await;
    world.provider.set(json!({"error_code": 20003, "error_status": 401})).await;
    world.broker.request(Message::json(&world.request()).correlation("x")).await;
    let problem = || async {
        let ready = world.running().fetch("/readyz").await;
        assert_eq!(ready.status(), 200, "the worker consumes, and reaches the database");
        ready.text().await.unwrap().contains("refuses the operator's account (20003)").then_some(())
    };
    until("readiness reports it", problem).await;
    world.expect_error("the provider refuses the operator's account");
    world.provider.set(json!({"error_code": null})).await;
    world.broker.reply("x").await.sent();
    assert!(problem().await.is_none());
}

#[tokio::test]
async fn a_burst_of_failures_delays_no_other_invite() {
    let world = Setup::default().set("SMS_CONCURRENCY", "4").set("PREFETCH", "20").start().await;
    world.provider.set(json!({"next": vec!["throttle"; 100], "retry_after": 180})).await;
    for n in 0..100 {
        let request = world.request_to_number(n);
        world.broker.request(Message::json(&request).correlation(&format!("slow{n}"))).await;
    }
    world.provider.until_posts(100).await;
    // Its reply comes within 20 s, and not after two minutes.
    world.invite(&world.request()).await.sent();
    assert!(world.broker.replies_left().is_empty());
    // This test does not wait for their further tries.
    let waiting = world.broker.queue("retry.120s");
    until("all copies wait", || async { (world.broker.depth(&waiting).await == Some(100)).then_some(()) })
        .await;
    for queue in ["retry.120s", "retry.30s", "retry.5s", "retry.1s"] {
        world.broker.purge(queue).await;
    }
}

#[tokio::test]
async fn a_repeat_while_the_first_waits_gets_the_outcome_of_the_first() {
    let world = World::start().await;
    world.provider.set(json!({"next": ["throttle"], "retry_after": 3})).await;
    let message = Message::json(&world.request()).id("x");
    world.broker.request(message.clone().correlation("first")).await;
    world.database.until_texts_are(1, TextState::Waiting).await;
    world.broker.request(message.correlation("second")).await;
    let (first, second) = (world.broker.reply("first").await, world.broker.reply("second").await);
    first.sent();
    assert_eq!(first.bytes, second.bytes);
    assert_eq!(world.provider.texts().await.len(), 1);
    let other = world.request_with(json!({"sessiontype": 7}));
    world.call(Message::json(&other).id("x")).await.refused("rejected", "idempotency_conflict", 409);
}

#[tokio::test]
async fn a_credential_may_expire_or_be_revoked_while_its_invite_waits() {
    let world = World::start().await;
    world.provider.set(json!({"next": ["throttle"], "retry_after": 8})).await;
    let authorization = gkey_until(72, "u", &world.api_key, now() + 6);
    let request = world.request_with(json!({"authorization": authorization}));
    world.broker.request(Message::json(&request).id("x").correlation("x")).await;
    world.database.until_texts_are(1, TextState::Waiting).await;
    world.run(&["groups", "rotate-key", "72", "--revoke-old"]).ok();
    world.broker.reply("x").await.sent();
}

#[tokio::test]
async fn a_direct_reply_comes_after_retries_too() {
    let world = World::start().await;
    world.provider.next(&["throttle"]).await;
    let reply = world.run(&["send", "--group", "72", "--phone", "111-000-0000", "--json"]).json();
    assert_eq!(reply["status"], "sent", "{reply}");
}

#[tokio::test]
async fn an_invite_that_expires_while_it_waits_in_the_worker_is_not_texted() {
    let world = Setup::default().set("SMS_CONCURRENCY", "1").set("SMS_TIMEOUT", "9s").start().await;
    world.provider.next(&["hang"]).await;
    world.broker.request(Message::json(&world.request()).correlation("slow")).await;
    world.provider.until_posts(1).await;
    // Without a timestamp, the expiration counts from the delivery.
    let short = world.call(Message::json(&world.request()).expiration("2000")).await;
    short.refused("failed", "invite_expired", 504);
    assert_eq!(world.provider.posts().await, 1);
    world.broker.reply("slow").await.sent();
}
